package client

import (
	"context"

	"sallyport.dev/wire"
)

// SimulateAccessInput is a draft of the configuration (the one in force where Files is
// empty), and what to ask of it: what a principal may do on a node, and how the requests
// and sessions of lately would end.
type SimulateAccessInput struct {
	Files     map[string]string `json:"Files,omitempty"`
	Principal string            `json:"Principal,omitempty"`
	NodeID    string            `json:"NodeId,omitempty"`
	Document  string            `json:"Document,omitempty"`
	RunAs     string            `json:"RunAs,omitempty"`
	Replay    int               `json:"Replay,omitempty"`
}

// SimulateAccessOutput tells what is now and under the draft, and what would change.
type SimulateAccessOutput struct {
	Now      *SimulatedAccess `json:"Now,omitempty"`
	Draft    *SimulatedAccess `json:"Draft,omitempty"`
	Replayed int              `json:"Replayed"`
	Changed  []ReplayedAccess `json:"Changed"`
}

// SimulatedAccess is what a principal may do on a node.
type SimulatedAccess struct {
	Principal string          `json:"Principal"`
	NodeID    string          `json:"NodeId"`
	Decision  string          `json:"Decision"` // Allowed, ExplicitlyDenied, ImplicitlyDenied
	Message   string          `json:"Message,omitempty"`
	Flows     []SimulatedFlow `json:"Flows"`
}

// SimulatedFlow is a flow that would help.
type SimulatedFlow struct {
	Flow   string `json:"Flow"`
	Target string `json:"Target"`
	Gives  string `json:"Gives"`
	Stages string `json:"Stages"`
}

// ReplayedAccess is a request or a session that would end differently.
type ReplayedAccess struct {
	ID     string    `json:"Id"`
	Kind   string    `json:"Kind"`
	Person string    `json:"Person"`
	What   string    `json:"What"`
	At     wire.Time `json:"At"`
	Was    string    `json:"Was"`
	Would  string    `json:"Would"`
}

// SimulateAccess rehearses a draft.
func (a *API) SimulateAccess(ctx context.Context, in SimulateAccessInput) (*SimulateAccessOutput, error) {
	return call[SimulateAccessOutput](ctx, a, "SimulateAccess", in)
}

// AccessReviewed are the findings of a review of access.
type AccessReviewed struct {
	Standing []struct {
		Person, Flow, Target, What, Policy string
	} `json:"Standing"`
	Unused []struct {
		RequestID string    `json:"RequestId"`
		Person    string    `json:"Person"`
		Flow      string    `json:"Flow"`
		From      wire.Time `json:"From"`
		To        wire.Time `json:"To,omitzero"`
	} `json:"Unused"`
	Self []struct{ Person, Flow, Why string } `json:"Self"`
	Keys []struct {
		NodeID      string    `json:"NodeId"`
		Name        string    `json:"Name,omitempty"`
		Login       string    `json:"Login"`
		File        string    `json:"File"`
		Fingerprint string    `json:"Fingerprint"`
		Type        string    `json:"Type"`
		Comment     string    `json:"Comment,omitempty"`
		Authority   bool      `json:"Authority,omitempty"`
		Reported    wire.Time `json:"Reported"`
	} `json:"Keys"`
	Silent []string `json:"Silent,omitempty"` // nodes that report no keys
	Users  int      `json:"Users"`
	Nodes  int      `json:"Nodes"`
}

// ReviewAccess looks for ways around asking.
func (a *API) ReviewAccess(ctx context.Context) (*AccessReviewed, error) {
	return call[AccessReviewed](ctx, a, "ReviewAccess", struct{}{})
}
