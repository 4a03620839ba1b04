package audit

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"
)

// ErrChain is returned when records do not continue a chain.
var ErrChain = errors.New("audit chain is broken")

var errLog = errors.New("audit log cannot be opened yet")

// Log appends records to one member's chain. It is safe for concurrent use.
type Log struct{}

// New resumes the chain of a member.
func New(ctx context.Context, store Store, member string, now func() time.Time, logger *slog.Logger) (*Log, error) {
	return nil, errLog
}

// Append adds a record to the chain and returns it with its chain members once it
// is durable.
func (l *Log) Append(ctx context.Context, r Record) (Record, error) { return r, errLog }

// Close writes what has been accepted and ends the log.
func (l *Log) Close() error { return nil }

// Verify checks the chains of the records that it is given, in any interleaving of
// members.
func Verify(records iter.Seq2[Record, error]) error { return errLog }
