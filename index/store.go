package index

import (
	"context"
	"errors"
	"time"

	"sallyport.dev/session"
)

// State says how far a transcript has come.
type State string

// States of transcripts.
const (
	Live    State = "live"    // its session goes on, or a crash ended both
	Partial State = "partial" // lines are missing; it is to be made again of the recording
	Whole   State = "whole"
	Gone    State = "gone" // deleted with its recording, or there is none to be read
)

// ErrGone is returned where a transcript was deleted, or taken over by another member.
var ErrGone = errors.New("the transcript is not this member's to write any more")

// Work is a transcript that a member makes of the recording of a session that has ended.
type Work struct {
	Number    int64
	Session   string
	Recording string // name
	Ended     time.Time
}

// Store keeps transcripts. Each has a number of its own, never used again.
type Store interface {
	// CreateTranscript begins a transcript in a state. It returns 0 if the session has one.
	CreateTranscript(ctx context.Context, session, member string, state State, now time.Time) (number int64, err error)
	// AddBlocks appends blocks to transcripts that member writes, in one transaction and in
	// order. It returns the numbers of those that are not its to write any more; their
	// blocks are not kept.
	AddBlocks(ctx context.Context, member string, all []Addition, now time.Time) (gone []int64, err error)
	// EndTranscript sets the state of a transcript that member writes, or fails with ErrGone.
	EndTranscript(ctx context.Context, number int64, member string, state State, now time.Time) error
	// DeleteTranscript deletes what is kept of a session; the transcript is Gone.
	DeleteTranscript(ctx context.Context, session string, now time.Time) error
	// ClaimTranscripts gives member up to limit transcripts, Live or Partial, whose
	// sessions have ended and that nobody has written to since before, and empties them.
	ClaimTranscripts(ctx context.Context, member string, before, now time.Time, limit int) ([]Work, error)
	// MissingTranscripts are recorded sessions that have ended and have no transcript,
	// newest first.
	MissingTranscripts(ctx context.Context, limit int) ([]Work, error)
	Finder
}

// Addition is a block that is to be appended to a transcript.
type Addition struct {
	Number int64 // the transcript's
	Block
}

// Finder finds what may match. What it finds is still to be looked at.
type Finder interface {
	// FindSessions are sessions whose transcripts may match, newest first.
	FindSessions(ctx context.Context, c Clauses, f session.Filter) ([]session.Session, error)
	// FindShort are all blocks of those of some sessions that have few, by session.
	FindShort(ctx context.Context, sessions []string) (map[string][]Block, error)
	// FindBlocks are blocks of a session in order, from a number on, at most limit: all
	// that may match, and perhaps others.
	FindBlocks(ctx context.Context, session string, c Clauses, after int64, limit int) ([]Found, error)
}

// Found is a block with its number within the session.
type Found struct {
	Number int64
	Block
}
