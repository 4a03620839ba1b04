package grant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/identity"
)

// factorAge is how long ago a second factor may have been shown where a stage or a
// break-glass flow demands one.
const factorAge = 15 * time.Minute

// view is a request with what is needed to judge it: the flow files that it was made
// under, and what went wrong on the way.
type view struct {
	e        *Engine
	r        Request
	set      *flow.Set
	code     *flow.Code // nil for none
	rehearse bool       // nothing comes of it, and code asks nobody on the net
	warnings []string
}

// look makes a view of a request. Flow files that cannot be read leave its code out,
// which is a warning: then the stages' own people decide.
func (e *Engine) look(ctx context.Context, r Request) *view {
	v := &view{e: e, r: r, rehearse: r.Revision == 0}
	set, err := e.setBy(ctx, r.Frozen.SetDigest)
	if err != nil {
		v.warn("reading the flow as it was", err)
		set = &flow.Set{}
	}
	v.set = set
	if r.Frozen.Flow.Code == nil {
		return v
	}
	if f := set.Flows[r.Frozen.Flow.Name]; f != nil && f.Code != nil {
		v.code = f.Code
	} else {
		v.warn("code", fmt.Errorf("%s is not to be had", r.Frozen.Flow.Code.File))
	}
	return v
}

// warn keeps what went wrong for deciders to see, as text: others' answers may be in it, and
// are shown in terminals and chats.
func (v *view) warn(what string, err error) {
	if err != nil {
		v.warnings = append(v.warnings, what+": "+clip(visible(err.Error()), 500))
	}
}

func (v *view) env(at time.Time) env { return env{v.e, v.set, at} }

// facts are the request as code and rules see it.
func (v *view) facts() flow.Facts { return facts(v.r) }

func facts(r Request) flow.Facts {
	f := r.Frozen
	out := flow.Facts{
		ID: r.ID, Flow: f.Flow.Name, Person: f.Person, Values: f.Values, Reason: f.Reason, Duration: f.Duration,
		Targets: f.Targets, Nodes: f.Nodes, Channel: f.Channel, Created: f.Created, State: string(r.State),
	}
	for _, d := range r.Decisions {
		if d.Approve && d.Struck == "" && d.By.Name != "" {
			out.Approvals = append(out.Approvals, d.By.Name)
		}
	}
	return out
}

// hook runs what the flow's code has before a step. Its errors are warnings, and the
// step takes its course; failed tells of one.
func (v *view) hook(ctx context.Context, name string, actor flow.Person, channel, comment string) (t flow.Transition, failed bool) {
	if v.code == nil {
		return t, false
	}
	t, err := v.code.On(ctx, v.codeEnv(v.e.now()), name, flow.Happening{Facts: v.facts(), Actor: actor, Channel: channel, Comment: comment})
	if errors.Is(err, flow.ErrNoFunction) {
		return flow.Transition{}, false
	}
	if err != nil {
		v.warn("on_"+name, err)
		return flow.Transition{}, true
	}
	return t, false
}

// allotted are those who decide in a stage beside the stage's own rules.
type allotted struct {
	own       flow.People  // of the stage, of its code, or whom it was forwarded to
	fallback  *flow.People // who may decide, too
	allowSelf bool
	forwarded bool // own are whom it was forwarded to
}

// deciders are those who decide in a stage.
func (v *view) deciders(ctx context.Context, stage int, at time.Time) allotted {
	s := v.r.stage(stage)
	a := allotted{own: s.Of, allowSelf: s.AllowSelf}
	if s.Fallback != nil && (stage != v.r.Stage || v.r.Fallen || !at.Before(v.r.fallbackAt())) {
		a.fallback = &s.Fallback.Of
	}
	if stage == v.r.Stage && v.r.Of != nil {
		a.own, a.forwarded = *v.r.Of, true
		return a
	}
	if v.code == nil {
		return a
	}
	p, err := v.code.Permissions(ctx, v.codeEnv(at), flow.Happening{Facts: v.facts(), Actor: v.r.Frozen.Person, Channel: v.r.Frozen.Channel})
	switch {
	case errors.Is(err, flow.ErrNoFunction):
	case err != nil:
		v.warn("get_permissions", err)
	case !p.Of.Empty():
		a.own, a.allowSelf = p.Of, p.AllowSelf
	}
	return a
}

// has reports whether a person is among those who decide.
func (a allotted) has(ctx context.Context, v *view, who flow.Person, at time.Time) bool {
	has, problem := v.env(at).among(ctx, a.own, who)
	if !has && a.fallback != nil {
		var more string
		has, more = v.env(at).among(ctx, *a.fallback, who)
		problem += more
	}
	if problem != "" {
		v.warn("people", errors.New(problem))
	}
	return has
}

// delegators are the names of those who may decide and named the person in their place.
func (v *view) delegators(ctx context.Context, a allotted, stage int, who flow.Person, at time.Time) []string {
	var names []string
	for _, d := range v.r.Delegates {
		if d.Stage != stage || !strings.EqualFold(d.To, who.Name) {
			continue
		}
		from, err := v.env(at).Person(ctx, d.From)
		if err == nil && a.has(ctx, v, from, at) {
			names = append(names, from.Name)
		}
	}
	return names
}

// right is somebody's right to decide.
type right struct {
	who    flow.Person
	of     *flow.People // see Decision.Of
	deputy string
}

// mayDecide works out whether a principal may decide in the current stage, and why not.
func (v *view) mayDecide(ctx context.Context, p identity.Principal) (right, string, error) {
	r, because, err := v.decides(ctx, p)
	if err == nil && because == "" && v.r.current().SecondFactor && !recentFactor(p, v.e.now()) {
		because = "because " + v.stageName() + " demands a second factor that was shown within 15 minutes: sign in again with one, at the terminal or in the browser"
	}
	return r, because, err
}

// decides is mayDecide, whatever second factor was shown.
func (v *view) decides(ctx context.Context, p identity.Principal) (right, string, error) {
	who, because, err := v.e.behind(ctx, p)
	if err != nil || because != "" {
		return right{}, because, err
	}
	if because := v.waits(); because != "" {
		return right{}, because, nil
	}
	at := v.e.now()
	return v.entitled(ctx, p, who, v.deciders(ctx, v.r.Stage, at), at)
}

// entitled is the right of somebody, who acts as a principal, among those who decide in the
// current stage.
func (v *view) entitled(ctx context.Context, p identity.Principal, who flow.Person, a allotted, at time.Time) (right, string, error) {
	r := right{who: who}
	if a.forwarded {
		r.of = &a.own
	}
	voices := []string{who.Name}
	deputy := !a.has(ctx, v, who, at)
	if deputy {
		voices = v.delegators(ctx, a, v.r.Stage, who, at)
	}
	if len(voices) == 0 {
		because, err := v.notSelf(ctx, p, who, a.allowSelf)
		return r, orElse(because, "because "+who.Name+" is not among those who decide in "+v.stageName()), err
	}
	because, err := v.distinct(ctx, p, who, a.allowSelf)
	if err != nil || because != "" {
		return r, because, err
	}
	for _, name := range voices {
		if because, err = v.voiced(ctx, name, at); err != nil || because == "" {
			if deputy {
				r.deputy = name
			}
			return r, "", err
		}
	}
	return r, because, nil
}

// voiced says that somebody's voice was used: by themselves, under any of their names, or by
// whom they named in their place. Everybody has one, however many deputies they name.
func (v *view) voiced(ctx context.Context, name string, at time.Time) (because string, err error) {
	whose := func(name string) string {
		p, err := v.env(at).Person(ctx, name)
		if err != nil {
			return "" // is nobody any more
		}
		return p.ID
	}
	for _, d := range v.r.Decisions {
		if d.Rule != "" || d.Struck != "" {
			continue
		}
		one, other, by := whose(name), d.By.ID, ""
		if d.For != "" {
			other, by = whose(d.For), ", by "+d.By.Name
		}
		same := strings.EqualFold(name, orElse(d.For, d.By.Name))
		if !same && one != "" && other != "" {
			if same, err = v.e.linked(ctx, one, other); err != nil {
				return "", err
			}
		}
		if same {
			return "because " + name + " has decided already" + by, nil
		}
	}
	return "", nil
}

// waits says why nobody can decide; empty if the request waits for a decision.
func (v *view) waits() string {
	if v.r.State != Pending {
		return "because the request is " + strings.ToLower(string(v.r.State))
	}
	if !v.e.now().Before(v.r.expiresAt()) {
		return "because its time to be decided is over"
	}
	return ""
}

func (v *view) stageName() string {
	name := v.r.current().Name
	if name == "" {
		return fmt.Sprintf("stage %d of flow %s", v.r.Stage+1, v.r.Frozen.Flow.Name)
	}
	return fmt.Sprintf("stage %s of flow %s", name, v.r.Frozen.Flow.Name)
}

// notSelf refuses who asked, under any of their identities.
func (v *view) notSelf(ctx context.Context, p identity.Principal, who flow.Person, allowSelf bool) (string, error) {
	same, err := v.e.samePerson(ctx, v.r, who, p.SourceIdentity)
	if err != nil || !same || allowSelf {
		return "", err
	}
	return "because nobody decides on what they ask for themselves, and flow " + v.r.Frozen.Flow.Name + " makes no exception", nil
}

// distinct refuses who asked, and who has decided already.
func (v *view) distinct(ctx context.Context, p identity.Principal, who flow.Person, allowSelf bool) (string, error) {
	if because, err := v.notSelf(ctx, p, who, allowSelf); err != nil || because != "" {
		return because, err
	}
	for _, d := range v.r.Decisions {
		if d.Rule != "" || d.Struck != "" {
			continue
		}
		again, err := v.e.linked(ctx, d.By.ID, who.ID)
		if err != nil {
			return "", err
		}
		if again {
			return "because " + who.Name + " has decided already, as " + d.By.Name, nil
		}
	}
	return "", nil
}

func recentFactor(p identity.Principal, at time.Time) bool {
	return p.MFA && at.Sub(p.MFAAt) <= factorAge && p.MFAAt.Before(at.Add(beginTolerance))
}

// MayDecide reports whether a person may decide on a request now, and why not.
func (e *Engine) MayDecide(ctx context.Context, p identity.Principal, r Request) (because string, err error) {
	_, because, err = e.look(ctx, r).mayDecide(ctx, p)
	return because, err
}

// Concerns reports whether a request waits for a person's decision, whatever second
// factor they have shown.
func (e *Engine) Concerns(ctx context.Context, p identity.Principal, r Request) (bool, error) {
	if r.State != Pending {
		return false, nil
	}
	_, because, err := e.look(ctx, r).decides(ctx, p)
	return err == nil && because == "", err
}

// Deciders are the people who may decide on a request now, at most limit.
func (e *Engine) Deciders(ctx context.Context, r Request, limit int) ([]flow.Person, error) {
	v := e.look(ctx, r)
	if v.waits() != "" {
		return nil, nil
	}
	at := e.now()
	a := v.deciders(ctx, r.Stage, at)
	all, err := v.env(at).listed(ctx, a.own, maxMembers)
	if a.fallback != nil {
		more, moreErr := v.env(at).listed(ctx, *a.fallback, maxMembers)
		all, err = append(all, more...), errors.Join(err, moreErr)
	}
	for _, d := range r.Delegates {
		if p, personErr := v.env(at).Person(ctx, d.To); d.Stage == r.Stage && personErr == nil {
			all = append(all, p)
		}
	}
	var may []flow.Person
	for _, p := range all {
		if len(may) == limit {
			break
		}
		known := slices.ContainsFunc(may, func(q flow.Person) bool { return q.ID == p.ID })
		_, because, mayErr := v.entitled(ctx, identity.Principal{}, p, a, at)
		if err = errors.Join(err, mayErr); !known && because == "" && mayErr == nil {
			may = append(may, p)
		}
	}
	if len(may) > 0 {
		return may, nil // those who can be named; who is on call may be unknown
	}
	return may, err
}

// strike judges the approvals so far once more: those of people who may not decide any
// more do not count. It returns why, by the index of the decision.
func (v *view) strike(ctx context.Context) (map[int]string, error) {
	struck := map[int]string{}
	for i, d := range v.r.Decisions {
		if !d.Approve || d.Struck != "" || d.Rule != "" {
			continue
		}
		because, err := v.stillCounts(ctx, d)
		if err != nil {
			return nil, err
		}
		if because != "" {
			struck[i] = because
		}
	}
	return struck, nil
}

// stillCounts says why an approval does not count any more. Who was on call is asked as
// of the time of the approval: a shift that ended takes nothing back. Code that chooses who
// decides chooses again, as it may know that somebody has left.
func (v *view) stillCounts(ctx context.Context, d Decision) (string, error) {
	who, because, err := v.e.byID(ctx, d.By.ID)
	if err != nil || because != "" {
		return because, err
	}
	a := v.deciders(ctx, d.Stage, d.At)
	if d.Of != nil {
		a.own = *d.Of
	}
	deputy := d.For != "" && slices.Contains(v.delegators(ctx, a, d.Stage, who, d.At), d.For)
	if !deputy && !a.has(ctx, v, who, d.At) {
		return "because " + who.Name + " is not among those who decide any more", nil
	}
	same, err := v.e.samePerson(ctx, v.r, who, "")
	if err != nil {
		return "", err
	}
	if same && !a.allowSelf {
		return "because " + who.Name + " is who asked", nil
	}
	return "", nil
}

// mayStillAsk says why who asked may not have it any more.
func (v *view) mayStillAsk(ctx context.Context) (string, error) {
	who, because, err := v.e.byID(ctx, v.r.Frozen.Person.ID)
	if err != nil || because != "" {
		return because, err
	}
	has, problem := v.env(v.e.now()).among(ctx, v.r.Frozen.Flow.Ask, who)
	if has {
		return "", nil
	}
	if problem != "" {
		return "", fmt.Errorf("asking who may ask: %s", problem)
	}
	return "because " + who.Name + " may not ask for flow " + v.r.Frozen.Flow.Name + " any more", nil
}
