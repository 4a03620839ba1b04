package archive

import (
	"context"
	"time"
)

// State is where a recording is.
type State string

// States of recordings. A recording is Spooled from its beginning until the store has
// its manifest.
const (
	Spooled State = "spooled"
	Stored  State = "stored"
	Deleted State = "deleted"
)

// Row is what the database knows of a recording.
type Row struct {
	Name      string // 2026/11/20/SESSION
	Session   string
	Node      string // id
	NodeName  string
	Principal string // ARN
	Document  string
	Member    string // in whose spool it is or was
	Started   time.Time
	Ended     time.Time // zero while it is written
	EndReason string
	State     State
	Size      int64  // bytes, plain; 0 until it has ended
	SHA256    string // of the plain recording, in hex; empty until it has ended
	Manifest  string // SHA-256 of manifest.json, in hex; empty until it has ended
	KeyID     string // of the wrapping key

	DeleteAfter  time.Time // zero for never
	DeletedAt    time.Time
	DeletedBy    string
	DeleteReason string
}

// Rows keeps the rows of recordings. Names are unique.
type Rows interface {
	// PutRecording adds a recording, or changes nothing where there is one of the name.
	PutRecording(ctx context.Context, r Row) error
	// Recording returns recording.ErrNotFound where there is none.
	Recording(ctx context.Context, name string) (Row, error)
	// UpdateRecording changes a row in one transaction: what change returns an error for
	// stays as it was. The name stays.
	UpdateRecording(ctx context.Context, name string, change func(*Row) error) error
}

// RowFilter says which rows are wanted; zero fields do not matter.
type RowFilter struct {
	Session, Node, Principal, KeyID string
	State                           State
	StartedAfter, StartedBefore     time.Time
	After                           string // name of the last row of the page before
	Limit                           int
}
