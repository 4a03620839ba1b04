package session

import (
	"context"
	"errors"
	"time"
)

// State is where a session stands, in AWS's words.
type State string

// States of sessions. The first four are active, the last two history.
const (
	StateConnecting   State = "Connecting"
	StateConnected    State = "Connected"
	StateDisconnected State = "Disconnected" // client away, agent still attached
	StateTerminating  State = "Terminating"
	StateTerminated   State = "Terminated"
	StateFailed       State = "Failed"
)

// Active reports whether a session in this state has not ended.
func (s State) Active() bool { return s != StateTerminated && s != StateFailed }

// Session is one principal's live or past access to one node.
type Session struct {
	ID          string
	NodeID      string
	Target      string // as the caller named it
	Document    string
	SessionType string // Standard_Stream, Port, InteractiveCommands, NonInteractiveCommands
	Owner       string // ARN of the principal
	OwnerID     string // aws:userid of the principal
	OwnerName   string // user or role name
	RootID      string // unique id of the user who is behind it: the owner, or who first assumed a role
	Reason      string // given by the caller
	SourceIP    string
	RunAs       string // OS user asked for; empty for the node's default
	State       State
	Started     time.Time
	Ended       time.Time
	EndReason   string // for the log: exit, idle, max-duration, terminated by ARN, …
	ExitStatus  *int   // of the session's program, where the agent reported it
	Member      string // the member that relays it
	Recording   string // name in the recording store; empty if there is none
	BytesIn     int64  // payload bytes from the client
	BytesOut    int64  // payload bytes from the agent
	MaxDuration time.Duration
	IdleTimeout time.Duration
	// Authority is the question that was answered when it began, as JSON of package
	// server, to be asked again while it lives; empty for a session that nobody asks about.
	Authority string
	// KMSKey is the key that the ends encrypt the stream with between them: the id of one
	// of ours, the name of another's; empty where they do not. Encryption tells whether the
	// gateway follows.
	KMSKey     string
	Encryption Encryption
}

// Encryption is what the gateway makes of a stream that the ends encrypt.
type Encryption string

// What a gateway makes of an encrypted stream.
const (
	EncryptionNone       Encryption = ""           // there is none
	EncryptionRecorded   Encryption = "recorded"   // it follows with the session's data key, and records
	EncryptionUnrecorded Encryption = "unrecorded" // it passes on what it cannot read
)

// ErrNotFound is returned for a session that does not exist.
var ErrNotFound = errors.New("no such session")

// Filter selects sessions, newest first. Zero fields do not filter.
type Filter struct {
	Active        *bool
	IDs           []string
	NodeID        string
	Owner         string // ARN
	OwnerID       string
	RootID        string
	State         State
	Member        string
	StartedAfter  time.Time
	StartedBefore time.Time
	After         string // continue after the session with this id
	Limit         int    // 0 for all
}

// Store keeps sessions.
type Store interface {
	CreateSession(ctx context.Context, s Session) error
	Session(ctx context.Context, id string) (Session, error)
	Sessions(ctx context.Context, f Filter) ([]Session, error)
	// UpdateSession applies change to the row unless the session has ended;
	// then it reports false and changes nothing.
	UpdateSession(ctx context.Context, id string, change func(*Session) error) (bool, error)
}
