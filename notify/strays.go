package notify

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"sallyport.dev/audit"
)

// strays records calls that claim to come from a chat service and are refused, without
// letting strangers fill the disk: the first few of a kind at once, the rest as one record
// with their number when its minute is over.
type strays struct {
	audit  Auditor
	now    func() time.Time
	logger *slog.Logger

	mu      sync.Mutex
	started time.Time
	seen    map[string]*strayCount
}

type strayCount struct {
	record audit.Record
	told   int
	more   int
}

const (
	strayWindow   = time.Minute
	straysAtOnce  = 5
	maxStrayKinds = 64
)

func newStrays(a Auditor, now func() time.Time, logger *slog.Logger) *strays {
	return &strays{audit: a, now: now, logger: logger, seen: map[string]*strayCount{}}
}

// refuse records a refused call. kind is one of few words, why a short text of ours.
func (s *strays) refuse(ctx context.Context, kind, why string, r audit.Record) {
	r.Time, r.Event, r.Decision, r.Error, r.Reason = s.now(), audit.EventLogin, "Refused", kind, why
	for _, due := range s.note(kind+" "+r.SourceIP, r) {
		s.append(ctx, due)
	}
}

func (s *strays) note(kind string, r audit.Record) []audit.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := s.overLocked()
	if len(s.seen) == 0 {
		s.started = s.now()
	}
	c := s.seen[kind]
	if c == nil {
		if len(s.seen) >= maxStrayKinds {
			kind = "other"
		}
		if c = s.seen[kind]; c == nil {
			c = &strayCount{record: r}
			s.seen[kind] = c
		}
	}
	if c.told >= straysAtOnce {
		c.more++
		return due
	}
	c.told++
	return append(due, r)
}

// overLocked returns what was counted if its minute is over.
func (s *strays) overLocked() []audit.Record {
	if s.now().Sub(s.started) < strayWindow {
		return nil
	}
	return s.drainLocked()
}

func (s *strays) drainLocked() []audit.Record {
	var due []audit.Record
	for _, c := range s.seen {
		if c.more > 0 {
			r := c.record
			r.Time, r.RequestID = s.now(), ""
			r.Details = map[string]string{"repeated": strconv.Itoa(c.more)}
			due = append(due, r)
		}
	}
	clear(s.seen)
	return due
}

// watch records what was counted when its minute is over, though nobody comes any more,
// until the context ends.
func (s *strays) watch(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		s.mu.Lock()
		due := s.overLocked()
		s.mu.Unlock()
		for _, r := range due {
			s.append(ctx, r)
		}
	}
}

// flush records what has been counted so far.
func (s *strays) flush(ctx context.Context) {
	s.mu.Lock()
	due := s.drainLocked()
	s.mu.Unlock()
	for _, r := range due {
		s.append(ctx, r)
	}
}

// append writes a record. The call is refused whether or not that succeeds.
func (s *strays) append(ctx context.Context, r audit.Record) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, err := s.audit.Append(ctx, r); err != nil {
		s.logger.Error("recording a refused call", "error", err)
	}
}
