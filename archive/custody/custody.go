package custody

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"gocloud.dev/blob"

	"sallyport.dev/archive"
	"sallyport.dev/audit"
	"sallyport.dev/internal/tags"
)

// Facts are what was known of a recording when it began. They stay when its node or its
// owner are gone, so that policies and retention judge it by them.
type Facts struct {
	NodeTags  tags.Tags
	OwnerTags tags.Tags
}

// State is what custody knows of a recording beside its row.
type State struct {
	Facts
	Rule    string    // the rule of retention that it goes by
	Purged  time.Time // when the last object of a deleted one was gone; zero before
	Problem string    // why it is not, yet
}

// Store is what custody is kept in.
type Store interface {
	archive.Rows
	// Recordings are in order of Started and Name, newest first.
	Recordings(ctx context.Context, f archive.RowFilter) ([]archive.Row, error)

	// PutRecordingFacts notes facts and subjects of a recording; facts that are known
	// stay as they are.
	PutRecordingFacts(ctx context.Context, name string, f Facts) error
	PutRecordingSubjects(ctx context.Context, name string, subjects []Subject) error
	// RecordingState is the zero State where nothing was noted.
	RecordingState(ctx context.Context, name string) (State, error)

	// CreateRecordingHold adds a hold unless there are limit active ones, and tells how many
	// recordings that are not deleted it is on. A hold on a session needs a recording of
	// it that is not deleted: ErrDeleted.
	CreateRecordingHold(ctx context.Context, h Hold, limit int) (recordings int64, err error)
	// ReleaseRecordingHold returns ErrNoHold and ErrReleased.
	ReleaseRecordingHold(ctx context.Context, id, by, reason string, at time.Time) (Hold, error)
	RecordingHolds(ctx context.Context, f HoldFilter) ([]Hold, error)
	HoldsOnRecording(ctx context.Context, name string) ([]Hold, error)

	// CondemnRecording marks a stored recording as deleted, unless it is held (*HeldError), leased
	// (ErrBusy), not stored (ErrUnstored) or deleted (ErrDeleted). With plan, it must be
	// due by that plan as well (ErrNotDue).
	CondemnRecording(ctx context.Context, name string, c Condemnation) error
	// PurgedRecording notes that nothing is left of a deleted recording, or why something is.
	PurgedRecording(ctx context.Context, name string, at time.Time, problem string) error
	// UnpurgedRecordings lists deleted recordings of which something is left, condemned before.
	UnpurgedRecordings(ctx context.Context, before time.Time, after string, limit int) ([]string, error)

	// UnplannedRecordings lists stored recordings that another plan of retention was made for.
	UnplannedRecordings(ctx context.Context, plan string, limit int) ([]string, error)
	// PlanRecording notes when a recording is to be deleted (zero for never) by a rule of
	// a plan.
	PlanRecording(ctx context.Context, name, plan, rule string, deleteAfter time.Time) error
	// DueRecordings lists stored recordings whose time has come by a plan, after a name.
	DueRecordings(ctx context.Context, plan string, now time.Time, after string, limit int) ([]string, error)

	// RecordingsWrappedBy lists stored recordings after a name whose key is wrapped with from, or,
	// if that is empty, not with now.
	RecordingsWrappedBy(ctx context.Context, from, now, after string, limit int) ([]string, error)
	// LeaseRecording keeps a stored recording from being deleted until a time; another's lease is
	// ErrBusy, and one that is not stored ErrUnstored or ErrDeleted.
	LeaseRecording(ctx context.Context, name string, now, until time.Time) error
	// UnleaseRecording ends a lease.
	UnleaseRecording(ctx context.Context, name string) error
}

// Condemnation says who deletes a recording, why and when.
type Condemnation struct {
	By, Reason string
	At         time.Time
	Plan       string // of retention, that it must be due by; empty for a person's decision
}

// ErrNotDue means that a recording's time has not come, or not by this plan.
var ErrNotDue = errors.New("the recording's time has not come")

// Objects is the store of recordings.
type Objects interface {
	NewRangeReader(ctx context.Context, key string, offset, length int64, o *blob.ReaderOptions) (*blob.Reader, error)
	WriteAll(ctx context.Context, key string, p []byte, o *blob.WriterOptions) error
	List(o *blob.ListOptions) *blob.ListIterator
	// Purge deletes an object with all its versions; see bucket.Bucket.
	Purge(ctx context.Context, key string) error
}

// Keys wraps and unwraps keys of recordings; *keyring.Ring is one.
type Keys interface {
	ID() string
	Has(id string) bool
	Wrap(ctx context.Context, key []byte) ([]byte, error)
	Unwrap(ctx context.Context, id string, wrapped []byte) ([]byte, error)
}

// Auditor records; Append returns when the record is durable.
type Auditor interface {
	Append(ctx context.Context, r audit.Record) (audit.Record, error)
}

// Config is what a Keeper works with.
type Config struct {
	Store   Store
	Objects Objects
	Keys    Keys
	Audit   Auditor
	Records audit.Reader // of what Audit has appended, on all members
	Logger  *slog.Logger
	// Retention says when recordings are deleted by themselves; the zero value is never.
	Retention Retention
	// Subjects tells what a session's recording is about beside its row: who is behind
	// it, the requests that it hangs on. Optional.
	Subjects func(ctx context.Context, session string) ([]Subject, error)
	// Verify reads a recording and compares it with its manifest and row; *archive.Archive's.
	Verify func(ctx context.Context, name string) (archive.Report, error)
	// Forget removes what else is known of what a session showed: the index. Optional.
	Forget func(ctx context.Context, session string) error
	Now    func() time.Time // optional: time.Now
}

// Keeper has recordings in custody. It is safe for concurrent use.
type Keeper struct {
	cfg  Config
	plan string
}

// New returns a Keeper.
func New(c Config) *Keeper {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Keeper{cfg: c, plan: c.Retention.fingerprint()}
}

func newID() string { return "hold-" + strings.ToLower(rand.Text()[:16]) }

// Note takes down what is known of a recording that begins.
func (k *Keeper) Note(ctx context.Context, name string, f Facts, subjects []Subject) error {
	if err := k.cfg.Store.PutRecordingFacts(ctx, name, f); err != nil {
		return err
	}
	return k.cfg.Store.PutRecordingSubjects(ctx, name, subjects)
}

// Recordings lists rows of recordings, newest first.
func (k *Keeper) Recordings(ctx context.Context, f archive.RowFilter) ([]archive.Row, error) {
	return k.cfg.Store.Recordings(ctx, f)
}

// Verify reads all of a recording and compares it with its manifest, and that with the
// row.
func (k *Keeper) Verify(ctx context.Context, name string) (archive.Report, error) {
	return k.cfg.Verify(ctx, name)
}

// KeyID names the key that wraps recordings' keys now.
func (k *Keeper) KeyID() string { return k.cfg.Keys.ID() }

// Has reports whether the key with an id is configured.
func (k *Keeper) Has(key string) bool { return k.cfg.Keys.Has(key) }

// State returns what custody knows of a recording.
func (k *Keeper) State(ctx context.Context, name string) (State, error) {
	return k.cfg.Store.RecordingState(ctx, name)
}

// Holds lists holds.
func (k *Keeper) Holds(ctx context.Context, f HoldFilter) ([]Hold, error) {
	return k.cfg.Store.RecordingHolds(ctx, f)
}

// Deletion says what is to be deleted, by whom and why.
type Deletion struct {
	Name       string // of the recording
	By, Reason string
	plan, rule string // of retention
}

// PurgeError says that a recording is deleted, and that the store still has something of
// it; it will be tried again.
type PurgeError struct {
	Name  string
	Cause error
}

// Error implements error.
func (e *PurgeError) Error() string {
	return fmt.Sprintf("recording %s is deleted, but the store still has something of it, and will be asked again: %v", e.Name, e.Cause)
}

// Unwrap returns the cause.
func (e *PurgeError) Unwrap() error { return e.Cause }

// Delete deletes a recording: its key first, then all else, and what is known of what was
// shown. The error is a *HeldError, ErrUnstored, ErrBusy, ErrDeleted or recording.ErrNotFound
// where nothing was deleted, and a *PurgeError where something is left.
func (k *Keeper) Delete(ctx context.Context, d Deletion) error {
	row, err := k.cfg.Store.Recording(ctx, d.Name)
	if err != nil {
		return err
	}
	if err := k.mayDelete(ctx, row); err != nil {
		return err
	}
	if err := k.audit(ctx, row, d); err != nil {
		return fmt.Errorf("auditing the deletion, without which there is none: %w", err)
	}
	c := Condemnation{By: d.By, Reason: d.Reason, At: k.cfg.Now(), Plan: d.plan}
	if err := k.cfg.Store.CondemnRecording(ctx, d.Name, c); err != nil {
		return err
	}
	// What is condemned is purged, also where the caller has gone.
	return k.purge(context.WithoutCancel(ctx), row)
}

// mayDelete finds out early what Condemn decides, so that the audit log tells of
// deletions that take place.
func (k *Keeper) mayDelete(ctx context.Context, row archive.Row) error {
	// A lease that has ended already is had of what is in the store, and is nobody else's.
	now := k.cfg.Now()
	if err := k.cfg.Store.LeaseRecording(ctx, row.Name, now, now); err != nil {
		return err
	}
	holds, err := k.HoldsOn(ctx, row)
	if err == nil && len(holds) > 0 {
		return &HeldError{Name: row.Name, Holds: holds}
	}
	return err
}

// actionDelete is the action of records of deletions.
const actionDelete = "delete"

func (k *Keeper) audit(ctx context.Context, row archive.Row, d Deletion) error {
	details := map[string]string{
		"recording": row.Name, "recording_sha256": row.SHA256, "recording_manifest_sha256": row.Manifest,
	}
	if d.rule != "" {
		details["retention"] = d.rule
	}
	_, err := k.cfg.Audit.Append(ctx, audit.Record{
		Event: audit.EventRecording, Action: actionDelete, Principal: d.By, Reason: d.Reason,
		Session: row.Session, Node: row.Node, Document: row.Document, Details: details,
	})
	return err
}

const (
	// purgeTime bounds the deletion of one recording's objects.
	purgeTime = 2 * time.Minute
	// maxObjects bounds what is deleted of one recording at a time.
	maxObjects = 1 << 20
	keyObject  = "key.json"
)

// purge removes what is left of a condemned recording, and notes how that went.
func (k *Keeper) purge(ctx context.Context, row archive.Row) error {
	ctx, cancel := context.WithTimeout(ctx, purgeTime)
	defer cancel()
	err := k.purgeObjects(ctx, row)
	problem := ""
	if err != nil {
		problem = clip(err.Error())
		k.cfg.Logger.Warn("the store still has something of a deleted recording", "recording", row.Name, "error", err)
	}
	note, cancelNote := context.WithTimeout(context.WithoutCancel(ctx), purgeTime)
	defer cancelNote()
	if noteErr := k.cfg.Store.PurgedRecording(note, row.Name, k.cfg.Now(), problem); noteErr != nil {
		err = errors.Join(err, noteErr)
	}
	if err != nil {
		return &PurgeError{Name: row.Name, Cause: err}
	}
	return nil
}

// clip bounds a text of the store's.
func clip(text string) string {
	if len(text) > 1000 {
		text = strings.ToValidUTF8(text[:1000], "") + "…"
	}
	return text
}

// purgeObjects deletes the key first, and the rest even where that fails.
func (k *Keeper) purgeObjects(ctx context.Context, row archive.Row) error {
	if err := archive.CheckName(row.Name); err != nil {
		return err
	}
	errs := []error{k.cfg.Objects.Purge(ctx, row.Name+"/"+keyObject)}
	if k.cfg.Forget != nil {
		errs = append(errs, k.cfg.Forget(ctx, row.Session))
	}
	all := k.cfg.Objects.List(&blob.ListOptions{Prefix: row.Name + "/"})
	refused := 0
	for range maxObjects {
		o, err := all.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = k.cfg.Objects.Purge(ctx, o.Key)
		}
		if err != nil {
			errs = append(errs, err)
			if refused++; refused == maxRefused || ctx.Err() != nil {
				break
			}
		}
	}
	return errors.Join(errs...)
}

// maxRefused is after how many refusals the store is left alone until the next time.
const maxRefused = 3
