package command

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Status is where a command or one of its invocations stands, in AWS's words.
type Status string

// States. Delayed is of invocations only. The last four are final.
const (
	Pending    Status = "Pending"
	InProgress Status = "InProgress"
	Delayed    Status = "Delayed" // the node could not be told yet
	Cancelling Status = "Cancelling"
	Success    Status = "Success"
	Cancelled  Status = "Cancelled"
	TimedOut   Status = "TimedOut"
	Failed     Status = "Failed"
)

// Final reports whether a status is the last.
func (s Status) Final() bool {
	return s == Success || s == Cancelled || s == TimedOut || s == Failed
}

// Details of a status, beside those that repeat it.
const (
	DeliveryTimedOut  = "DeliveryTimedOut"  // the node did not take it in time
	ExecutionTimedOut = "ExecutionTimedOut" // it did not end in time
	AccessDenied      = "AccessDenied"      // the sender may not use the node
	Undeliverable     = "Undeliverable"     // the node is gone
	Terminated        = "Terminated"        // not sent, for too many had failed
	Incomplete        = "Incomplete"        // of commands: not all succeeded, but not too many failed
	NoInstancesInTag  = "NoInstancesInTag"  // of commands: the targets match no node
)

// Command is one document sent to nodes. What the caller gave stays as it was given.
type Command struct {
	ID                        string // UUID
	Document, DocumentVersion string
	Comment                   string
	Content                   json.RawMessage            // of the document, as sent
	Parameters                map[string][]string        // as given
	Values                    map[string]json.RawMessage // of all parameters, as the agent takes them
	NodeIDs                   []string                   // as given
	Targets                   []Target                   // as given
	MaxConcurrency, MaxErrors string                     // a number, or a percentage of the nodes
	Delivery                  time.Duration              // from Requested until nodes must have taken it
	Execution                 time.Duration              // that all steps may take together
	Requested                 time.Time

	Owner     string // ARN of the sender
	OwnerID   string // aws:userid of the sender
	OwnerName string
	RootID    string // unique id of the user who is behind it
	SourceIP  string
	// Authority is what it was allowed on, as JSON of package server, to be asked again
	// while it runs.
	Authority string

	Status                                                         Status
	Details                                                        string
	TargetCount, CompletedCount, ErrorCount, DeliveryTimedOutCount int
	CancelledBy                                                    string // ARN of who cancelled it on all nodes
	Ended                                                          time.Time

	// Revision grows with every change of the command or of its invocations.
	Revision int64
	// Member schedules the command, until Lease unless it says so again.
	Member string
	Lease  time.Time
}

// Target selects nodes by an attribute, any of whose values may match.
type Target struct {
	Key    string   `json:"Key"` // InstanceIds, tag:KEY, tag-key
	Values []string `json:"Values"`
}

// Expires is when everything about a command is over.
func (c Command) Expires() time.Time { return c.Requested.Add(c.Delivery + c.Execution) }

// Invocation is a command on one node.
type Invocation struct {
	CommandID, NodeID string
	NodeName          string // when it was sent
	Rank              int    // the order in which nodes are told, from 0
	Requested         time.Time
	Status            Status
	Details           string
	Trace             string // what the agent says of the whole

	Tries     int
	Tried     time.Time // last attempt to tell the node
	Sent      time.Time // last attempt that reached a control channel
	Delivered time.Time // the agent took it
	Started   time.Time // of the first step
	Ended     time.Time

	CancelAsked time.Time
	CancelTries int
	CancelTried time.Time

	Steps    []Step // left out of listings unless asked for
	Revision int64  // the command's, at the last change
}

// Step is what one step of the document came to on a node. Outputs are bounded by
// MaxOutput; what was cut is marked by the agent.
type Step struct {
	Name    string    `json:"name"`   // of the step
	Plugin  string    `json:"plugin"` // aws:runShellScript
	Status  Status    `json:"status"`
	Code    int       `json:"code"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	Output  string    `json:"output,omitempty"` // both, in AWS's form
	Stdout  string    `json:"stdout,omitempty"`
	Stderr  string    `json:"stderr,omitempty"`
}

// Errors of stores.
var (
	ErrNotFound     = errors.New("no such command")
	ErrNoInvocation = errors.New("command was not sent to the node")
)

// Filter selects commands, newest first. Zero fields do not filter.
type Filter struct {
	IDs             []string
	NodeID          string // sent to this node
	RootID          string
	Active          *bool
	Status          string // Status or Details
	Document        string
	RequestedAfter  time.Time
	RequestedBefore time.Time
	After           string // continue after the command with this id
	Limit           int    // 0 for all
}

// InvocationFilter selects invocations: those of one command in the order of sending,
// else the newest commands' first. Zero fields do not filter.
type InvocationFilter struct {
	CommandID       string
	NodeID          string
	NodeIDs         []string
	Active          bool
	Status          string // Status or Details
	Document        string
	RequestedAfter  time.Time
	RequestedBefore time.Time
	ByRevision      bool   // in the order of their last change; with CommandID
	Since           int64  // with ByRevision: changed after this revision
	AfterCommand    string // continue after this invocation
	AfterNode       string
	Steps           bool // with their outputs
	Limit           int  // 0 for all
}

// Store keeps commands and invocations. Changes are atomic; change functions may run
// more than once and only compute.
type Store interface {
	CreateCommand(ctx context.Context, c Command, all []Invocation) error
	Command(ctx context.Context, id string) (Command, error)
	// Commands leaves out Content and Values.
	Commands(ctx context.Context, f Filter) ([]Command, error)
	// UpdateCommand applies change unless the command has ended; then it reports
	// false and changes nothing.
	UpdateCommand(ctx context.Context, id string, change func(*Command) error) (bool, error)
	Invocation(ctx context.Context, command, node string) (Invocation, error)
	Invocations(ctx context.Context, f InvocationFilter) ([]Invocation, error)
	// UpdateInvocation is UpdateCommand for an invocation. It gives the row, and the
	// command, the command's next revision.
	UpdateInvocation(ctx context.Context, command, node string, change func(*Invocation) error) (bool, error)
	// ClaimCommands makes member the scheduler, until the given time, of all active
	// commands that are its own already or whose lease ended before now, and returns
	// their ids.
	ClaimCommands(ctx context.Context, member string, now, until time.Time) ([]string, error)
	// ReleaseCommands ends the leases of member.
	ReleaseCommands(ctx context.Context, member string) error
	// DeleteCommands deletes up to limit commands that ended before a time, with
	// their invocations, and returns how many.
	DeleteCommands(ctx context.Context, before time.Time, limit int) (int, error)
}
