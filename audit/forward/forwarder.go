package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sallyport.dev/audit"
)

// Store is what a Forwarder needs of the database.
type Store interface {
	// AuditHeads returns the ends of all chains, in order of members.
	AuditHeads(ctx context.Context) ([]audit.Head, error)
	// AuditRows returns at most n rows of a chain after a sequence number, in order.
	AuditRows(ctx context.Context, member string, after int64, n int) ([]audit.Row, error)
	// AuditCursors returns the last sequence number that was delivered, by member.
	AuditCursors(ctx context.Context, destination string) (map[string]int64, error)
	// MoveAuditCursor notes what was delivered; ErrLease if another holds the lease.
	MoveAuditCursor(ctx context.Context, destination, holder, member string, seq int64) error
	// HoldDestination takes or prolongs the lease of a destination, and reports whether
	// the destination was not known before.
	HoldDestination(ctx context.Context, name, holder string, now, until time.Time) (held, fresh bool, err error)
	DropDestination(ctx context.Context, name, holder string) error
}

// ErrLease is returned to a member that does not hold a destination any more.
var ErrLease = errors.New("another member forwards to this destination")

// Batch is what is sent at once: records of one member, in order.
type Batch struct {
	// ID is the same in each try: destination, member, and the numbers of the records.
	ID          string
	Member      string
	First, Last int64
	Time        time.Time // of the first record
	Records     []audit.Record
	Lines       [][]byte // the records in the destination's format, without line feeds
}

// Sender takes batches to one place. Send returns nil once the place took the batch.
type Sender interface {
	Send(ctx context.Context, b Batch) error
	Close() error
}

// Destination is where the log is sent.
type Destination struct {
	Name   string // kind/name: syslog/siem
	Sender Sender
	Encode func(audit.Record) ([]byte, error)
	// Linger is how old a record gets before a batch that is not full is sent: where each
	// batch is an object of its own, few large ones are wanted. 0 sends at once.
	Linger time.Duration
	// FromNow leaves out what was in the log when the destination was first seen.
	FromNow bool
}

// Config is what a Forwarder is made of.
type Config struct {
	Store        Store
	Destinations []Destination
	Member       string
	Now          func() time.Time
	Logger       *slog.Logger

	// Poll is how often the log is looked at; 0 is a second. Lease is how long a member
	// that died holds a destination; 0 is 30 seconds. Retry is the first pause after a
	// failure; 0 is a second.
	Poll, Lease, Retry time.Duration
}

// Bounds of a batch and of sending it.
const (
	maxRecords  = 500
	maxBytes    = 1 << 20
	sendTimeout = time.Minute
	maxRetries  = 300             // how much longer than the first the longest pause is: five minutes
	lastTimeout = 3 * time.Second // of the last records of all
)

// Forwarder sends the log to its destinations, each in a goroutine of its own.
type Forwarder struct {
	config Config
	lanes  []*lane
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// New returns a Forwarder, which does nothing before Start.
func New(c Config) *Forwarder {
	setDefault(&c.Poll, time.Second)
	setDefault(&c.Lease, 30*time.Second)
	setDefault(&c.Retry, time.Second)
	f := &Forwarder{config: c, cancel: func() {}}
	for _, d := range c.Destinations {
		f.lanes = append(f.lanes, &lane{Destination: d, config: c, log: c.Logger.With("destination", d.Name), last: Stats{Destination: d.Name}})
	}
	return f
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// Start forwards until Close.
func (f *Forwarder) Start(ctx context.Context) {
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for _, l := range f.lanes {
		f.done.Go(func() { l.run(ctx) })
	}
}

// Close ends what is under way, sends the last records to destinations that take them at
// once, gives the leases up and waits. What was not delivered is sent by another member,
// or by the next start.
func (f *Forwarder) Close(ctx context.Context) error {
	f.cancel()
	f.done.Wait()
	last, cancel := context.WithTimeout(ctx, lastTimeout)
	defer cancel()
	for _, l := range f.lanes {
		f.done.Go(func() { l.finish(last) })
	}
	f.done.Wait()
	var errs []error
	for _, l := range f.lanes {
		errs = append(errs, l.Sender.Close(), l.drop(ctx))
	}
	return errors.Join(errs...)
}

// Stats are figures of one destination, as this member knows them.
type Stats struct {
	Destination string
	Held        bool          // by this member
	Behind      int64         // records that were not delivered yet; 0 unless Held
	Oldest      time.Time     // of those, the oldest; zero for none
	Lag         time.Duration // the age of that
	Sent        int64         // records delivered since the start
	Failures    int64         // attempts that failed since the start
	Problem     string        // the last failure, empty after a success
}

// Stats returns the figures of all destinations.
func (f *Forwarder) Stats() []Stats {
	var all []Stats
	for _, l := range f.lanes {
		all = append(all, l.stats())
	}
	return all
}

// lane is one destination at work.
type lane struct {
	Destination
	config Config
	log    *slog.Logger
	held   bool
	ending bool // what there is is sent, however little

	mu   sync.Mutex
	last Stats
}

func (l *lane) stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.last
	if !s.Oldest.IsZero() {
		s.Lag = max(0, l.config.Now().Sub(s.Oldest))
	}
	return s
}

func (l *lane) note(change func(*Stats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.last)
}

// run sends until the context ends, with pauses that grow after failures.
func (l *lane) run(ctx context.Context) {
	for pause := l.config.Retry; ; {
		err := l.round(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := l.config.Poll
		if err != nil {
			l.failed(err)
			wait = pause/2 + rand.N(pause/2+1)
			pause = min(2*pause, maxRetries*l.config.Retry)
		} else {
			pause = l.config.Retry
		}
		if !l.sleep(ctx, wait) {
			return
		}
	}
}

// sleep waits, and keeps the lease meanwhile: a destination that is away stays with the
// member that knows it. It reports whether the time went by before the context ended.
func (l *lane) sleep(ctx context.Context, d time.Duration) bool {
	for d > 0 {
		step := min(d, l.config.Lease/3)
		t := time.NewTimer(step)
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
		if d -= step; d > 0 && l.held {
			if _, err := l.hold(ctx); err != nil {
				l.log.Warn("keeping the lease of a destination of the audit log", "error", err)
			}
		}
	}
	return ctx.Err() == nil
}

func (l *lane) failed(err error) {
	l.note(func(s *Stats) { s.Failures++; s.Problem = err.Error() })
	if !errors.Is(err, ErrLease) {
		l.log.Error("forwarding the audit log", "behind", l.stats().Behind, "error", err)
	}
}

// hold takes or prolongs the lease and reports whether this member has it.
func (l *lane) hold(ctx context.Context) (bool, error) {
	now := l.config.Now()
	held, fresh, err := l.config.Store.HoldDestination(ctx, l.Name, l.config.Member, now, now.Add(l.config.Lease))
	l.held = held && err == nil
	l.note(func(s *Stats) {
		if s.Held = l.held; !l.held {
			s.Behind, s.Oldest = 0, time.Time{}
		}
	})
	if l.held && fresh && l.FromNow {
		return true, l.skip(ctx)
	}
	return l.held, err
}

// skip leaves out what is in the log already.
func (l *lane) skip(ctx context.Context) error {
	heads, err := l.config.Store.AuditHeads(ctx)
	if err != nil {
		return err
	}
	for _, h := range heads {
		if err := l.config.Store.MoveAuditCursor(ctx, l.Name, l.config.Member, h.Member, h.Seq); err != nil {
			return err
		}
	}
	return nil
}

// finish sends what was written last, to a destination that took what was before.
func (l *lane) finish(ctx context.Context) {
	if !l.held || l.stats().Problem != "" {
		return
	}
	l.ending = true
	if err := l.round(ctx); err != nil {
		l.failed(err)
	}
}

func (l *lane) drop(ctx context.Context) error {
	if !l.held {
		return nil
	}
	return l.config.Store.DropDestination(ctx, l.Name, l.config.Member)
}

// round sends what there is, a batch of each chain by turns.
func (l *lane) round(ctx context.Context) error {
	if held, err := l.hold(ctx); err != nil || !held {
		return err
	}
	cursors, err := l.config.Store.AuditCursors(ctx, l.Name)
	if err != nil {
		return err
	}
	for {
		heads, err := l.config.Store.AuditHeads(ctx)
		if err != nil {
			return err
		}
		l.distrust(heads, cursors)
		behind := l.measure(heads, cursors)
		if behind == 0 {
			l.note(func(s *Stats) { s.Behind, s.Oldest, s.Problem = 0, time.Time{}, "" })
			return nil
		}
		oldest, err := l.oldest(ctx, heads, cursors)
		if err != nil || l.waits(behind, oldest) {
			return err
		}
		if err := l.turn(ctx, heads, cursors); err != nil {
			return err
		}
		if held, err := l.hold(ctx); err != nil || !held {
			return err
		}
	}
}

// distrust begins chains anew whose cursor is none that this server has written: beyond the
// end of the chain, or before its beginning. Whoever put it there would have records left out.
func (l *lane) distrust(heads []audit.Head, cursors map[string]int64) {
	for _, h := range heads {
		if at := cursors[h.Member]; at < 0 || at > h.Seq {
			l.log.Error("somebody moved the cursor of a destination of the audit log; the chain is sent from its beginning",
				"member", h.Member, "cursor", at, "records", h.Seq)
			delete(cursors, h.Member)
		}
	}
}

// measure counts what was not delivered. A chain that is shorter than what was delivered
// of it was cut: that is what checkpoints find.
func (l *lane) measure(heads []audit.Head, cursors map[string]int64) (behind int64) {
	for _, h := range heads {
		behind += max(0, h.Seq-cursors[h.Member])
	}
	l.note(func(s *Stats) { s.Behind = behind })
	return behind
}

// oldest notes when the first record that was not delivered was written.
func (l *lane) oldest(ctx context.Context, heads []audit.Head, cursors map[string]int64) (oldest time.Time, err error) {
	for _, h := range heads {
		if h.Seq <= cursors[h.Member] {
			continue
		}
		first, err := l.config.Store.AuditRows(ctx, h.Member, cursors[h.Member], 1)
		if err != nil {
			return oldest, err
		}
		if len(first) > 0 && (oldest.IsZero() || first[0].Time.Before(oldest)) {
			oldest = first[0].Time
		}
	}
	l.note(func(s *Stats) { s.Oldest = oldest })
	return oldest, nil
}

// waits reports whether there may be more for the batch soon.
func (l *lane) waits(behind int64, oldest time.Time) bool {
	age := l.config.Now().Sub(oldest)
	return !l.ending && behind < maxRecords && age >= 0 && age < l.Linger
}

// turn sends one batch of every chain that has some.
func (l *lane) turn(ctx context.Context, heads []audit.Head, cursors map[string]int64) error {
	for _, h := range heads {
		if h.Seq <= cursors[h.Member] {
			continue
		}
		b, err := l.batch(ctx, h.Member, cursors[h.Member])
		if err != nil {
			return err
		}
		if err := l.deliver(ctx, b); err != nil {
			return err
		}
		cursors[h.Member] = b.Last
	}
	return nil
}

// batch reads the next records of a chain.
func (l *lane) batch(ctx context.Context, member string, after int64) (Batch, error) {
	rows, err := l.config.Store.AuditRows(ctx, member, after, maxRecords)
	if err != nil {
		return Batch{}, err
	}
	if len(rows) == 0 {
		return Batch{}, fmt.Errorf("records of member %q after %d are gone", member, after)
	}
	b := Batch{Member: member, First: rows[0].Seq, Time: writable(rows[0].Time)}
	for size := 0; len(b.Lines) < len(rows) && (len(b.Lines) == 0 || size < maxBytes); {
		r := l.read(rows[len(b.Lines)])
		line, err := l.Encode(r)
		if err != nil {
			return b, fmt.Errorf("encoding record %d of member %q: %w", r.Seq, member, err)
		}
		b.Records, b.Lines, b.Last = append(b.Records, r), append(b.Lines, line), r.Seq
		size += len(line)
	}
	b.ID = fmt.Sprintf("%s/%s/%d-%d", l.Name, member, b.First, b.Last)
	return b, nil
}

// EventUnreadable is the event of what is sent in the place of a row that somebody
// changed so that it is no record any more. Nothing is passed over in silence.
const EventUnreadable = "unreadable"

func (l *lane) read(w audit.Row) audit.Record {
	r, err := w.Record()
	if err == nil {
		return r
	}
	l.log.Error("a row of the audit log was changed", "member", w.Member, "record", w.Seq, "error", err)
	if r.Member == w.Member && r.Seq == w.Seq && r.Hash != "" {
		return r // only its columns or its spelling were changed
	}
	return audit.Record{Member: w.Member, Seq: w.Seq, Time: writable(w.Time), Event: EventUnreadable, Error: "AuditRecordChanged",
		Reason: fmt.Sprintf("record %d of member %q %v", w.Seq, w.Member, err)}
}

// writable is a time of a row, or the zero one for what JSON has no way to write.
func writable(t time.Time) time.Time {
	if t = t.UTC(); t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// deliver sends a batch and moves the cursor, keeping the lease while the place takes
// its time.
func (l *lane) deliver(ctx context.Context, b Batch) error {
	if err := l.send(ctx, b); err != nil {
		return err
	}
	if err := l.config.Store.MoveAuditCursor(ctx, l.Name, l.config.Member, b.Member, b.Last); err != nil {
		return err
	}
	l.note(func(s *Stats) {
		s.Sent += int64(len(b.Lines))
		s.Behind = max(0, s.Behind-int64(len(b.Lines)))
		s.Problem = ""
	})
	return nil
}

// send gives a batch to the sender and prolongs the lease until that has an answer.
func (l *lane) send(ctx context.Context, b Batch) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- l.Sender.Send(ctx, b) }() // ends with the context
	tick := time.NewTicker(l.config.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case err := <-sent:
			return err
		case <-tick.C:
			if held, err := l.hold(ctx); err == nil && !held {
				cancel()
				return errors.Join(ErrLease, <-sent)
			}
		}
	}
}

// Names lists the destinations.
func (f *Forwarder) Names() []string {
	var names []string
	for _, l := range f.lanes {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	return names
}
