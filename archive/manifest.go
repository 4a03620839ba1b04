package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sallyport.dev/recording"
)

const (
	manifestObject = "manifest.json"
	// maxManifest bounds a manifest, in bytes: months of a busy session.
	maxManifest = 64 << 20
	// maxChunk bounds a chunk, in bytes.
	maxChunk = 8 << 20
	// maxChunks bounds a recording's chunks; their names have six digits.
	maxChunks = 999999
)

// Manifest is the object manifest.json. It does not depend on how the key is wrapped, and
// nothing that the session showed is in it.
type Manifest struct {
	Format   string    `json:"format"` // Format
	Name     string    `json:"name"`
	Session  string    `json:"session"`
	Owner    string    `json:"principal"` // ARN
	Node     string    `json:"node"`      // id
	NodeName string    `json:"node_name,omitempty"`
	Document string    `json:"document,omitempty"`
	Started  time.Time `json:"started"`
	// End is how the session ended; of a session whose member died, Reason says so.
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

func (c Chunk) end() int64 { return c.PlainOffset + c.PlainSize }

func chunkName(n int) string { return fmt.Sprintf("%06d.chunk", n) }

// chunkNumber is what chunkName made a name of, or 0.
func chunkNumber(name string) int {
	digits, ok := strings.CutSuffix(name, ".chunk")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || chunkName(n) != name {
		return 0
	}
	return n
}

var sessionID = regexp.MustCompile(`^[A-Za-z0-9+=,@_-][A-Za-z0-9+=,.@_-]{0,127}$`)

// Name returns the name that the recording of a session has: its day in UTC and id. The
// error is recording.ErrName.
func Name(session string, started time.Time) (string, error) {
	if !sessionID.MatchString(session) {
		return "", fmt.Errorf("%w: session id %q", recording.ErrName, session)
	}
	return started.UTC().Format("2006/01/02/") + session, nil
}

// CheckName returns recording.ErrName for what cannot be the name of a recording.
func CheckName(name string) error {
	day, session := path.Split(name)
	_, err := time.Parse("2006/01/02/", day)
	if err != nil || !fs.ValidPath(name) || !sessionID.MatchString(session) {
		return fmt.Errorf("%w: %q", recording.ErrName, clip(name))
	}
	return nil
}

// encode returns the object's bytes, and sets Sum.
func (m *Manifest) encode() []byte {
	b, _ := json.MarshalIndent(m, "", "  ") // of strings, numbers and times
	b = append(b, '\n')
	m.Sum = sum(b)
	return b
}

func sum(b []byte) string {
	digest := sha256.Sum256(b)
	return hex.EncodeToString(digest[:])
}

// ParseManifest reads the manifest.json of the recording of the name.
func ParseManifest(b []byte, name string) (Manifest, error) {
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&m); err != nil {
		return m, errors.New("it is not JSON of a manifest")
	}
	if _, err := d.Token(); err != io.EOF {
		return m, errors.New("something follows the manifest")
	}
	m.Sum = sum(b)
	switch {
	case m.Format != Format:
		return m, fmt.Errorf("its format is %q, want %q", clip(m.Format), Format)
	case m.Name != name:
		return m, fmt.Errorf("it is the manifest of recording %q", clip(m.Name))
	case !isDigest(m.SHA256):
		return m, errors.New("sha256 is not the digest of a recording")
	}
	return m, m.checkChunks()
}

var digest = regexp.MustCompile(`^[0-9a-f]{64}$`)

func isDigest(s string) bool { return digest.MatchString(s) }

// checkChunks finds lists that no recording has: chunks are numbered, and their plain
// bytes continue each other.
func (m *Manifest) checkChunks() error {
	if len(m.Chunks) == 0 || len(m.Chunks) > maxChunks {
		return fmt.Errorf("it has %d chunks, want 1 to %d", len(m.Chunks), maxChunks)
	}
	end := int64(0)
	for i, c := range m.Chunks {
		if err := c.check(i+1, end); err != nil {
			return err
		}
		if !isDigest(c.SHA256) {
			return fmt.Errorf("%s: sha256 is none", c.Name)
		}
		end = c.end()
	}
	if m.Size != end {
		return fmt.Errorf("size is %d, but the chunks have %d bytes", m.Size, end)
	}
	return nil
}

// check finds what chunk n of no recording says of itself, if it continues at a byte.
func (c Chunk) check(n int, at int64) error {
	if c.Name != chunkName(n) {
		return fmt.Errorf("chunk %d of the list is named %q, want %s", n, clip(c.Name), chunkName(n))
	}
	if c.Size < frameHeader || c.Size > maxChunk || c.Frames < 1 || c.Frames > maxChunk/frameHeader {
		return fmt.Errorf("%s: size or frames is none that a chunk has", c.Name)
	}
	if c.PlainOffset != at || c.PlainSize < 1 || c.PlainSize > c.Frames*maxFrame || c.end() > math.MaxInt64/2 {
		return fmt.Errorf("%s does not continue the chunk before", c.Name)
	}
	return nil
}

// newManifest returns the manifest of what has ended.
func newManifest(name string, s recording.Summary, chunks []Chunk) Manifest {
	last := chunks[len(chunks)-1]
	return Manifest{
		Format: Format, Name: name,
		Session: s.Session, Owner: s.Principal, Node: s.Node, NodeName: s.NodeName, Document: s.Document,
		Started: s.Started.UTC(), End: s.End, Duration: math.Round(s.Duration.Seconds()*1e6) / 1e6,
		Size: last.end(), SHA256: s.SHA256, Chunks: chunks,
	}
}

// Summary returns what the manifest says in the words of package recording.
func (m *Manifest) Summary() recording.Summary {
	return recording.Summary{
		Name: m.Name, Size: m.Size, SHA256: m.SHA256, Manifest: m.Sum,
		Duration: time.Duration(m.Duration * float64(time.Second)),
		Metadata: recording.Metadata{
			Session: m.Session, Principal: m.Owner, Node: m.Node, NodeName: m.NodeName, Document: m.Document, Started: m.Started,
		},
		End: m.End,
	}
}
