package server

import (
	"context"
	"errors"
	"slices"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/document"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/policy"
	"sallyport.dev/recording"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

type explainAccessInput struct {
	Principal string `json:"Principal" check:"max=2048"`
	Action    string `json:"Action" check:"required,min=3,max=256,pattern=[A-Za-z0-9-]+:[A-Za-z0-9]+"`
	NodeID    string `json:"NodeId" check:"max=256"`
	Document  string `json:"Document" check:"max=256"`
	Resource  string `json:"Resource" check:"max=2048"`
	// Parameters of the document, and the login asked for, as StartSession takes them.
	Parameters map[string][]string `json:"Parameters" keys:"min=1,max=255" each:"min=1,max=65535"`
	RunAs      string              `json:"RunAs" check:"max=32"`
}

type explainAccessOutput struct {
	Principal string              `json:"Principal"`
	Action    string              `json:"Action"`
	NodeID    string              `json:"NodeId,omitempty"`
	Document  string              `json:"Document,omitempty"`
	Decision  string              `json:"Decision"`
	Message   string              `json:"Message,omitempty"`
	Resources []explainedResource `json:"Resources"`
	Start     *explainedStart     `json:"Start,omitempty"`
	// Requests are what the principal holds and has asked for, and what has ended lately;
	// Flows what they may ask for that would allow it, where it is not.
	Requests []accessRequest `json:"Requests,omitempty"`
	Flows    []accessFlow    `json:"Flows,omitempty"`
}

// explainedStart is what a session would be that policies allow to start.
type explainedStart struct {
	SessionType string `json:"SessionType,omitempty"`
	RunAs       string `json:"RunAs,omitempty"` // empty for the node's default
	Recorded    bool   `json:"Recorded"`
	// Obstacle is what keeps it from starting all the same.
	Obstacle string `json:"Obstacle,omitempty"`
}

type explainedResource struct {
	Resource   string               `json:"Resource"`
	Decision   string               `json:"Decision"`
	Message    string               `json:"Message,omitempty"`
	Sources    []string             `json:"Sources,omitempty"`
	Statements []explainedStatement `json:"Statements,omitempty"`
}

type explainedStatement struct {
	Source    string           `json:"Source"`
	Kind      string           `json:"Kind"`
	Sid       string           `json:"Sid,omitempty"`
	Statement int              `json:"Statement"`
	Effect    string           `json:"Effect"`
	Matched   bool             `json:"Matched"`
	Hint      string           `json:"Hint,omitempty"`
	Checks    []explainedCheck `json:"Checks,omitempty"`
}

type explainedCheck struct {
	Element  string   `json:"Element"`
	Operator string   `json:"Operator,omitempty"`
	Key      string   `json:"Key,omitempty"`
	Policy   []string `json:"Policy,omitempty"`
	Request  []string `json:"Request,omitempty"`
	Absent   bool     `json:"Absent,omitempty"`
	Held     bool     `json:"Held"`
}

// explainAccess says why a principal may or may not do something. Everyone may ask
// about themselves.
func explainAccess(ctx context.Context, c *Call, in *explainAccessInput) (*explainAccessOutput, error) {
	if c.Principal.IsNode() {
		c.checked = true
		return nil, c.Server.checker.Refuse(ctx, c.query(c.Operation.Action, []access.Resource{{ARN: c.Principal.ARN}}), "because nodes may not ask")
	}
	subject, err := c.explained(ctx, in.Principal)
	if err != nil {
		return nil, err
	}
	out := &explainAccessOutput{Principal: subject.ARN, Action: in.Action, Document: in.Document}
	q := access.Query{Principal: subject, Action: in.Action, Origin: c.Origin}
	explanation, err := c.explain(ctx, in, q, out)
	if err != nil {
		return nil, err
	}
	out.Decision = explanation.Policy.Effect.String()
	if explanation.Denied != nil {
		out.Message = explanation.Denied.Error()
	}
	sources, err := c.Server.checker.Sources(ctx, subject)
	if err != nil {
		return nil, err
	}
	for _, r := range explanation.Resources {
		out.Resources = append(out.Resources, explainResource(q, r, sources))
	}
	return out, c.explainAsking(ctx, in, subject, explanation.Allowed, out)
}

// explained finds the principal that is asked about, and checks that the caller may
// ask; empty is the caller, who may always.
func (c *Call) explained(ctx context.Context, name string) (identity.Principal, error) {
	if c.isCaller(name) {
		return c.Principal, c.CheckOwn(ctx, access.Resource{ARN: c.Principal.ARN, Tags: c.Principal.Tags})
	}
	p, err := c.principalNamed(ctx, name)
	if err != nil && !errors.Is(err, identity.ErrNotFound) {
		return p, err
	}
	resource := access.Resource{ARN: p.PolicyARN, Tags: p.Tags}
	if err != nil {
		resource = c.Server.userResource(name[strings.LastIndexByte(name, '/')+1:], identity.User{})
	}
	if checkErr := c.Check(ctx, resource); checkErr != nil {
		return p, checkErr
	}
	if err != nil {
		return p, exception("ValidationException", "There is no user or role %q. Name a user, a role, user/NAME, role/NAME, assumed-role/ROLE/SESSION, or an ARN of these.", truncate(name, 200))
	}
	return p, c.checkAmbiguous(ctx, name, p)
}

// isCaller reports whether name is the caller, of whom more is known than of others:
// the tags and the policy of the session.
func (c *Call) isCaller(name string) bool {
	me := c.Principal
	return name == "" || name == me.ARN || name == resourceOf(me.ARN) ||
		me.Kind == identity.KindUser && name == me.Name
}

// checkAmbiguous refuses a bare name that a user and a role have.
func (c *Call) checkAmbiguous(ctx context.Context, name string, p identity.Principal) error {
	if strings.Contains(name, "/") || p.Kind != identity.KindUser {
		return nil
	}
	_, err := c.Server.config.Identities.Role(ctx, name)
	switch {
	case errors.Is(err, identity.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return exception("ValidationException", "%q is a user and a role: say user/%[1]s or role/%[1]s.", name)
}

// resourceOf is what follows the account in an ARN; what is none stays as it is.
func resourceOf(name string) string {
	parts := strings.SplitN(name, ":", 6)
	if len(parts) == 6 && parts[0] == "arn" {
		return parts[5]
	}
	return name
}

// principalNamed finds a principal by an ARN, what follows the account in one, or the
// name of a user or else a role.
func (c *Call) principalNamed(ctx context.Context, name string) (identity.Principal, error) {
	people, resolver := c.Server.config.Identities, c.Server.resolver
	kind, rest, typed := strings.Cut(resourceOf(name), "/")
	last := rest[strings.LastIndexByte(rest, '/')+1:]
	switch {
	case !typed:
		user, err := people.User(ctx, name)
		if !errors.Is(err, identity.ErrNotFound) {
			return resolver.UserPrincipal(user), err
		}
		role, err := people.Role(ctx, name)
		return resolver.RolePrincipal(role, "explain"), err
	case kind == "user":
		user, err := people.User(ctx, last)
		return resolver.UserPrincipal(user), err
	case kind == "role":
		role, err := people.Role(ctx, last)
		return resolver.RolePrincipal(role, "explain"), err
	case kind == "assumed-role":
		roleName, session, _ := strings.Cut(rest, "/")
		if session == "" {
			session = "explain"
		}
		role, err := people.Role(ctx, roleName)
		return resolver.RolePrincipal(role, session), err
	}
	return identity.Principal{}, identity.ErrNotFound
}

func (c *Call) explain(ctx context.Context, in *explainAccessInput, q access.Query, out *explainAccessOutput) (access.Explanation, error) {
	checker := c.Server.checker
	document, err := c.Server.documentName(in.Document)
	if err != nil {
		return access.Explanation{}, err
	}
	var n node.Node
	if in.NodeID != "" {
		var err error
		if n, err = c.visibleNode(ctx, in.NodeID); err != nil {
			return access.Explanation{}, err
		}
		out.NodeID = n.ID
		if strings.EqualFold(in.Action, "ssm:StartSession") {
			return c.explainStart(ctx, in, q, n, out)
		}
		q.Resources = append(q.Resources, c.Server.nodeResource(n))
	}
	if document != "" {
		q.Resources = append(q.Resources, access.Resource{ARN: c.Server.config.Realm.Document(document), Tags: n.Tags})
	}
	own := false
	if in.Resource != "" {
		var r access.Resource
		if r, own, err = c.resourceNamed(ctx, in.Resource, q); err != nil {
			return access.Explanation{}, err
		}
		q.Resources = append(q.Resources, r)
	}
	if len(q.Resources) == 0 {
		q.Resources = []access.Resource{{ARN: "*"}}
	}
	if in.RunAs != "" {
		q.Context = map[string][]string{"sallyport:RunAsUser": {in.RunAs}}
	}
	if own && len(q.Resources) == 1 {
		return checker.ExplainOwn(ctx, q)
	}
	return checker.Explain(ctx, q)
}

// resourceNamed is a resource as policies see it when a query's principal asks for it: a
// session with its tags, as far as the caller may know of it, and anything else by its ARN
// alone. own tells that the principal needs no policy.
func (c *Call) resourceNamed(ctx context.Context, arn string, q access.Query) (r access.Resource, own bool, err error) {
	r = access.Resource{ARN: arn}
	id, found := strings.CutPrefix(arn, c.Server.config.Realm.Session(""))
	if !found {
		return r, false, nil
	}
	v, err := c.Server.config.Sessions.Session(ctx, id)
	if errors.Is(err, session.ErrNotFound) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	if may, err := c.maySee(ctx, v); err != nil || !may {
		return r, false, err
	}
	r, err = c.sessionTo(ctx, q.Principal, v)
	return r, readsSession(q.Action) && mayRead(q.Principal, v), err
}

// maySee reports whether the caller may know of a session.
func (c *Call) maySee(ctx context.Context, v session.Session) (bool, error) {
	if mayRead(c.Principal, v) {
		return true, nil
	}
	r, err := c.sessionResource(ctx, v)
	if err != nil {
		return false, err
	}
	return c.Allows(ctx, "sallyport:GetSession", r)
}

// readsSession reports whether an action on a session is one of those that checkSession
// authorises.
func readsSession(action string) bool {
	return slices.ContainsFunc([]string{"GetSession", "GetRecording", "WatchSession"}, func(name string) bool {
		return strings.EqualFold(action, "sallyport:"+name)
	})
}

// explainStart explains starting a session, which for a login that is not the
// principal's own takes a second action.
func (c *Call) explainStart(ctx context.Context, in *explainAccessInput, q access.Query, n node.Node, out *explainAccessOutput) (access.Explanation, error) {
	p, wrong, err := c.plan(ctx, q.Principal, n, StartInput{Document: in.Document, Parameters: in.Parameters, RunAs: in.RunAs})
	if err != nil {
		return access.Explanation{}, err
	}
	e, err := c.Server.checker.ExplainStart(ctx, q, p.start(c.Server))
	if err != nil || !e.Allowed {
		return e, err
	}
	out.Start = c.explainedStart(p, wrong)
	if wrong != nil && (len(in.Parameters) > 0 || in.RunAs != "") {
		return access.Explanation{}, wrong
	}
	if !p.login.needsAction() {
		return e, nil
	}
	q.Action, q.Resources = actionRunAs, []access.Resource{c.Server.nodeResource(n)}
	q.Context = map[string][]string{"sallyport:RunAsUser": {p.login.name}}
	return c.Server.checker.Explain(ctx, q)
}

// explainedStart tells what a session would be, which only who may start it learns.
func (c *Call) explainedStart(p *plan, wrong error) *explainedStart {
	out := &explainedStart{RunAs: p.login.name}
	if wrong != nil {
		out.Obstacle = exceptionText(wrong)
		return out
	}
	out.SessionType = p.resolved.SessionType
	out.Recorded = out.SessionType != document.Port
	if ready, ok := c.Server.config.Recordings.(interface{ Ready() error }); ok && out.Recorded {
		if err := ready.Ready(); err != nil {
			c.Server.log.Error("recordings cannot be written", "error", err)
			out.Obstacle = "The session cannot be recorded, so it would not be started" + notRecorded(err)
		}
	}
	return out
}

// notRecorded ends a sentence with why a session cannot be recorded, as far as its owner
// may learn it.
func notRecorded(err error) string {
	if full := (*recording.FullError)(nil); errors.As(err, &full) {
		return ": " + session.ErrRecordingFull.Error() + ": " + full.Why + "."
	}
	return ". The server's log tells the cause."
}

// exceptionText is what an exception tells its caller.
func exceptionText(err error) string {
	if e := (*wire.Exception)(nil); errors.As(err, &e) {
		return e.Message
	}
	return ""
}

// visibleNode finds a node that the caller may list, or start or ask for sessions on. To others every
// target is a node without tags, whether it exists or not: the explanation would tell
// them which nodes there are, and their tags.
func (c *Call) visibleNode(ctx context.Context, target string) (node.Node, error) {
	n, err := c.Server.nodeByTarget(ctx, target)
	if unknown := (*wire.Exception)(nil); err != nil && !errors.As(err, &unknown) {
		return n, err
	}
	for _, action := range []string{"sallyport:ListNodes", "ssm:DescribeInstanceInformation"} {
		if may, listErr := c.Allows(ctx, action, access.Resource{ARN: "*"}); may || listErr != nil {
			return n, errors.Join(err, listErr)
		}
	}
	if err == nil {
		if may, mayErr := c.mayStartOrAsk(ctx, n); may || mayErr != nil {
			return n, mayErr
		}
	}
	return node.Node{ID: target}, nil
}

// explainResource writes the explanation of one resource as the API shows it.
func explainResource(q access.Query, r access.ResourceExplanation, sources []policy.Source) explainedResource {
	out := explainedResource{Resource: r.ARN, Decision: r.Effect.String()}
	if !r.Allowed() {
		denied := &access.DeniedError{Principal: q.Principal.ARN, Action: q.Action, Resource: r.ARN, Decision: r.Decision}
		out.Message = denied.Error()
	}
	for _, s := range sources {
		out.Sources = append(out.Sources, s.Name)
	}
	for _, reason := range r.Statements {
		out.Statements = append(out.Statements, explainStatement(reason))
	}
	return out
}

func explainStatement(r policy.Reason) explainedStatement {
	out := explainedStatement{
		Source: r.Source, Kind: r.Kind.String(), Sid: r.Sid, Statement: r.Statement,
		Effect: r.Effect, Matched: r.Matched,
	}
	if !r.Matched {
		out.Hint = r.Hint()
	}
	for _, k := range r.Checks {
		out.Checks = append(out.Checks, explainedCheck{
			Element: k.Element, Operator: k.Operator, Key: k.Key,
			Policy: k.Policy, Request: k.Request, Absent: k.Absent, Held: k.Held,
		})
	}
	return out
}
