package grant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/node"
)

// Actions that policies may deny.
const (
	ActionAsk      = "sallyport:RequestAccess"
	ActionApprove  = "sallyport:ApproveRequest"
	ActionDeny     = "sallyport:DenyRequest"
	ActionDelegate = "sallyport:DelegateRequest"
	ActionCancel   = "sallyport:CancelRequest"
	ActionActivate = "sallyport:ActivateRequest"
	ActionRelease  = "sallyport:ReleaseRequest"
	ActionRevoke   = "sallyport:RevokeRequest"
	ActionExtend   = "sallyport:ExtendRequest"
	ActionReview   = "sallyport:ReviewRequest"
)

// FlowARN and RequestARN name flows and requests in policies.
func (e *Engine) FlowARN(name string) string { return e.arn("flow/" + name) }

// RequestARN names a request in policies.
func (e *Engine) RequestARN(id string) string { return e.arn("request/" + id) }

func (e *Engine) arn(resource string) string {
	return "arn:aws:sallyport:" + e.config.Realm.Region + ":" + e.config.Realm.Account + ":" + resource
}

// Bounds of a request.
const (
	maxAskNodes = 50
	// maxPending bounds the requests of one person that wait at a time.
	maxPending = 20
	// maxHourly bounds how often one person may ask: each request is a row, events and
	// audit records for good.
	maxHourly = 200
)

// Ask makes a request. Errors are *flow.FieldError, *RefusedError, or of the store.
func (e *Engine) Ask(ctx context.Context, a Actor, in Ask) (Request, error) {
	details := map[string]string{"flow": clip(in.Flow, 128), "reason": clip(first(in.Values[flow.FieldReason]), 256), "channel": a.Channel}
	r, v, err := e.form(ctx, a, in)
	if err == nil && in.Explain && !e.draft {
		err = e.explained.once(r)
	}
	if err == nil && !e.draft {
		err = e.notTooMany(ctx, r)
	}
	if err == nil {
		err = e.permit(ctx, a, ActionAsk, e.FlowARN(clip(in.Flow, 128)), details)
	} else {
		err = e.refused(ctx, a, ActionAsk, e.FlowARN(clip(in.Flow, 128)), details, err)
	}
	if err != nil {
		return Request{}, err
	}
	events, err := v.judge(ctx, a)
	if err != nil {
		return Request{}, e.refused(ctx, a, ActionAsk, e.FlowARN(r.Frozen.Flow.Name), details, err)
	}
	if in.Explain {
		v.r.Revision = 0
		return v.r, nil
	}
	if err := e.config.Store.CreateRequest(ctx, v.r, events); err != nil {
		return Request{}, err
	}
	e.changed(ctx, v.r, events)
	return e.beginAtOnce(ctx, a, v.r), nil
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// permit asks the policies.
func (e *Engine) permit(ctx context.Context, a Actor, action, resource string, details map[string]string) error {
	if e.config.Policies == nil {
		return nil
	}
	return e.config.Policies.Permit(ctx, a, action, resource, details)
}

// permitOnce returns what asks the policies about a step of a request until they permit it, and
// not again: a step that is judged anew, because others came first, is one record.
func (e *Engine) permitOnce(a Actor, action, id string, details map[string]string) func(context.Context, *view) error {
	permitted := false
	return func(ctx context.Context, v *view) error {
		if permitted {
			return nil
		}
		err := e.permit(ctx, a, action, e.RequestARN(id), v.details(details))
		permitted = err == nil
		return err
	}
}

// refused records a refusal of ours, and returns it.
func (e *Engine) refused(ctx context.Context, a Actor, action, resource string, details map[string]string, err error) error {
	because := ""
	if r := (*RefusedError)(nil); errors.As(err, &r) {
		because = r.Because
	} else if errors.Is(err, ErrHash) {
		because = "because " + err.Error()
	}
	if because != "" && e.config.Policies != nil {
		e.config.Policies.Refuse(ctx, a, action, resource, because, details)
	}
	return err
}

func refuse(format string, args ...any) error {
	return &RefusedError{Because: "because " + fmt.Sprintf(format, args...)}
}

// form finds the flow, checks who asks and what they filled in, and freezes it.
func (e *Engine) form(ctx context.Context, a Actor, in Ask) (Request, *view, error) {
	who, because, err := e.behind(ctx, a.Principal)
	if err != nil {
		return Request{}, nil, err
	}
	if because != "" {
		return Request{}, nil, &RefusedError{Because: because}
	}
	set, err := e.Flows(ctx)
	if err != nil {
		return Request{}, nil, err
	}
	f := set.Flows[in.Flow]
	v := &view{e: e, set: set, rehearse: in.Explain}
	if err := v.mayAsk(ctx, f, in.Flow, a.Channel, who); err != nil {
		return Request{}, nil, err
	}
	frozen := Frozen{
		ID: newID(), Flow: *f, SetDigest: set.Digest, Person: who, Principal: a.Principal.ARN,
		SourceIdentity: a.Principal.SourceIdentity, Channel: a.Channel, SourceIP: a.SourceIP, Created: e.now(),
	}
	if err := v.fill(ctx, f, who, in.Values, &frozen); err != nil {
		return Request{}, nil, err
	}
	if err := e.choose(ctx, f, in, &frozen); err != nil {
		return Request{}, nil, err
	}
	v.code = f.Code
	return v.freeze(frozen)
}

// mayAsk checks that a person may ask for a flow, by a channel. One that does not exist
// is refused in the same words.
func (v *view) mayAsk(ctx context.Context, f *flow.Flow, name, channel string, who flow.Person) error {
	if f == nil {
		return refuse("there is no flow %q that %s may ask for", clip(name, 64), who.Name)
	}
	has, problem := v.env(v.e.now()).among(ctx, f.Ask, who)
	switch {
	case has && !allowedChannel(f, channel):
		return refuse("flow %s takes requests by %s only", f.Name, strings.Join(f.Channels, ", "))
	case has:
		return nil
	case problem != "":
		return refuse("whether %s may ask for flow %s cannot be told: %s", who.Name, f.Name, problem)
	}
	return refuse("there is no flow %q that %s may ask for", clip(name, 64), who.Name)
}

func allowedChannel(f *flow.Flow, channel string) bool {
	return len(f.Channels) == 0 || slices.Contains(f.Channels, channel)
}

// fill checks the form.
func (v *view) fill(ctx context.Context, f *flow.Flow, who flow.Person, given flow.Values, frozen *Frozen) (err error) {
	values := flow.Values{}
	for name, list := range given {
		for _, text := range list {
			values[name] = append(values[name], tidy(text))
		}
	}
	if err := checkValues(values); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, flow.MaxRun) // of all fields together
	defer cancel()
	frozen.Values, frozen.Reason, frozen.Duration, err = f.Fill(ctx, v.codeEnv(v.e.now()), who, values)
	if err != nil {
		return err
	}
	if frozen.Values[extends] != nil {
		return &flow.FieldError{Field: extends, Problem: "is no field of forms: more time is asked for by extending a grant"}
	}
	if frozen.Duration <= 0 {
		frozen.Duration = f.Clocks.Default
	}
	if frozen.Duration <= 0 {
		frozen.Duration = defaultDuration
	}
	if longest := f.Clocks.Longest; longest > 0 && frozen.Duration > longest {
		return &flow.FieldError{Field: flow.FieldTime, Problem: fmt.Sprintf("%s is more than the %s that flow %s gives at most", frozen.Duration, longest, f.Name)}
	}
	return nil
}

// choose picks the targets that are asked for, and the nodes.
func (e *Engine) choose(ctx context.Context, f *flow.Flow, in Ask, frozen *Frozen) error {
	targets, err := chooseTargets(f, in.Targets)
	if err != nil {
		return err
	}
	if frozen.Nodes, err = e.chooseNodes(ctx, in.Nodes); err != nil {
		return err
	}
	if len(in.Nodes) > 0 {
		if targets, err = narrow(f, targets, frozen.Nodes, len(in.Targets) > 0); err != nil {
			return err
		}
	}
	for _, t := range targets {
		if outside(t) && e.config.Giver == nil {
			return refuse("this server gives nothing in AWS, which target %s of flow %s is", t.Name, f.Name)
		}
	}
	frozen.Targets = targets
	return nil
}

// outside reports whether a target is given elsewhere, by the Giver.
func outside(t flow.Target) bool {
	return t.Kind == flow.TargetPermissionSet || t.Kind == flow.TargetAWSGroup
}

func chooseTargets(f *flow.Flow, names []string) ([]flow.Target, error) {
	if len(names) == 0 {
		return slices.Clone(f.Targets), nil
	}
	var chosen []flow.Target
	for _, t := range f.Targets {
		if slices.Contains(names, t.Name) {
			chosen = append(chosen, t)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(chosen, func(t flow.Target) bool { return t.Name == name }) {
			return nil, &flow.FieldError{Field: "targets", Problem: fmt.Sprintf("flow %s has no target %q; it has %s", f.Name, clip(name, 64), targetNames(f.Targets))}
		}
	}
	return chosen, nil
}

func targetNames(targets []flow.Target) string {
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = t.Name
	}
	return strings.Join(names, ", ")
}

// chooseNodes reads the facts of the nodes that are named.
func (e *Engine) chooseNodes(ctx context.Context, ids []string) ([]flow.Node, error) {
	if len(ids) > maxAskNodes {
		return nil, &flow.FieldError{Field: "nodes", Problem: fmt.Sprintf("are %d; at most %d are allowed", len(ids), maxAskNodes)}
	}
	var nodes []flow.Node
	for _, id := range ids {
		n, err := e.config.Nodes.Node(ctx, id)
		if errors.Is(err, node.ErrNotFound) {
			n, err = node.Node{ID: id}, nil // among no targets, as one that is not offered
		}
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, seen(n))
	}
	return nodes, nil
}

// seen is a node as flows see it. The name is what administrators gave it: what an agent
// reports could be made up.
func seen(n node.Node) flow.Node {
	return flow.Node{ID: n.ID, Name: n.AssignedName(), Tags: n.Tags}
}

// narrow keeps the targets that have one of the nodes. Each node must be in one. Targets
// of other kinds are asked for by their names only, where nodes are named.
func narrow(f *flow.Flow, targets []flow.Target, nodes []flow.Node, named bool) ([]flow.Target, error) {
	for _, n := range nodes {
		if !slices.ContainsFunc(targets, func(t flow.Target) bool { return t.Nodes != nil && t.Nodes.Has(n) }) {
			return nil, refuse("flow %s does not offer node %s", f.Name, clip(n.ID, 64))
		}
	}
	var kept []flow.Target
	for _, t := range targets {
		has := t.Nodes != nil && slices.ContainsFunc(nodes, t.Nodes.Has)
		if has || named && t.Nodes == nil {
			kept = append(kept, t)
		}
	}
	return kept, nil
}

// freeze makes a pending request.
func (v *view) freeze(f Frozen) (Request, *view, error) {
	frozen, hash, err := freeze(f)
	if err != nil {
		return Request{}, nil, err
	}
	v.r = Request{
		ID: frozen.ID, Revision: 1, State: Pending, Frozen: frozen, Hash: hash,
		StageSince: frozen.Created, PendingUntil: frozen.Created.Add(pendingClock(frozen.Flow.Clocks)),
	}
	return v.r, v, nil
}

func pendingClock(c flow.Clocks) time.Duration {
	if c.Pending <= 0 {
		return defaultPending
	}
	return c.Pending
}

// notTooMany bounds what one person may have waiting, and how often they may ask.
func (e *Engine) notTooMany(ctx context.Context, r Request) error {
	person := r.Frozen.Person
	waiting, err := e.config.Store.Requests(ctx, Filter{Person: person.ID, States: []State{Pending}, Limit: maxPending})
	if err != nil {
		return err
	}
	if len(waiting) >= maxPending {
		return &RefusedError{fmt.Sprintf("because %s has %d requests waiting already; cancel some first", person.Name, maxPending), true}
	}
	lately, err := e.config.Store.Requests(ctx, Filter{Person: person.ID, Limit: maxHourly})
	if err == nil && len(lately) == maxHourly && r.Frozen.Created.Sub(lately[maxHourly-1].Frozen.Created) < time.Hour {
		err = tooOften(person)
	}
	return err
}

func tooOften(who flow.Person) error {
	return &RefusedError{fmt.Sprintf("because %s has asked %d times within the hour", who.Name, maxHourly), true}
}

// explained counts how often people have only asked what would become of a request, in this
// hour and of this member: nothing is stored of it, but flow code runs.
type explained struct {
	mu   sync.Mutex
	hour time.Time
	of   map[string]int // by person; as many as there are users
}

// once counts one time more.
func (x *explained) once(r Request) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if hour := r.Frozen.Created.Truncate(time.Hour); !hour.Equal(x.hour) {
		x.hour, x.of = hour, map[string]int{}
	}
	who := r.Frozen.Person
	if x.of[who.ID] >= maxHourly {
		return tooOften(who)
	}
	x.of[who.ID]++
	return nil
}

// judge decides what can be decided without people: prohibitions first, then what is
// approved by itself. What goes wrong leaves the decision to people.
func (v *view) judge(ctx context.Context, a Actor) ([]Event, error) {
	events := []Event{v.event(KindRequested, a.Principal.ARN, a.Channel, v.r.Frozen.Reason)}
	verdict, judged := v.rules(ctx)
	if verdict.Forbid != "" {
		return append(events, v.deny(verdict.Forbid, "rule "+verdict.Forbid, "prohibited by "+verdict.Forbid)), v.done()
	}
	t, failed := v.hook(ctx, flow.HookRequest, v.r.Frozen.Person, a.Channel, v.r.Frozen.Reason)
	rule := verdict.Permit
	switch t.Kind {
	case flow.Deny:
		return append(events, v.deny("code", "code", orElse(t.Message, "the flow's code denied it"))), v.done()
	case flow.Ignore:
		return nil, refuse("flow %s refuses: %s", v.r.Frozen.Flow.Name, orElse(t.Message, "its code says no"))
	case flow.Approve:
		rule = orElse(rule, "code")
	case flow.Forward:
		v.r.Of = t.To
	}
	if v.r.Frozen.Flow.BreakGlass != nil {
		if err := v.mayBreakGlass(a); err != nil {
			return nil, err
		}
		rule = orElse(rule, "break-glass")
	}
	if rule != "" && judged && !failed {
		return v.approvedBy(events, rule, a)
	}
	if len(v.r.Frozen.Flow.Stages) == 0 && v.r.Of == nil {
		because := "no rule permits it, and flow " + v.r.Frozen.Flow.Name + " has nobody who decides"
		return append(events, v.deny("", "policy", because)), v.done()
	}
	v.lookAhead(ctx)
	return events, v.done()
}

// lookAhead finds out what goes wrong in asking who decides, for those who do decide to
// see.
func (v *view) lookAhead(ctx context.Context) {
	at := v.e.now()
	a := v.deciders(ctx, v.r.Stage, at)
	for _, schedule := range a.own.OnCall {
		_, err := v.env(at).OnCall(ctx, schedule)
		v.warn("people", err)
	}
}

// done keeps the warnings that came up.
func (v *view) done() error {
	v.r.Warnings = appendWarnings(v.r.Warnings, v.warnings)
	v.warnings = nil
	return nil
}

const maxWarnings = 20

func appendWarnings(have, more []string) []string {
	for _, w := range more {
		if !slices.Contains(have, w) && len(have) < maxWarnings {
			have = append(have, w)
		}
	}
	return have
}

// rules asks what decides by itself; judged is false where it could not be asked.
func (v *view) rules(ctx context.Context) (verdict Verdict, judged bool) {
	return v.rulesAbout(ctx, v.facts())
}

// rulesAgain asks about what was asked for, and about the same with who asked and the nodes
// as they are by now: what either forbids is forbidden, and only both together permit.
func (v *view) rulesAgain(ctx context.Context) (verdict Verdict, judged bool) {
	verdict, judged = v.rules(ctx)
	if verdict.Forbid != "" {
		return verdict, judged
	}
	facts, err := v.factsNow(ctx)
	if err != nil {
		v.warn("rules", err)
		return Verdict{}, false
	}
	now, judgedNow := v.rulesAbout(ctx, facts)
	if now.Forbid != "" || now.Permit == "" {
		verdict = now
	}
	return verdict, judged && judgedNow
}

// factsNow are the facts with what may have changed about people and nodes. What is not
// there any more is as it was.
func (v *view) factsNow(ctx context.Context) (flow.Facts, error) {
	facts := v.facts()
	who, because, err := v.e.byID(ctx, facts.Person.ID)
	if err != nil {
		return facts, err
	}
	if because == "" {
		facts.Person = who
	}
	facts.Nodes = slices.Clone(facts.Nodes)
	for i, was := range facts.Nodes {
		n, err := v.e.config.Nodes.Node(ctx, was.ID)
		if errors.Is(err, node.ErrNotFound) {
			continue
		}
		if err != nil {
			return facts, err
		}
		facts.Nodes[i] = seen(n)
	}
	return facts, nil
}

func (v *view) rulesAbout(ctx context.Context, facts flow.Facts) (verdict Verdict, judged bool) {
	if v.e.config.Rules == nil {
		if v.r.Frozen.Flow.Cedar != "" {
			v.warn("rules", errors.New("this server has no rules, but the flow has a Cedar policy"))
			return Verdict{}, false
		}
		return Verdict{}, true
	}
	verdict, err := v.e.config.Rules.Decide(ctx, &v.r.Frozen.Flow, facts)
	if err != nil {
		v.warn("rules", err)
		return Verdict{Forbid: verdict.Forbid}, false
	}
	return verdict, true
}

// mayBreakGlass checks what break-glass demands of who asks: a second factor, a reason.
func (v *view) mayBreakGlass(a Actor) error {
	if !recentFactor(a.Principal, v.e.now()) {
		return refuse("flow %s is break-glass, which demands a second factor that was shown within 15 minutes", v.r.Frozen.Flow.Name)
	}
	if strings.TrimSpace(v.r.Frozen.Reason) == "" {
		return &flow.FieldError{Field: flow.FieldReason, Problem: "is required to break glass"}
	}
	return nil
}

// approvedBy approves by a rule, all stages at once.
func (v *view) approvedBy(events []Event, rule string, a Actor) ([]Event, error) {
	v.r.Decisions = append(v.r.Decisions, Decision{
		Stage: v.r.Stage, Approve: true, Rule: rule, Hash: v.r.Hash, Channel: a.Channel, At: v.e.now(),
	})
	events = append(events, v.event(KindApproved, "rule "+rule, a.Channel, ""))
	events = append(events, v.r.grant(v.e.now(), "rule "+rule, a.Channel, v.useBy())...)
	return events, v.done()
}

// deny ends the request.
func (v *view) deny(rule, by, because string) Event {
	if rule != "" {
		v.r.Decisions = append(v.r.Decisions, Decision{Stage: v.r.Stage, Rule: rule, Hash: v.r.Hash, Comment: because, At: v.e.now()})
	}
	return v.r.end(Denied, KindDenied, v.e.now(), by, "", because)
}

func (v *view) event(kind, actor, channel, comment string) Event {
	return v.r.event(kind, v.e.now(), actor, channel, comment)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
