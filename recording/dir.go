package recording

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"time"
)

const (
	extension = ".cast"
	// maxSummary bounds the summary file, in bytes.
	maxSummary = 64 << 10
)

// Dir keeps recordings in a folder, by day: 2026/11/20/SESSION.cast and, once the
// session has ended, 2026/11/20/SESSION.json. Folders have mode 0700, files 0600.
// Names cannot lead out of the folder, through symbolic links neither.
type Dir struct {
	root *os.Root
}

// OpenDir opens the store in the folder dir, which it makes if need be.
func OpenDir(dir string) (*Dir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making recording folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening recording folder: %w", err)
	}
	return &Dir{root: root}, nil
}

// probeName is the file by which Ready tries whether the store can be written.
const probeName = ".probe"

// Ready tells what keeps recordings from being written: it writes a file, and removes it.
func (d *Dir) Ready() error {
	f, err := d.root.OpenFile(probeName, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing to the recording folder: %w", err)
	}
	_, err = f.Write([]byte("probe\n"))
	if err := errors.Join(err, f.Close(), d.root.Remove(probeName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("writing to the recording folder: %w", err)
	}
	return nil
}

// Close lets go of the folder.
func (d *Dir) Close() error { return d.root.Close() }

// Recording is a recording being written into a Dir.
type Recording struct {
	*Writer
	// Name is the recording's name in the store.
	Name string
}

var sessionID = regexp.MustCompile(`^[A-Za-z0-9+=,@_-][A-Za-z0-9+=,.@_-]{0,127}$`)

// Name returns the name that the recording of a session has: its day in UTC and id.
func Name(session string, started time.Time) (string, error) {
	if !sessionID.MatchString(session) {
		return "", fmt.Errorf("%w: session id %q", ErrName, session)
	}
	return started.UTC().Format("2006/01/02/") + session + extension, nil
}

// Create starts the recording of the session that h names. It never replaces a
// file. Close the recording to get its summary written.
func (d *Dir) Create(h Header) (*Recording, error) {
	name, err := Name(h.Session, h.Started)
	if err != nil {
		return nil, err
	}
	if err := d.root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("making recording folder: %w", err)
	}
	f, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating recording: %w", err)
	}
	w, err := NewWriter(f, h)
	if err != nil {
		return nil, errors.Join(err, f.Close(), d.root.Remove(name))
	}
	w.onDone = func(s Summary) error {
		return errors.Join(f.Close(), d.finish(name, w.err, s))
	}
	return &Recording{Writer: w, Name: name}, nil
}

// finish writes the summary of a recording unless writing it had failed: then it
// stays incomplete, and says so when verified.
func (d *Dir) finish(name string, failed error, s Summary) error {
	if failed != nil {
		return nil
	}
	s.Name = name
	return d.writeSummary(s)
}

func (d *Dir) writeSummary(s Summary) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding recording summary: %w", err)
	}
	f, err := d.root.OpenFile(summaryName(s.Name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("creating recording summary: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing recording summary: %w", err)
	}
	return nil
}

// Open opens a recording for reading; it may still be growing. The error is
// ErrNotFound when there is none, ErrName when the name cannot be one.
func (d *Dir) Open(name string) (*os.File, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return d.open(name)
}

func (d *Dir) open(name string) (*os.File, error) {
	f, err := d.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("opening recording: %w", err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%w: %q is no file", ErrName, name)
	}
	return f, nil
}

// Summary returns the summary of a finished recording, or ErrIncomplete.
func (d *Dir) Summary(name string) (Summary, error) {
	if err := checkName(name); err != nil {
		return Summary{}, err
	}
	f, err := d.open(summaryName(name))
	if errors.Is(err, ErrNotFound) {
		return Summary{}, ErrIncomplete
	}
	if err != nil {
		return Summary{}, err
	}
	defer f.Close()
	var s Summary
	if err := json.NewDecoder(io.LimitReader(f, maxSummary)).Decode(&s); err != nil {
		return Summary{}, fmt.Errorf("reading recording summary: %w", err)
	}
	return s, nil
}

// Verify compares a finished recording with its summary: ErrDigest when they differ,
// ErrIncomplete when there is no summary, ErrNotFound when there is no recording.
func (d *Dir) Verify(name string) (Summary, error) {
	f, err := d.Open(name)
	if err != nil {
		return Summary{}, err
	}
	defer f.Close()
	s, err := d.Summary(name)
	if err != nil {
		return Summary{}, err
	}
	digest, size, err := sum(f)
	if err != nil {
		return Summary{}, err
	}
	if digest != s.SHA256 || size != s.Size || s.Name != name {
		return s, ErrDigest
	}
	return s, nil
}

// Seal gives a recording that a crash left without one a summary of what is there.
func (d *Dir) Seal(name string, end End) (Summary, error) {
	f, err := d.Open(name)
	if err != nil {
		return Summary{}, err
	}
	defer f.Close()
	s := Summary{Name: name, End: end}
	if s.Metadata, s.Duration, err = survey(f); err != nil {
		return Summary{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return Summary{}, fmt.Errorf("reading recording: %w", err)
	}
	if s.SHA256, s.Size, err = sum(f); err != nil {
		return Summary{}, err
	}
	return s, d.writeSummary(s)
}

// survey reads a recording to its end.
func survey(r io.Reader) (Metadata, time.Duration, error) {
	rec, err := NewReader(r)
	if err != nil {
		return Metadata{}, 0, err
	}
	var last time.Duration
	for {
		e, err := rec.Next()
		if err == io.EOF {
			return rec.Header().Metadata, last, nil
		}
		if err != nil {
			return Metadata{}, 0, err
		}
		last = max(last, e.At)
	}
}

func sum(r io.Reader) (digest string, size int64, err error) {
	h := sha256.New()
	size, err = io.Copy(h, r)
	if err != nil {
		return "", 0, fmt.Errorf("reading recording: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

func checkName(name string) error {
	if !fs.ValidPath(name) || !strings.HasSuffix(name, extension) {
		return fmt.Errorf("%w: %q", ErrName, name)
	}
	return nil
}

func summaryName(name string) string {
	return strings.TrimSuffix(name, extension) + ".json"
}
