package custody

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport.dev/archive"
)

// Kind says what a hold, or a recording, is about.
type Kind string

// Kinds of subjects.
const (
	OfSession Kind = "session" // value: the id of a session
	OfPerson  Kind = "person"  // the ARN or unique id of a user or role session
	OfNode    Kind = "node"    // the id of a node
	OfRequest Kind = "request" // the id of a request for access
)

// Kinds lists the kinds of subjects.
func Kinds() []Kind { return []Kind{OfSession, OfPerson, OfNode, OfRequest} }

// Subject is what a recording is about, in one respect.
type Subject struct {
	Kind  Kind
	Value string
}

// Hold keeps recordings from being deleted, until it is released.
type Hold struct {
	ID      string
	Subject Subject
	// Also is another name of the same subject: the unique id of a person whose ARN is
	// the value. Empty if there is none.
	Also   string
	Reason string
	By     string // ARN
	At     time.Time

	ReleasedBy    string
	ReleaseReason string
	ReleasedAt    time.Time // zero while it holds
}

// Active reports whether the hold holds.
func (h Hold) Active() bool { return h.ReleasedAt.IsZero() }

// HoldFilter selects holds, in order of id. Zero fields do not matter.
type HoldFilter struct {
	Subject Subject
	Active  bool   // those alone that hold
	After   string // continue after the hold with this id
	Limit   int
}

// Errors of custody.
var (
	ErrNoHold   = errors.New("no such hold")
	ErrReleased = errors.New("the hold was released before")
	ErrTooMany  = errors.New("there are too many holds")
	ErrDeleted  = errors.New("the recording was deleted before")
	ErrUnstored = errors.New("the recording is not in the store yet")
	ErrBusy     = errors.New("the recording's key is being wrapped anew; try again in a minute")
)

// HeldError says that a recording is held.
type HeldError struct {
	Name  string
	Holds []Hold // at least one
}

// Error implements error.
func (e *HeldError) Error() string {
	h := e.Holds[0]
	text := fmt.Sprintf("the recording is held by hold %s, of %s %s, since %s: %s",
		h.ID, h.Subject.Kind, h.Subject.Value, h.At.UTC().Format(time.RFC3339), h.Reason)
	if n := len(e.Holds) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// maxHolds bounds the holds that hold: whoever may place them cannot fill the store.
const maxHolds = 10000

// Hold places a hold, and tells how many recordings there are now that it is on.
func (k *Keeper) Hold(ctx context.Context, h Hold) (Hold, int64, error) {
	if !slices.Contains(Kinds(), h.Subject.Kind) || h.Subject.Value == "" || h.Reason == "" || h.By == "" {
		return h, 0, errors.New("a hold has a subject, a reason and somebody who places it")
	}
	h.ID, h.At, h.ReleasedAt = newID(), k.cfg.Now(), time.Time{}
	n, err := k.cfg.Store.CreateRecordingHold(ctx, h, maxHolds)
	return h, n, err
}

// Release ends a hold.
func (k *Keeper) Release(ctx context.Context, id, by, reason string) (Hold, error) {
	return k.cfg.Store.ReleaseRecordingHold(ctx, id, by, reason, k.cfg.Now())
}

// HoldsOn returns the holds that are on a recording, its session's subjects brought up to
// date.
func (k *Keeper) HoldsOn(ctx context.Context, row archive.Row) ([]Hold, error) {
	if err := k.refresh(ctx, row); err != nil {
		return nil, err
	}
	return k.cfg.Store.HoldsOnRecording(ctx, row.Name)
}

// refresh notes what the recording is about now: a session may have got grants of other
// requests while it lived.
func (k *Keeper) refresh(ctx context.Context, row archive.Row) error {
	subjects := []Subject{{OfSession, row.Session}, {OfNode, row.Node}, {OfPerson, row.Principal}}
	if k.cfg.Subjects != nil {
		more, err := k.cfg.Subjects(ctx, row.Session)
		if err != nil {
			return fmt.Errorf("finding out what recording %s is about: %w", row.Name, err)
		}
		subjects = append(subjects, more...)
	}
	subjects = slices.DeleteFunc(subjects, func(s Subject) bool { return s.Value == "" })
	return k.cfg.Store.PutRecordingSubjects(ctx, row.Name, subjects)
}
