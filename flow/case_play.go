package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// Outcomes of a case, so far.
const (
	outcomeNone     = "nothing asked"
	outcomeRefused  = "refused" // no request is made
	outcomePending  = "pending"
	outcomeApproved = "approved"
	outcomeDenied   = "denied"
	outcomeExpired  = "expired"
)

// play is a case while it is played: what package grant does with a request, without
// store, clocks and notifications.
type play struct {
	set   *Set
	flow  *Flow
	world caseWorld

	outcome, because, rule, field string
	mayAsk                        bool
	facts                         Facts
	stage                         int
	since, until                  time.Time // of the stage; of the request
	of                            *People
	words                         []saidWord
	warnings, printed             []string
	transition                    Transition

	failures []CaseFailure
}

type asking struct {
	channel        string
	targets, nodes []string
	values         Values
	secondFactor   bool
}

type saying struct {
	approve          bool
	comment, channel string
	secondFactor     bool
}

type saidWord struct {
	stage int
	by    string
}

// Run plays every case against flows.
func (c *Cases) Run(ctx context.Context, set *Set) []CaseResult {
	out := make([]CaseResult, 0, len(c.cases))
	for _, one := range c.cases {
		p := &play{set: set, flow: set.Flows[one.flow], world: one.world.clone(), outcome: outcomeNone}
		if p.flow == nil {
			p.fail(one.at, "flow", "a flow named "+one.flow, "there is none")
		} else {
			for _, s := range one.steps {
				s.play(ctx, p)
			}
		}
		out = append(out, CaseResult{
			File: c.File, Line: one.at.Start.Line, Name: one.name,
			Passed: len(p.failures) == 0, Failures: p.failures, Printed: p.printed,
		})
	}
	return out
}

func (p *play) fail(at hcl.Range, what, want, got string) {
	p.failures = append(p.failures, CaseFailure{at.Start.Line, what, want, got})
}

// contains fails unless got has want within it; where nothing is wanted nothing may be.
func (p *play) contains(at hcl.Range, what, want, got string) {
	if want == "" && got != "" || !strings.Contains(got, want) {
		p.fail(at, what, quoteOr(want, "none"), quoteOr(got, "none"))
	}
}

func quoteOr(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (p *play) warn(what string, err error) {
	if text := what + ": " + err.Error(); !slices.Contains(p.warnings, text) {
		p.warnings = append(p.warnings, text)
	}
}

func (p *play) refuse(field, because string) {
	p.outcome, p.field, p.because = outcomeRefused, field, because
}

// ask makes a request, or says why not.
func (p *play) ask(ctx context.Context, who Person, a asking) {
	p.outcome, p.because, p.rule, p.field, p.stage, p.of, p.words, p.warnings = outcomeRefused, "", "", "", 0, nil, nil, nil
	p.facts = Facts{
		ID: "oi-000000000000", Flow: p.flow.Name, Person: who, Channel: a.channel, Created: p.world.now, State: "Pending",
	}
	p.since, p.until = p.world.now, p.world.now.Add(p.flow.Clocks.Pending)
	has, err := p.flow.Ask.Has(ctx, p, who)
	if err != nil {
		p.warn("people", err)
	}
	p.mayAsk = has
	switch {
	case !has:
		p.refuse("", who.Name+" may not ask for flow "+p.flow.Name)
		return
	case len(p.flow.Channels) > 0 && !slices.Contains(p.flow.Channels, a.channel):
		p.refuse("", "flow "+p.flow.Name+" takes requests by "+strings.Join(p.flow.Channels, ", ")+" only")
		return
	}
	if err := p.fill(ctx, who, a); err != nil {
		var f *FieldError
		if errors.As(err, &f) {
			p.refuse(f.Field, f.Problem)
		} else {
			p.refuse("", err.Error())
		}
		return
	}
	p.judge(ctx, a)
}

// fill reads the form and what is asked for.
func (p *play) fill(ctx context.Context, who Person, a asking) (err error) {
	p.facts.Values, p.facts.Reason, p.facts.Duration, err = p.flow.Fill(ctx, p, who, a.values)
	if err != nil {
		return err
	}
	p.facts.Targets = p.flow.Targets
	if len(a.targets) > 0 {
		p.facts.Targets = nil
	}
	for _, name := range a.targets {
		i := slices.IndexFunc(p.flow.Targets, func(t Target) bool { return t.Name == name })
		if i < 0 {
			return &FieldError{"targets", fmt.Sprintf("flow %s has no target %q", p.flow.Name, name)}
		}
		p.facts.Targets = append(p.facts.Targets, p.flow.Targets[i])
	}
	return p.narrow(a)
}

// narrow leaves the targets that have the nodes which are named.
func (p *play) narrow(a asking) error {
	for _, id := range a.nodes {
		n := p.world.nodes[id]
		if !slices.ContainsFunc(p.facts.Targets, func(t Target) bool { return t.Nodes.Has(n) }) {
			return &FieldError{"nodes", fmt.Sprintf("flow %s does not offer node %s", p.flow.Name, id)}
		}
		p.facts.Nodes = append(p.facts.Nodes, n)
	}
	if len(a.nodes) == 0 {
		return nil
	}
	var kept []Target
	for _, t := range p.facts.Targets {
		if slices.ContainsFunc(p.facts.Nodes, t.Nodes.Has) || len(a.targets) > 0 && t.Nodes == nil {
			kept = append(kept, t)
		}
	}
	p.facts.Targets = kept
	return nil
}

// judge decides what needs no people: prohibitions first, then what is approved by itself.
func (p *play) judge(ctx context.Context, a asking) {
	forbid, permit, err := p.flow.Rule(ctx, p.facts, p.world.now)
	if err != nil {
		p.warn("rules", err)
	}
	if forbid != "" {
		p.end(outcomeDenied, "cedar "+forbid, "prohibited by cedar "+forbid)
		return
	}
	t, failed := p.hook(ctx, HookRequest, p.facts.Person, a.channel, p.facts.Reason)
	if permit != "" {
		p.rule = "cedar " + permit
	}
	switch t.Kind {
	case Deny:
		p.end(outcomeDenied, "code", t.Message)
		return
	case Ignore:
		p.refuse("", t.Message)
		return
	case Approve:
		p.ruleOr("code")
	case Forward:
		p.of = t.To
	}
	p.settle(a, t, err != nil || failed)
}

func (p *play) ruleOr(rule string) {
	if p.rule == "" {
		p.rule = rule
	}
}

// settle grants what a rule approved, and leaves the rest to people.
func (p *play) settle(a asking, t Transition, failed bool) {
	if p.flow.BreakGlass != nil {
		if !a.secondFactor {
			p.refuse("", "flow "+p.flow.Name+" is break-glass, which demands a second factor")
			return
		}
		if p.facts.Reason == "" {
			p.refuse(FieldReason, "is required to break glass")
			return
		}
		p.ruleOr("break-glass")
	}
	switch {
	case p.rule != "" && !failed:
		p.end(outcomeApproved, p.rule, t.Message)
	case len(p.flow.Stages) == 0 && p.of == nil:
		p.end(outcomeDenied, "", "no rule permits it, and nobody decides")
	default:
		p.outcome, p.rule = outcomePending, ""
	}
}

func (p *play) end(outcome, rule, because string) {
	p.outcome, p.rule, p.because = outcome, rule, because
}

// hook runs the flow's code before a step; its errors are warnings.
func (p *play) hook(ctx context.Context, name string, actor Person, channel, comment string) (Transition, bool) {
	p.transition = Transition{}
	t, err := p.flow.Code.On(ctx, p, name, Happening{Facts: p.seen(), Actor: actor, Channel: channel, Comment: comment})
	if errors.Is(err, ErrNoFunction) {
		return Transition{}, false
	}
	if err != nil {
		p.warn("on_"+name, err)
		return Transition{}, true
	}
	p.transition = t
	return t, false
}

// seen are the facts with the approvals so far.
func (p *play) seen() Facts {
	f := p.facts
	for _, w := range p.words {
		f.Approvals = append(f.Approvals, w.by)
	}
	return f
}

func (p *play) current() Stage {
	if p.stage < len(p.flow.Stages) {
		return p.flow.Stages[p.stage]
	}
	return Stage{}
}

// wait lets time pass.
func (p *play) wait(d time.Duration) {
	p.world.now = p.world.now.Add(d)
	if p.outcome != outcomePending {
		return
	}
	s, end := p.current(), p.until
	takesOver := s.Fallback != nil && (s.Fallback.After == 0 || s.Fallback.After >= s.Within)
	if stage := p.since.Add(s.Within); s.Within > 0 && !takesOver && stage.Before(end) {
		end = stage
	}
	if !p.world.now.Before(end) {
		p.end(outcomeExpired, "", "nobody decided in time")
	}
}

// mayDecide says why a person may not decide now; empty if they may.
func (p *play) mayDecide(ctx context.Context, who Person) string {
	if p.outcome != outcomePending {
		return "the request is " + p.outcome
	}
	of, self := p.deciders(ctx)
	if !slices.ContainsFunc(of, func(o People) bool { return p.among(ctx, o, who) }) {
		return who.Name + " is not among those who decide in stage " + p.current().Name
	}
	if who.ID == p.facts.Person.ID && !self {
		return "nobody decides on what they ask for themselves"
	}
	if slices.ContainsFunc(p.words, func(w saidWord) bool { return w.by == who.Name }) {
		return who.Name + " has decided already"
	}
	return ""
}

func (p *play) among(ctx context.Context, of People, who Person) bool {
	has, err := of.Has(ctx, p, who)
	if err != nil {
		p.warn("people", err)
	}
	return has
}

// deciders are those who decide now, and whether who asked may be one of them.
func (p *play) deciders(ctx context.Context) (of []People, self bool) {
	s := p.current()
	own, self := s.Of, s.AllowSelf
	if p.of != nil {
		own = *p.of
	} else if said, err := p.flow.Code.Permissions(ctx, p, Happening{Facts: p.seen(), Actor: p.facts.Person, Channel: p.facts.Channel}); err == nil {
		own, self = said.Of, said.AllowSelf
	} else if !errors.Is(err, ErrNoFunction) {
		p.warn(FunctionPermissions, err)
	}
	of = []People{own}
	if s.Fallback != nil {
		after := s.Fallback.After
		if after == 0 {
			after = s.Within
		}
		if !p.world.now.Before(p.since.Add(after)) {
			of = append(of, s.Fallback.Of)
		}
	}
	return of, self
}

// word takes one person's decision and returns why it is refused.
func (p *play) word(ctx context.Context, who Person, w saying) (refused string) {
	if because := p.mayDecide(ctx, who); because != "" {
		return because
	}
	s := p.current()
	switch {
	case s.SecondFactor && !w.secondFactor:
		return "stage " + s.Name + " demands a second factor"
	case len(p.flow.Channels) > 0 && !slices.Contains(p.flow.Channels, w.channel):
		return "flow " + p.flow.Name + " takes decisions by " + strings.Join(p.flow.Channels, ", ") + " only"
	case w.comment == "" && (s.Comment == CommentAlways || s.Comment == CommentOnDeny && !w.approve):
		return "comment: is required"
	}
	name := HookDeny
	if w.approve {
		name = HookApprove
	}
	t, failed := p.hook(ctx, name, who, w.channel, w.comment)
	switch {
	case t.Kind == Ignore:
		return t.Message
	case t.Kind == Forward:
		p.of = t.To
	case t.Kind == Deny:
		p.end(outcomeDenied, "code", t.Message)
	case !w.approve:
		p.end(outcomeDenied, who.Name, w.comment)
	case t.Kind == Approve && !failed:
		p.end(outcomeApproved, "code", t.Message)
	default:
		p.approve(ctx, who)
	}
	return ""
}

// approve counts an approval, and goes on to the next stage after the last of one. What
// is prohibited by now is prohibited.
func (p *play) approve(ctx context.Context, who Person) {
	if forbid, _, _ := p.flow.Rule(ctx, p.seen(), p.world.now); forbid != "" {
		p.end(outcomeDenied, "cedar "+forbid, "prohibited by cedar "+forbid)
		return
	}
	p.words = append(p.words, saidWord{p.stage, who.Name})
	if p.missing() > 0 {
		return
	}
	if p.stage+1 < len(p.flow.Stages) {
		p.stage, p.since, p.of = p.stage+1, p.world.now, nil
		return
	}
	p.end(outcomeApproved, "", "")
}

// missing is how many approvals the stage still lacks.
func (p *play) missing() int {
	have := 0
	for _, w := range p.words {
		if w.stage == p.stage {
			have++
		}
	}
	return max(1, p.current().Approvals) - have
}
