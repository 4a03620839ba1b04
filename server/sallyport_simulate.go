package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/apply"
	"sallyport.dev/audit"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// Rehearsing: what people could do, and how the requests and sessions of lately would end,
// if files were applied.

type simulateAccessInput struct {
	// Files are a draft of the configuration; those in force unless given.
	Files     map[string]string `json:"Files" check:"digest,max=1000" keys:"min=1,max=255"`
	Principal string            `json:"Principal" check:"max=2048"` // with NodeId; the caller unless given
	NodeID    string            `json:"NodeId" check:"max=256"`
	Document  string            `json:"Document" check:"max=256"`
	RunAs     string            `json:"RunAs" check:"max=32"`
	Replay    int               `json:"Replay" check:"min=0,max=1000"` // so many requests and sessions
}

type simulateAccessOutput struct {
	Now      *simulated `json:"Now,omitempty"`
	Draft    *simulated `json:"Draft,omitempty"`
	Replayed int        `json:"Replayed"`
	Changed  []replayed `json:"Changed"`
}

// simulated is what a principal may do on a node.
type simulated struct {
	Principal string          `json:"Principal"`
	NodeID    string          `json:"NodeId"`
	Decision  string          `json:"Decision"`
	Message   string          `json:"Message,omitempty"`
	Flows     []simulatedFlow `json:"Flows"` // that would help
}

type simulatedFlow struct {
	Flow   string `json:"Flow"`
	Target string `json:"Target"`
	Gives  string `json:"Gives"`
	Stages string `json:"Stages"` // who decides, in words
}

// replayed is a request or a session that would end differently.
type replayed struct {
	ID     string    `json:"Id"`
	Kind   string    `json:"Kind"` // request or session
	Person string    `json:"Person"`
	What   string    `json:"What"`
	At     wire.Time `json:"At"`
	Was    string    `json:"Was"`
	Would  string    `json:"Would"`
}

func simulateAccess(ctx context.Context, c *Call, in *simulateAccessInput) (*simulateAccessOutput, error) {
	if err := c.Check(ctx, access.Resource{ARN: "*"}); err != nil {
		return nil, err
	}
	draft, err := c.draft(ctx, in.Files)
	if err != nil {
		return nil, err
	}
	out := &simulateAccessOutput{Changed: []replayed{}}
	if in.NodeID != "" {
		if out.Now, err = c.simulate(ctx, c.Server, in); err != nil {
			return nil, err
		}
		if out.Draft, err = c.simulate(ctx, draft, in); err != nil {
			return nil, err
		}
	}
	if in.Replay > 0 {
		err = errors.Join(c.replayRequests(ctx, draft, in.Replay, out), c.replaySessions(ctx, draft, in.Replay, out))
	}
	return out, err
}

// draft is the server as it would be with other files.
func (c *Call) draft(ctx context.Context, texts map[string]string) (*Server, error) {
	s := c.Server
	engine := s.config.Access
	if engine == nil {
		return nil, exception("ValidationException", "This server has no access just in time.")
	}
	old, _, err := engine.Files(ctx)
	if err != nil {
		return nil, err
	}
	files := old
	if len(texts) > 0 {
		files = map[string][]byte{}
		for name, text := range texts {
			files[name] = []byte(text)
		}
	}
	want, err := apply.Parse(files)
	if err != nil {
		return nil, exception("ValidationException", "%v", err)
	}
	flows, err := flow.Parse(files)
	if err != nil {
		return nil, exception("ValidationException", "%v", err)
	}
	before, err := apply.Parse(old)
	if err != nil {
		return nil, fmt.Errorf("reading the files in force: %w", err)
	}
	now := apply.Now{Identities: s.config.Identities, Documents: s.config.Documents, Realm: s.config.Realm}
	return s.drafted(apply.NewDraft(now, want, before), flows, files), nil
}

// drafted is a server that decides by other identities and flows, records nothing and
// serves nobody.
func (s *Server) drafted(ids *apply.Draft, flows *flow.Set, files map[string][]byte) *Server {
	config := s.config
	config.Identities, config.Audit, config.Gateway = ids, unheard{}, nil
	d := &Server{
		config: config, log: slog.New(slog.DiscardHandler), table: s.table, agents: s.agents, started: s.started,
		resolver: identity.NewResolver(config.Realm, ids, machines{config.Nodes}, config.Now),
	}
	d.config.Access = s.config.Access.Draft(flows, files, ids, accessPolicies{d})
	d.access = d.config.engineOf()
	d.checker = access.New(access.Config{
		Store: ids, Audit: unheard{}, Grants: grants(d.config), Realm: config.Realm, Now: config.Now, Logger: d.log,
	})
	return d
}

// unheard is an audit log that keeps nothing: what is rehearsed is no attempt.
type unheard struct{}

// Append implements access.Auditor.
func (unheard) Append(_ context.Context, r audit.Record) (audit.Record, error) { return r, nil }

// simulate says what a principal may do on a node, of a server as it is or would be.
func (c *Call) simulate(ctx context.Context, s *Server, in *simulateAccessInput) (*simulated, error) {
	inner := &Call{Server: s, Operation: c.Operation, Principal: c.Principal, Origin: c.Origin, Host: c.Host}
	who := c.Principal
	if in.Principal != "" {
		var err error
		if who, err = inner.principalNamed(ctx, in.Principal); err != nil {
			return nil, exception("ValidationException", "There is no user or role %q.", truncate(in.Principal, 200))
		}
	}
	n, err := s.nodeByTarget(ctx, in.NodeID)
	if err != nil {
		return nil, err
	}
	p, _, err := inner.plan(ctx, who, n, StartInput{Document: in.Document, RunAs: in.RunAs})
	if err != nil {
		return nil, err
	}
	e, err := s.checker.ExplainStart(ctx, access.Query{Principal: who, Action: actionStartSession, Origin: c.Origin}, p.start(s))
	if err != nil {
		return nil, err
	}
	out := &simulated{Principal: who.ARN, NodeID: n.ID, Decision: e.Policy.Effect.String(), Flows: []simulatedFlow{}}
	if e.Denied != nil {
		out.Message = e.Denied.Error()
	}
	return out, out.addFlows(ctx, s, who, n, in)
}

// addFlows adds the flows that would let the principal in.
func (out *simulated) addFlows(ctx context.Context, s *Server, who identity.Principal, n node.Node, in *simulateAccessInput) error {
	helps, err := s.config.Access.Helps(ctx, who, n, in.Document, in.RunAs, "cli")
	if err != nil {
		return err
	}
	for _, h := range helps {
		out.Flows = append(out.Flows, simulatedFlow{
			Flow: h.Offer.Flow.Name, Target: h.Target.Name, Gives: showTarget(h.Target).Gives, Stages: stageWords(*h.Offer.Flow),
		})
	}
	return nil
}

// stageWords are who decides, in words.
func stageWords(f flow.Flow) string {
	var words []string
	for i, stage := range f.Stages {
		words = append(words, fmt.Sprintf("%d of %s", max(1, stage.Approvals), deciderWords(grant.Request{Frozen: grant.Frozen{Flow: f}}, i)))
	}
	switch {
	case f.BreakGlass != nil:
		return "nobody beforehand: break-glass"
	case len(words) == 0:
		return "its rules alone"
	}
	return strings.Join(words, ", then ")
}

// replayRequests asks again for what was asked lately.
func (c *Call) replayRequests(ctx context.Context, draft *Server, n int, out *simulateAccessOutput) error {
	requests, err := c.Server.config.Access.Requests(ctx, grant.Filter{Limit: n})
	if err != nil {
		return err
	}
	for _, r := range requests {
		would, err := draft.replayRequest(ctx, r)
		if err != nil {
			return err
		}
		out.Replayed++
		if was := howDecided(r); was != would {
			out.Changed = append(out.Changed, replayed{
				ID: r.ID, Kind: "request", Person: r.Frozen.Person.Name, What: "flow " + r.Frozen.Flow.Name,
				At: wire.Time{Time: r.Frozen.Created}, Was: was, Would: would,
			})
		}
	}
	return nil
}

// howDecided says in words how a request comes to its decision: by which rule, or by whom;
// with those who have decided, so that a draft in which they may not differs.
func howDecided(r grant.Request) string {
	for _, d := range r.Decisions {
		switch {
		case d.Rule != "" && d.Approve:
			return "approved by " + d.Rule
		case d.Rule != "":
			return "denied by " + d.Rule
		}
	}
	return "decided by " + stageWords(r.Frozen.Flow) + decidersOf(r, nil)
}

// decidersOf names the people whose approvals count, and of those that gone has, that they
// may not approve any more.
func decidersOf(r grant.Request, gone []string) string {
	var names []string
	for _, d := range r.Decisions {
		if d.Rule == "" && d.Approve && d.Struck == "" && !slices.Contains(gone, d.By.Name) {
			names = append(names, d.By.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// replayRequest says in the same words how it would be decided.
func (s *Server) replayRequest(ctx context.Context, r grant.Request) (string, error) {
	user, err := s.config.Identities.UserByID(ctx, r.Frozen.Person.ID)
	if errors.Is(err, identity.ErrNotFound) || err == nil && user.Disabled {
		return "refused because who asked is not there", nil
	}
	if err != nil {
		return "", err
	}
	actor := grant.Actor{Principal: s.resolver.UserPrincipal(user), Channel: r.Frozen.Channel, SourceIP: r.Frozen.SourceIP}
	asked, err := s.config.Access.Ask(ctx, actor, askedAgain(r))
	var refused *grant.RefusedError
	var field *flow.FieldError
	var denied *access.DeniedError
	switch {
	case errors.As(err, &refused):
		return "refused " + refused.Because, nil
	case errors.As(err, &denied):
		return "refused: " + denied.Error(), nil
	case errors.As(err, &field):
		return "refused because of " + field.Error(), nil
	case err != nil:
		return "", err
	}
	asked.Decisions = append(asked.Decisions, peopleOf(r)...)
	gone, err := s.mayNotDecide(ctx, asked)
	if err != nil {
		return "", err
	}
	if by := howDecided(asked); !strings.HasPrefix(by, "decided by ") {
		return by, nil
	}
	return "decided by " + stageWords(asked.Frozen.Flow) + decidersOf(asked, gone), nil
}

// peopleOf are the decisions of people on a request.
func peopleOf(r grant.Request) (people []grant.Decision) {
	for _, d := range r.Decisions {
		if d.Rule == "" {
			people = append(people, d)
		}
	}
	return people
}

// askedAgain is what was asked for, without what only belonged to that request.
func askedAgain(r grant.Request) grant.Ask {
	in := grant.Ask{Flow: r.Frozen.Flow.Name, Values: r.Frozen.Values, Explain: true}
	for _, t := range r.Frozen.Targets {
		in.Targets = append(in.Targets, t.Name)
	}
	for _, n := range r.Frozen.Nodes {
		in.Nodes = append(in.Nodes, n.ID)
	}
	return in
}

// mayNotDecide names those who have approved and could not now.
func (s *Server) mayNotDecide(ctx context.Context, r grant.Request) (names []string, err error) {
	for _, d := range r.Decisions {
		if d.Rule != "" || !d.Approve || d.Stage >= len(r.Frozen.Flow.Stages) {
			continue
		}
		user, err := s.config.Identities.UserByID(ctx, d.By.ID)
		if errors.Is(err, identity.ErrNotFound) {
			names = append(names, d.By.Name)
			continue
		}
		if err != nil {
			return nil, err
		}
		at := r
		at.State, at.Stage, at.Decisions = grant.Pending, d.Stage, nil
		p := s.resolver.UserPrincipal(user)
		p.MFA, p.MFAAt, p.Factor = true, s.config.Now(), "totp" // what they showed then is another matter
		because, err := s.config.Access.MayDecide(ctx, p, at)
		if err != nil {
			return nil, err
		}
		if because != "" || user.Disabled {
			names = append(names, d.By.Name)
		}
	}
	return names, nil
}

// replaySessions decides again about the sessions of lately, by standing permission: what
// grants allowed, the requests tell.
func (c *Call) replaySessions(ctx context.Context, draft *Server, n int, out *simulateAccessOutput) error {
	rows, err := c.Server.config.Sessions.Sessions(ctx, session.Filter{Limit: n})
	if err != nil {
		return err
	}
	round := newRound(draft)
	for _, row := range rows {
		kept := draft.keep(row)
		if kept == nil || kept.unreadable {
			continue
		}
		would, err := round.standing(ctx, kept)
		if err != nil {
			return err
		}
		out.Replayed++
		was := allowedStanding
		if len(kept.authority.Grants)+len(kept.authority.Principal.Granted) > 0 {
			was = allowedGranted
		}
		if was != would {
			out.Changed = append(out.Changed, replayed{
				ID: row.ID, Kind: "session", Person: row.OwnerName, What: "node " + row.NodeID + ", document " + row.Document,
				At: wire.Time{Time: row.Started}, Was: was, Would: would,
			})
		}
	}
	return nil
}

const (
	allowedStanding = "allowed without asking"
	allowedGranted  = "allowed by a grant"
)

// standing says whether a session would be allowed without any grant.
func (r *round) standing(ctx context.Context, s *kept) (string, error) {
	p, err := r.restore(ctx, s)
	if refused := (*identity.AuthError)(nil); errors.As(err, &refused) {
		return "refused: its owner is not there", nil
	}
	if err != nil {
		return "", err
	}
	n, err := r.node(ctx, s.node)
	if errors.Is(err, node.ErrNotFound) {
		n, err = node.Node{ID: s.node}, nil
	}
	if err != nil {
		return "", err
	}
	if len(p.Granted) > 0 {
		return allowedGranted, nil // the role itself takes one
	}
	j, err := r.server.checker.Judge(ctx, p, access.Moment{WithoutGrants: true})
	if err != nil {
		return "", err
	}
	_, denied := s.authority.refused(r.server, j, p, n, s.authority.At)
	switch {
	case denied == nil:
		return allowedStanding, nil
	case len(s.authority.Grants) > 0:
		return allowedGranted, nil // which it still takes
	}
	return "refused: " + denied.Error(), nil
}
