package grant

import (
	"context"
	"time"
)

// Filter selects requests, newest first. Zero fields do not filter.
type Filter struct {
	Person string // unique id of who asked
	Flow   string
	States []State
	Review bool      // only those with an open review
	Clocks bool      // only those that a clock is set for, as Request.Due says
	Due    time.Time // only those with a clock that is up by then, the longest first
	After  string    // continue after the request with this id
	// AfterDue is, with Due and After, what Due of that request was when it was listed.
	AfterDue time.Time
	Limit    int // 0 for all
}

// Store keeps requests, their events and the flow files. Every change of a request grows
// the revision that GrantRevision gives, in the same transaction.
type Store interface {
	CreateRequest(ctx context.Context, r Request, events []Event) error
	Request(ctx context.Context, id string) (Request, error) // ErrNotFound
	Requests(ctx context.Context, f Filter) ([]Request, error)
	// UpdateRequest applies change to the row, alone: of two at once the second sees what
	// the first has done. An error of change leaves everything as it was. change may run
	// again and must only compute.
	UpdateRequest(ctx context.Context, id string, change func(*Request) ([]Event, error)) (Request, error)
	// OpenGrants returns a person's requests that are Approved or Active.
	OpenGrants(ctx context.Context, person string) ([]Request, error)
	Events(ctx context.Context, request string) ([]Event, error)            // in order
	EventsAfter(ctx context.Context, seq int64, limit int) ([]Event, error) // of all requests, in order

	// Untold are events that the audit log does not have yet, Told notes that it has.
	Untold(ctx context.Context, limit int) ([]Event, error)
	Told(ctx context.Context, seqs []int64) error

	GrantRevision(ctx context.Context) (int64, error)

	// Flows returns the flow files in force, and their digest; none at first.
	Flows(ctx context.Context) (files map[string][]byte, digest string, err error)
	FlowsDigest(ctx context.Context) (string, error)
	FlowsBy(ctx context.Context, digest string) (map[string][]byte, error) // older ones, too
	// PutFlows puts files in force if those in force are still the ones of digest old;
	// otherwise it reports false.
	PutFlows(ctx context.Context, files map[string][]byte, digest, old, by string, at time.Time) (bool, error)
}
