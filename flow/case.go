package flow

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"sallyport.dev/internal/tags"
)

const (
	maxCases     = 1000 // of one file
	maxCaseSteps = 100  // of one case
)

// Cases are what a NAME.flowtest.hcl says: a world of people, nodes and answers, and
// cases that play flows in it. Nothing of it needs a server.
type Cases struct {
	File string
	// Files are the flow files that the cases are about, relative to File; all those beside
	// it unless given.
	Files []string
	cases []testCase
}

// testCase is a case: its world, and its steps in order.
type testCase struct {
	name  string
	at    hcl.Range
	flow  string
	world caseWorld
	steps []caseStep
}

// caseStep is one thing that happens, or that is expected.
type caseStep struct {
	at   hcl.Range
	play func(ctx context.Context, p *play)
}

// CaseResult is what came of a case.
type CaseResult struct {
	File     string        `json:"file"`
	Line     int           `json:"line"`
	Name     string        `json:"name"`
	Passed   bool          `json:"passed"`
	Failures []CaseFailure `json:"failures,omitempty"`
	Printed  []string      `json:"printed,omitempty"` // by the flow's code
}

// CaseFailure is an expectation that did not come true.
type CaseFailure struct {
	Line int    `json:"line"`
	What string `json:"what"`
	Want string `json:"want"`
	Got  string `json:"got"`
}

// ParseCases reads a file of cases. Errors are *ParseError.
func ParseCases(file string, source []byte) (*Cases, error) {
	p := &problems{}
	body := readBody(p, file, source)
	if body == nil {
		return nil, p.err()
	}
	r := &reader{problems: p, what: "cases", at: hcl.Range{Filename: file}, body: body}
	c := &Cases{File: file, Files: r.texts("files")}
	world := caseWorld{now: r.now(caseWorld{now: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)})}
	world.read(r)
	for _, t := range r.all("test", maxCases) {
		c.cases = append(c.cases, t.testCase(world))
	}
	r.done()
	if len(c.cases) == 0 && len(p.all) == 0 {
		r.wrong(r.at, `want at least one block test "WHAT" { … }`)
	}
	return c, p.err()
}

// now reads the time at which things happen.
func (r *reader) now(otherwise caseWorld) time.Time {
	text := r.text("now")
	if text == "" {
		return otherwise.now
	}
	at, err := startOf(text, time.UTC)
	if err != nil {
		r.wrong(r.where("now"), "now: %v", err)
	}
	return at
}

// testCase reads a case in a world, of which it may change a part.
func (r *reader) testCase(world caseWorld) testCase {
	c := testCase{name: r.label(), at: r.at, flow: r.text("flow"), world: world.clone()}
	c.world.now = r.now(world)
	c.world.read(r)
	c.steps = r.steps(&c)
	if len(c.steps) == 0 {
		r.wrong(r.at, `want steps: ask "PERSON" { … }, approve, deny, wait, hook, and expect { … }`)
	}
	r.done()
	return c
}

// steps reads what happens, in the order of the file.
func (r *reader) steps(c *testCase) []caseStep {
	var steps []caseStep
	add := func(kind string, read func(*reader) func(context.Context, *play)) {
		for _, b := range r.all(kind, maxCaseSteps) {
			steps = append(steps, caseStep{b.at, read(b)})
		}
	}
	add("ask", func(b *reader) func(context.Context, *play) { return b.askStep(c) })
	add("approve", func(b *reader) func(context.Context, *play) { return b.wordStep(c, true) })
	add("deny", func(b *reader) func(context.Context, *play) { return b.wordStep(c, false) })
	add("wait", (*reader).waitStep)
	add("hook", func(b *reader) func(context.Context, *play) { return b.hookStep(c) })
	add("expect", (*reader).expectStep)
	slices.SortFunc(steps, func(a, b caseStep) int { return cmp.Compare(a.at.Start.Byte, b.at.Start.Byte) })
	return steps
}

// who is the person that a step names.
func (r *reader) who(c *testCase) string {
	name := r.label()
	if _, ok := c.world.people[name]; !ok && name != "" {
		r.wrong(r.at, `there is no person %q; want a block person %q { … }`, name, name)
	}
	return name
}

func (r *reader) askStep(c *testCase) func(context.Context, *play) {
	name := r.who(c)
	a := asking{
		channel:      r.text("channel"),
		targets:      r.texts("targets"),
		nodes:        r.texts("nodes"),
		values:       Values{},
		secondFactor: r.flag("second_factor"),
	}
	for field, values := range r.sets("values") {
		a.values[field] = values
	}
	for _, field := range []string{FieldReason, FieldTime} {
		if text := r.text(field); text != "" {
			a.values[field] = []string{text}
		}
	}
	if a.channel == "" {
		a.channel = "cli"
	}
	r.done()
	for _, id := range a.nodes {
		if _, ok := c.world.nodes[id]; !ok {
			r.wrong(r.where("nodes"), `there is no node %q; want a block node %q { … }`, id, id)
		}
	}
	if c.flow == "" {
		r.wrong(c.at, `want flow = the name of the flow that is asked`)
	}
	return func(ctx context.Context, p *play) { p.ask(ctx, p.world.people[name], a) }
}

func (r *reader) wordStep(c *testCase, approve bool) func(context.Context, *play) {
	name := r.who(c)
	w := saying{approve: approve, comment: r.text("comment"), channel: r.text("channel"), secondFactor: r.flag("second_factor")}
	if w.channel == "" {
		w.channel = "cli"
	}
	refused := r.text("refused")
	r.done()
	return func(ctx context.Context, p *play) {
		got := p.word(ctx, p.world.people[name], w)
		p.contains(r.at, "refused", refused, got)
	}
}

func (r *reader) waitStep() func(context.Context, *play) {
	if len(r.labels) != 1 {
		r.wrong(r.at, `want wait "30m" {}`)
		return func(context.Context, *play) {}
	}
	d, err := ParseDuration(r.labels[0])
	if err != nil {
		r.wrong(r.at, "%v", err)
	}
	r.done()
	return func(_ context.Context, p *play) { p.wait(d) }
}

func (r *reader) hookStep(c *testCase) func(context.Context, *play) {
	name, by, comment := r.label(), r.text("by"), r.text("comment")
	if hooks := []string{HookRequest, HookApprove, HookDeny, HookActivate, HookExpire, HookRevoke}; name != "" && !known(hooks, name) {
		r.wrong(r.at, "%q is no hook; want %s", name, oneOf(hooks))
	}
	if _, ok := c.world.people[by]; !ok && by != "" {
		r.wrong(r.where("by"), "by: there is no person %q", by)
	}
	r.done()
	return func(ctx context.Context, p *play) {
		actor := p.facts.Person
		if by != "" {
			actor = p.world.people[by]
		}
		p.transition, _ = p.hook(ctx, name, actor, p.facts.Channel, comment)
	}
}

// caseWorld is what a case takes for given.
type caseWorld struct {
	now    time.Time
	people map[string]Person
	nodes  map[string]Node
	duty   map[string]caseDuty
	net    []caseAnswer
}

type caseDuty struct {
	users   []string
	problem string
}

type caseAnswer struct {
	method, url string
	status      int
	body        string
	problem     string
}

// clone copies a world so that a case can change it.
func (w caseWorld) clone() caseWorld {
	c := caseWorld{now: w.now, people: map[string]Person{}, nodes: map[string]Node{}, duty: map[string]caseDuty{}}
	for k, v := range w.people {
		c.people[k] = v
	}
	for k, v := range w.nodes {
		c.nodes[k] = v
	}
	for k, v := range w.duty {
		c.duty[k] = v
	}
	c.net = slices.Clone(w.net)
	return c
}

// read adds the blocks of a world: person, node, on_call and http.
func (w *caseWorld) read(r *reader) {
	if w.people == nil {
		*w = w.clone()
	}
	for _, b := range r.all("person", maxList) {
		p := Person{Name: b.label(), Groups: b.texts("groups"), Tags: b.tags(), ID: b.text("id"), ARN: b.text("arn")}
		if p.ID == "" {
			p.ID = "AIDA-" + p.Name
		}
		b.done()
		w.people[p.Name] = p
	}
	for _, b := range r.all("node", maxList) {
		n := Node{ID: b.label(), Name: b.text("name"), Tags: b.tags()}
		b.done()
		w.nodes[n.ID] = n
	}
	for _, b := range r.all("on_call", maxList) {
		name, duty := b.label(), caseDuty{b.texts("users"), b.text("error")}
		b.done()
		w.duty[name] = duty
	}
	var net []caseAnswer
	for _, b := range r.all("http", maxList) {
		net = append(net, caseAnswer{
			url: b.label(), method: b.text("method"), status: b.number("status", 200, 100, 599), body: b.text("body"), problem: b.text("error"),
		})
		b.done()
	}
	w.net = append(net, w.net...)
}

// tags reads tags; several values become one with commas between, as nodes bear them.
func (r *reader) tags() tags.Tags {
	var out tags.Tags
	for key, values := range r.sets("tags") {
		if out == nil {
			out = tags.Tags{}
		}
		for i, v := range values {
			if i > 0 {
				out[key] += ", "
			}
			out[key] += v
		}
	}
	return out
}
