package archive

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"gocloud.dev/blob"

	"sallyport.dev/recording"
)

// Errors of the archive. A recording that is not there is recording.ErrNotFound, a name
// that cannot be one recording.ErrName, and one that has not ended recording.ErrIncomplete.
var (
	// ErrFull means that the spool has no room, because the store does not take what
	// waits there. The text says since when and why.
	ErrFull = errors.New("the spool of recordings is full")
	// ErrClosed means that the archive was closed.
	ErrClosed = errors.New("the archive is closed")
)

// Keeper wraps the data keys of recordings with a key that it keeps.
type Keeper interface {
	// ID names the key that Wrap uses now; it is written into key.json as it is.
	ID() string
	// Wrap encrypts a data key of 32 bytes.
	Wrap(ctx context.Context, key []byte) (wrapped []byte, err error)
	// Unwrap decrypts what Wrap made when ID was id, which may be an older key.
	Unwrap(ctx context.Context, id string, wrapped []byte) (key []byte, err error)
}

// WhenFull says what a full spool means.
type WhenFull string

// What a full spool means: new recordings are refused, or live ones end as well.
const (
	Refuse WhenFull = "refuse"
	End    WhenFull = "end"
)

// Config is what an Archive works with. Those with a default may be zero.
type Config struct {
	Bucket *blob.Bucket // required; the archive closes it
	Keeper Keeper       // required
	Rows   Rows         // required
	Logger *slog.Logger // required
	Member string       // required: this member's id, for the rows
	// Spool is a folder that is this member's alone. It is made with mode 0700.
	Spool string
	// SpoolLimit is how many bytes may wait in the spool before new recordings are
	// refused (and live ones end, with WhenFull End); 1 GiB by default. At HardLimit live
	// ones end in any case; by default a quarter more.
	SpoolLimit, HardLimit int64
	// WhenFull is Refuse by default.
	WhenFull WhenFull
	// ChunkSize and ChunkInterval are when a chunk is finished and sent to the store, in
	// sealed bytes and since its first one; 4 MiB and 10 s by default.
	ChunkSize     int
	ChunkInterval time.Duration
	// Peers reads from other members' spools; optional.
	Peers Peers
	// Ended tells how a session ended whose recording this member's earlier run left open,
	// where that is known; optional.
	Ended func(ctx context.Context, session string) (end recording.End, known bool)
	// Finished is told of each recording that was finished after its session's end was
	// written down, to be audited; optional. It is called again until it succeeds.
	Finished func(ctx context.Context, m Manifest) error
	// Now is time.Now by default.
	Now func() time.Time
}

// Peers reads what lies in other members' spools; cluster routing is one.
type Peers interface {
	// Ask sends a request to the Answer method of a member's archive.
	Ask(ctx context.Context, member string, request []byte) (answer []byte, err error)
}

// Archive keeps recordings. It is safe for concurrent use.
type Archive struct{ cfg Config }

// Recording is a recording being written.
type Recording struct {
	*recording.Writer
	// Name is the recording's name in the store, 2026/11/20/SESSION.
	Name string
}

// Reader is the plain text of a recording (asciicast) as far as it was flushed when it
// was opened. Reads stop with a *Damage error at what does not verify.
type Reader interface {
	io.ReaderAt
	io.Closer
	Size() int64 // bytes
}

// Manifest is the object manifest.json. It does not depend on how the key is wrapped.
type Manifest struct {
	Format   string        `json:"format"` // Format
	Name     string        `json:"name"`
	Session  string        `json:"session"`
	Owner    string        `json:"principal"` // ARN
	Node     string        `json:"node"`      // id
	NodeName string        `json:"node_name,omitempty"`
	Document string        `json:"document,omitempty"`
	Started  time.Time     `json:"started"`
	End      recording.End `json:"end"`
	Duration float64       `json:"duration"` // seconds, until the last event
	// Size and SHA256 are of the whole plain recording, the digest in hex.
	Size   int64   `json:"size"`
	SHA256 string  `json:"sha256"`
	Chunks []Chunk `json:"chunks"`

	// Sum is the SHA-256 of the object itself, in hex.
	Sum string `json:"-"`
}

// Format is the Format of a Manifest.
const Format = "sallyport-recording-1"

// Chunk tells of one object 000001.chunk.
type Chunk struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`   // bytes, sealed
	SHA256 string `json:"sha256"` // of them, in hex
	Frames int64  `json:"frames"`
	// PlainOffset and PlainSize are which bytes of the plain recording it holds.
	PlainOffset int64 `json:"plain_offset"`
	PlainSize   int64 `json:"plain_size"`
}

// Damage says where a recording is not what it was.
type Damage struct {
	Name   string // of the recording
	Object string // key.json, 000001.chunk, manifest.json
	Frame  int64  // number within the recording, from 1; 0 if no single frame is meant
	What   string // what is wrong
}

// Report is what Verify found.
type Report struct {
	Manifest Manifest
	Damage   []*Damage // empty if all is well
}

// Stats are figures of one member's archive, for metrics.
type Stats struct {
	Live         int           // recordings being written
	Waiting      int           // recordings that the store does not have whole, live ones included
	SpoolBytes   int64         // in the spool now
	SpoolLimit   int64         // at which new recordings are refused
	Lag          time.Duration // age of the oldest finished chunk that the store does not have
	Stored       int64         // objects sent to the store since start
	StoredBytes  int64         // and their bytes
	StoreErrors  int64         // calls of the store that failed since start
	StoreError   string        // the last one's text, while the store fails
	Damaged      int64         // damage found since start
	FrameBytes   int64         // plain bytes sealed since start
	SealedBytes  int64         // what they became
	KeeperErrors int64         // calls of the Keeper that failed since start
}
