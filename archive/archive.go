package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"

	"sallyport.dev/recording"
)

// Errors of the archive. A recording that is not there is recording.ErrNotFound, a name
// that cannot be one recording.ErrName, and one that has not ended recording.ErrIncomplete.
var (
	// ErrFull means that the spool has no room, because the store does not take what
	// waits there. The text says since when and why.
	ErrFull = recording.ErrFull
	// ErrClosed means that the archive was closed.
	ErrClosed = errors.New("the archive is closed")
)

// Keeper wraps the data keys of recordings with a key that it keeps.
type Keeper interface {
	// ID names the key that Wrap uses now; it is written into key.json as it is.
	ID() string
	// Wrap encrypts a data key of 32 bytes.
	Wrap(ctx context.Context, key []byte) (wrapped []byte, err error)
	// Unwrap decrypts what Wrap made when ID was id, which may be an older key.
	Unwrap(ctx context.Context, id string, wrapped []byte) (key []byte, err error)
}

// KeyMaker is a Keeper that makes keys itself, and may have some ready.
type KeyMaker interface {
	// NewKey makes a key of 32 bytes, which is given out once.
	NewKey(ctx context.Context) (DataKey, error)
}

// DataKey is a new key of a recording.
type DataKey struct {
	ID      string // of the key that wraps it
	Key     []byte
	Wrapped []byte
}

// WhenFull says what a full spool means.
type WhenFull string

// What a full spool means: new recordings are refused, or live ones end as well.
const (
	Refuse WhenFull = "refuse"
	End    WhenFull = "end"
)

// Config is what an Archive works with. Those with a default may be zero.
type Config struct {
	Bucket *blob.Bucket // required; the archive closes it
	Keeper Keeper       // required
	Rows   Rows         // required
	Logger *slog.Logger // required
	Member string       // required: this member's id, for the rows
	// Spool is a folder that is this member's alone. It is made with mode 0700.
	Spool string
	// SpoolLimit is how many bytes may wait in the spool before new recordings are
	// refused (and live ones end, with WhenFull End); 1 GiB by default. At HardLimit live
	// ones end in any case; by default a quarter more.
	SpoolLimit, HardLimit int64
	// WhenFull is Refuse by default.
	WhenFull WhenFull
	// ChunkSize and ChunkInterval are when a chunk is finished and sent to the store, in
	// sealed bytes and since its first one; 4 MiB and 10 s by default.
	ChunkSize     int
	ChunkInterval time.Duration
	// Peers reads from other members' spools; optional.
	Peers Peers
	// Ended tells how a session ended whose recording this member's earlier run left open,
	// where that is known; optional.
	Ended func(ctx context.Context, session string) (end recording.End, known bool)
	// Finished is told of each recording that was finished after its session's end was
	// written down, to be audited; optional. It is called again until it succeeds.
	Finished func(ctx context.Context, m Manifest) error
	// Now is time.Now by default.
	Now func() time.Time
}

// Peers reads what lies in other members' spools; cluster routing is one.
type Peers interface {
	// Ask sends a request to the Answer method of a member's archive.
	Ask(ctx context.Context, member string, request []byte) (answer []byte, err error)
}

// Archive keeps recordings. It is safe for concurrent use.
type Archive struct {
	cfg     Config
	log     *slog.Logger
	spool   *spool
	keys    *keyCache
	chunks  *chunkCache
	scratch sync.Pool // of *scratch
	buffers sync.Pool // of *[]byte
	stats   counters

	ctx    context.Context // lives as long as the archive
	cancel context.CancelFunc
	wg     sync.WaitGroup
	toSeal chan *live
	wake   chan struct{} // something waits for the store

	mu        sync.Mutex
	closed    bool
	live      map[string]*live
	ending    map[string]*live   // that have ended, and whose end could not be written yet
	recover   map[string]bool    // that an earlier run left open and this one has not finished
	parcels   map[string]*parcel // what waits for the store, by recording
	failing   string             // the last error of the store, empty while it works
	failingAt time.Time          // since when

	toldFull atomic.Bool // the log has it that there is no room

	probing sync.Mutex
	probed  time.Time // when the spool was last tried
	unready error     // and how that went
}

type counters struct {
	stored, storedBytes, storeErrors atomic.Int64
	frameBytes, sealedBytes          atomic.Int64
	damaged, keeperErrors            atomic.Int64
}

// Recording is a recording being written.
type Recording struct {
	*recording.Writer
	// Name is the recording's name in the store, 2026/11/20/SESSION.
	Name string

	live *live
}

// Err returns the error by which the recording cannot go on, if any: also where nothing is
// being shown that could not be recorded.
func (r *Recording) Err() error {
	if err := r.live.failed(); err != nil {
		return err
	}
	return r.live.a.room(true)
}

// Reader is the plain text of a recording (asciicast) as far as it was flushed when it
// was opened. Reads stop with a *Damage error at what does not verify.
type Reader interface {
	io.ReaderAt
	io.Closer
	Size() int64 // bytes
}

// Stats are figures of one member's archive, for metrics.
type Stats struct {
	Live         int           // recordings being written
	Waiting      int           // recordings that the store does not have whole, live ones included
	SpoolBytes   int64         // in the spool now
	SpoolLimit   int64         // at which new recordings are refused
	Lag          time.Duration // age of the oldest finished chunk that the store does not have
	Stored       int64         // objects sent to the store since start
	StoredBytes  int64         // and their bytes
	StoreErrors  int64         // calls of the store that failed since start
	StoreError   string        // the last one's text, while the store fails
	Damaged      int64         // damage found since start
	FrameBytes   int64         // plain bytes sealed since start
	SealedBytes  int64         // what they became
	KeeperErrors int64         // calls of the Keeper that failed since start
}

const (
	defaultSpoolLimit    = 1 << 30
	defaultChunkSize     = 4 << 20
	defaultChunkInterval = 10 * time.Second
	// sealQueue bounds the recordings that wait for a worker to seal what they hold; more
	// are sealed by those who write them.
	sealQueue = 1024
)

// complete checks the configuration and fills its defaults.
func (c *Config) complete() error {
	if c.Bucket == nil || c.Keeper == nil || c.Rows == nil || c.Logger == nil || c.Member == "" || c.Spool == "" {
		return errors.New("archive configuration lacks one of Bucket, Keeper, Rows, Logger, Member, Spool")
	}
	c.SpoolLimit = cmp.Or(c.SpoolLimit, defaultSpoolLimit)
	c.HardLimit = cmp.Or(c.HardLimit, c.SpoolLimit+c.SpoolLimit/4)
	c.ChunkSize = cmp.Or(c.ChunkSize, defaultChunkSize)
	c.ChunkInterval = cmp.Or(c.ChunkInterval, defaultChunkInterval)
	c.WhenFull = cmp.Or(c.WhenFull, Refuse)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.ChunkSize < 1 || c.ChunkSize > defaultChunkSize {
		return fmt.Errorf("ChunkSize is %d, must be from 1 to %d", c.ChunkSize, defaultChunkSize)
	}
	if c.SpoolLimit < 1 || c.HardLimit < c.SpoolLimit || c.ChunkInterval < 0 {
		return errors.New("SpoolLimit must be positive, HardLimit no less, ChunkInterval not negative")
	}
	if c.WhenFull != Refuse && c.WhenFull != End {
		return fmt.Errorf("WhenFull is %q, must be %q or %q", c.WhenFull, Refuse, End)
	}
	return nil
}

// Open opens the archive and goes on with what an earlier run has left in the spool. The
// context bounds the opening alone.
func Open(ctx context.Context, cfg Config) (*Archive, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s, err := openSpool(cfg.Spool)
	if err != nil {
		return nil, err
	}
	a := &Archive{
		cfg: cfg, log: cfg.Logger, spool: s,
		keys: newKeyCache(cfg.Now), chunks: newChunkCache(keptChunks),
		scratch: sync.Pool{New: func() any { return &scratch{} }},
		buffers: sync.Pool{New: func() any { b := make([]byte, 0, 2*frameSize); return &b }},
		toSeal:  make(chan *live, sealQueue), wake: make(chan struct{}, 1),
		live: map[string]*live{}, ending: map[string]*live{}, recover: map[string]bool{}, parcels: map[string]*parcel{},
	}
	a.ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := a.takeUp(ctx); err != nil {
		a.cancel()
		return nil, errors.Join(err, s.close())
	}
	a.run()
	return a, nil
}

// run starts what belongs to the archive.
func (a *Archive) run() {
	for range runtime.GOMAXPROCS(0) {
		a.wg.Go(a.sealer)
	}
	a.wg.Go(a.clock)
	a.wg.Go(a.sender)
	a.wg.Go(a.recoverLeft)
}

func (a *Archive) now() time.Time { return a.cfg.Now() }

// sealer seals what recordings hold, off the way of who writes them.
func (a *Archive) sealer() {
	for {
		select {
		case <-a.ctx.Done():
			return
		case l := <-a.toSeal:
			l.Flush() // who writes next learns of an error
		}
	}
}

// queue leaves a recording to a worker and reports whether there was room.
func (a *Archive) queue(l *live) bool {
	select {
	case a.toSeal <- l:
		return true
	default:
		return false
	}
}

// clock ends chunks that are old enough, and tries again what could not be finished.
func (a *Archive) clock() {
	t := time.NewTicker(min(time.Second, max(a.cfg.ChunkInterval/4, 10*time.Millisecond)))
	defer t.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-t.C:
		}
		now := a.now()
		for _, l := range a.all() {
			l.finishOld(now)
		}
		a.finishEnding()
	}
}

func (a *Archive) all() []*live {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*live, 0, len(a.live))
	for _, l := range a.live {
		all = append(all, l)
	}
	return all
}

// enter makes a recording known.
func (a *Archive) enter(l *live) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return ErrClosed
	}
	a.live[l.name] = l
	return nil
}

func (a *Archive) leave(l *live) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.live, l.name)
	delete(a.ending, l.name)
}

// finishLater has the clock finish what could not be finished.
func (a *Archive) finishLater(l *live) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ending[l.name] = l
}

// finishEnding tries again to finish recordings. Their sessions' ends are written down, so
// that they are told of like those of an earlier run.
func (a *Archive) finishEnding() {
	a.mu.Lock()
	ending := make([]*live, 0, len(a.ending))
	for _, l := range a.ending {
		ending = append(ending, l)
	}
	a.mu.Unlock()
	for _, l := range ending {
		l.sealing.Lock()
		err := l.finish()
		l.sealing.Unlock()
		if err == nil {
			a.leave(l)
			a.log.Info("recording finished late", "recording", l.name)
		}
	}
}

// room returns ErrFull where nothing new may be recorded, or nothing at all.
func (a *Archive) room(live bool) error {
	have, limit := a.spool.bytes.Load(), a.cfg.SpoolLimit
	if live && a.cfg.WhenFull != End {
		limit = a.cfg.HardLimit
	}
	if have < limit {
		if !live && a.toldFull.Swap(false) {
			a.log.Info("there is room for recordings again")
		}
		return nil
	}
	err := a.full(have, limit)
	if !live && !a.toldFull.Swap(true) {
		a.log.Error("new sessions that would be recorded are refused", "error", err)
	}
	return err
}

// full tells what keeps the spool from being emptied.
func (a *Archive) full(have, limit int64) error {
	e := &recording.FullError{Why: "the store takes them more slowly than they are made"}
	because := "the store takes recordings more slowly than they are made"
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failing != "" {
		e.Why = "the store has not taken any for " + words(a.now().Sub(a.failingAt))
		because = fmt.Sprintf("the store takes nothing since %s: %s", a.failingAt.UTC().Format(time.RFC3339), a.failing)
	}
	e.Detail = fmt.Sprintf("the spool %s holds %d of at most %d bytes, because %s", a.cfg.Spool, have, limit, because)
	return e
}

// words are a duration as a person says it.
func words(d time.Duration) string {
	count, unit := int(d.Round(time.Second)/time.Second), "second"
	switch {
	case d >= 2*time.Hour:
		count, unit = int(d/time.Hour), "hour"
	case d >= 2*time.Minute:
		count, unit = int(d/time.Minute), "minute"
	}
	if count == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", max(0, count), unit)
}

// Ready tells what keeps recordings from being written.
func (a *Archive) Ready() error {
	if err := a.room(false); err != nil {
		return err
	}
	return a.probe()
}

// probe tries whether the spool can be written to, at most once a second: anyone may ask.
func (a *Archive) probe() error {
	a.probing.Lock()
	defer a.probing.Unlock()
	if now := a.now(); now.Sub(a.probed).Abs() >= time.Second {
		a.probed, a.unready = now, a.spool.ready()
	}
	return a.unready
}

// Stats returns the figures of now.
func (a *Archive) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Stats{
		Live: len(a.live), Waiting: len(a.parcels) + len(a.recover), SpoolBytes: a.spool.bytes.Load(), SpoolLimit: a.cfg.SpoolLimit,
		Stored: a.stats.stored.Load(), StoredBytes: a.stats.storedBytes.Load(),
		StoreErrors: a.stats.storeErrors.Load(), StoreError: a.failing,
		Damaged: a.stats.damaged.Load(), KeeperErrors: a.stats.keeperErrors.Load(),
		FrameBytes: a.stats.frameBytes.Load(), SealedBytes: a.stats.sealedBytes.Load(),
	}
	now := a.now()
	for _, p := range a.parcels {
		if len(p.todo) > 0 {
			s.Lag = max(s.Lag, now.Sub(p.todo[0].since))
		}
	}
	return s
}

// Close sends what it can to the store until ctx ends; the rest waits in the spool for
// the next start, as does what is still being recorded.
func (a *Archive) Close(ctx context.Context) error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil
	}
	a.closed = true
	a.mu.Unlock()
	for !a.isSent() && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	a.cancel()
	a.wg.Wait()
	return errors.Join(a.spool.close(), a.cfg.Bucket.Close())
}

// isSent reports whether the store has all that it can be expected to take now.
func (a *Archive) isSent() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failing != "" {
		return true
	}
	for _, p := range a.parcels {
		if len(p.todo) > 0 || p.end != nil {
			return false
		}
	}
	return true
}
