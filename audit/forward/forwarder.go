package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
	// MoveAuditCursor notes up to where chains were delivered, all or none; ErrLease if
	// another holds the lease.
	MoveAuditCursor(ctx context.Context, destination, holder string, to ...audit.Head) error
	// HoldDestination takes or prolongs the lease of a destination.
	HoldDestination(ctx context.Context, name, holder string, now, until time.Time) (held bool, err error)
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
	// FromNow leaves out what was in the log before anything was sent.
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
	since  time.Time // when the lease was taken or prolonged last
	ending bool      // what there is is sent, however little

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
	if errors.Is(err, ErrLease) {
		l.held = false
	} else {
		l.log.Error("forwarding the audit log", "behind", l.stats().Behind, "error", err)
	}
}

// hold makes sure of the lease and reports whether this member has it. Prolonging it is a
// change of the database, made once a quarter of it is over.
func (l *lane) hold(ctx context.Context) (bool, error) {
	now := l.config.Now()
	if age := now.Sub(l.since); l.held && age >= 0 && age < l.config.Lease/4 {
		return true, nil
	}
	held, err := l.config.Store.HoldDestination(ctx, l.Name, l.config.Member, now, now.Add(l.config.Lease))
	l.held, l.since = held && err == nil, now
	l.note(func(s *Stats) {
		if s.Held = l.held; !l.held {
			s.Behind, s.Oldest = 0, time.Time{}
		}
	})
	return l.held, err
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
	heads, cursors, err := l.begin(ctx)
	if err != nil {
		return err
	}
	for {
		behind, oldest, err := unsent(ctx, l.config.Store, heads, cursors)
		if err != nil {
			return err
		}
		l.note(func(s *Stats) {
			if s.Behind, s.Oldest = behind, oldest; behind == 0 {
				s.Problem = ""
			}
		})
		if behind == 0 || l.waits(behind, oldest) {
			return nil
		}
		if err := l.turn(ctx, heads, cursors); err != nil {
			return err
		}
		if held, err := l.hold(ctx); err != nil || !held {
			return err
		}
		if heads, err = l.config.Store.AuditHeads(ctx); err != nil {
			return err
		}
	}
}

// begin returns where all chains end, and how far they were delivered. It puts right in
// the database what is wrong with that, so that it is told once.
func (l *lane) begin(ctx context.Context) (heads []audit.Head, cursors map[string]int64, err error) {
	heads, cursors, err = progress(ctx, l.config.Store, l.Name)
	if err != nil {
		return nil, nil, err
	}
	if l.FromNow && len(cursors) == 0 {
		l.log.Info("nothing was sent to this destination of the audit log yet; what is in the log is left out", "heads", heads)
		for _, h := range heads {
			cursors[h.Member] = h.Seq
		}
		return heads, cursors, l.config.Store.MoveAuditCursor(ctx, l.Name, l.config.Member, heads...)
	}
	if moved := distrust(heads, cursors); len(moved) > 0 {
		l.log.Error("somebody moved cursors of a destination of the audit log; these chains are sent from their beginnings", "chains", moved)
		return heads, cursors, l.config.Store.MoveAuditCursor(ctx, l.Name, l.config.Member, moved...)
	}
	return heads, cursors, nil
}

// progress reads where all chains end, and how far a destination was sent them: the latter
// first, or it might be beyond the former.
func progress(ctx context.Context, s Store, destination string) (heads []audit.Head, cursors map[string]int64, err error) {
	if cursors, err = s.AuditCursors(ctx, destination); err == nil {
		heads, err = s.AuditHeads(ctx)
	}
	return heads, cursors, err
}

// distrust begins chains anew whose cursor is none that this server has written: beyond the
// end of the chain, or before its beginning. Whoever put it there would have records left
// out, or has cut the chain, which checkpoints find.
func distrust(heads []audit.Head, cursors map[string]int64) (moved []audit.Head) {
	for _, h := range heads {
		if at := cursors[h.Member]; at < 0 || at > h.Seq {
			cursors[h.Member] = 0
			moved = append(moved, audit.Head{Member: h.Member})
		}
	}
	return moved
}

// Behind says how many records a destination was not sent yet, whichever member sends, and
// when the oldest of them was written; zero for none.
func Behind(ctx context.Context, s Store, destination string) (n int64, oldest time.Time, err error) {
	heads, cursors, err := progress(ctx, s, destination)
	if err != nil {
		return 0, oldest, err
	}
	distrust(heads, cursors)
	return unsent(ctx, s, heads, cursors)
}

// unsent counts the records after cursors, and finds when the oldest was written.
func unsent(ctx context.Context, s Store, heads []audit.Head, cursors map[string]int64) (n int64, oldest time.Time, err error) {
	for _, h := range heads {
		after := cursors[h.Member]
		if h.Seq <= after {
			continue
		}
		n += h.Seq - after
		first, err := s.AuditRows(ctx, h.Member, after, 1)
		if err != nil {
			return 0, oldest, err
		}
		if len(first) > 0 && (oldest.IsZero() || first[0].Time.Before(oldest)) {
			oldest = first[0].Time
		}
	}
	return n, oldest, nil
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
	if err := l.config.Store.MoveAuditCursor(ctx, l.Name, l.config.Member, audit.Head{Member: b.Member, Seq: b.Last}); err != nil {
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
