package recording

import (
	"errors"
	"time"
)

// MaxLine bounds one line of a recording, in bytes, when reading.
const MaxLine = 1 << 20

// Errors of reading and writing.
var (
	ErrFormat     = errors.New("not a recording")
	ErrClosed     = errors.New("recording is closed")
	ErrIncomplete = errors.New("recording is not finished: its session has not ended, or its member died")
	ErrName       = errors.New("bad recording name")
	ErrNotFound   = errors.New("no such recording")
	ErrFull       = errors.New("there is no room for recordings")
)

// FullError is an ErrFull that says why.
type FullError struct {
	Why    string // for everyone: no file, no address, no error of the store
	Detail string // for operators
}

// Error implements error, for operators.
func (e *FullError) Error() string { return ErrFull.Error() + ": " + e.Detail }

// Unwrap returns ErrFull.
func (e *FullError) Unwrap() error { return ErrFull }

// Header is the first line of a recording.
type Header struct {
	Width  int // columns, at the start
	Height int // rows
	Title  string
	Env    map[string]string // TERM and the like; shown by players
	Metadata
}

// Metadata says whose session was recorded; the header's "sallyport" object.
type Metadata struct {
	Session   string `json:"session"`
	Principal string `json:"principal"` // ARN
	Node      string `json:"node"`      // id
	NodeName  string `json:"node_name,omitempty"`
	Document  string `json:"document,omitempty"`
	Reason    string `json:"reason,omitempty"` // why, as the person said
	// Command is the command line of a session that runs one through the SSH front door.
	Command string    `json:"command,omitempty"`
	Started time.Time `json:"started"`
}

// Kind is what an event is.
type Kind byte

// Kinds of events. KindEnd is ours; players of asciicast skip kinds unknown to them.
const (
	KindOutput Kind = 'o'
	KindInput  Kind = 'i'
	KindResize Kind = 'r'
	KindMarker Kind = 'm'
	KindEnd    Kind = 'e'
)

// Event is one thing that happened in the session.
type Event struct {
	At   time.Duration // since the start
	Kind Kind
	Data string // bytes shown or typed, "COLSxROWS", a marker's label, or JSON of End
}

// End says how a session ended; the last event of a whole recording.
type End struct {
	Reason     string    `json:"reason"`
	ExitStatus *int      `json:"exit_status,omitempty"`
	Ended      time.Time `json:"ended"`
}

// Summary describes a finished recording.
type Summary struct {
	Name     string        `json:"name"` // in the store
	Size     int64         `json:"size"` // bytes
	SHA256   string        `json:"sha256"`
	Manifest string        `json:"manifest_sha256,omitempty"` // of what says where its bytes are
	Duration time.Duration `json:"duration"`                  // nanoseconds
	Metadata
	End End `json:"end"`
}
