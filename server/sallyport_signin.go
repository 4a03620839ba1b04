package server

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/policy"
	"sallyport.dev/signin"
	"sallyport.dev/wire"
)

// Sign-ins of people: listed and ended, their own and, by policy, those of others; and the
// accounts at OpenID providers that they are.

func signInOperations() []*Operation {
	return []*Operation{
		op("sallyport", "ListSignIns", nil, listSignIns, checksItself, quietly),
		op("sallyport", "EndSignIn", nil, endSignIn, checksItself, toEnd),
		op("sallyport", "EndSignIns", nil, endSignIns, checksItself, toEnd),
		op("sallyport", "ListAccounts", nil, listAccounts, checksItself, quietly),
		op("sallyport", "LinkAccount", nil, linkAccount, checksItself),
		op("sallyport", "UnlinkAccount", nil, unlinkAccount, checksItself),
		op("sallyport", "ListAssumableRoles", nil, listAssumableRoles, forEveryone, quietly),
	}
}

// signInService returns the service, or that there is none.
func (c *Call) signInService() (*signin.Service, error) {
	if c.Server.config.SignIns == nil {
		return nil, exception("ValidationException", "Nobody can sign in here: the server's configuration has no sign_in block.")
	}
	return c.Server.config.SignIns, nil
}

// checkPerson authorises what concerns a user: the caller themselves, in whatever guise,
// or by policy somebody else. An empty name is the caller.
func (c *Call) checkPerson(ctx context.Context, name string) (identity.User, error) {
	if c.Principal.IsNode() {
		return identity.User{}, c.refuse(ctx, "because nodes do not sign in")
	}
	var user identity.User
	var err error
	if name == "" {
		user, err = c.Server.config.Identities.UserByID(ctx, c.Principal.RootID())
	} else {
		user, err = c.Server.config.Identities.User(ctx, name)
	}
	if err != nil && !errors.Is(err, identity.ErrNotFound) {
		return user, err
	}
	resource := c.Server.userResource(name, user)
	if err == nil && user.ID == c.Principal.RootID() {
		return user, c.CheckOwn(ctx, resource)
	}
	if checkErr := c.Check(ctx, resource); checkErr != nil {
		return user, checkErr
	}
	if err != nil {
		return user, exception("ValidationException", "The user with name %s cannot be found.", name)
	}
	return user, nil
}

type listSignInsInput struct {
	UserName   string `json:"UserName" check:"max=64,pattern=[\\w+=,.@-]*"` // the caller unless given
	Everyone   bool   `json:"Everyone"`
	Ended      bool   `json:"Ended"` // those that are over, too
	MaxResults int    `json:"MaxResults" check:"min=0,max=200"`
	NextToken  string `json:"NextToken" check:"max=512"`
}

type listedSignIn struct {
	SignInID  string    `json:"SignInId"`
	UserName  string    `json:"UserName,omitempty"`
	Kind      string    `json:"Kind"`
	Method    string    `json:"Method"`
	Factor    string    `json:"Factor,omitempty"`
	Computer  string    `json:"Computer,omitempty"`
	Created   wire.Time `json:"Created"`
	LastUsed  wire.Time `json:"LastUsed"`
	Expires   wire.Time `json:"Expires"`
	SourceIP  string    `json:"SourceIp,omitempty"`
	UserAgent string    `json:"UserAgent,omitempty"`
	Ended     wire.Time `json:"Ended,omitzero"`
	Because   string    `json:"Because,omitempty"`
	Current   bool      `json:"Current,omitempty"` // the caller's credentials come from it
}

type listSignInsOutput struct {
	SignIns   []listedSignIn `json:"SignIns"` // the newest first
	NextToken string         `json:"NextToken,omitempty"`
}

// listSignIns lists the caller's sign-ins, or by policy another user's or everybody's.
func listSignIns(ctx context.Context, c *Call, in *listSignInsInput) (*listSignInsOutput, error) {
	service, err := c.signInService()
	if err != nil {
		c.checked = true
		return nil, err
	}
	filter := signin.Filter{Live: !in.Ended, Now: c.Origin.Time}
	if in.Everyone {
		err = c.Check(ctx, access.Resource{ARN: "*"})
	} else {
		var user identity.User
		user, err = c.checkPerson(ctx, in.UserName)
		filter.User = user.ID
	}
	if err != nil {
		return nil, err
	}
	p := pages[signin.SignIn]{
		size: 50,
		key:  func(s signin.SignIn) string { return s.ID },
		fetch: func(after string, n int) ([]signin.SignIn, error) {
			f := filter
			f.After, f.Limit = after, n
			return service.List(ctx, f)
		},
	}
	page, next, err := p.page(c, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &listSignInsOutput{SignIns: []listedSignIn{}, NextToken: next}
	names := map[string]string{}
	for _, s := range page {
		if _, known := names[s.User]; !known {
			user, err := c.Server.config.Identities.UserByID(ctx, s.User)
			if err != nil && !errors.Is(err, identity.ErrNotFound) {
				return nil, err
			}
			names[s.User] = user.Name
		}
		out.SignIns = append(out.SignIns, c.listedSignIn(s, names[s.User]))
	}
	return out, nil
}

func (c *Call) listedSignIn(s signin.SignIn, name string) listedSignIn {
	return listedSignIn{
		SignInID: s.ID, UserName: name, Kind: string(s.Kind), Method: s.Method, Factor: s.Factor, Computer: s.Computer,
		Created: wire.Time{Time: s.Created}, LastUsed: wire.Time{Time: s.Used}, Expires: wire.Time{Time: s.Expires},
		SourceIP: s.IP, UserAgent: s.Agent, Ended: wire.Time{Time: s.Ended}, Because: s.Because, Current: s.ID == c.Principal.SignIn,
	}
}

type endSignInInput struct {
	SignInID string `json:"SignInId" check:"required,min=1,max=64"`
}

// endSignIn ends one sign-in with everything that comes from it. That of another person
// needs sallyport:EndSignIn on the user; one that does not exist is refused in the same
// words.
func endSignIn(ctx context.Context, c *Call, in *endSignInInput) (*struct{}, error) {
	service, err := c.signInService()
	if err != nil {
		c.checked = true
		return nil, err
	}
	row, err := service.Get(ctx, in.SignInID)
	if errors.Is(err, identity.ErrNotFound) {
		if err := c.Check(ctx, access.Resource{ARN: "*"}); err != nil {
			return nil, err
		}
		return nil, exception("ValidationException", "There is no sign-in %s.", in.SignInID)
	}
	if err != nil {
		return nil, err
	}
	if err := c.checkSignIn(ctx, row); err != nil {
		return nil, err
	}
	if err := service.End(ctx, row.ID, "by "+c.Principal.ARN); err != nil {
		return nil, err
	}
	c.recordEnded(ctx, row.User, map[string]string{"sign_in": row.ID})
	return &struct{}{}, nil
}

func (c *Call) checkSignIn(ctx context.Context, row signin.SignIn) error {
	if c.Principal.IsNode() {
		return c.refuse(ctx, "because nodes do not sign in")
	}
	user, err := c.Server.config.Identities.UserByID(ctx, row.User)
	if err != nil && !errors.Is(err, identity.ErrNotFound) {
		return err
	}
	resource := c.Server.userResource(cmp.Or(user.Name, "-"), user)
	if err == nil && user.ID == c.Principal.RootID() {
		return c.CheckOwn(ctx, resource)
	}
	return c.Check(ctx, resource)
}

// recordEnded records the end beside the decision on it. That it cannot keeps nothing from
// having ended. Sessions that were started from what ended end by themselves: whoever
// keeps them asks.
func (c *Call) recordEnded(ctx context.Context, user string, details map[string]string) {
	details["user_id"] = user
	err := c.record(ctx, audit.Record{Event: audit.EventSignIn, Principal: c.Principal.ARN, Details: details})
	if err != nil {
		c.Server.log.Error("recording the end of a sign-in", "user", user, "by", c.Principal.ARN, "error", err)
	}
}

type personInput struct {
	UserName string `json:"UserName" check:"max=64,pattern=[\\w+=,.@-]*"` // the caller unless given
}

type endedOutput struct {
	Ended int `json:"Ended"`
}

// endSignIns ends all sign-ins of a user; the caller's own unless another is named.
func endSignIns(ctx context.Context, c *Call, in *personInput) (*endedOutput, error) {
	service, err := c.signInService()
	if err != nil {
		c.checked = true
		return nil, err
	}
	user, err := c.checkPerson(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	n, err := service.EndAll(ctx, user.ID, "by "+c.Principal.ARN)
	if err != nil {
		return nil, err
	}
	c.recordEnded(ctx, user.ID, map[string]string{"ended": strconv.Itoa(n)})
	return &endedOutput{n}, nil
}

// endAllSignIns ends those of somebody who is disabled, so that enabling them brings none
// back.
func (c *Call) endAllSignIns(ctx context.Context, user, because string) error {
	if c.Server.config.SignIns == nil {
		return nil
	}
	_, err := c.Server.config.SignIns.EndAll(context.WithoutCancel(ctx), user, because)
	return err
}

type listedAccount struct {
	Provider string    `json:"Provider,omitempty"`
	Issuer   string    `json:"Issuer"`
	Subject  string    `json:"Subject"`
	Name     string    `json:"Name,omitempty"`
	Linked   wire.Time `json:"Linked"`
	By       string    `json:"By,omitempty"`
}

type accountsOutput struct {
	Accounts []listedAccount `json:"Accounts"`
}

func listAccounts(ctx context.Context, c *Call, in *personInput) (*accountsOutput, error) {
	service, err := c.signInService()
	if err != nil {
		c.checked = true
		return nil, err
	}
	user, err := c.checkPerson(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	accounts, err := service.Accounts(ctx, user.ID)
	out := &accountsOutput{Accounts: []listedAccount{}}
	for _, a := range accounts {
		out.Accounts = append(out.Accounts, listedAccount{a.Provider, a.Issuer, a.Subject, a.Name, wire.Time{Time: a.Linked}, a.By})
	}
	return out, err
}

type linkInput struct {
	UserName string `json:"UserName" check:"required,min=1,max=64,pattern=[\\w+=,.@-]+"`
	Provider string `json:"Provider" check:"required,min=1,max=32"`
	Subject  string `json:"Subject" check:"required,min=1,max=255"`
}

// linkAccount makes an account at a provider be a user who exists here. Whoever may do so
// may become anybody whom they may link, so that nobody may for themselves by default.
func linkAccount(ctx context.Context, c *Call, in *linkInput) (*struct{}, error) {
	service, user, err := c.checkLink(ctx, in)
	if err != nil {
		return nil, err
	}
	err = service.Link(ctx, in.Provider, in.Subject, user.ID, c.Principal.ARN)
	if errors.Is(err, identity.ErrExists) {
		return nil, exception("ValidationException", "This account is linked to a user already; unlink it first.")
	}
	return &struct{}{}, accountError(err, in)
}

// unlinkAccount ends that an account at a provider is a user; the user stays.
func unlinkAccount(ctx context.Context, c *Call, in *linkInput) (*struct{}, error) {
	service, user, err := c.checkLink(ctx, in)
	if err != nil {
		return nil, err
	}
	if err := service.Unlink(ctx, in.Provider, in.Subject, user.ID); err != nil {
		return nil, accountError(err, in)
	}
	// What the account has let in goes with it; which of the sign-ins are its own, nobody
	// tells them apart by.
	_, err = service.EndAll(ctx, user.ID, "an account of theirs was unlinked by "+c.Principal.ARN)
	return &struct{}{}, err
}

func accountError(err error, in *linkInput) error {
	if errors.Is(err, identity.ErrNotFound) {
		return exception("ValidationException", "There is no such account at %s, or it is not linked to %s.", in.Provider, in.UserName)
	}
	return err
}

// checkLink authorises by policy alone, for the caller's own user, too.
func (c *Call) checkLink(ctx context.Context, in *linkInput) (*signin.Service, identity.User, error) {
	user, err := c.Server.config.Identities.User(ctx, in.UserName)
	if err != nil && !errors.Is(err, identity.ErrNotFound) {
		return nil, user, err
	}
	if checkErr := c.Check(ctx, c.Server.userResource(in.UserName, user)); checkErr != nil {
		return nil, user, checkErr
	}
	if err != nil {
		return nil, user, exception("ValidationException", "The user with name %s cannot be found.", in.UserName)
	}
	service, err := c.signInService()
	return service, user, err
}

type assumableRole struct {
	RoleName    string `json:"RoleName"`
	RoleARN     string `json:"RoleArn"`
	Description string `json:"Description,omitempty"`
	MaxSeconds  int64  `json:"MaxSessionDuration"`
}

type assumableOutput struct {
	Roles []assumableRole `json:"Roles"`
}

// listAssumableRoles lists the roles that the caller may assume at this moment.
func listAssumableRoles(ctx context.Context, c *Call, _ *struct{}) (*assumableOutput, error) {
	roles, err := c.Server.AssumableRoles(ctx, c.Principal, c.Origin)
	out := &assumableOutput{Roles: []assumableRole{}}
	for _, r := range roles {
		out.Roles = append(out.Roles, assumableRole{
			r.Name, c.Server.config.Realm.IAM("role", r.Path, r.Name), r.Description, int64(r.MaxDuration.Seconds()),
		})
	}
	return out, err
}

// AssumableRoles lists the roles that a principal may assume at this moment under a
// session name that is their own name, by name. Nothing is recorded.
func (s *Server) AssumableRoles(ctx context.Context, p identity.Principal, o access.Origin) ([]identity.Role, error) {
	if p.IsNode() {
		return nil, nil
	}
	all, err := s.config.Identities.Roles(ctx, identity.Page{})
	if err != nil {
		return nil, err
	}
	var may []identity.Role
	for _, role := range all {
		ok, err := s.mayAssume(ctx, p, o, role)
		if err != nil {
			return nil, err
		}
		if ok {
			may = append(may, role)
		}
	}
	slices.SortFunc(may, func(a, b identity.Role) int { return strings.Compare(a.Name, b.Name) })
	return may, nil
}

func (s *Server) mayAssume(ctx context.Context, p identity.Principal, o access.Origin, role identity.Role) (bool, error) {
	trust, err := policy.ParseTrust([]byte(role.Trust))
	if err != nil {
		return false, nil // AssumeRole says what is wrong with it
	}
	c := &Call{Server: s, Operation: s.table.operations["sts"]["AssumeRole"], Principal: p, Origin: o}
	arn := s.config.Realm.IAM("role", role.Path, role.Name)
	c.assumeContext(&assumeRoleInput{RoleARN: arn, RoleSessionName: p.Name}, identity.Claims{})
	q := c.query("sts:AssumeRole", []access.Resource{{ARN: arn, Tags: role.Tags}})
	q.NoAudit = true
	_, err = s.checker.CheckAssume(ctx, q, trust)
	if denied := (*access.DeniedError)(nil); errors.As(err, &denied) {
		return false, nil
	}
	return err == nil, err
}
