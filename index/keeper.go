package index

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport.dev/recording"
)

const (
	// maxQueued bounds what waits to be read, in bytes, of all sessions together; pieceSize
	// is what a piece takes beside its data.
	maxQueued = 32 << 20
	pieceSize = 64
	// tick is how often what waits is read, lineAge how long lines wait for their block to
	// fill, and stillAge when a session that shows nothing more is looked at a last time.
	tick     = 500 * time.Millisecond
	lineAge  = 4 * time.Second
	stillAge = 3 * time.Second
	// Behind is how long at most it takes until a line that a session showed is found, if the
	// store is quick: until it has stood still and something else was shown, or nothing more
	// was, and until its block is written. The cursor's line is found when it is left.
	Behind = 2*stillAge + lineAge + blockAge + 2*tick
	// repairEvery is how often transcripts that a crash left are looked for, repairAge how
	// long nobody must have written to them, and sweepEvery how often recordings without
	// one are.
	repairEvery = time.Minute
	repairAge   = 5 * time.Minute
	// leftAfter is how long after the start those are looked for that an earlier run left,
	// leftAge how long nobody must have written to them and their sessions been over.
	leftAfter, leftAge = 8 * time.Second, 5 * time.Second
	sweepEvery         = time.Hour
	repairBatch        = 8
	// maxBlocks is how many blocks are written in one transaction at most, and blockAge how
	// long a full one waits for others. A transaction costs the store as much as some blocks,
	// and holds up others' changes.
	maxBlocks = 24
	blockAge  = 2 * time.Second
	// storeTimeout bounds a single write.
	storeTimeout = 10 * time.Second
)

// Config is what a Keeper works with. All is required.
type Config struct {
	Store Store
	// Open opens a recording by its name. The error wraps fs.ErrNotExist where there is
	// none any more.
	Open   func(ctx context.Context, name string) (io.ReadCloser, error)
	Member string // this process's id
	Logger *slog.Logger
	Now    func() time.Time
}

// Keeper keeps the transcripts of the sessions of one member. It is safe for concurrent
// use.
type Keeper struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	stores context.Context // of writes to the store, which go on while Close waits for them
	wg     sync.WaitGroup
	queued atomic.Int64 // bytes
	stats  stats

	mu     sync.Mutex
	active map[*follower]bool // those that have something to be read, or are not still yet

	// Of the goroutine that reads: full blocks, and whose they are.
	blocks []Addition
	owners []*follower
	since  time.Time // when the first of them came
}

type stats struct{ lines, partial, repaired, failures atomic.Int64 }

// Stats are a keeper's counters since its start, and what waits.
type Stats struct {
	Queued   int64 // bytes that wait to be read
	Lines    int64 // kept
	Partial  int64 // transcripts that must be made again: too much came at once
	Repaired int64 // transcripts that were made of recordings
	Failures int64 // of the store, or of recordings
}

// Stats returns the counters.
func (k *Keeper) Stats() Stats {
	return Stats{
		Queued: k.queued.Load(), Lines: k.stats.lines.Load(), Partial: k.stats.partial.Load(),
		Repaired: k.stats.repaired.Load(), Failures: k.stats.failures.Load(),
	}
}

// New starts a keeper.
func New(cfg Config) *Keeper {
	k := &Keeper{cfg: cfg, active: map[*follower]bool{}, stores: context.Background()}
	k.ctx, k.cancel = context.WithCancel(context.Background()) // ends with Close
	k.wg.Go(k.run)
	k.wg.Go(k.repairLoop)
	return k
}

// Close keeps what waits, as far as the store takes it within storeTimeout, and stops. The
// sessions' recordings are closed before; the rest is made of them by the next start.
func (k *Keeper) Close() error {
	k.cancel()
	k.wg.Wait()
	ctx, cancel := context.WithTimeout(k.stores, storeTimeout)
	defer cancel()
	k.stores = ctx
	k.step(k.cfg.Now(), true)
	return nil
}

// Delete deletes what is kept of a session; its recording is deleted too, or it would be
// made again.
func (k *Keeper) Delete(ctx context.Context, session string) error {
	return k.cfg.Store.DeleteTranscript(ctx, session, k.cfg.Now())
}

// Follow returns what is to follow a recording's writer.
func (k *Keeper) Follow(h recording.Header) recording.Follower {
	f := newFollower(k, h)
	k.activate(f)
	return f
}

func (k *Keeper) activate(f *follower) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.active[f] = true
}

func (k *Keeper) run() {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-t.C:
			k.step(k.cfg.Now(), false)
		}
	}
}

// step reads what waits, session by session.
func (k *Keeper) step(now time.Time, last bool) {
	for _, f := range k.due() {
		if !last && k.ctx.Err() != nil {
			return // Close does the rest
		}
		if f.step(now, last) {
			continue
		}
		k.forget(f)
	}
	if len(k.blocks) > 0 && (last || now.Sub(k.since) >= blockAge) {
		k.write(now)
	}
}

// add has a block written soon, together with those of other sessions.
func (k *Keeper) add(f *follower, b Block, now time.Time) {
	if f.failed {
		return
	}
	if len(k.blocks) == 0 {
		k.since = now
	}
	k.blocks, k.owners = append(k.blocks, Addition{f.number, b}), append(k.owners, f)
	if len(k.blocks) >= maxBlocks {
		k.write(now)
	}
}

// write writes the blocks that wait.
func (k *Keeper) write(now time.Time) {
	blocks, owners := k.blocks, k.owners
	k.blocks, k.owners = nil, nil
	if len(blocks) == 0 {
		return
	}
	ctx, cancel := k.storing()
	defer cancel()
	gone, err := k.cfg.Store.AddBlocks(ctx, k.cfg.Member, blocks, now)
	for _, f := range owners {
		if err == nil && !slices.Contains(gone, f.number) || f.failed {
			continue
		}
		f.failed = true // made again of the recording
		k.failed("adding to a transcript", f.session, cmp.Or(err, ErrGone))
	}
}

// forget waits for a follower's next event, or takes note that there was one meanwhile.
func (k *Keeper) forget(f *follower) {
	k.mu.Lock()
	delete(k.active, f)
	k.mu.Unlock()
	f.rest()
}

func (k *Keeper) due() []*follower {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]*follower, 0, len(k.active))
	for f := range k.active {
		all = append(all, f)
	}
	return all
}

// storing gives a write to the store its time.
func (k *Keeper) storing() (context.Context, context.CancelFunc) {
	return context.WithTimeout(k.stores, storeTimeout)
}

// failed counts and logs what a transcript lost.
func (k *Keeper) failed(doing, session string, err error) {
	if errors.Is(err, ErrGone) {
		return
	}
	k.stats.failures.Add(1)
	k.cfg.Logger.Warn(doing, "session", session, "error", err)
}
