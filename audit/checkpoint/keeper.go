package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
)

// Store is what a Keeper needs of the database.
type Store interface {
	// AuditHeads returns the ends of all chains, in order of members.
	AuditHeads(ctx context.Context) ([]audit.Head, error)
	// AuditRows returns at most n rows of a chain after a sequence number, in order.
	AuditRows(ctx context.Context, member string, after int64, n int) ([]audit.Row, error)
	// UnstoredCheckpoints returns at most n that are not in the recording store, in
	// order, and how many there are in all.
	UnstoredCheckpoints(ctx context.Context, n int) ([]Signed, int, error)
	LastCheckpoint(ctx context.Context) (Signed, bool, error)
	// AddCheckpoint adds the next checkpoint, which continues the one whose Sum is prev;
	// ErrConflict if that is not the last one.
	AddCheckpoint(ctx context.Context, c Signed, prev string, made time.Time) error
	// CheckpointStored notes that a checkpoint is in the recording store.
	CheckpointStored(ctx context.Context, number int64) error
}

// Objects is what a Keeper needs of the recording store.
type Objects interface {
	// Put writes an object. It need not be told from one that is there already.
	Put(ctx context.Context, name string, data []byte) error
	// Get reads an object of at most MaxText bytes; fs.ErrNotExist for none, ErrSize for more.
	Get(ctx context.Context, name string) ([]byte, error)
	// List yields the names of the objects that begin with prefix, in order.
	List(ctx context.Context, prefix string) iter.Seq2[string, error]
}

// Config is what a Keeper is made of. All but the optional is needed.
type Config struct {
	Store   Store
	Objects Objects
	// Signer returns the key that signs now, Keys all that are trusted.
	Signer func(context.Context) (ssh.Signer, error)
	Keys   func(context.Context) ([]ssh.PublicKey, error)

	Account, Region, Member string

	Every  time.Duration // how old a checkpoint gets before the next; optional: DefaultEvery
	Now    func() time.Time
	Logger *slog.Logger
}

// DefaultEvery is how old a checkpoint gets before the next.
const DefaultEvery = 5 * time.Minute

const (
	storeTimeout = 15 * time.Second // of one object
	firstRetry   = time.Second
	lastRetry    = time.Minute
	pageLength   = 500
	maxProblems  = 20 // that one checkpoint names
)

// Keeper makes checkpoints and brings them to the recording store. Two goroutines do
// that: a store that hangs does not keep checkpoints from being signed.
type Keeper struct {
	config Config
	log    *slog.Logger

	wake   chan struct{} // there is something to upload
	cancel context.CancelFunc
	done   sync.WaitGroup

	making sync.Mutex // of a checkpoint
	taken  []string   // what no checkpoint tells of yet of those that were taken over; under making
	lifts  sync.Mutex // of an upload

	mu    sync.Mutex
	stats Stats
}

// Stats are figures of a Keeper.
type Stats struct {
	Number   int64     // of the last checkpoint that this member made
	Made     time.Time // when that was signed
	Waiting  int       // checkpoints that are not in the recording store yet
	Problems int       // that were found in the log since the start
	Failures int       // attempts to sign or to store that failed, since the start
}

// New returns a Keeper, which does nothing before Start.
func New(c Config) *Keeper {
	if c.Every <= 0 {
		c.Every = DefaultEvery
	}
	return &Keeper{config: c, log: c.Logger, wake: make(chan struct{}, 1), cancel: func() {}}
}

// Start makes the first checkpoint and goes on until Close. It does not wait for it: an
// old log takes its time to be looked through.
func (k *Keeper) Start(ctx context.Context) {
	ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
	k.done.Go(func() { k.run(ctx) })
	k.done.Go(func() { k.upload(ctx) })
}

// Close makes a last checkpoint and brings what waits to the recording store, as far as
// the context lasts: what is left there finds the next start.
func (k *Keeper) Close(ctx context.Context) error {
	k.cancel()
	k.done.Wait()
	if err := k.Make(ctx, WhyStop); err != nil {
		return fmt.Errorf("making the last checkpoint: %w", err)
	}
	if err := k.Lift(ctx); err != nil {
		k.log.Error("checkpoints of the audit log are not in the recording store yet; the next start brings them there", "error", err)
	}
	return nil
}

// Stats returns the figures.
func (k *Keeper) Stats() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stats
}

func (k *Keeper) count(change func(*Stats)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&k.stats)
}

// run makes a checkpoint at the start and whenever the last one is old enough.
func (k *Keeper) run(ctx context.Context) {
	for wait, why := firstRetry, WhyStart; ; {
		err := k.Make(ctx, why)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			k.count(func(s *Stats) { s.Failures++ })
			k.log.Error("making a checkpoint of the audit log", "error", err)
			if !sleep(ctx, wait) {
				return
			}
			wait = min(2*wait, lastRetry, k.config.Every)
		default:
			wait, why = firstRetry, WhyTime
			if !sleep(ctx, k.config.Every) {
				return
			}
		}
	}
}

// sleep reports whether the time went by before the context ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Make makes a checkpoint; none of WhyTime if nothing happened since the last one, or if
// another member has just made one.
func (k *Keeper) Make(ctx context.Context, why string) error {
	k.making.Lock()
	defer k.making.Unlock()
	for tries := 0; ; tries++ {
		err := k.make(ctx, why)
		if errors.Is(err, ErrConflict) && tries < 5 {
			continue // another member was faster
		}
		return err
	}
}

func (k *Keeper) make(ctx context.Context, why string) error {
	last, err := k.last(ctx)
	if err != nil {
		return err
	}
	age := k.config.Now().Sub(last.Time)
	if why == WhyTime && last.Number > 0 && age >= 0 && age < k.config.Every/2 {
		return nil
	}
	c, err := k.next(ctx, last, why)
	if err != nil || c.Number == 0 {
		return err
	}
	signer, err := k.config.Signer(ctx)
	if err != nil {
		return err
	}
	signed, err := Sign(c, signer)
	if err != nil {
		return err
	}
	if err := k.config.Store.AddCheckpoint(ctx, signed, last.sum, c.Time); err != nil {
		return err
	}
	for _, p := range c.Problems {
		k.log.Error("the audit log does not hold up", "checkpoint", c.Number, "problem", p)
	}
	k.taken = nil
	k.count(func(s *Stats) { s.Number, s.Made, s.Problems = c.Number, c.Time, s.Problems+len(c.Problems) })
	k.poke()
	return nil
}

func (k *Keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// lastOne is the checkpoint that the next one continues.
type lastOne struct {
	Checkpoint
	sum      string
	problems []string // that were found with the checkpoints themselves
}

// last returns the last checkpoint: that of the database, after those that only the
// recording store has were taken over. The zero one stands for none.
func (k *Keeper) last(ctx context.Context) (lastOne, error) {
	keys, err := k.config.Keys(ctx)
	if err != nil {
		return lastOne{}, err
	}
	signed, found, err := k.config.Store.LastCheckpoint(ctx)
	if err != nil {
		return lastOne{}, err
	}
	signed, adopted, err := k.adopt(ctx, signed, keys)
	if adopted > 0 {
		k.taken = append(k.taken, fmt.Sprintf("%d checkpoints up to %d were in the recording store only: the database was rolled back", adopted, signed.Number))
	}
	if err != nil {
		return lastOne{}, err
	}
	if !found && adopted == 0 {
		return lastOne{sum: audit.NoPrev}, nil
	}
	last := lastOne{sum: signed.Sum(), problems: slices.Clone(k.taken)}
	c, err := signed.Open(keys)
	if err == nil && c.Number != signed.Number {
		err = fmt.Errorf("is checkpoint %d", c.Number)
	}
	if err != nil {
		// The log is looked through from its beginning again.
		last.Number = signed.Number
		last.problems = append(last.problems, fmt.Sprintf("checkpoint %d in the database %v", signed.Number, err))
		return last, nil
	}
	last.Checkpoint = c
	return last, nil
}

// adopt takes over checkpoints that continue the last one and that only the recording
// store has: the database was set back, or somebody removed them there. A store that is
// away has none.
func (k *Keeper) adopt(ctx context.Context, last Signed, keys []ssh.PublicKey) (Signed, int, error) {
	for adopted := 0; ; adopted++ {
		next, err := Read(ctx, k.config.Objects, Name(last.Number+1))
		if err != nil {
			return last, adopted, nil
		}
		c, err := next.Open(keys)
		prev := last.Sum()
		if last.Number == 0 {
			prev = audit.NoPrev
		}
		if err != nil || c.Number != last.Number+1 || c.Prev != prev {
			return last, adopted, nil // the upload finds it in its way, and says so
		}
		next.Stored = true
		if err := k.config.Store.AddCheckpoint(ctx, next, prev, c.Time); err != nil {
			return last, adopted, err
		}
		last = next
	}
}

// Read reads a checkpoint whose text is in the object of a name. What is too large to be one
// has no text: whoever put it there does not keep the others from being read.
func Read(ctx context.Context, from Objects, name string) (Signed, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	text, err := from.Get(ctx, name)
	if err != nil && !errors.Is(err, ErrSize) {
		return Signed{}, fmt.Errorf("reading %s: %w", name, err)
	}
	sig, sigErr := from.Get(ctx, name+SignatureSuffix)
	if sigErr != nil && !errors.Is(sigErr, fs.ErrNotExist) && !errors.Is(sigErr, ErrSize) {
		return Signed{}, fmt.Errorf("reading %s: %w", name+SignatureSuffix, sigErr)
	}
	if err != nil || errors.Is(sigErr, ErrSize) {
		text, sig = nil, nil
	}
	return Signed{Number: NumberOf(name), Text: string(text), Signature: string(sig), Stored: true}, nil
}

// next is the checkpoint after last; its Number is 0 if there is nothing to tell.
func (k *Keeper) next(ctx context.Context, last lastOne, why string) (Checkpoint, error) {
	heads, problems, err := k.inspect(ctx, last.Checkpoint)
	if err != nil {
		return Checkpoint{}, err
	}
	problems = append(last.problems, problems...)
	if len(problems) == 0 && why == WhyTime && slices.Equal(heads, last.Heads) {
		return Checkpoint{}, nil
	}
	if len(problems) > maxProblems {
		problems = append(problems[:maxProblems:maxProblems], fmt.Sprintf("… and %d more", len(problems)-maxProblems))
	}
	now := k.config.Now().UTC().Truncate(time.Microsecond)
	if now.Before(last.Time) {
		now = last.Time // as in the chains, the order is that of time
	}
	return Checkpoint{
		Number: last.Number + 1, Time: now, Account: k.config.Account, Region: k.config.Region,
		By: k.config.Member, Why: why, Heads: heads, Problems: problems, Prev: last.sum,
	}, nil
}

// inspect looks through what was appended to all chains since a checkpoint, and returns
// where they stand: a member signs only what it has checked.
func (k *Keeper) inspect(ctx context.Context, since Checkpoint) (heads []audit.Head, problems []string, err error) {
	before := make(map[string]audit.Head, len(since.Heads))
	for _, h := range since.Heads {
		before[h.Member] = h
	}
	ends, err := k.config.Store.AuditHeads(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, end := range ends {
		head, wrong, err := k.inspectChain(ctx, before[end.Member], end)
		if err != nil {
			return nil, nil, err
		}
		delete(before, end.Member)
		heads, problems = append(heads, head), append(problems, wrong...)
	}
	for _, h := range since.Heads {
		if _, missing := before[h.Member]; missing {
			problems = append(problems, fmt.Sprintf("chain of member %q is missing: checkpoint %d saw %d records", h.Member, since.Number, h.Seq))
		}
	}
	return heads, problems, nil
}

// inspectChain checks that a chain goes on from where it was, up to its end.
func (k *Keeper) inspectChain(ctx context.Context, from, end audit.Head) (audit.Head, []string, error) {
	var problems []string
	add := func(seq int64, what string) {
		if what != "" && len(problems) <= maxProblems {
			problems = append(problems, fmt.Sprintf("record %d of member %q %s", seq, end.Member, what))
		}
	}
	if end.Seq < from.Seq {
		add(end.Seq, fmt.Sprintf("is the last one, but there were %d: the end was cut off", from.Seq))
		return end, problems, nil
	}
	i, what, err := k.resume(ctx, from)
	if err != nil {
		return end, nil, err
	}
	add(from.Seq, what)
	head := end
	for after := from.Seq; after < end.Seq; after = head.Seq {
		page, err := k.config.Store.AuditRows(ctx, end.Member, after, pageLength)
		if err != nil {
			return end, nil, err
		}
		if len(page) == 0 {
			break
		}
		for _, row := range page {
			_, what := i.Inspect(row)
			add(row.Seq, what)
			head = audit.Head{Member: end.Member, Seq: row.Seq, Hash: row.Hash}
		}
	}
	return head, problems, nil
}

// resume returns an inspector that goes on after a head, having looked whether that is
// still there.
func (k *Keeper) resume(ctx context.Context, from audit.Head) (i audit.Inspector, what string, err error) {
	if from.Seq == 0 {
		return i, "", nil
	}
	page, err := k.config.Store.AuditRows(ctx, from.Member, from.Seq-1, 1)
	if err != nil {
		return i, "", err
	}
	i.Resume(audit.Record{Member: from.Member, Seq: from.Seq, Hash: from.Hash})
	if len(page) == 0 || page[0].Seq != from.Seq {
		return i, "is missing", nil
	}
	r, err := page[0].Record()
	if err != nil {
		return i, err.Error(), nil
	}
	if sum, err := audit.Sum(r); err != nil || sum != r.Hash {
		return i, "was changed: its hash is not that of its content", nil
	}
	i.Resume(r)
	if r.Hash != from.Hash {
		return i, "is not the one that was there before: the chain was rewritten", nil
	}
	return i, "", nil
}
