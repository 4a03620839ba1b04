package client

import (
	"context"
	"time"

	"sallyport.dev/wire"
)

// Access just in time: what people ask for, and how that is decided.

// AccessFlow is a flow that the caller may ask.
type AccessFlow struct {
	Name        string         `json:"Name"`
	Label       string         `json:"Label,omitempty"`
	Description string         `json:"Description,omitempty"`
	Fields      []AccessField  `json:"Fields,omitempty"`
	Targets     []AccessTarget `json:"Targets,omitempty"`
	Problem     string         `json:"Problem,omitempty"` // with the flow's code
	BreakGlass  bool           `json:"BreakGlass,omitempty"`
}

// AccessField is a question of a flow's form; see flow.Field.
type AccessField struct {
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

// AccessTarget is something that a flow gives.
type AccessTarget struct {
	Name  string `json:"Name"`
	Label string `json:"Label,omitempty"`
	Kind  string `json:"Kind"`
	Gives string `json:"Gives"` // in words: "role FrontEndSSHAccess"
}

// AccessRequest is a request with what became of it. Times that are not set are left out.
type AccessRequest struct {
	RequestID    string              `json:"RequestId"`
	Revision     int64               `json:"Revision"`
	State        string              `json:"State"` // see grant.State
	Hash         string              `json:"Hash"`
	Flow         string              `json:"Flow"`
	Label        string              `json:"Label,omitempty"`
	Person       string              `json:"Person"` // name of who asked
	PersonID     string              `json:"PersonId"`
	Principal    string              `json:"Principal"` // ARN of who asked
	Reason       string              `json:"Reason"`
	Values       map[string][]string `json:"Values,omitempty"`
	Targets      []AccessTarget      `json:"Targets,omitempty"`
	Nodes        []AccessNode        `json:"Nodes,omitempty"`
	Channel      string              `json:"Channel,omitempty"`
	Seconds      int64               `json:"Seconds"` // asked for
	Stages       []AccessStage       `json:"Stages,omitempty"`
	Stage        int                 `json:"Stage"`
	Decisions    []AccessDecision    `json:"Decisions,omitempty"`
	MayDecide    bool                `json:"MayDecide,omitempty"` // the caller, now
	Created      wire.Time           `json:"Created"`
	PendingUntil wire.Time           `json:"PendingUntil,omitzero"`
	ApprovedAt   wire.Time           `json:"ApprovedAt,omitzero"`
	ActivateBy   wire.Time           `json:"ActivateBy,omitzero"`
	ActivatedAt  wire.Time           `json:"ActivatedAt,omitzero"`
	EndsAt       wire.Time           `json:"EndsAt,omitzero"`
	EndedAt      wire.Time           `json:"EndedAt,omitzero"`
	EndedBy      string              `json:"EndedBy,omitempty"`
	Because      string              `json:"Because,omitempty"`
	Extensions   []AccessExtension   `json:"Extensions,omitempty"`
	Review       *AccessReview       `json:"Review,omitempty"`
	Warnings     []string            `json:"Warnings,omitempty"`
	Events       []AccessEvent       `json:"Events,omitempty"` // GetAccessRequest only
}

// AccessNode is a node that a request names.
type AccessNode struct {
	NodeID string `json:"NodeId"`
	Name   string `json:"Name,omitempty"`
}

// AccessStage is a step of the decision.
type AccessStage struct {
	Name         string   `json:"Name"`
	Approvals    int      `json:"Approvals"`
	Deciders     string   `json:"Deciders"`          // in words: "groups frontend, backend"
	People       []string `json:"People,omitempty"`  // names of those who may decide now, some of them
	Comment      string   `json:"Comment,omitempty"` // see flow.Comment
	SecondFactor bool     `json:"SecondFactor,omitempty"`
}

// AccessDecision is one word on a request.
type AccessDecision struct {
	Stage   int       `json:"Stage"`
	Approve bool      `json:"Approve"`
	By      string    `json:"By"` // name of a person, or the rule
	Comment string    `json:"Comment,omitempty"`
	Channel string    `json:"Channel,omitempty"`
	At      wire.Time `json:"At"`
	Struck  string    `json:"Struck,omitempty"`
}

// AccessExtension is more time for a grant.
type AccessExtension struct {
	Seconds   int64     `json:"Seconds"`
	Reason    string    `json:"Reason,omitempty"`
	Asked     wire.Time `json:"Asked"`
	RequestID string    `json:"RequestId,omitempty"` // of the request that decides on it
	Until     wire.Time `json:"Until,omitzero"`
}

// AccessReview is the review of a break-glass grant.
type AccessReview struct {
	Due     wire.Time `json:"Due,omitzero"`
	By      string    `json:"By,omitempty"`
	At      wire.Time `json:"At,omitzero"`
	Outcome string    `json:"Outcome,omitempty"`
	Comment string    `json:"Comment,omitempty"`
}

// AccessEvent is a step in a request's life.
type AccessEvent struct {
	Kind    string    `json:"Kind"`
	At      wire.Time `json:"At"`
	Actor   string    `json:"Actor,omitempty"`
	Channel string    `json:"Channel,omitempty"`
	Comment string    `json:"Comment,omitempty"`
	State   string    `json:"State"`
}

// ListFlowsInput narrows the flows to those that would let the caller start sessions on a
// node, where one is named.
type ListFlowsInput struct {
	NodeID   string `json:"NodeId,omitempty"`
	Document string `json:"Document,omitempty"`
	RunAs    string `json:"RunAs,omitempty"`
	Channel  string `json:"Channel,omitempty"` // cli unless given
}

// ListFlowsOutput are flows; with a node the most fitting first, and of each only the
// targets that help.
type ListFlowsOutput struct {
	Flows []AccessFlow `json:"Flows"`
}

// ListFlows returns the flows that the caller may ask.
func (a *API) ListFlows(ctx context.Context, in ListFlowsInput) (*ListFlowsOutput, error) {
	return call[ListFlowsOutput](ctx, a, "ListFlows", in)
}

// RequestAccessInput is what is asked for.
type RequestAccessInput struct {
	Flow    string              `json:"Flow"`
	Targets []string            `json:"Targets,omitempty"` // names; all of the flow's unless given
	NodeIDs []string            `json:"NodeIds,omitempty"`
	Reason  string              `json:"Reason,omitempty"`
	Seconds int64               `json:"Seconds,omitempty"` // the flow's default unless given
	Values  map[string][]string `json:"Values,omitempty"`
	Channel string              `json:"Channel,omitempty"` // cli unless given; ssh is the server's to say
	DryRun  bool                `json:"DryRun,omitempty"`  // only checks, and says who would decide
}

// RequestAccess asks.
func (a *API) RequestAccess(ctx context.Context, in RequestAccessInput) (*AccessRequest, error) {
	return call[AccessRequest](ctx, a, "RequestAccess", in)
}

// ListAccessRequestsInput selects requests, newest first: the caller's own and those that
// they may decide on, and those of everybody for who may by policy.
type ListAccessRequestsInput struct {
	Mine      bool     `json:"Mine,omitempty"`
	ToDecide  bool     `json:"ToDecide,omitempty"`
	Person    string   `json:"Person,omitempty"` // name
	Flow      string   `json:"Flow,omitempty"`
	States    []string `json:"States,omitempty"`
	Review    bool     `json:"Review,omitempty"` // with an open review
	Limit     int      `json:"Limit,omitempty"`
	NextToken string   `json:"NextToken,omitempty"`
}

// ListAccessRequestsOutput is a page of requests.
type ListAccessRequestsOutput struct {
	Requests  []AccessRequest `json:"Requests"`
	NextToken string          `json:"NextToken,omitempty"`
}

// ListAccessRequests lists requests.
func (a *API) ListAccessRequests(ctx context.Context, in ListAccessRequestsInput) (*ListAccessRequestsOutput, error) {
	return call[ListAccessRequestsOutput](ctx, a, "ListAccessRequests", in)
}

// GetAccessRequestInput names a request. With Wait the answer comes once its revision is
// above After, at the latest after so long (up to 20 s).
type GetAccessRequestInput struct {
	RequestID string `json:"RequestId"`
	After     int64  `json:"After,omitempty"`
	Wait      int64  `json:"Wait,omitempty"` // seconds
}

// GetAccessRequest returns a request with its events.
func (a *API) GetAccessRequest(ctx context.Context, in GetAccessRequestInput) (*AccessRequest, error) {
	return call[AccessRequest](ctx, a, "GetAccessRequest", in)
}

// DecideInput is a decision on the request that has the hash.
type DecideInput struct {
	RequestID string `json:"RequestId"`
	Hash      string `json:"Hash"`
	Comment   string `json:"Comment,omitempty"`
}

// ApproveRequest approves, as far as the caller may.
func (a *API) ApproveRequest(ctx context.Context, in DecideInput) (*AccessRequest, error) {
	return call[AccessRequest](ctx, a, "ApproveRequest", in)
}

// DenyRequest denies, which ends the request.
func (a *API) DenyRequest(ctx context.Context, in DecideInput) (*AccessRequest, error) {
	return call[AccessRequest](ctx, a, "DenyRequest", in)
}

// StepInput is another step of a request: To names a person (DelegateRequest), Reason says
// why (RevokeRequest, ExtendRequest, ReviewRequest), Seconds how much longer
// (ExtendRequest), Outcome is justified or unjustified (ReviewRequest).
type StepInput struct {
	RequestID string `json:"RequestId"`
	To        string `json:"To,omitempty"`
	Reason    string `json:"Reason,omitempty"`
	Seconds   int64  `json:"Seconds,omitempty"`
	Outcome   string `json:"Outcome,omitempty"`
}

// Steps of a request, for Step.
const (
	DelegateRequest = "DelegateRequest"
	CancelRequest   = "CancelRequest"
	ActivateRequest = "ActivateRequest"
	ReleaseRequest  = "ReleaseRequest"
	RevokeRequest   = "RevokeRequest"
	ExtendRequest   = "ExtendRequest"
	ReviewRequest   = "ReviewRequest"
)

// Step takes a step of a request.
func (a *API) Step(ctx context.Context, step string, in StepInput) (*AccessRequest, error) {
	return call[AccessRequest](ctx, a, step, in)
}

// Over reports whether the request has come to its end.
func (r *AccessRequest) Over() bool {
	return r.State != "Pending" && r.State != "Approved" && r.State != "Active"
}

// Left is how long the grant still holds.
func (r *AccessRequest) Left(now time.Time) time.Duration {
	if r.State != "Active" {
		return 0
	}
	return max(0, r.EndsAt.Sub(now))
}
