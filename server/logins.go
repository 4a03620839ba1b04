package server

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/identity"
)

// logins records refused authentications without letting an attacker fill the disk:
// the first of a kind at once, its repetitions as one record with their number when
// its minute is over. Kinds beyond a bound in one minute are counted together.
type logins struct {
	audit  access.Auditor
	now    func() time.Time
	logger *slog.Logger

	mu      sync.Mutex
	started time.Time // of the current minute
	seen    map[loginKind]*loginCount
}

type loginKind struct{ sourceIP, keyID, failure string }

type loginCount struct {
	record   audit.Record
	repeated int
}

const (
	loginWindow = time.Minute
	// maxLoginKinds bounds the kinds told apart in a window.
	maxLoginKinds = 64
)

var otherLogins = loginKind{failure: "other"}

func newLogins(a access.Auditor, now func() time.Time, logger *slog.Logger) *logins {
	return &logins{audit: a, now: now, logger: logger, seen: map[loginKind]*loginCount{}}
}

// refused notes that a request could not be authenticated.
func (l *logins) refused(ctx context.Context, o access.Origin, cause error) {
	e := (*identity.AuthError)(nil)
	if !errors.As(cause, &e) {
		return
	}
	record := audit.Record{
		Time: l.now(), Event: audit.EventLogin, Decision: "Refused", Reason: e.Message, Error: string(e.Failure),
		SourceIP: o.SourceIP, UserAgent: o.UserAgent, RequestID: o.RequestID,
	}
	if e.AccessKeyID != "" {
		record.Details = map[string]string{"access_key_id": e.AccessKeyID}
	}
	kind := loginKind{o.SourceIP, e.AccessKeyID, string(e.Failure)}
	for _, r := range l.note(kind, record) {
		l.append(ctx, r)
	}
}

// note counts a failure and returns the records that are due.
func (l *logins) note(kind loginKind, record audit.Record) []audit.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	due := l.expireLocked()
	if c := l.seen[kind]; c != nil {
		c.repeated++
		return due
	}
	if len(l.seen) >= maxLoginKinds {
		if c := l.seen[otherLogins]; c != nil {
			c.repeated++
			return due
		}
		kind = otherLogins
	}
	l.seen[kind] = &loginCount{record: record}
	return append(due, record)
}

// expireLocked ends the window if it is over and returns the records of what was
// repeated in it.
func (l *logins) expireLocked() []audit.Record {
	now := l.now()
	if now.Sub(l.started) < loginWindow {
		return nil
	}
	due := l.drainLocked()
	l.started = now
	return due
}

func (l *logins) drainLocked() []audit.Record {
	var due []audit.Record
	for kind, c := range l.seen {
		if c.repeated > 0 {
			r := c.record
			r.Time, r.RequestID = l.now(), ""
			r.Details = map[string]string{"repeated": strconv.Itoa(c.repeated), "access_key_id": kind.keyID}
			if kind == otherLogins {
				r = audit.Record{Time: l.now(), Event: audit.EventLogin, Decision: "Refused",
					Reason:  "further refused requests, from many sources or keys",
					Details: map[string]string{"repeated": strconv.Itoa(c.repeated)}}
			}
			due = append(due, r)
		}
	}
	clear(l.seen)
	return due
}

// flush records what has been counted so far.
func (l *logins) flush(ctx context.Context) {
	l.mu.Lock()
	due := l.drainLocked()
	l.mu.Unlock()
	for _, r := range due {
		l.append(ctx, r)
	}
}

// append writes a record. The request is refused whether or not that succeeds.
func (l *logins) append(ctx context.Context, r audit.Record) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, err := l.audit.Append(ctx, r); err != nil {
		l.logger.Error("recording a refused login", "error", err)
	}
}
