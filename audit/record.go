package audit

import (
	"context"
	"time"
)

// Events that records tell of.
const (
	EventDecision     = "decision"      // an API operation, allowed or refused
	EventLogin        = "login"         // an authentication that failed
	EventSessionStart = "session.start" // both ends attached or the session opened
	EventSessionEnd   = "session.end"
	EventWatch        = "session.watch" // of a session by another person: began or ended
	EventCommandEnd   = "command.end"   // on one node, or on all
	EventTransfer     = "transfer"      // of a file through the SSH front door; details say which
	EventNode         = "node"          // registered, connected, lost
	EventChange       = "change"
	EventAccess       = "access"    // reading recordings and audit
	EventServer       = "server"    // start, stop
	EventRequest      = "request"   // a step of a request for access; details say which
	EventRecording    = "recording" // finished after its session's end; details say by what it can be verified
	EventSignIn       = "signin"    // of a person: begun, ended, a factor enrolled
)

// Events lists the events that records tell of.
func Events() []string {
	return []string{EventDecision, EventLogin, EventSessionStart, EventSessionEnd, EventWatch, EventCommandEnd, EventTransfer,
		EventNode, EventChange, EventAccess, EventServer, EventRequest, EventSignIn, EventRecording}
}

// Record is one line of the audit log. The chain members (Member, Seq, Prev, Hash)
// are set when it is appended.
type Record struct {
	Member string    `json:"member"`
	Seq    int64     `json:"seq"`
	Time   time.Time `json:"time"`
	Event  string    `json:"event"`

	Principal string            `json:"principal,omitempty"` // ARN
	Action    string            `json:"action,omitempty"`    // ssm:StartSession
	Resources []string          `json:"resources,omitempty"`
	Decision  string            `json:"decision,omitempty"` // Allowed, ExplicitlyDenied, ImplicitlyDenied
	Reason    string            `json:"reason,omitempty"`
	Error     string            `json:"error,omitempty"` // AWS error code
	SourceIP  string            `json:"source_ip,omitempty"`
	UserAgent string            `json:"user_agent,omitempty"`
	RequestID string            `json:"request_id,omitempty"`
	Session   string            `json:"session,omitempty"`
	Node      string            `json:"node,omitempty"`
	Document  string            `json:"document,omitempty"`
	Details   map[string]string `json:"details,omitempty"`

	Prev string `json:"prev"` // hex SHA-256 of the record before, or 64 zeros
	Hash string `json:"hash"` // hex SHA-256 over the canonical JSON with Hash empty
}

// Filter selects records, in order of time and sequence. Zero fields do not filter.
type Filter struct {
	Since, Until time.Time
	Event        string
	Principal    string // substring of the ARN
	Action       string // glob
	Node         string
	Session      string
	Decision     string
	AfterMember  string // continue after this record
	AfterSeq     int64
	Newest       bool // the newest Limit records instead of the oldest, still in order
	Limit        int
}

// Store keeps records.
type Store interface {
	// AppendAudit stores records of one member, whose chain members are set,
	// durably and atomically. A gap or repeat in Seq is an error.
	AppendAudit(ctx context.Context, records []Record) error
	LastAudit(ctx context.Context, member string) (Record, bool, error)
	Audit(ctx context.Context, f Filter) ([]Record, error)
}
