package server

import (
	"context"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/wire"
)

// Requests and flows as callers see them; client/request.go has the same shapes.

type accessFlow struct {
	Name        string         `json:"Name"`
	Label       string         `json:"Label,omitempty"`
	Description string         `json:"Description,omitempty"`
	Fields      []accessField  `json:"Fields,omitempty"`
	Targets     []accessTarget `json:"Targets,omitempty"`
	Problem     string         `json:"Problem,omitempty"`
	BreakGlass  bool           `json:"BreakGlass,omitempty"`
}

type accessField struct {
	Name     string   `json:"Name"`
	Label    string   `json:"Label,omitempty"`
	Help     string   `json:"Help,omitempty"`
	Type     string   `json:"Type"`
	Required bool     `json:"Required,omitempty"`
	Default  []string `json:"Default,omitempty"`
	Allowed  []string `json:"Allowed,omitempty"`
	Pattern  string   `json:"Pattern,omitempty"`
	Message  string   `json:"Message,omitempty"`
}

type accessTarget struct {
	Name  string `json:"Name"`
	Label string `json:"Label,omitempty"`
	Kind  string `json:"Kind"`
	Gives string `json:"Gives"`
}

type accessRequest struct {
	RequestID    string              `json:"RequestId"`
	Revision     int64               `json:"Revision"`
	State        string              `json:"State"`
	Hash         string              `json:"Hash"`
	Flow         string              `json:"Flow"`
	Label        string              `json:"Label,omitempty"`
	Person       string              `json:"Person"`
	PersonID     string              `json:"PersonId"`
	Principal    string              `json:"Principal"`
	Reason       string              `json:"Reason"`
	Values       map[string][]string `json:"Values,omitempty"`
	Targets      []accessTarget      `json:"Targets,omitempty"`
	Nodes        []accessNode        `json:"Nodes,omitempty"`
	Channel      string              `json:"Channel,omitempty"`
	Seconds      int64               `json:"Seconds"`
	Stages       []accessStage       `json:"Stages,omitempty"`
	Stage        int                 `json:"Stage"`
	Decisions    []accessDecision    `json:"Decisions,omitempty"`
	MayDecide    bool                `json:"MayDecide,omitempty"`
	Created      wire.Time           `json:"Created"`
	PendingUntil wire.Time           `json:"PendingUntil,omitzero"`
	ApprovedAt   wire.Time           `json:"ApprovedAt,omitzero"`
	ActivateBy   wire.Time           `json:"ActivateBy,omitzero"`
	ActivatedAt  wire.Time           `json:"ActivatedAt,omitzero"`
	EndsAt       wire.Time           `json:"EndsAt,omitzero"`
	EndedAt      wire.Time           `json:"EndedAt,omitzero"`
	EndedBy      string              `json:"EndedBy,omitempty"`
	Because      string              `json:"Because,omitempty"`
	Extensions   []accessExtension   `json:"Extensions,omitempty"`
	Review       *accessReview       `json:"Review,omitempty"`
	Warnings     []string            `json:"Warnings,omitempty"`
	Events       []accessEvent       `json:"Events,omitempty"`
}

type accessNode struct {
	NodeID string `json:"NodeId"`
	Name   string `json:"Name,omitempty"`
}

type accessStage struct {
	Name         string   `json:"Name"`
	Approvals    int      `json:"Approvals"`
	Deciders     string   `json:"Deciders"`
	People       []string `json:"People,omitempty"`
	Comment      string   `json:"Comment,omitempty"`
	SecondFactor bool     `json:"SecondFactor,omitempty"`
}

type accessDecision struct {
	Stage   int       `json:"Stage"`
	Approve bool      `json:"Approve"`
	By      string    `json:"By"`
	Comment string    `json:"Comment,omitempty"`
	Channel string    `json:"Channel,omitempty"`
	At      wire.Time `json:"At"`
	Struck  string    `json:"Struck,omitempty"`
}

type accessExtension struct {
	Seconds   int64     `json:"Seconds"`
	Reason    string    `json:"Reason,omitempty"`
	Asked     wire.Time `json:"Asked"`
	RequestID string    `json:"RequestId,omitempty"`
	Until     wire.Time `json:"Until,omitzero"`
}

type accessReview struct {
	Due     wire.Time `json:"Due,omitzero"`
	By      string    `json:"By,omitempty"`
	At      wire.Time `json:"At,omitzero"`
	Outcome string    `json:"Outcome,omitempty"`
	Comment string    `json:"Comment,omitempty"`
}

type accessEvent struct {
	Kind    string    `json:"Kind"`
	At      wire.Time `json:"At"`
	Actor   string    `json:"Actor,omitempty"`
	Channel string    `json:"Channel,omitempty"`
	Comment string    `json:"Comment,omitempty"`
	State   string    `json:"State"`
}

func showOffer(o grant.Offer, targets []flow.Target) accessFlow {
	f := accessFlow{
		Name: o.Flow.Name, Label: o.Flow.Label, Description: o.Flow.Description,
		Targets: showTargets(targets), Problem: o.Problem, BreakGlass: o.Flow.BreakGlass != nil,
	}
	for _, field := range o.Fields {
		f.Fields = append(f.Fields, accessField{
			Name: field.Name, Label: field.Label, Help: field.Help, Type: string(field.Type), Required: field.Required,
			Default: field.Default, Allowed: field.Allowed, Pattern: field.Pattern, Message: field.Message,
		})
	}
	return f
}

func showTargets(targets []flow.Target) []accessTarget {
	shown := make([]accessTarget, len(targets))
	for i, t := range targets {
		shown[i] = showTarget(t)
	}
	return shown
}

func showTarget(t flow.Target) accessTarget {
	return accessTarget{Name: t.Name, Label: t.Label, Kind: string(t.Kind), Gives: t.Gives()}
}

// decidersShown is how many people are named who may decide.
const decidersShown = 10

// showRequest shows a request with who may decide on it.
func (c *Call) showRequest(ctx context.Context, engine *grant.Engine, r grant.Request) (*accessRequest, error) {
	out := c.summary(ctx, engine, r)
	if r.State != grant.Pending {
		return &out, nil
	}
	deciders, err := engine.Deciders(ctx, r, decidersShown)
	if err != nil {
		out.Warnings = append(out.Warnings, err.Error()) // who is on call, say: the request waits all the same
	}
	if len(out.Stages) == 0 {
		out.Stages = []accessStage{{Approvals: 1, Deciders: deciderWords(r, 0)}}
	}
	if r.Stage < len(out.Stages) {
		for _, p := range deciders {
			out.Stages[r.Stage].People = append(out.Stages[r.Stage].People, p.Name)
		}
	}
	return &out, nil
}

// summary shows a request. A grant whose time is up has ended, whether or not its row
// says so yet.
func (c *Call) summary(ctx context.Context, engine *grant.Engine, r grant.Request) accessRequest {
	now := c.Server.config.Now()
	if r.State == grant.Active && !now.Before(r.EndsAt) {
		r.State, r.EndedAt, r.EndedBy = grant.Ended, r.EndsAt, "time"
	}
	f := r.Frozen
	out := accessRequest{
		RequestID: r.ID, Revision: r.Revision, State: string(r.State), Hash: r.Hash, Flow: f.Flow.Name, Label: f.Flow.Label,
		Person: f.Person.Name, PersonID: f.Person.ID, Principal: f.Principal, Reason: f.Reason, Values: f.Values,
		Targets: showTargets(f.Targets), Channel: f.Channel, Seconds: int64(f.Duration.Seconds()), Stage: r.Stage,
		Created: wire.Time{Time: f.Created}, PendingUntil: wire.Time{Time: r.PendingUntil}, ApprovedAt: wire.Time{Time: r.ApprovedAt},
		ActivateBy: wire.Time{Time: r.ActivateBy}, ActivatedAt: wire.Time{Time: r.ActivatedAt}, EndsAt: wire.Time{Time: r.EndsAt},
		EndedAt: wire.Time{Time: r.EndedAt}, EndedBy: r.EndedBy, Because: r.Because, Warnings: r.Warnings,
	}
	for _, n := range f.Nodes {
		out.Nodes = append(out.Nodes, accessNode{n.ID, n.Name})
	}
	out.addDecisions(r)
	if r.State == grant.Pending {
		because, err := engine.MayDecide(ctx, c.Principal, r)
		out.MayDecide = err == nil && because == ""
	}
	return out
}

func (out *accessRequest) addDecisions(r grant.Request) {
	for i, s := range r.Frozen.Flow.Stages {
		out.Stages = append(out.Stages, accessStage{
			Name: s.Name, Approvals: max(1, s.Approvals), Deciders: deciderWords(r, i), Comment: string(s.Comment), SecondFactor: s.SecondFactor,
		})
	}
	for _, d := range r.Decisions {
		by := d.By.Name
		if d.Rule != "" {
			by = d.Rule
		}
		out.Decisions = append(out.Decisions, accessDecision{d.Stage, d.Approve, by, d.Comment, d.Channel, wire.Time{Time: d.At}, d.Struck})
	}
	for _, x := range r.Extensions {
		out.Extensions = append(out.Extensions, accessExtension{int64(x.By.Seconds()), x.Reason, wire.Time{Time: x.Asked}, x.Request, wire.Time{Time: x.Until}})
	}
	if v := r.Review; v != nil {
		out.Review = &accessReview{wire.Time{Time: v.Due}, v.By.Name, wire.Time{Time: v.At}, v.Outcome, v.Comment}
	}
}

// deciderWords says who decides in a stage.
func deciderWords(r grant.Request, stage int) string {
	if stage == r.Stage && r.Of != nil {
		return r.Of.String()
	}
	if stage >= len(r.Frozen.Flow.Stages) {
		return "nobody"
	}
	s := r.Frozen.Flow.Stages[stage]
	words := s.Of.String()
	if stage == r.Stage && r.Fallen && s.Fallback != nil {
		words += " or " + s.Fallback.Of.String()
	}
	return words
}
