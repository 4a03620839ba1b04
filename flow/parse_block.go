package flow

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const (
	maxName    = 64
	maxFields  = 50
	maxTargets = 100
	maxStages  = 10
	day        = 24 * time.Hour
	maxPending = 30 * day  // of every clock before a grant
	maxGrant   = 366 * day // of a grant
)

// Clocks of a flow that does not set them.
const (
	DefaultPending = time.Hour
	DefaultGrant   = time.Hour
	DefaultReview  = 24 * time.Hour
)

// channels are where one may ask and decide.
var channels = [...]string{"cli", "api", "ssh", "slack", "web", "email"}

// happenings are what may be announced; see grant.Event.
var happenings = [...]string{
	"requested", "approved", "stage", "fallback", "reminder", "delegated", "granted", "activated",
	"denied", "cancelled", "expired", "lapsed", "warning", "extension", "extended", "released",
	"revoked", "ended", "struck", "reviewDue", "reviewed", "alarm",
}

var (
	nameForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	fieldForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	userForm  = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
)

func validName(s string) bool { return len(s) <= maxName && nameForm.MatchString(s) }

// people reads who is meant. A missing block means nobody.
func (p *parser) people(r *reader) People {
	if r == nil {
		return People{}
	}
	of := People{
		Everyone: r.flag("everyone"),
		Users:    r.texts("users"),
		Groups:   r.texts("groups"),
		Tags:     r.sets("tags"),
		OnCall:   r.texts("on_call"),
	}
	r.done()
	for _, name := range slices.Concat(of.Users, of.Groups) {
		if !userForm.MatchString(name) {
			r.wrong(r.at, "%q is no name of a user or group", name)
		}
	}
	for _, name := range of.OnCall {
		if p.set.Schedules[name] == nil && !p.broken("schedule", name) {
			r.wrong(r.where("on_call"), "on_call: there is no schedule %q%s", name, p.schedules())
		}
	}
	return of
}

// broken reports whether a block was seen though it was not kept: its own mistakes tell.
func (p *parser) broken(typ, name string) bool {
	_, ok := p.seen[typ+" "+name]
	return ok
}

func (p *parser) schedules() string {
	if len(p.set.Schedules) == 0 {
		return `; want a block schedule "NAME" { … }`
	}
	names := make([]string, 0, len(p.set.Schedules))
	for name := range p.set.Schedules {
		names = append(names, name)
	}
	slices.Sort(names)
	return "; there are " + allOf(names)
}

// must is people who may not be nobody.
func (p *parser) must(r *reader, block string) People {
	of := p.people(r.one(block))
	if of.Empty() {
		r.wrong(r.at, "selects nobody; want %s { … } with users, groups, tags, on_call or everyone = true", block)
	}
	return of
}

func (p *parser) clocks(r *reader) Clocks {
	if r == nil {
		return Clocks{Pending: DefaultPending, Default: DefaultGrant, Longest: DefaultGrant}
	}
	c := Clocks{
		Pending:       r.duration("pending", DefaultPending, time.Second, maxPending),
		ActivateBy:    r.duration("activate_by", 0, time.Second, maxPending),
		Default:       r.duration("default", 0, time.Second, maxGrant),
		Longest:       r.duration("longest", 0, time.Second, maxGrant),
		Extension:     r.duration("extension", 0, time.Second, maxGrant),
		Extensions:    r.number("extensions", 0, 0, 100),
		ExtendWithout: r.flag("extend_without"),
	}
	r.done()
	if c.Default == 0 {
		c.Default = DefaultGrant
		if c.Longest > 0 {
			c.Default = min(c.Default, c.Longest)
		}
	}
	if c.Longest == 0 {
		c.Longest = min(c.Default+time.Duration(c.Extensions)*c.Extension, maxGrant)
	}
	switch {
	case c.Longest < c.Default:
		r.wrong(r.where("longest"), "longest is %s, less than the default of %s", FormatDuration(c.Longest), FormatDuration(c.Default))
	case c.Extensions > 0 && c.Extension == 0:
		r.wrong(r.where("extensions"), "extensions without extension = how long one is")
	case c.Extensions == 0 && (c.Extension > 0 || c.ExtendWithout):
		r.wrong(r.at, "extension and extend_without want extensions = how many there may be")
	}
	return c
}

func (p *parser) announce(blocks []*reader) []Announce {
	var out []Announce
	for _, r := range blocks {
		a := Announce{
			On:      p.known(r, "on", happenings[:]),
			Slack:   r.texts("slack"),
			Email:   r.texts("email"),
			Webhook: r.texts("webhook"),
		}
		r.done()
		if len(a.Slack)+len(a.Email)+len(a.Webhook) == 0 {
			r.wrong(r.at, "tells nobody; want slack, email or webhook")
		}
		for _, e := range a.Email {
			if !strings.Contains(e, "@") || strings.ContainsAny(e, " \r\n\t<>") {
				r.wrong(r.where("email"), "email: %q is no address", e)
			}
		}
		out = append(out, a)
	}
	return out
}

func (p *parser) breakGlass(r *reader) *BreakGlass {
	if r == nil {
		return nil
	}
	b := &BreakGlass{
		Review:       p.must(r, "review"),
		ReviewWithin: r.duration("review_within", DefaultReview, time.Second, maxPending),
	}
	r.done()
	return b
}

func (p *parser) stages(r *reader) []Stage {
	var out []Stage
	for _, s := range r.all("stage", maxStages) {
		stage := p.stage(s)
		if slices.ContainsFunc(out, func(o Stage) bool { return o.Name == stage.Name }) {
			s.wrong(s.at, "there are two of this name")
		}
		out = append(out, stage)
	}
	return out
}

func (p *parser) stage(r *reader) Stage {
	s := Stage{
		Name:         r.label(),
		Approvals:    r.number("approvals", 1, 1, 100),
		Of:           p.must(r, "of"),
		Within:       r.duration("within", 0, time.Second, maxPending),
		Fallback:     p.fallback(r.one("fallback")),
		Remind:       r.duration("remind", 0, time.Minute, maxPending),
		AllowSelf:    r.flag("allow_self"),
		SecondFactor: r.flag("second_factor"),
		Delegate:     r.flag("delegate"),
	}
	if c := r.choice("comment", "never", string(CommentAlways), string(CommentOnDeny)); c != "never" {
		s.Comment = Comment(c)
	}
	r.done()
	if s.Name != "" && !validName(s.Name) {
		r.wrong(r.at, "want a name of up to %d letters, digits, dots, dashes and underscores", maxName)
	}
	return s
}

func (p *parser) fallback(r *reader) *Fallback {
	if r == nil {
		return nil
	}
	f := &Fallback{After: r.duration("after", 0, time.Second, maxPending), Of: p.must(r, "of")}
	r.done()
	return f
}

// code finds, compiles and checks the flow's code. It also reads the block http, which
// says where that may reach.
func (p *parser) code(r *reader) *Code {
	name, web := r.text("code"), p.web(r.one("http"))
	if name == "" {
		if web != nil {
			r.wrong(r.at, "http is for code; want code = FILE%s", CodeSuffix)
		}
		return nil
	}
	at := r.where("code")
	file := beside(at.Filename, name)
	source, ok := p.files[file]
	if !ok || !strings.HasSuffix(name, CodeSuffix) {
		r.wrong(at, "code: there is no file %s%s", file, p.codeFiles())
		return nil
	}
	c := &Code{File: file, Source: string(source), HTTP: web}
	if err := c.gather(p.files); err != nil {
		r.codeProblem(at, err)
		return nil
	}
	if c.ready = p.programs[file]; c.ready != nil {
		return c // of another flow
	}
	ready, err := c.compile()
	if err != nil {
		r.codeProblem(at, err)
		return nil
	}
	c.ready, p.programs[file] = ready, ready
	return c
}

func (p *parser) codeFiles() string {
	var names []string
	for name := range p.files {
		if strings.HasSuffix(name, CodeSuffix) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "; there are no files " + CodeSuffix
	}
	slices.Sort(names)
	return "; there are " + allOf(names)
}

// codeProblem notes a mistake in code where it stands.
func (r *reader) codeProblem(at hcl.Range, err error) {
	if e, ok := err.(*CodeError); ok && e.Line > 0 {
		r.problems.add(hcl.Range{Filename: e.File, Start: hcl.Pos{Line: e.Line}}, "%s", e.Text)
		return
	}
	r.wrong(at, "code: %v", err)
}

func (p *parser) web(r *reader) *HTTP {
	if r == nil {
		return nil
	}
	h := &HTTP{
		AllowHosts: r.texts("allow_hosts"),
		Timeout:    r.duration("timeout", defaultFetch, time.Second, maxFetch),
	}
	r.done()
	if len(h.AllowHosts) == 0 {
		r.wrong(r.at, `want allow_hosts = ["api.example.com"]`)
	}
	for _, host := range h.AllowHosts {
		if err := checkHost(host); err != nil {
			r.wrong(r.where("allow_hosts"), "allow_hosts: %v", err)
		}
	}
	return h
}

// schedule reads who is on call.
func (p *parser) schedule(b *hclsyntax.Block) {
	r := newReader(&p.problems, b)
	name := r.label()
	if name == "" || !p.fresh(r, name) {
		return
	}
	if len(p.set.Schedules) == maxSchedules {
		r.wrong(r.at, "more than %d schedules", maxSchedules)
		return
	}
	s := &Schedule{Name: name, Rota: p.rota(r.one("rota"))}
	if s.Rota != nil && r.body.Attributes["source"] == nil {
		s.Source = "rota"
	}
	if s.Source == "" {
		s.Source = r.choice("source", "", "pagerduty", "opsgenie", "ical", "rota")
	}
	if s.Source == "" {
		r.wrong(r.at, "want source = pagerduty, opsgenie or ical, or a block rota { … }")
	}
	if (s.Source == "rota") != (s.Rota != nil) && s.Source != "" {
		r.wrong(r.at, "a block rota { … } and source = %q do not go together", s.Source)
	}
	s.Settings = p.settings(r, s.Source)
	r.done()
	p.set.Schedules[name] = s
}

// sourceSettings are the arguments of schedules by their source, as package oncall knows
// them; the first of each is needed.
var sourceSettings = map[string][]string{
	"pagerduty": {"schedule"},
	"opsgenie":  {"schedule", "by"},
	"ical":      {"", "url", "file", "person", "pattern", "zone"},
}

func (p *parser) settings(r *reader, source string) map[string]string {
	var out map[string]string
	for i, key := range sourceSettings[source] {
		if key == "" {
			continue
		}
		value := r.text(key)
		switch {
		case value != "" && out == nil:
			out = map[string]string{key: value}
		case value != "":
			out[key] = value
		case i == 0:
			r.wrong(r.at, "%s is required", key)
		}
	}
	if source == "ical" && (out["url"] == "") == (out["file"] == "") {
		r.wrong(r.at, "want one of url and file")
	}
	return out
}

func (p *parser) rota(r *reader) *Rota {
	if r == nil {
		return nil
	}
	rota := &Rota{
		Shift: r.duration("shift", 0, time.Minute, maxGrant),
		Users: r.texts("users"),
		Zone:  r.text("zone"),
		Hours: r.text("hours"),
		Days:  p.known(r, "days", weekdays[:]),
	}
	start := r.text("start")
	r.done()
	if rota.Shift == 0 || len(rota.Users) == 0 || start == "" {
		r.wrong(r.at, `want start = "2026-01-05T09:00:00Z", shift = "7d" and users = […]`)
	}
	zone, err := Zone(rota.Zone)
	if err != nil {
		r.wrong(r.where("zone"), "zone: %v", err)
		zone = time.UTC
	}
	if rota.Start, err = startOf(start, zone); err != nil && start != "" {
		r.wrong(r.where("start"), "start: %v", err)
	}
	if rota.Hours != "" {
		if _, err := ParseHours(rota.Hours); err != nil {
			r.wrong(r.where("hours"), "hours: %v", err)
		}
	}
	return rota
}
