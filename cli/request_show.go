package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

func (p *program) newShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show [ID]",
		Short: "Show a request for access, and what became of it",
		Long: `Show a request for access: who asks for what, why and for how long, who decides and who
has decided, and every step of its life. ID may be a unique beginning; without it, it is
your only one that is not over.`,
		Example: `  sallyport show
  sallyport show oi-0123456789ab
  sallyport show 0123 --json`,
		Args:              between(0, 1, "want at most the ID of a request"),
		ValidArgsFunction: p.completeRequests(),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			req, err := p.toShow(cmd.Context(), api, args)
			if err != nil {
				return err
			}
			return p.printRequest(req)
		},
	}
}

// toShow is the request that is named, or the caller's only one that is not over.
func (p *program) toShow(ctx context.Context, api *client.API, args []string) (*client.AccessRequest, error) {
	if len(args) > 0 {
		return p.requestNamed(ctx, api, args[0])
	}
	own, err := ownActive(ctx, api, statePending, stateApproved, stateActive)
	if err != nil {
		return nil, err
	}
	return p.requestNamed(ctx, api, own.RequestID) // with its history, which a list has not
}

func (p *program) printRequest(req *client.AccessRequest) error {
	if p.flags.json {
		return p.writeJSON(requestJSON(req))
	}
	_, err := fmt.Fprint(p.stdout, requestText(req)+historyText(req))
	return err
}

// facts are lines of a name and what is to be said of it.
type facts struct{ b strings.Builder }

func (f *facts) add(name, text string) {
	if text != "" {
		fmt.Fprintf(&f.b, "  %-11s %s\n", name, client.CleanLine(text))
	}
}

func (f *facts) at(name string, t client.Time) {
	if !t.IsZero() {
		f.add(name, clock(t.Time))
	}
}

// requestText is a request as deciders see it. Every line begins with a word of ours, so
// that no reason can look like another line.
func requestText(req *client.AccessRequest) string {
	var f facts
	id := req.RequestID
	if id == "" {
		id = "(not asked for yet)"
	}
	fmt.Fprintf(&f.b, "%s  %s\n", client.CleanLine(id), client.CleanLine(req.State))
	f.add("who", strings.TrimSpace(req.Person+" ("+req.Principal+")"))
	f.add("flow", withLabel(req.Flow, req.Label))
	f.add("more time", strings.Join(req.Values[valueExtends], ", "))
	for _, t := range req.Targets {
		f.add("gives", withLabel(t.Gives, t.Label))
	}
	for _, n := range req.Nodes {
		f.add("node", withLabel(n.NodeID, n.Name))
	}
	f.add("for", lengthText(time.Duration(req.Seconds)*time.Second))
	f.add("reason", req.Reason)
	for _, name := range slices.Sorted(maps.Keys(req.Values)) {
		if name != fieldReason && name != fieldDuration && name != valueExtends {
			f.add("field", name+" = "+strings.Join(req.Values[name], ", "))
		}
	}
	f.add("by way of", req.Channel)
	for i, s := range req.Stages {
		f.add("decides", stageText(req, i, s))
	}
	for _, d := range req.Decisions {
		f.add("decision", decisionText(d)+" ("+d.Channel+", "+clock(d.At.Time)+")")
	}
	for _, w := range req.Warnings {
		f.add("warning", w)
	}
	f.times(req)
	f.add("hash", req.Hash)
	return f.b.String()
}

func (f *facts) times(req *client.AccessRequest) {
	f.at("asked", req.Created)
	switch req.State {
	case statePending:
		f.at("waits until", req.PendingUntil)
	case stateApproved:
		f.at("use until", req.ActivateBy)
	case stateActive:
		f.at("began", req.ActivatedAt)
		f.at("holds until", req.EndsAt)
	default:
		f.at("ended", req.EndedAt)
		by := byWhom(req.EndedBy)
		if strings.HasSuffix(req.Because, " by "+req.EndedBy[strings.LastIndexByte(req.EndedBy, '/')+1:]) {
			by = "" // who denied without a comment is all there is to say
		}
		f.add("because", strings.TrimPrefix(req.Because+by, " "))
	}
	for _, e := range req.Extensions {
		f.add("extension", extensionText(e))
	}
	if r := req.Review; r != nil {
		f.add("review", reviewText(r))
	}
}

func byWhom(who string) string {
	if who == "" {
		return ""
	}
	return " (by " + who + ")"
}

func withLabel(name, label string) string {
	if label == "" || label == name {
		return name
	}
	return name + " (" + label + ")"
}

func stageText(req *client.AccessRequest, i int, s client.AccessStage) string {
	text := fmt.Sprintf("%d of %s", max(s.Approvals, 1), s.Deciders)
	if len(s.People) > 0 {
		text += ": " + shortList(s.People, 8)
	}
	if s.SecondFactor {
		text += "; a second factor is needed"
	}
	if s.Comment != "" {
		text += "; comment " + strings.ReplaceAll(s.Comment, "_", " ")
	}
	if req.State == statePending && i == req.Stage && len(req.Stages) > 1 {
		text += " (now)"
	}
	return text
}

func extensionText(e client.AccessExtension) string {
	text := lengthText(time.Duration(e.Seconds) * time.Second)
	switch {
	case !e.Until.IsZero():
		text += ", until " + clock(e.Until.Time)
	case e.RequestID != "":
		text += ", decided on by " + e.RequestID
	}
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

func reviewText(r *client.AccessReview) string {
	if r.At.IsZero() {
		return "open, due " + clock(r.Due.Time)
	}
	text := r.Outcome + byWhom(r.By)
	if r.Comment != "" {
		text += ": " + r.Comment
	}
	return text
}

// historyText is every step of a request's life.
func historyText(req *client.AccessRequest) string {
	var b strings.Builder
	for _, e := range req.Events {
		line := fmt.Sprintf("  %s  %-10s", clock(e.At.Time), e.Kind)
		if e.Actor != "" {
			line += " " + e.Actor
		}
		if e.Channel != "" {
			line += " by way of " + e.Channel
		}
		if e.Comment != "" {
			line += ": " + e.Comment
		}
		b.WriteString("  " + client.CleanLine(line) + "\n")
	}
	if b.Len() == 0 {
		return ""
	}
	return "  history\n" + b.String()
}

// jsonRequest is the contract of request, requests, show and the steps with --json.
type jsonRequest struct {
	ID           string              `json:"id"`
	State        string              `json:"state"`
	Hash         string              `json:"hash"`
	Revision     int64               `json:"revision"`
	Flow         string              `json:"flow"`
	Label        string              `json:"label,omitempty"`
	Person       string              `json:"person"`
	Principal    string              `json:"principal"`
	Reason       string              `json:"reason"`
	Values       map[string][]string `json:"values,omitempty"`
	Targets      []jsonTarget        `json:"targets"`
	Nodes        []jsonRequestNode   `json:"nodes,omitempty"`
	Channel      string              `json:"channel,omitempty"`
	Seconds      int64               `json:"seconds"`
	Stage        int                 `json:"stage"`
	Stages       []jsonStage         `json:"stages"`
	Decisions    []jsonDecision      `json:"decisions"`
	MayDecide    bool                `json:"may_decide"`
	Created      *time.Time          `json:"created,omitempty"`
	PendingUntil *time.Time          `json:"pending_until,omitempty"`
	ApprovedAt   *time.Time          `json:"approved_at,omitempty"`
	ActivateBy   *time.Time          `json:"activate_by,omitempty"`
	ActivatedAt  *time.Time          `json:"activated_at,omitempty"`
	EndsAt       *time.Time          `json:"ends_at,omitempty"`
	EndedAt      *time.Time          `json:"ended_at,omitempty"`
	EndedBy      string              `json:"ended_by,omitempty"`
	Because      string              `json:"because,omitempty"`
	Extensions   []jsonExtension     `json:"extensions,omitempty"`
	Review       *jsonReview         `json:"review,omitempty"`
	Warnings     []string            `json:"warnings,omitempty"`
	Events       []jsonEvent         `json:"events,omitempty"`
}

type jsonTarget struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Gives string `json:"gives"`
}

type jsonRequestNode struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

type jsonStage struct {
	Name         string   `json:"name,omitempty"`
	Approvals    int      `json:"approvals"`
	Deciders     string   `json:"deciders"`
	People       []string `json:"people,omitempty"`
	SecondFactor bool     `json:"second_factor,omitempty"`
}

type jsonDecision struct {
	Stage   int        `json:"stage"`
	Approve bool       `json:"approve"`
	By      string     `json:"by"`
	Comment string     `json:"comment,omitempty"`
	Channel string     `json:"channel,omitempty"`
	At      *time.Time `json:"at,omitempty"`
	Struck  string     `json:"struck,omitempty"`
}

type jsonExtension struct {
	Seconds int64      `json:"seconds"`
	Reason  string     `json:"reason,omitempty"`
	Request string     `json:"request,omitempty"`
	Until   *time.Time `json:"until,omitempty"`
}

type jsonReview struct {
	Due     *time.Time `json:"due,omitempty"`
	By      string     `json:"by,omitempty"`
	At      *time.Time `json:"at,omitempty"`
	Outcome string     `json:"outcome,omitempty"`
	Comment string     `json:"comment,omitempty"`
}

type jsonEvent struct {
	Kind    string     `json:"kind"`
	At      *time.Time `json:"at,omitempty"`
	Actor   string     `json:"actor,omitempty"`
	Channel string     `json:"channel,omitempty"`
	Comment string     `json:"comment,omitempty"`
	State   string     `json:"state"`
}

func requestJSON(r *client.AccessRequest) jsonRequest {
	j := jsonRequest{
		ID: r.RequestID, State: r.State, Hash: r.Hash, Revision: r.Revision, Flow: r.Flow, Label: r.Label,
		Person: r.Person, Principal: r.Principal, Reason: r.Reason, Values: r.Values, Channel: r.Channel,
		Seconds: r.Seconds, Stage: r.Stage, MayDecide: r.MayDecide,
		Created: moment(r.Created), PendingUntil: moment(r.PendingUntil), ApprovedAt: moment(r.ApprovedAt),
		ActivateBy: moment(r.ActivateBy), ActivatedAt: moment(r.ActivatedAt), EndsAt: moment(r.EndsAt), EndedAt: moment(r.EndedAt),
		EndedBy: r.EndedBy, Because: r.Because, Warnings: r.Warnings,
		Targets: []jsonTarget{}, Stages: []jsonStage{}, Decisions: []jsonDecision{},
	}
	for _, t := range r.Targets {
		j.Targets = append(j.Targets, jsonTarget{t.Name, t.Kind, t.Gives})
	}
	for _, n := range r.Nodes {
		j.Nodes = append(j.Nodes, jsonRequestNode{n.NodeID, n.Name})
	}
	for _, s := range r.Stages {
		j.Stages = append(j.Stages, jsonStage{s.Name, s.Approvals, s.Deciders, s.People, s.SecondFactor})
	}
	j.addHistory(r)
	return j
}

func (j *jsonRequest) addHistory(r *client.AccessRequest) {
	for _, d := range r.Decisions {
		j.Decisions = append(j.Decisions, jsonDecision{d.Stage, d.Approve, d.By, d.Comment, d.Channel, moment(d.At), d.Struck})
	}
	for _, e := range r.Extensions {
		j.Extensions = append(j.Extensions, jsonExtension{e.Seconds, e.Reason, e.RequestID, moment(e.Until)})
	}
	if v := r.Review; v != nil {
		j.Review = &jsonReview{moment(v.Due), v.By, moment(v.At), v.Outcome, v.Comment}
	}
	for _, e := range r.Events {
		j.Events = append(j.Events, jsonEvent{e.Kind, moment(e.At), e.Actor, e.Channel, e.Comment, e.State})
	}
}
