package member

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sallyport.dev/archive"
	"sallyport.dev/archive/bucket"
	"sallyport.dev/audit"
	"sallyport.dev/recording"
	"sallyport.dev/server"
	"sallyport.dev/session"
)

// Recordings says where recordings are kept, and what happens while the store takes none.
type Recordings struct {
	// Store is a folder, or a store's URL: s3://BUCKET/PREFIX?region=…; by default
	// DataDir/recordings. Members of one cluster share it.
	Store string `hcl:"store,optional"`
	// CredentialsFile holds what opens the store, in its own form.
	CredentialsFile string `hcl:"credentials_file,optional"`
	// Key wraps the recordings' own keys: a file, or a key service's URL, awskms:///KEY;
	// by default DataDir/recordings.key. Members of one cluster share it. OldKeys wrapped
	// before, and still unwrap.
	Key     string   `hcl:"key,optional"`
	OldKeys []string `hcl:"old_keys,optional"`
	// KeyCredentialsFile holds what opens the key services, in their own form.
	KeyCredentialsFile string `hcl:"key_credentials_file,optional"`
	// Spool is a folder of this member's alone, in which recordings wait for the store;
	// DataDir/spool by default.
	Spool string `hcl:"spool,optional"`
	// SpoolLimit is how much may wait there, 1GiB by default; and WhenFull what happens
	// then: "refuse", the default, refuses new sessions that would be recorded, "end" ends
	// those that are, too. At a quarter more they end in any case.
	SpoolLimit string `hcl:"spool_limit,optional"`
	WhenFull   string `hcl:"when_full,optional"`
	// ChunkInterval is after how long at most what was recorded goes to the store, 10s by
	// default.
	ChunkInterval string `hcl:"chunk_interval,optional"`

	// Retain is how long recordings are kept since their end, such as 365d, that no rule
	// is for; forever by default.
	Retain string    `hcl:"retain,optional"`
	Rules  []*Retain `hcl:"rule,block"`

	spoolLimit    int64
	chunkInterval time.Duration
}

// Limits of the spool, in bytes: below the least, a busy session could fill it by itself.
const (
	minSpool = 16 << 20
	maxSpool = 1 << 50
)

// fill sets defaults within the member's folder.
func (r *Recordings) fill(dataDir string) {
	setDefault(&r.Store, filepath.Join(dataDir, "recordings"))
	setDefault(&r.Key, filepath.Join(dataDir, "recordings.key"))
	setDefault(&r.Spool, filepath.Join(dataDir, "spool"))
	setDefault(&r.SpoolLimit, "1GiB")
	setDefault(&r.WhenFull, string(archive.Refuse))
	setDefault(&r.ChunkInterval, "10s")
	r.Store, r.Key = absolute(r.Store), absolute(r.Key)
	for i, old := range r.OldKeys {
		r.OldKeys[i] = absolute(old)
	}
}

// absolute makes a path absolute, and leaves a URL as it is.
func absolute(text string) string {
	if strings.Contains(text, "://") {
		return text
	}
	if path, err := filepath.Abs(text); err == nil {
		return path
	}
	return text // what opens it says what is wrong
}

// check reports the first mistake, naming the key.
func (r *Recordings) check() (err error) {
	if err := bucket.Check(r.Store); err != nil {
		return fmt.Errorf("recordings.store: %w", err)
	}
	if r.spoolLimit, err = parseSize(r.SpoolLimit); err != nil || r.spoolLimit < minSpool || r.spoolLimit > maxSpool {
		return fmt.Errorf("recordings.spool_limit: %q is not a size from 16MiB to 1024TiB, such as 1GiB", r.SpoolLimit)
	}
	if w := archive.WhenFull(r.WhenFull); w != archive.Refuse && w != archive.End {
		return fmt.Errorf("recordings.when_full: %q: want %q or %q", r.WhenFull, archive.Refuse, archive.End)
	}
	if r.chunkInterval, err = time.ParseDuration(r.ChunkInterval); err != nil || r.chunkInterval < time.Second || r.chunkInterval > time.Hour {
		return fmt.Errorf("recordings.chunk_interval: %q is not a duration from 1s to 1h", r.ChunkInterval)
	}
	if _, err := r.retention(); err != nil {
		return err
	}
	return r.checkKeys()
}

// parseSize reads a size such as 512MiB.
func parseSize(text string) (int64, error) {
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if digits, ok := strings.CutSuffix(text, unit); ok {
			n, err := strconv.ParseInt(digits, 10, 32)
			if err != nil || n < 0 || n > 1<<20 {
				return 0, errors.New("too large, or no number")
			}
			return n << (10 * (i + 1)), nil
		}
	}
	return 0, errors.New("no unit")
}

// openArchive opens the archive, and finishes what an earlier run of this member left
// before the gateway writes down that it was left.
func (m *Member) openArchive(ctx context.Context) error {
	c := m.cfg.Recordings
	b, err := bucket.Open(ctx, bucket.Config{URL: c.Store, CredentialsFile: c.CredentialsFile})
	if err != nil {
		return fmt.Errorf("recordings.store: %w", err)
	}
	if err := m.openKeys(ctx); err != nil {
		return errors.Join(err, b.Close())
	}
	m.store = b
	m.archive, err = archive.Open(ctx, archive.Config{
		Bucket: b.Bucket, Keeper: m.ring, Rows: m.Store, Logger: m.log, Member: m.cfg.Member,
		Spool: c.Spool, SpoolLimit: c.spoolLimit, WhenFull: archive.WhenFull(c.WhenFull),
		ChunkInterval: c.chunkInterval, Peers: archivePeers{routing{m.cluster}},
		Ended: m.sessionEnd, Finished: m.recordingFinished, Now: m.cfg.Now,
	})
	if err != nil {
		return errors.Join(err, b.Close())
	}
	stop, err := m.cluster.Serve(subjectArchive+m.cfg.Member, m.archive.Answer)
	if err != nil {
		return fmt.Errorf("serving recordings: %w", err)
	}
	m.unserveArchive = stop
	return nil
}

// closeArchive has the store take what it can.
func (m *Member) closeArchive(ctx context.Context) error {
	defer m.closeKeys()
	if m.archive == nil {
		return nil
	}
	if m.unserveArchive != nil {
		m.unserveArchive()
	}
	return m.archive.Close(ctx)
}

// sessionEnd tells how a session ended, if that is written down.
func (m *Member) sessionEnd(ctx context.Context, id string) (recording.End, bool) {
	s, err := m.Store.Session(ctx, id)
	if err != nil || s.State.Active() || s.Ended.IsZero() {
		return recording.End{}, false
	}
	return recording.End{Reason: s.EndReason, ExitStatus: s.ExitStatus, Ended: s.Ended}, true
}

// recordingFinished writes into the audit log what a recording can be verified by whose
// session's end was written down without.
func (m *Member) recordingFinished(ctx context.Context, f archive.Manifest) error {
	_, err := m.Audit.Append(ctx, audit.Record{
		Event: audit.EventRecording, Action: "finish", Principal: f.Owner, Session: f.Session, Node: f.Node, Document: f.Document,
		Reason: f.End.Reason,
		Details: map[string]string{
			"recording": f.Name, "recording_size": strconv.FormatInt(f.Size, 10),
			"recording_sha256": f.SHA256, "recording_manifest_sha256": f.Sum,
		},
	})
	return err
}

// recorded finds what a recording that a member left can be verified by. The member may be
// away, and is not waited for.
func (m *Member) recorded(ctx context.Context, name string) (recording.Summary, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	f, err := m.archive.Manifest(ctx, name)
	return f.Summary(), err
}

// subjectArchive, with a member's id, is where that member answers what others ask of its
// spool.
const subjectArchive = "sallyport.archive."

// archivePeers lets an archive read what lies with other members.
type archivePeers struct{ routing }

// Ask implements archive.Peers.
func (p archivePeers) Ask(ctx context.Context, member string, request []byte) ([]byte, error) {
	return p.Request(ctx, subjectArchive+member, request)
}

// recordings lets the API read recordings.
type recordings struct{ *archive.Archive }

// Digest implements server.Recordings.
func (r recordings) Digest(ctx context.Context, name string) (d server.Digest, err error) {
	d.SHA256, d.Size, d.Manifest, err = r.Archive.Digest(ctx, name)
	return d, err
}

// Open implements server.Recordings.
func (r recordings) Open(ctx context.Context, name string) (server.Recording, int64, error) {
	f, err := r.Archive.Open(ctx, name)
	if errors.Is(err, recording.ErrNotFound) {
		return nil, 0, fmt.Errorf("recording %s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, 0, err
	}
	return f, f.Size(), nil
}

// archived are the fields of a Member that recordings are kept with.
type archived struct {
	archive        *archive.Archive
	unserveArchive func()
	kept
}

var _ session.Recorder = (*archive.Recording)(nil)
