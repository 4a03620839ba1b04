package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/policy"
	"sallyport.dev/wire"
)

// Access just in time over the API: asking, deciding, and all that happens to requests.
// The engine decides who may take which step; policies can only refuse more.

func requestOperations() []*Operation {
	return []*Operation{
		op("sallyport", "ListFlows", nil, listFlows, checksItself, quietly),
		op("sallyport", "RequestAccess", nil, requestAccess, checksItself),
		op("sallyport", "ListAccessRequests", nil, listAccessRequests, checksItself, quietly),
		op("sallyport", "GetAccessRequest", nil, getAccessRequest, checksItself, quietly),
		op("sallyport", "ApproveRequest", nil, approveRequest, checksItself),
		op("sallyport", "DenyRequest", nil, denyRequest, checksItself),
		op("sallyport", "DelegateRequest", nil, delegateRequest, checksItself),
		op("sallyport", "CancelRequest", nil, cancelRequest, checksItself, toEnd),
		op("sallyport", "ActivateRequest", nil, activateRequest, checksItself),
		op("sallyport", "ReleaseRequest", nil, releaseRequest, checksItself, toEnd),
		op("sallyport", "RevokeRequest", nil, revokeRequest, checksItself, toEnd),
		op("sallyport", "ExtendRequest", nil, extendRequest, checksItself),
		op("sallyport", "ReviewRequest", nil, reviewRequest, checksItself),
		op("sallyport", "GetFlows", flowResources[getFlowsInput], getFlows),
		op("sallyport", "PutFlows", flowResources[putFlowsInput], putFlows),
	}
}

// accessPolicies are what policies have to do with requests.
type accessPolicies struct{ s *Server }

// AccessPolicies returns what an engine of access just in time asks about its steps.
func (s *Server) AccessPolicies() grant.Policies { return accessPolicies{s} }

func (p accessPolicies) query(a grant.Actor, action, resource string, details map[string]string) access.Query {
	ending := action == grant.ActionCancel || action == grant.ActionRelease || action == grant.ActionRevoke
	return access.Query{
		Principal: a.Principal, Action: action, Resources: []access.Resource{{ARN: resource}}, Details: details, Ending: ending,
		Origin: access.Origin{
			RequestID: a.RequestID, SourceIP: a.SourceIP, UserAgent: a.UserAgent, TLS: !a.PlainHTTP, Time: p.s.config.Now(),
		},
	}
}

// Permit implements grant.Policies.
func (p accessPolicies) Permit(ctx context.Context, a grant.Actor, action, resource string, details map[string]string) error {
	_, err := p.s.checker.CheckOwn(ctx, p.query(a, action, resource, details))
	return err
}

// Refuse implements grant.Policies.
func (p accessPolicies) Refuse(ctx context.Context, a grant.Actor, action, resource, because string, details map[string]string) {
	err := p.s.checker.Refuse(ctx, p.query(a, action, resource, details), because)
	if denied := (*access.DeniedError)(nil); !errors.As(err, &denied) {
		p.s.log.Error("recording a refusal", "action", action, "resource", resource, "error", err)
	}
}

// Would implements grant.Policies. A document that runs commands is not one for sessions:
// the question is then whether it could be sent.
func (p accessPolicies) Would(ctx context.Context, who identity.Principal, n node.Node, document, login string, more []policy.Source) (bool, error) {
	c := &Call{Server: p.s, Principal: who, Origin: access.Origin{TLS: true, Time: p.s.config.Now()}}
	if doc, err := c.sentDocument(ctx, document); err != nil || doc != nil {
		return err == nil && c.wouldSend(ctx, *doc, n, more), err
	}
	start := p.s.startOf(n, document)
	start.Login = orElse(login, access.DefaultLogin)
	q := access.Query{Principal: who, Action: actionStartSession, Origin: access.Origin{TLS: true, Time: p.s.config.Now()}, NoAudit: true}
	d, err := p.s.checker.StartWith(ctx, q, start, more)
	return d.Allowed, err
}

// actor is the caller as the engine knows them. Channels that the server must vouch for
// are not the caller's to name.
func (c *Call) actor(channel string) grant.Actor {
	if channel != "api" {
		channel = "cli"
	}
	return grant.Actor{
		Principal: c.Principal, Channel: channel, SourceIP: c.Origin.SourceIP, UserAgent: c.Origin.UserAgent,
		RequestID: c.Origin.RequestID, PlainHTTP: !c.Origin.TLS,
	}
}

// justInTime is the engine of access just in time. The engine checks every step that it takes, so that the
// call counts as checked.
func (c *Call) justInTime(ctx context.Context) (*grant.Engine, error) {
	if c.Server.config.Access == nil {
		return nil, exception("ValidationException", "This server has no access just in time.")
	}
	if c.Principal.IsNode() {
		c.checked = true
		return nil, c.Server.checker.Refuse(ctx, c.query(c.Operation.Action, []access.Resource{{ARN: "*"}}), "because nodes ask for nothing and decide nothing")
	}
	c.checked = true
	return c.Server.config.Access, nil
}

// accessError words an error of the engine.
func (c *Call) accessError(resource string, err error) error {
	if refused := (*grant.RefusedError)(nil); errors.As(err, &refused) {
		return &access.DeniedError{Principal: c.Principal.ARN, Action: c.Operation.Action, Resource: resource, Because: refused.Because}
	}
	if all := (flow.FieldErrors)(nil); errors.As(err, &all) {
		lines := make([]string, len(all))
		for i, field := range all {
			lines[i] = sentence(field)
		}
		return exception("ValidationException", "%s", strings.Join(lines, "\n"))
	}
	if field := (*flow.FieldError)(nil); errors.As(err, &field) {
		return exception("ValidationException", "%s", sentence(field))
	}
	return err
}

type listFlowsInput struct {
	NodeID   string `json:"NodeId,omitempty" check:"max=64"`
	Document string `json:"Document,omitempty" check:"max=256"`
	RunAs    string `json:"RunAs,omitempty" check:"max=32"`
	Channel  string `json:"Channel,omitempty" check:"enum=cli|api|web|ssh"`
}

type listFlowsOutput struct {
	Flows []accessFlow `json:"Flows"`
}

// listFlows tells which flows the caller may ask; with a node those that help.
func listFlows(ctx context.Context, c *Call, in *listFlowsInput) (*listFlowsOutput, error) {
	engine, err := c.justInTime(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.CheckOwn(ctx, access.Resource{ARN: engine.FlowARN("*")}); err != nil {
		return nil, err
	}
	out := &listFlowsOutput{Flows: []accessFlow{}}
	if in.NodeID != "" {
		return out, c.addHelps(ctx, engine, in, out)
	}
	offers, err := engine.Offers(ctx, c.Principal, c.actor(in.Channel).Channel)
	for _, o := range offers {
		out.Flows = append(out.Flows, showOffer(o, o.Flow.Targets))
	}
	return out, err
}

// addHelps adds the flows that would let the caller onto a node. Of a node that does not
// exist nothing more is said than of one that no flow has.
func (c *Call) addHelps(ctx context.Context, engine *grant.Engine, in *listFlowsInput, out *listFlowsOutput) error {
	document, err := c.Server.documentName(in.Document) // whose mistakes tell of no node
	if err != nil {
		return err
	}
	n, err := c.Server.config.Nodes.Node(ctx, in.NodeID)
	if errors.Is(err, node.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	helps, err := engine.Helps(ctx, c.Principal, n, document, in.RunAs, c.actor(in.Channel).Channel)
	if err != nil {
		return err
	}
	for _, h := range helps {
		i := slices.IndexFunc(out.Flows, func(f accessFlow) bool { return f.Name == h.Offer.Flow.Name })
		if i < 0 {
			out.Flows = append(out.Flows, showOffer(h.Offer, []flow.Target{h.Target}))
			continue
		}
		out.Flows[i].Targets = append(out.Flows[i].Targets, showTarget(h.Target))
	}
	return nil
}

type requestAccessInput struct {
	Flow    string              `json:"Flow,omitempty" check:"required,min=1,max=128"`
	Targets []string            `json:"Targets,omitempty" check:"max=50" each:"min=1,max=128"`
	NodeIDs []string            `json:"NodeIds,omitempty" check:"max=50" each:"min=1,max=64"`
	Reason  string              `json:"Reason,omitempty" check:"max=2000"`
	Seconds int64               `json:"Seconds,omitempty" check:"min=0,max=31536000"`
	Values  map[string][]string `json:"Values,omitempty" check:"max=100" keys:"min=1,max=128" each:"max=2000"`
	Channel string              `json:"Channel,omitempty" check:"enum=cli|api|web|ssh"`
	DryRun  bool                `json:"DryRun,omitempty"`
}

// values are those of the form, reason and duration included.
func (in *requestAccessInput) values() flow.Values {
	values := flow.Values{}
	for name, list := range in.Values {
		values[name] = list
	}
	if in.Reason != "" {
		values[flow.FieldReason] = []string{in.Reason}
	}
	if in.Seconds > 0 {
		values[flow.FieldTime] = []string{(time.Duration(in.Seconds) * time.Second).String()}
	}
	return values
}

func requestAccess(ctx context.Context, c *Call, in *requestAccessInput) (*accessRequest, error) {
	engine, err := c.justInTime(ctx)
	if err != nil {
		return nil, err
	}
	r, err := engine.Ask(ctx, c.actor(in.Channel), grant.Ask{
		Flow: in.Flow, Targets: in.Targets, Nodes: in.NodeIDs, Values: in.values(), Explain: in.DryRun,
	})
	if err != nil {
		return nil, c.accessError(engine.FlowARN(in.Flow), err)
	}
	return c.showRequest(ctx, engine, r)
}

type decideInput struct {
	RequestID string `json:"RequestId,omitempty" check:"required,pattern=oi-[0-9a-f]{12}"`
	Hash      string `json:"Hash,omitempty" check:"required,pattern=[0-9a-f]{64}"`
	Comment   string `json:"Comment,omitempty" check:"max=2000"`
}

func approveRequest(ctx context.Context, c *Call, in *decideInput) (*accessRequest, error) {
	return c.decide(ctx, in, true)
}

func denyRequest(ctx context.Context, c *Call, in *decideInput) (*accessRequest, error) {
	return c.decide(ctx, in, false)
}

func (c *Call) decide(ctx context.Context, in *decideInput, approve bool) (*accessRequest, error) {
	return c.step(ctx, in.RequestID, func(e *grant.Engine, a grant.Actor) (grant.Request, error) {
		return e.Decide(ctx, a, in.RequestID, in.Hash, approve, in.Comment)
	})
}

// step takes a step of a request and shows what it is then.
func (c *Call) step(ctx context.Context, id string, take func(*grant.Engine, grant.Actor) (grant.Request, error)) (*accessRequest, error) {
	engine, err := c.justInTime(ctx)
	if err != nil {
		return nil, err
	}
	r, err := take(engine, c.actor(""))
	if errors.Is(err, grant.ErrNotFound) {
		return nil, c.noRequest(ctx, engine, id)
	}
	if err != nil {
		return nil, c.accessError(engine.RequestARN(id), err)
	}
	return c.showRequest(ctx, engine, r)
}

// noRequest says that there is no such request to who may see all; others are refused.
func (c *Call) noRequest(ctx context.Context, engine *grant.Engine, id string) error {
	if err := c.Check(ctx, access.Resource{ARN: engine.RequestARN(id)}); err != nil {
		return err
	}
	return exception("DoesNotExistException", "There is no request %s.", id)
}

type stepInput struct {
	RequestID string `json:"RequestId,omitempty" check:"required,pattern=oi-[0-9a-f]{12}"`
	To        string `json:"To,omitempty" check:"max=64"`
	Reason    string `json:"Reason,omitempty" check:"max=2000"`
	Seconds   int64  `json:"Seconds,omitempty" check:"min=0,max=31536000"`
	Outcome   string `json:"Outcome,omitempty" check:"enum=justified|unjustified"`
}

func delegateRequest(ctx context.Context, c *Call, in *stepInput) (*accessRequest, error) {
	return c.step(ctx, in.RequestID, func(e *grant.Engine, a grant.Actor) (grant.Request, error) {
		return e.Delegate(ctx, a, in.RequestID, in.To)
	})
}

func cancelRequest(ctx context.Context, c *Call, in *stepInput) (*accessRequest, error) {
	return c.step(ctx, in.RequestID, func(e *grant.Engine, a grant.Actor) (grant.Request, error) {
		return e.Cancel(ctx, a, in.RequestID)
	})
}

func activateRequest(ctx context.Context, c *Call, in *stepInput) (*accessRequest, error) {
	return c.step(ctx, in.RequestID, func(e *grant.Engine, a grant.Actor) (grant.Request, error) {
		return e.Activate(ctx, a, in.RequestID)
	})
}

func releaseRequest(ctx context.Context, c *Call, in *stepInput) (*accessRequest, error) {
	return c.step(ctx, in.RequestID, func(e *grant.Engine, a grant.Actor) (grant.Request, error) {
		return e.Release(ctx, a, in.RequestID)
	})
}

// revokeRequest takes back by policy, or as somebody who decides on such requests.
func revokeRequest(ctx context.Context, c *Call, in *stepInput) (*accessRequest, error) {
	return c.step(ctx, in.RequestID, func(e *grant.Engine, a grant.Actor) (grant.Request, error) {
		allowed, err := c.Allows(ctx, c.Operation.Action, access.Resource{ARN: e.RequestARN(in.RequestID)})
		if err != nil {
			return grant.Request{}, err
		}
		return e.Revoke(ctx, a, in.RequestID, in.Reason, allowed)
	})
}

func extendRequest(ctx context.Context, c *Call, in *stepInput) (*accessRequest, error) {
	return c.step(ctx, in.RequestID, func(e *grant.Engine, a grant.Actor) (grant.Request, error) {
		return e.Extend(ctx, a, in.RequestID, time.Duration(in.Seconds)*time.Second, in.Reason)
	})
}

func reviewRequest(ctx context.Context, c *Call, in *stepInput) (*accessRequest, error) {
	return c.step(ctx, in.RequestID, func(e *grant.Engine, a grant.Actor) (grant.Request, error) {
		return e.CloseReview(ctx, a, in.RequestID, in.Outcome, in.Reason)
	})
}

type getAccessRequestInput struct {
	RequestID string `json:"RequestId,omitempty" check:"required,pattern=oi-[0-9a-f]{12}"`
	After     int64  `json:"After,omitempty" check:"min=0"`
	Wait      int64  `json:"Wait,omitempty" check:"min=0,max=20"`
}

// getAccessRequest shows a request to who asked, who decides or decided on it, and who may
// by policy. Others learn nothing, not even whether there is such a request.
func getAccessRequest(ctx context.Context, c *Call, in *getAccessRequestInput) (*accessRequest, error) {
	engine, err := c.justInTime(ctx)
	if err != nil {
		return nil, err
	}
	r, err := engine.Request(ctx, in.RequestID)
	if err != nil && !errors.Is(err, grant.ErrNotFound) {
		return nil, err
	}
	if err != nil {
		return nil, c.noRequest(ctx, engine, in.RequestID)
	}
	if err := c.checkVisible(ctx, engine, r); err != nil {
		return nil, err
	}
	if in.Wait > 0 {
		wait, cancel := context.WithTimeout(ctx, time.Duration(in.Wait)*time.Second)
		defer cancel()
		if r, err = engine.WaitFor(wait, c.Principal.RootID(), r.ID, in.After); err != nil {
			return nil, err
		}
	}
	out, err := c.showRequest(ctx, engine, r)
	if err != nil {
		return nil, err
	}
	events, err := engine.History(ctx, r.ID)
	for _, e := range events {
		out.Events = append(out.Events, accessEvent{Kind: e.Kind, At: wire.Time{Time: e.At}, Actor: e.Actor, Channel: e.Channel, Comment: e.Comment, State: string(e.State)})
	}
	return out, err
}

// checkVisible authorises looking at a request.
func (c *Call) checkVisible(ctx context.Context, engine *grant.Engine, r grant.Request) error {
	resource := access.Resource{ARN: engine.RequestARN(r.ID)}
	visible, err := c.visible(ctx, engine, r)
	if err != nil {
		return err
	}
	if visible {
		return c.CheckOwn(ctx, resource)
	}
	return c.Check(ctx, resource)
}

// visible reports whether a request is the caller's own, or theirs to decide on or to take
// back.
func (c *Call) visible(ctx context.Context, engine *grant.Engine, r grant.Request) (bool, error) {
	me := c.Principal.RootID()
	if r.Frozen.Person.ID == me {
		return true, nil
	}
	if slices.ContainsFunc(r.Decisions, func(d grant.Decision) bool { return d.By.ID == me }) {
		return true, nil
	}
	for _, has := range []func(context.Context, identity.Principal, grant.Request) (bool, error){engine.Concerns, engine.MayRevoke} {
		if visible, err := has(ctx, c.Principal, r); visible || err != nil {
			return visible, err
		}
	}
	return engine.Reviews(ctx, c.Principal, r)
}

type listAccessRequestsInput struct {
	Mine      bool     `json:"Mine,omitempty"`
	ToDecide  bool     `json:"ToDecide,omitempty"`
	Person    string   `json:"Person,omitempty" check:"max=64"`
	Flow      string   `json:"Flow,omitempty" check:"max=128"`
	States    []string `json:"States,omitempty" check:"max=10" each:"enum=Pending|Approved|Active|Denied|Cancelled|Expired|Lapsed|Released|Revoked|Ended"`
	Review    bool     `json:"Review,omitempty"`
	Limit     int      `json:"Limit,omitempty" check:"min=0,max=200"`
	NextToken string   `json:"NextToken,omitempty" check:"max=256"`
}

type listAccessRequestsOutput struct {
	Requests  []accessRequest `json:"Requests"`
	NextToken string          `json:"NextToken,omitempty"`
}

// listedAtOnce bounds the requests that one call of ListAccessRequests looks at: who may
// see few of many gets them over several pages.
const listedAtOnce = 1000

// listedWithin bounds the time that one takes: whether a request is the caller's to decide on
// may be for its flow's code to say.
const listedWithin = 5 * time.Second

func listAccessRequests(ctx context.Context, c *Call, in *listAccessRequestsInput) (*listAccessRequestsOutput, error) {
	engine, err := c.justInTime(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.CheckOwn(ctx, access.Resource{ARN: engine.RequestARN("*")}); err != nil {
		return nil, err
	}
	out := &listAccessRequestsOutput{Requests: []accessRequest{}}
	f, none, err := c.requestFilter(ctx, in)
	if err != nil || none {
		return out, err
	}
	limit, began := orDefault(in.Limit, 50), time.Now()
	f.Limit = 100
	for looked := 0; looked < listedAtOnce; looked += f.Limit {
		found, err := engine.Requests(ctx, f)
		if err != nil {
			return nil, c.lostPlace(err)
		}
		for _, r := range found {
			show, err := c.listsRequest(ctx, engine, in, r)
			if err != nil {
				return nil, err
			}
			if show {
				out.Requests = append(out.Requests, c.summary(ctx, engine, r))
			}
			if f.After = r.ID; len(out.Requests) == limit || time.Since(began) > listedWithin {
				out.NextToken = c.pageToken(r.ID)
				return out, nil
			}
		}
		if len(found) < f.Limit {
			return out, nil
		}
	}
	out.NextToken = c.pageToken(f.After)
	return out, nil
}

// lostPlace words that a token names no request.
func (c *Call) lostPlace(err error) error {
	if errors.Is(err, grant.ErrNotFound) {
		return c.badToken()
	}
	return err
}

// requestFilter is what the store can select; none tells that nothing is.
func (c *Call) requestFilter(ctx context.Context, in *listAccessRequestsInput) (f grant.Filter, none bool, err error) {
	f = grant.Filter{Flow: in.Flow, Review: in.Review}
	if f.After, err = c.openPageToken(in.NextToken); err != nil {
		return f, false, err
	}
	for _, s := range in.States {
		f.States = append(f.States, grant.State(s))
	}
	if in.ToDecide {
		f.States = []grant.State{grant.Pending}
	}
	if in.Mine {
		f.Person = c.Principal.RootID()
	}
	if in.Person == "" {
		return f, false, nil
	}
	user, err := c.Server.config.Identities.User(ctx, in.Person)
	if errors.Is(err, identity.ErrNotFound) || in.Mine && user.ID != f.Person {
		return f, true, nil
	}
	f.Person = user.ID
	return f, false, err
}

// listsRequest reports whether a request is in the caller's listing.
func (c *Call) listsRequest(ctx context.Context, engine *grant.Engine, in *listAccessRequestsInput, r grant.Request) (bool, error) {
	if in.ToDecide {
		return engine.Concerns(ctx, c.Principal, r)
	}
	visible, err := c.visible(ctx, engine, r)
	if visible || err != nil {
		return visible, err
	}
	return c.Allows(ctx, "sallyport:GetAccessRequest", access.Resource{ARN: engine.RequestARN(r.ID)})
}

type getFlowsInput struct{}

type getFlowsOutput struct {
	Files  map[string]string `json:"Files"`
	Digest string            `json:"Digest"`
}

type putFlowsInput struct {
	Files  map[string]string `json:"Files" check:"required,digest,max=200" keys:"min=1,max=255"`
	Digest string            `json:"Digest" check:"max=64"`
	DryRun bool              `json:"DryRun"`
}

type putFlowsOutput struct {
	Digest string   `json:"Digest"`
	Flows  []string `json:"Flows"`
}

// flowResources are all flows: files are in force as a whole.
func flowResources[In any](_ context.Context, c *Call, _ *In) ([]access.Resource, error) {
	if c.Server.config.Access == nil {
		return []access.Resource{{ARN: "*"}}, nil
	}
	return []access.Resource{{ARN: c.Server.config.Access.FlowARN("*")}}, nil
}

func getFlows(ctx context.Context, c *Call, _ *getFlowsInput) (*getFlowsOutput, error) {
	engine, err := c.justInTime(ctx)
	if err != nil {
		return nil, err
	}
	files, digest, err := engine.Files(ctx)
	out := &getFlowsOutput{Files: map[string]string{}, Digest: digest}
	for name, text := range files {
		out.Files[name] = string(text)
	}
	return out, err
}

// putFlows puts flow files in force, if those in force are the ones that the caller has
// seen.
func putFlows(ctx context.Context, c *Call, in *putFlowsInput) (*putFlowsOutput, error) {
	engine, err := c.justInTime(ctx)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for name, text := range in.Files {
		files[name] = []byte(text)
	}
	set, err := engine.CheckFlows(files)
	if err != nil {
		return nil, exception("ValidationException", "%s", strings.TrimSpace(err.Error()))
	}
	out := &putFlowsOutput{Digest: set.Digest, Flows: []string{}}
	for name := range set.Flows {
		out.Flows = append(out.Flows, name)
	}
	slices.Sort(out.Flows)
	if in.DryRun {
		return out, nil
	}
	_, err = engine.PutFlows(ctx, c.actor(""), files, in.Digest)
	return out, c.accessError(engine.FlowARN("*"), err)
}

// endGrants revokes what a user asked for and was granted.
func (c *Call) endGrants(ctx context.Context, user, because string) error {
	if c.Server.config.Access == nil {
		return nil
	}
	return c.Server.config.Access.EndPerson(ctx, user, because)
}

// addGrantedKeys adds to a group's keys those of users who are in it by a grant.
func (c *Call) addGrantedKeys(ctx context.Context, group string, keys []identity.SSHPublicKey) ([]identity.SSHPublicKey, error) {
	if c.Server.config.Access == nil {
		return keys, nil
	}
	holders, err := c.Server.config.Access.GroupHolders(ctx, group)
	if err != nil {
		return nil, err
	}
	for _, id := range holders {
		user, err := c.Server.config.Identities.UserByID(ctx, id)
		if errors.Is(err, identity.ErrNotFound) || err == nil && user.Disabled {
			continue
		}
		if err != nil {
			return nil, err
		}
		own, err := c.Server.config.Identities.SSHKeys(ctx, user.Name)
		if err != nil {
			return nil, err
		}
		for _, k := range own {
			known := slices.ContainsFunc(keys, func(have identity.SSHPublicKey) bool { return have.ID == k.ID })
			if k.Active && !known {
				keys = append(keys, k)
			}
		}
	}
	return keys, nil
}
