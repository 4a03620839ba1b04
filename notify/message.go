package notify

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
)

// Message is what is told of a request: the one model that Slack, webhooks, mail and the
// page render, each in its own way. Its texts are single lines, clipped and free of
// control characters, but not escaped.
type Message struct {
	Event    *MessageEvent     `json:"event,omitempty"` // what happened; none on the page
	ID       string            `json:"request"`
	Hash     string            `json:"hash"`
	Revision int64             `json:"revision"`
	State    string            `json:"state"`
	Headline string            `json:"headline"` // "carol asks for FrontEnd"
	Flow     string            `json:"flow"`
	Label    string            `json:"label"`
	Person   string            `json:"person"`
	As       string            `json:"as"` // ARN of who asked
	Reason   string            `json:"reason"`
	Values   []MessageValue    `json:"values,omitempty"`
	Targets  []string          `json:"targets"`
	Nodes    []string          `json:"nodes,omitempty"`
	Duration string            `json:"duration"`
	Stage    *MessageStage     `json:"stage,omitempty"` // while it waits for a decision
	Decided  []MessageDecision `json:"decisions,omitempty"`
	Outcome  string            `json:"outcome"` // what became of it
	Warnings []string          `json:"warnings,omitempty"`
	Glass    bool              `json:"break_glass,omitempty"`
	Review   string            `json:"review,omitempty"`
	Asked    time.Time         `json:"asked"`
	Until    *time.Time        `json:"until,omitempty"` // of the grant, or of waiting
	Left     string            `json:"left,omitempty"`  // until then
	URL      string            `json:"url,omitempty"`   // of the page
}

// MessageEvent is what a message is sent for.
type MessageEvent struct {
	ID      string    `json:"id"` // of the delivery: the same in each try
	Kind    string    `json:"kind"`
	At      time.Time `json:"at"`
	By      string    `json:"by,omitempty"`
	Channel string    `json:"channel,omitempty"`
	Comment string    `json:"comment,omitempty"`
}

// MessageValue is one answer of the form.
type MessageValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// MessageStage is the step of the decision that a request is in.
type MessageStage struct {
	Name         string   `json:"name"`
	Number       int      `json:"number"` // from 1
	Of           int      `json:"of"`
	Approvals    int      `json:"approvals"`
	Missing      int      `json:"missing"`
	Deciders     string   `json:"deciders"`
	People       []string `json:"people,omitempty"` // names, some of them
	Comment      string   `json:"comment,omitempty"`
	SecondFactor bool     `json:"second_factor,omitempty"`
	Self         bool     `json:"self,omitempty"`
}

// MessageDecision is one word on a request.
type MessageDecision struct {
	Stage   int       `json:"stage"` // from 1
	By      string    `json:"by"`
	Approve bool      `json:"approve"`
	Comment string    `json:"comment,omitempty"`
	Channel string    `json:"channel,omitempty"`
	At      time.Time `json:"at"`
	Struck  string    `json:"struck,omitempty"`
}

// newMessage makes the message of a request as it is at a time. people are those who may
// decide now, and base is the URL of this server's pages, empty for none.
func newMessage(r grant.Request, people []flow.Person, now time.Time, base string) Message {
	f := r.Frozen
	m := Message{
		ID: r.ID, Hash: r.Hash, Revision: r.Revision, State: string(r.State),
		Flow: line(f.Flow.Name, maxName), Label: line(cmp.Or(f.Flow.Label, f.Flow.Name), maxName),
		Person: line(f.Person.Name, maxName), As: line(f.Principal, 200), Reason: line(f.Reason, maxReason),
		Values: messageValues(f), Duration: flow.FormatDuration(f.Duration), Asked: f.Created.UTC(),
		Glass: f.Flow.BreakGlass != nil, Warnings: lines(r.Warnings),
	}
	for _, t := range f.Targets {
		m.Targets = append(m.Targets, line(targetWords(t), 300))
	}
	for _, n := range f.Nodes {
		m.Nodes = append(m.Nodes, nodeWords(n))
	}
	m.Targets, m.Nodes = shorten(m.Targets), shorten(m.Nodes)
	m.Headline = headline(m)
	for _, d := range r.Decisions {
		m.Decided = append(m.Decided, messageDecision(d))
	}
	if r.State == grant.Pending && r.Stage < len(f.Flow.Stages) {
		m.Stage = messageStage(r, people)
	}
	m.clock(r, now)
	m.Outcome, m.Review = outcome(r, m), review(r)
	if base != "" {
		m.URL = strings.TrimSuffix(base, "/") + pathRequests + r.ID
	}
	return m
}

// about adds what the message is sent for.
func (m Message) about(e grant.Event, delivery string) Message {
	m.Event = &MessageEvent{
		ID: delivery, Kind: e.Kind, At: e.At.UTC(), By: line(who(e.Actor), maxName),
		Channel: line(e.Channel, maxName), Comment: line(e.Comment, maxComment),
	}
	return m
}

// who is the name of an actor: the last part of an ARN, or what is no ARN as it is.
func who(actor string) string {
	if !strings.HasPrefix(actor, "arn:") {
		return actor
	}
	parts := strings.SplitN(actor, ":", 6)
	if len(parts) < 6 {
		return actor
	}
	if _, rest, found := strings.Cut(parts[5], "/"); found {
		return rest
	}
	return parts[5]
}

func headline(m Message) string {
	verb := "asks for"
	if m.Glass {
		verb = "breaks the glass for"
	}
	return clip(m.Person+" "+verb+" "+m.Label, 140)
}

func messageValues(f grant.Frozen) []MessageValue {
	var out []MessageValue
	for _, name := range slices.Sorted(maps.Keys(f.Values)) {
		if name == flow.FieldReason || name == flow.FieldTime {
			continue
		}
		if len(out) == maxList {
			break
		}
		out = append(out, MessageValue{line(fieldLabel(f.Flow, name), maxName), line(strings.Join(f.Values[name], ", "), 300)})
	}
	return out
}

func fieldLabel(f flow.Flow, name string) string {
	for _, field := range f.Fields {
		if field.Name == name {
			return cmp.Or(field.Label, name)
		}
	}
	return name
}

func shorten(list []string) []string {
	if len(list) <= maxList {
		return list
	}
	return append(list[:maxList:maxList], "and "+strconv.Itoa(len(list)-maxList)+" more")
}

func nodeWords(n flow.Node) string {
	if n.Name == "" {
		return line(n.ID, maxName)
	}
	return line(n.Name, maxName) + " (" + line(n.ID, maxName) + ")"
}

// targetWords says what a target gives, behind its label.
func targetWords(t flow.Target) string {
	if t.Label != "" {
		return t.Label + ": " + t.Gives()
	}
	return t.Gives()
}

func messageDecision(d grant.Decision) MessageDecision {
	return MessageDecision{
		Stage: d.Stage + 1, By: line(cmp.Or(d.By.Name, d.Rule), maxName), Approve: d.Approve,
		Comment: line(d.Comment, maxComment), Channel: line(d.Channel, maxName), At: d.At.UTC(), Struck: line(d.Struck, maxComment),
	}
}

func messageStage(r grant.Request, people []flow.Person) *MessageStage {
	s := r.Frozen.Flow.Stages[r.Stage]
	m := &MessageStage{
		Name: line(s.Name, maxName), Number: r.Stage + 1, Of: len(r.Frozen.Flow.Stages), Approvals: max(1, s.Approvals),
		Comment: string(s.Comment), SecondFactor: s.SecondFactor, Self: s.AllowSelf,
	}
	of := s.Of
	if r.Of != nil {
		of = *r.Of
	}
	m.Deciders = line(of.String(), 300)
	m.Missing = m.Approvals
	for _, d := range r.Decisions {
		if d.Approve && d.Stage == r.Stage && d.Struck == "" {
			m.Missing = max(0, m.Missing-1)
		}
	}
	var names []string
	for _, p := range people {
		names = append(names, p.Name)
	}
	m.People = lines(names)
	return m
}

// clock fills in how long something still lasts.
func (m *Message) clock(r grant.Request, now time.Time) {
	var until time.Time
	switch r.State {
	case grant.Pending:
		until = r.PendingUntil
	case grant.Approved:
		until = r.ActivateBy
	case grant.Active:
		until = r.EndsAt
	}
	if until.IsZero() {
		return
	}
	until = until.UTC()
	m.Until, m.Left = &until, words(max(0, until.Sub(now)))
}

// outcome says what became of a request, in one line.
func outcome(r grant.Request, m Message) string {
	by := line(who(r.EndedBy), maxName)
	switch r.State {
	case grant.Pending:
		if m.Stage == nil {
			return "waits"
		}
		s := "waits for " + plural(m.Stage.Missing, "approval", "approvals") + " of " + m.Stage.Deciders
		if m.Stage.Of > 1 {
			s += fmt.Sprintf(" (stage %d of %d)", m.Stage.Number, m.Stage.Of)
		}
		return s
	case grant.Approved:
		return "approved" + approvers(m) + "; begins with its first use"
	case grant.Active:
		return "granted" + approvers(m) + ", until " + clockTime(r.EndsAt)
	case grant.Denied:
		return "denied by " + cmp.Or(by, "a rule") + because(r.Because)
	case grant.Cancelled:
		return "cancelled by " + m.Person
	case grant.Expired:
		return "expired: nobody decided in time"
	case grant.Lapsed:
		return "lapsed: approved, but not used in time"
	case grant.Released:
		return "given back by " + m.Person
	case grant.Revoked:
		return "revoked by " + by + because(r.Because)
	case grant.Ended:
		return "ended: its time was up"
	}
	return strings.ToLower(string(r.State))
}

func because(text string) string {
	if text == "" {
		return ""
	}
	return ": " + line(text, maxComment)
}

// approvers names who approved: " by bob and dave".
func approvers(m Message) string {
	var names []string
	for _, d := range m.Decided {
		if d.Approve && d.Struck == "" && !slices.Contains(names, d.By) {
			names = append(names, d.By)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " by " + strings.Join(names, ", ")
}

func review(r grant.Request) string {
	v := r.Review
	switch {
	case v == nil:
		return ""
	case !v.At.IsZero():
		return line(v.Outcome, maxName) + ", says " + line(v.By.Name, maxName) + because(v.Comment)
	case v.Due.IsZero():
		return "open"
	}
	return "open, due " + clockTime(v.Due)
}

func clockTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

func plural(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + several
}

// words writes how long something still lasts, as people say it: 30m, 1h30m, 2d1h, to the
// minute, or below one in seconds. What was asked for is exact: flow.FormatDuration.
func words(d time.Duration) string {
	if d < time.Minute {
		return d.Round(time.Second).String()
	}
	d = d.Round(time.Minute)
	days, hours, minutes := d/(24*time.Hour), d%(24*time.Hour)/time.Hour, d%time.Hour/time.Minute
	var s string
	for _, part := range []struct {
		n    time.Duration
		unit string
	}{{days, "d"}, {hours, "h"}, {minutes, "m"}} {
		if part.n > 0 {
			s += strconv.Itoa(int(part.n)) + part.unit
		}
	}
	return s
}
