package flow

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// expectStep reads what is expected. Only what is written is compared, but for warnings:
// errors of code and sources that nobody expects fail a case.
func (r *reader) expectStep() func(context.Context, *play) {
	var checks []func(context.Context, *play)
	has := func(name string) bool { return r.body.Attributes[name] != nil }
	text := func(name string, got func(context.Context, *play) string) {
		want := r.text(name)
		if has(name) {
			checks = append(checks, func(ctx context.Context, p *play) { p.same(r, name, want, got(ctx, p)) })
		}
	}
	list := func(name string, got func(context.Context, *play) []string) {
		want := r.texts(name)
		if has(name) {
			checks = append(checks, func(ctx context.Context, p *play) { p.same(r, name, listed(want), listed(got(ctx, p))) })
		}
	}
	outcome := r.choice("outcome", "", outcomeRefused, outcomePending, outcomeApproved, outcomeDenied, outcomeExpired)
	if outcome != "" {
		checks = append(checks, func(_ context.Context, p *play) { p.sameOutcome(r, outcome) })
	}
	if may := r.flag("may_ask"); has("may_ask") {
		checks = append(checks, func(_ context.Context, p *play) {
			p.same(r, "may_ask", strconv.FormatBool(may), strconv.FormatBool(p.mayAsk))
		})
	}
	if because := r.text("because"); has("because") {
		checks = append(checks, func(_ context.Context, p *play) { p.contains(r.where("because"), "because", because, p.because) })
	}
	text("rule", func(_ context.Context, p *play) string { return p.rule })
	text("field", func(_ context.Context, p *play) string { return p.field })
	text("stage", func(_ context.Context, p *play) string { return p.stageName() })
	text("duration", func(_ context.Context, p *play) string { return FormatDuration(p.facts.Duration) })
	text("transition", func(_ context.Context, p *play) string { return string(p.transition.Kind) })
	list("targets", func(_ context.Context, p *play) []string { return p.targetNames() })
	list("deciders", func(ctx context.Context, p *play) []string { return p.deciderNames(ctx) })
	list("notifications", func(ctx context.Context, p *play) []string { return p.notifications(ctx) })
	if missing := r.number("missing", 0, 0, 100); has("missing") {
		checks = append(checks, func(_ context.Context, p *play) {
			p.same(r, "missing", strconv.Itoa(missing), strconv.Itoa(p.missing()))
		})
	}
	if review := r.flag("review"); has("review") {
		checks = append(checks, func(_ context.Context, p *play) {
			p.same(r, "review", strconv.FormatBool(review), strconv.FormatBool(p.outcome == outcomeApproved && p.flow.BreakGlass != nil))
		})
	}
	values, options, warnings := r.sets("values"), r.sets("options"), r.texts("warnings")
	r.done()
	return func(ctx context.Context, p *play) {
		for _, check := range checks {
			check(ctx, p)
		}
		for _, field := range slices.Sorted(maps.Keys(values)) {
			p.same(r, "values."+field, listed(values[field]), listed(p.facts.Values[field]))
		}
		for _, field := range slices.Sorted(maps.Keys(options)) {
			p.same(r, "options."+field, listed(options[field]), p.options(ctx, field))
		}
		p.sameWarnings(r, warnings)
	}
}

// same fails where something else came out.
func (p *play) same(r *reader, what, want, got string) {
	if want != got {
		at, _, _ := strings.Cut(what, ".")
		p.fail(r.where(at), what, quoteOr(want, "none"), quoteOr(got, "none"))
	}
}

// sameOutcome tells why, too, where another outcome came.
func (p *play) sameOutcome(r *reader, want string) {
	if want == p.outcome {
		return
	}
	got := p.outcome
	if p.field != "" {
		got += ", " + p.field
	}
	if p.because != "" {
		got += ": " + p.because
	}
	if p.rule != "" {
		got += " (" + p.rule + ")"
	}
	p.fail(r.where("outcome"), "outcome", want, got)
}

// sameWarnings compares warnings with parts of them, in any order.
func (p *play) sameWarnings(r *reader, want []string) {
	left := slices.Clone(p.warnings)
	for _, w := range want {
		i := slices.IndexFunc(left, func(s string) bool { return strings.Contains(s, w) })
		if i < 0 {
			p.fail(r.where("warnings"), "warnings", w, quoteOr(strings.Join(p.warnings, "; "), "none"))
			return
		}
		left = slices.Delete(left, i, i+1)
	}
	if len(left) > 0 {
		p.fail(r.where("warnings"), "warnings", "none"+map[bool]string{true: " but those"}[len(want) > 0], strings.Join(left, "; "))
	}
}

func listed(all []string) string { return strings.Join(all, ", ") }

func (p *play) stageName() string {
	if p.outcome != outcomePending {
		return ""
	}
	return p.current().Name
}

func (p *play) targetNames() []string {
	var out []string
	for _, t := range p.facts.Targets {
		out = append(out, t.Name)
	}
	return out
}

// deciderNames are the people of the case who may decide now, by name.
func (p *play) deciderNames(ctx context.Context) []string {
	var out []string
	for _, one := range p.everybody() {
		if p.mayDecide(ctx, one) == "" {
			out = append(out, one.Name)
		}
	}
	return out
}

// options are the allowed values of a field, for who asked.
func (p *play) options(ctx context.Context, name string) string {
	field := p.flow.Field(name)
	if field == nil {
		return "the flow has no such field"
	}
	offered, err := p.flow.Offer(ctx, p, p.facts.Person, *field)
	if err != nil {
		return err.Error()
	}
	return listed(offered.Allowed)
}

// notifications are what the code says about whom to tell, in words.
func (p *play) notifications(ctx context.Context) []string {
	all, err := p.flow.Code.Notifications(ctx, p, Happening{Facts: p.seen(), Actor: p.facts.Person, Channel: p.facts.Channel})
	if err != nil && !errors.Is(err, ErrNoFunction) {
		p.warn(FunctionNotifications, err)
	}
	var out []string
	for _, n := range all {
		out = append(out, n.String())
	}
	return out
}

// String says whom a notification tells: slack #prod, group leads, for 10m.
func (n Notification) String() string {
	var parts []string
	add := func(what string, names []string) {
		if len(names) > 0 {
			parts = append(parts, what+" "+strings.Join(names, " "))
		}
	}
	add("slack", n.Slack)
	add("email", n.Email)
	add("webhook", n.Webhook)
	if !n.People.Empty() {
		parts = append(parts, n.People.String())
	}
	if n.Timeout > 0 {
		parts = append(parts, "for "+FormatDuration(n.Timeout))
	}
	return strings.Join(parts, ", ")
}
