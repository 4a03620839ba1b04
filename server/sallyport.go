package server

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/policy"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// ownOperations are those that AWS does not have.
func ownOperations() []*Operation {
	return []*Operation{
		op("sallyport", "ListNodes", nil, listNodes, checksItself, quietly),
		op("sallyport", "ListSessions", nil, listSessions, checksItself, quietly),
		op("sallyport", "GetSession", nil, getSession, checksItself, quietly),
		op("sallyport", "TerminateSession", nil, terminateForReason, checksItself, toEnd, as("ssm:TerminateSession")),
		op("sallyport", "GetRecording", nil, getRecording, checksItself),
		op("sallyport", "GetCommand", nil, getCommand, checksItself),
		op("sallyport", "QueryAudit", nil, queryAudit, checksItself),
		op("sallyport", "ExplainAccess", nil, explainAccess, checksItself),
		op("sallyport", "GetStatus", nil, getStatus, forEveryone, quietly),
		op("sallyport", "DisableUser", nil, disableUser, checksItself, toEnd),
		op("sallyport", "EnableUser", nil, enableUser, checksItself),
	}
}

type userInput struct {
	UserName string `json:"UserName" check:"required,min=1,max=64,pattern=[\\w+=,.@-]+"`
}

// disableUser stops a user's keys and temporary credentials, and ends their sessions,
// those that they started through roles included.
func disableUser(ctx context.Context, c *Call, in *userInput) (*struct{}, error) {
	user, err := c.setDisabled(ctx, in.UserName, true)
	if err != nil {
		return nil, err
	}
	because := "the user was disabled by " + c.Principal.ARN
	return &struct{}{}, errors.Join(
		c.endGrants(ctx, user.ID, because),
		c.endAllSignIns(ctx, user.ID, because),
		c.endSessions(ctx, session.Filter{RootID: user.ID}, anySession, because),
		c.endCommands(ctx, user.ID))
}

func enableUser(ctx context.Context, c *Call, in *userInput) (*struct{}, error) {
	_, err := c.setDisabled(ctx, in.UserName, false)
	return &struct{}{}, err
}

func (c *Call) setDisabled(ctx context.Context, name string, disabled bool) (identity.User, error) {
	user, err := c.Server.config.Identities.User(ctx, name)
	if err != nil && !errors.Is(err, identity.ErrNotFound) {
		return user, err
	}
	if checkErr := c.Check(ctx, c.Server.userResource(name, user)); checkErr != nil {
		return user, checkErr
	}
	if err != nil {
		return user, exception("ValidationException", "The user with name %s cannot be found.", name)
	}
	if disabled && c.Principal.Kind == identity.KindUser && c.Principal.UserID == user.ID {
		return user, exception("ValidationException", "Nobody can disable themselves; ask another administrator.")
	}
	return user, c.Server.config.Identities.UpdateUser(ctx, name, func(u *identity.User) error {
		u.Disabled = disabled
		return nil
	})
}

// userResource is a user as policies see it; the zero User stands for one that does
// not exist.
func (s *Server) userResource(name string, u identity.User) access.Resource {
	if u.Name != "" {
		name = u.Name
	}
	return access.Resource{ARN: s.config.Realm.IAM("user", u.Path, name), Tags: u.Tags}
}

type getStatusOutput struct {
	Version        string          `json:"Version"`
	Member         string          `json:"Member"`
	Members        []statusMember  `json:"Members,omitempty"`
	Account        string          `json:"Account"`
	Region         string          `json:"Region"`
	Principal      string          `json:"Principal"`
	UserID         string          `json:"UserId"`
	Tags           identity.Tags   `json:"Tags,omitempty"` // the caller's
	Menu           []MenuDimension `json:"Menu,omitempty"`
	TagRules       []TagRule       `json:"TagRules,omitempty"`
	Nodes          int             `json:"Nodes"`
	NodesConnected int             `json:"NodesConnected"`
	ActiveSessions int             `json:"ActiveSessions"`
	Started        wire.Time       `json:"Started,omitzero"`
}

type statusMember struct {
	ID   string    `json:"Id"`
	URL  string    `json:"Url,omitempty"`
	Seen wire.Time `json:"Seen,omitzero"`
}

// getStatus tells everyone who they are, and those who may do sallyport:GetStatus how
// the deployment is.
func getStatus(ctx context.Context, c *Call, _ *struct{}) (*getStatusOutput, error) {
	s := c.Server
	out := &getStatusOutput{
		Version: s.config.Version, Account: s.config.Realm.Account, Region: s.config.Realm.Region,
		Principal: c.Principal.ARN, UserID: c.Principal.UserID, Tags: c.Principal.Tags,
		Menu: s.config.Menu, TagRules: s.config.TagRules,
	}
	allowed, err := c.Allows(ctx, c.Operation.Action, access.Resource{ARN: "*"})
	if err != nil || !allowed {
		return out, err
	}
	out.Member, out.Started = s.config.Member, wire.Time{Time: s.started}
	if s.config.Members != nil {
		for _, m := range s.config.Members() {
			out.Members = append(out.Members, statusMember{m.ID, m.URL, wire.Time{Time: m.Seen}})
		}
	}
	return out, out.count(ctx, s)
}

func (out *getStatusOutput) count(ctx context.Context, s *Server) error {
	nodes, err := s.config.Nodes.Nodes(ctx, node.Filter{})
	if err != nil {
		return err
	}
	out.Nodes = len(nodes)
	for _, n := range nodes {
		if n.Member != "" {
			out.NodesConnected++
		}
	}
	active := true
	sessions, err := s.config.Sessions.Sessions(ctx, session.Filter{Active: &active})
	out.ActiveSessions = len(sessions)
	return err
}

type ownFilter struct {
	Key    string   `json:"Key" check:"required,min=1,max=140"`
	Values []string `json:"Values" check:"required,min=1,max=50" each:"min=1,max=256"`
}

type listNodesInput struct {
	Filters    []ownFilter `json:"Filters" check:"max=20"`
	MaxResults int         `json:"MaxResults,omitempty" check:"min=1,max=200"`
	NextToken  string      `json:"NextToken" check:"max=512"`
}

type listNodesOutput struct {
	Nodes     []listedNode `json:"Nodes"`
	NextToken string       `json:"NextToken,omitempty"`
}

type listedNode struct {
	NodeID          string        `json:"NodeId"`
	Name            string        `json:"Name,omitempty"`
	NameReported    bool          `json:"NameReported,omitempty"` // by the node itself
	State           string        `json:"State"`
	Tags            identity.Tags `json:"Tags,omitempty"`
	PlatformType    string        `json:"PlatformType,omitempty"`
	PlatformName    string        `json:"PlatformName,omitempty"`
	PlatformVersion string        `json:"PlatformVersion,omitempty"`
	AgentName       string        `json:"AgentName,omitempty"`
	AgentVersion    string        `json:"AgentVersion,omitempty"`
	ComputerName    string        `json:"ComputerName,omitempty"`
	IPAddress       string        `json:"IPAddress,omitempty"`
	Member          string        `json:"Member,omitempty"`
	LastPing        wire.Time     `json:"LastPing,omitzero"`
	MayConnect      bool          `json:"MayConnect"`
	MayStart        bool          `json:"MayStart"`
	MayAsk          bool          `json:"MayAsk,omitempty"`
	Reason          string        `json:"Reason,omitempty"`
}

// listNodes lists nodes with whether the caller may connect. Who may do
// sallyport:ListNodes or ssm:DescribeInstanceInformation sees all; others see the
// nodes on which they may start some session, or ask for one, and get a refusal if there
// are none.
func listNodes(ctx context.Context, c *Call, in *listNodesInput) (*listNodesOutput, error) {
	matches, err := nodeFilter(in.Filters)
	if err != nil {
		return nil, err
	}
	all, err := c.maySeeAll(ctx, "sallyport:ListNodes", "ssm:DescribeInstanceInformation")
	if err != nil {
		return nil, err
	}
	visible := in.NextToken != "" // an earlier page has settled it
	p := pages[node.Node]{
		size: 50,
		fetch: func(after string, n int) ([]node.Node, error) {
			return c.Server.config.Nodes.Nodes(ctx, node.Filter{After: after, Limit: n})
		},
		key: func(n node.Node) string { return n.ID },
		keep: func(n node.Node) (bool, error) {
			if all {
				return matches(n), nil
			}
			may, err := c.mayStartOrAsk(ctx, n)
			visible = visible || may
			return may && matches(n), err
		},
	}
	nodes, next, err := p.page(c, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	if !all {
		if err := c.checkListed(ctx, !visible); err != nil {
			return nil, err
		}
	}
	out := &listNodesOutput{Nodes: []listedNode{}, NextToken: next}
	for _, n := range nodes {
		listed, err := c.listed(ctx, n)
		if err != nil {
			return nil, err
		}
		out.Nodes = append(out.Nodes, listed)
	}
	return out, nil
}

// maySeeAll reports whether one of the actions is allowed on everything. The caller
// checks the first one where none is: an explicit deny of it refuses.
func (c *Call) maySeeAll(ctx context.Context, actions ...string) (bool, error) {
	everything := access.Resource{ARN: "*"}
	for _, action := range actions {
		d, err := c.Server.checker.Decide(ctx, c.query(action, []access.Resource{everything}))
		if err != nil {
			return false, err
		}
		if d.Policy.Effect == policy.ExplicitlyDenied {
			return false, c.CheckAction(ctx, action, everything)
		}
		if d.Allowed {
			return true, c.CheckAction(ctx, action, everything)
		}
	}
	return false, nil
}

// checkListed settles a listing of what the caller may see without being allowed to
// see all: nothing to show is a refusal.
func (c *Call) checkListed(ctx context.Context, nothing bool) error {
	if nothing {
		return c.Check(ctx, access.Resource{ARN: "*"})
	}
	c.checked = true
	return c.Server.checker.Admit(ctx, c.query(c.Operation.Action, []access.Resource{{ARN: "*"}}))
}

func (c *Call) listed(ctx context.Context, n node.Node) (listedNode, error) {
	out := listedNode{
		NodeID: n.ID, Name: n.DisplayName(), NameReported: n.AssignedName() == "" && n.ComputerName != "", State: "notconnected", Tags: n.Tags,
		PlatformType: n.PlatformType, PlatformName: n.PlatformName, PlatformVersion: n.PlatformVersion,
		AgentName: n.AgentName, AgentVersion: n.AgentVersion,
		ComputerName: n.ComputerName, IPAddress: n.IPAddress,
		Member: n.Member, LastPing: wire.Time{Time: n.LastPing},
	}
	if n.Member != "" {
		out.State = "connected"
	}
	var err error
	if out.MayConnect, out.Reason, err = c.mayConnect(ctx, n); err != nil {
		return out, err
	}
	out.MayStart = out.MayConnect
	if !out.MayConnect {
		out.MayStart, err = c.mayStart(ctx, n)
	}
	if err == nil && !out.MayConnect {
		out.MayAsk, err = c.mayAsk(ctx, n)
	}
	return out, err
}

// mayStart reports whether the caller may start some session on a node.
func (c *Call) mayStart(ctx context.Context, n node.Node) (bool, error) {
	return c.Server.checker.PossibleStart(ctx, c.query("ssm:StartSession", nil), c.Server.nodeResource(n))
}

// mayConnect tells whether the caller may start a shell on a node, and why not.
func (c *Call) mayConnect(ctx context.Context, n node.Node) (bool, string, error) {
	q := c.query("ssm:StartSession", nil)
	q.NoAudit = true
	shell, err := c.shell(ctx)
	if err != nil {
		return false, "", err
	}
	start := c.Server.startOf(n, "")
	start.Login = shell.login
	_, err = c.Server.checker.CheckStart(ctx, q, start)
	if err == nil && shell.wrong != nil {
		return false, shell.wrong.Error(), nil
	}
	if denied := (*access.DeniedError)(nil); errors.As(err, &denied) {
		return false, denied.Error(), nil
	}
	return err == nil, "", err
}

// shellFacts are what the caller's shells have in common on all nodes.
type shellFacts struct {
	login string // as policies see it
	wrong error  // why there can be none
}

// shell works out the caller's shell once for a listing.
func (c *Call) shell(ctx context.Context) (*shellFacts, error) {
	if c.shellFacts != nil {
		return c.shellFacts, nil
	}
	p, wrong, err := c.plan(ctx, c.Principal, node.Node{}, StartInput{})
	if err != nil {
		return nil, err
	}
	c.shellFacts = &shellFacts{p.loginKey(), wrong}
	return c.shellFacts, nil
}

// defaultDocument is what StartSession runs where the caller names no document.
const defaultDocument = "SSM-SessionManagerRunShell"

// startOf is what StartSession on a node with a document ("" for the default one) is
// authorised on.
func (s *Server) startOf(n node.Node, document string) access.Start {
	start := access.Start{
		Node: s.nodeResource(n), Named: document != "", RequireDocument: s.config.RequireDocumentAccess,
	}
	if document == "" {
		document = defaultDocument
	}
	start.Document = access.Resource{ARN: s.config.Realm.Document(document)}
	return start
}

// nodeFilter compiles the filters of ListNodes: all must match, with any value.
func nodeFilter(filters []ownFilter) (func(node.Node) bool, error) {
	for _, f := range filters {
		if _, ok := nodeValues(node.Node{}, f.Key); !ok && f.Key != "Text" {
			return nil, exception("ValidationException",
				"The filter key '%s' is not known; allowed are NodeId, Name, State, Text and tag:KEY.", truncate(f.Key, 100))
		}
	}
	return func(n node.Node) bool {
		for _, f := range filters {
			if !matchesNode(n, f) {
				return false
			}
		}
		return true
	}, nil
}

func matchesNode(n node.Node, f ownFilter) bool {
	have, _ := nodeValues(n, f.Key)
	for _, want := range f.Values {
		if f.Key == "Text" && nodeContains(n, want) {
			return true
		}
		for _, v := range have {
			if v == want {
				return true
			}
		}
	}
	return false
}

// nodeValues returns what a filter key compares with.
func nodeValues(n node.Node, key string) ([]string, bool) {
	switch key {
	case "NodeId":
		return []string{n.ID}, true
	case "Name":
		return []string{n.AssignedName()}, true
	case "State":
		if n.Member != "" {
			return []string{"connected"}, true
		}
		return []string{"notconnected"}, true
	}
	tag, ok := strings.CutPrefix(key, "tag:")
	return n.Tags.Values(tag), ok
}

func nodeContains(n node.Node, text string) bool {
	text = strings.ToLower(text)
	if strings.Contains(strings.ToLower(n.ID+"\n"+n.DisplayName()), text) {
		return true
	}
	for _, v := range n.Tags {
		if strings.Contains(strings.ToLower(v), text) {
			return true
		}
	}
	return false
}

// recently remembers what was recorded in the audit log a short while ago, so that
// the many calls of one reading (pieces of a recording, the polls of a follower) make
// one record.
type recently struct {
	now   func() time.Time
	lasts time.Duration
	limit int // how much is remembered

	mu   sync.Mutex
	seen map[string]time.Time
}

// newRecently remembers so much for so long.
func newRecently(now func() time.Time, lasts time.Duration, limit int) recently {
	return recently{now: now, lasts: lasts, limit: limit, seen: map[string]time.Time{}}
}

// has reports whether what was noted a short while ago.
func (r *recently) has(what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.seen[what]
	return ok && r.now().Sub(at) < r.lasts
}

// note remembers that what has just been recorded.
func (r *recently) note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) >= r.limit {
		clear(r.seen)
	}
	r.seen[what] = r.now()
}

// once makes what check allows leave one record in a while, refusals one each.
func (c *Call) once(about string, check func() error) error {
	what := strings.Join([]string{c.Operation.Name, c.Principal.ARN, c.Principal.AccessKeyID, c.Origin.SourceIP, about}, "\n")
	c.quiet = c.Server.recent.has(what)
	if err := check(); err != nil || c.quiet {
		return err
	}
	c.Server.recent.note(what)
	return nil
}
