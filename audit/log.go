package audit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	// queueLength is how many records may wait; more wait in their callers.
	queueLength = 1024
	// batchLength is how many records share one append at most.
	batchLength = 256
	// storeTimeout bounds how long the store may take for one append.
	storeTimeout = 15 * time.Second
	// textLength bounds every text of a record, in bytes: much of it comes from
	// callers, and the log is for ever.
	textLength = 8 << 10
	// resourceCount bounds the resources of a record: an activation may fix the ids of
	// a thousand nodes.
	resourceCount = 1000
)

// ErrClosed is returned by Append after Close.
var ErrClosed = errors.New("audit log is closed")

// ClockDetail is the key in Details that a record bears when the clock was behind
// the record before it; its value is what the clock said.
const ClockDetail = "clock_set_back"

// Log appends records to one member's chain. It is safe for concurrent use.
//
// One goroutine owns the chain. It takes all records that wait, links them and gives
// them to the store in one append, so that many callers share one flush of the disk.
type Log struct {
	store  Store
	member string
	now    func() time.Time
	logger *slog.Logger

	ctx   context.Context // of the store's calls; lives as long as the log
	queue chan *entry
	ended chan struct{} // closed when run has returned

	appended, failed atomic.Int64

	mu     sync.RWMutex // held for reading while sending to queue
	closed bool
}

// Stats are figures of one member's log, for metrics.
type Stats struct {
	Waiting  int   // records in the queue; callers beyond it wait as well
	Appended int64 // records stored since the start of the process
	Failed   int64 // records that could not be stored
}

// Stats returns the log's figures.
func (l *Log) Stats() Stats {
	return Stats{Waiting: len(l.queue), Appended: l.appended.Load(), Failed: l.failed.Load()}
}

// entry is a record that waits to be appended.
type entry struct {
	record Record
	state  atomic.Int32
	err    error // set before done is closed
	done   chan struct{}
}

// States of an entry: whoever moves it from waiting owns what happens next.
const (
	entryWaiting int32 = iota
	entryTaken
	entryAbandoned // its caller's context ended first
)

// New resumes the chain of a member. The context bounds reading its end only.
func New(ctx context.Context, store Store, member string, now func() time.Time, logger *slog.Logger) (*Log, error) {
	if member == "" {
		return nil, errors.New("opening audit log: member is empty, must be the id of this server")
	}
	last, err := readEnd(ctx, store, member)
	if err != nil {
		return nil, fmt.Errorf("opening audit log: %w", err)
	}
	l := &Log{
		store:  store,
		member: member,
		now:    now,
		logger: logger.With("member", member),
		ctx:    context.WithoutCancel(ctx),
		queue:  make(chan *entry, queueLength),
		ended:  make(chan struct{}),
	}
	go l.run(&last)
	return l, nil
}

// readEnd returns the last record of a chain, or one with Seq 0 and Hash NoPrev.
func readEnd(ctx context.Context, store Store, member string) (Record, error) {
	last, found, err := store.LastAudit(ctx, member)
	if err != nil || found {
		return last, err
	}
	return Record{Member: member, Hash: NoPrev}, nil
}

// Append adds a record to the chain and returns it, with its time and its place in
// the chain, once it is durable. After an error the record may still have been stored
// (the answer of the database was lost, say); the caller must then not do what it
// tells of. Texts that are too long are cut, and say so.
func (l *Log) Append(ctx context.Context, r Record) (Record, error) {
	e := &entry{record: tidy(r), done: make(chan struct{})}
	if err := l.submit(ctx, e); err != nil {
		return Record{}, fmt.Errorf("auditing: %w", err)
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		if e.state.CompareAndSwap(entryWaiting, entryAbandoned) {
			return Record{}, fmt.Errorf("auditing: %w", context.Cause(ctx))
		}
		<-e.done
	}
	if e.err != nil {
		return Record{}, fmt.Errorf("auditing: %w", e.err)
	}
	return e.record, nil
}

func (l *Log) submit(ctx context.Context, e *entry) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return ErrClosed
	}
	if ctx.Err() != nil { // select would choose at random
		return context.Cause(ctx)
	}
	select {
	case l.queue <- e:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close writes what has been accepted and ends the log. It may be called again.
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	<-l.ended
	return nil
}

// run appends batches until Close. last is the end of the chain, nil when it is not
// known: then it is read from the store before the chain goes on.
func (l *Log) run(last *Record) {
	defer close(l.ended)
	for first := range l.queue {
		batch := l.gather(first)
		if len(batch) == 0 {
			continue
		}
		end, err := l.appendBatch(last, batch)
		last = end
		for _, e := range batch {
			e.err = err
			close(e.done)
		}
	}
}

// gather returns the entries that are waiting now, without those given up.
func (l *Log) gather(first *entry) []*entry {
	var batch []*entry
	for next := first; next != nil; next = l.next(len(batch)) {
		if next.state.CompareAndSwap(entryWaiting, entryTaken) {
			batch = append(batch, next)
		}
	}
	return batch
}

func (l *Log) next(gathered int) *entry {
	if gathered == batchLength {
		return nil
	}
	select {
	case e := <-l.queue: // nil when closed and drained
		return e
	default:
		return nil
	}
}

// appendBatch links entries to the chain and stores them. It returns the chain's new
// end, or nil with an error, since a failed append may yet have been stored.
func (l *Log) appendBatch(last *Record, batch []*entry) (*Record, error) {
	ctx, cancel := context.WithTimeout(l.ctx, storeTimeout)
	defer cancel()
	records, err := l.linkAll(ctx, last, batch)
	if err == nil {
		err = l.store.AppendAudit(ctx, records)
	}
	if err != nil {
		l.logger.Error("audit records could not be stored", "records", len(batch), "error", err)
		l.failed.Add(int64(len(batch)))
		return nil, err
	}
	l.appended.Add(int64(len(records)))
	return &records[len(records)-1], nil
}

func (l *Log) linkAll(ctx context.Context, last *Record, batch []*entry) ([]Record, error) {
	if last == nil {
		end, err := readEnd(ctx, l.store, l.member)
		if err != nil {
			return nil, err
		}
		last = &end
	}
	records := make([]Record, 0, len(batch))
	for _, e := range batch {
		if err := l.link(last, &e.record); err != nil {
			return nil, err
		}
		records = append(records, e.record)
		last = &e.record
	}
	return records, nil
}

// link makes r the record after last. Time in a chain never goes back, so that its
// order is the order of time; when the clock does, the record says so.
func (l *Log) link(last, r *Record) (err error) {
	r.Member, r.Seq, r.Prev = l.member, last.Seq+1, last.Hash
	clock := l.now().UTC().Truncate(time.Microsecond)
	r.Time = clock
	if clock.Before(last.Time) {
		r.Time = last.Time
		r.Details = maps.Clone(r.Details)
		if r.Details == nil {
			r.Details = make(map[string]string)
		}
		r.Details[ClockDetail] = clock.Format(time.RFC3339Nano)
	}
	r.Hash, err = Sum(*r)
	return err
}

// tidy returns a record all of whose texts can be stored and read back unchanged,
// which the hash depends on: valid UTF-8, no NUL (PostgreSQL has none), bounded.
func tidy(r Record) Record {
	for _, s := range []*string{&r.Event, &r.Principal, &r.Action, &r.Decision, &r.Reason, &r.Error,
		&r.SourceIP, &r.UserAgent, &r.RequestID, &r.Session, &r.Node, &r.Document} {
		*s = tidyText(*s)
	}
	r.Resources = tidyResources(r.Resources)
	if len(r.Details) > 0 {
		details := make(map[string]string, len(r.Details))
		for k, v := range r.Details {
			details[tidyText(k)] = tidyText(v)
		}
		r.Details = details
	}
	return r
}

func tidyResources(all []string) []string {
	var tidied []string
	for i, s := range all {
		if i == resourceCount {
			return append(tidied, fmt.Sprintf("… and %d more", len(all)-i))
		}
		tidied = append(tidied, tidyText(s))
	}
	return tidied
}

func tidyText(s string) string {
	if length := len(s); length > textLength {
		end := textLength
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s = fmt.Sprintf("%s… (cut from %d bytes)", s[:end], length)
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// Reader is the part of a store that All reads.
type Reader interface {
	Audit(ctx context.Context, f Filter) ([]Record, error)
}

// pageLength is how many records All reads at a time.
const pageLength = 500

// All reads every record that a filter selects, page by page, in order; the filter's
// Limit and Newest are ignored. It stops after an error.
func All(ctx context.Context, from Reader, f Filter) iter.Seq2[Record, error] {
	f.Limit, f.Newest = pageLength, false
	return func(yield func(Record, error) bool) {
		for {
			page, err := from.Audit(ctx, f)
			if err != nil {
				yield(Record{}, err)
				return
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
			}
			if len(page) < pageLength {
				return
			}
			last := page[len(page)-1]
			f.AfterMember, f.AfterSeq = last.Member, last.Seq
		}
	}
}
