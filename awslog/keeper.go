package awslog

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sallyport.dev/audit"
)

const (
	// leaseFor is how long a member's jobs are its own without a word from it, renewEvery
	// how often it says so.
	leaseFor   = time.Minute
	renewEvery = 20 * time.Second
	// orphanAfter is how long a live session's stream may be overdue before another member
	// than the session's takes it.
	orphanAfter = time.Minute
	// maxStreams bounds the sessions that are streamed at once, maxWriters the objects and
	// logs of ended sessions that are written at once. Each of the latter holds a part.
	maxStreams = 10000
	maxWriters = 4
	// storeTimeout bounds a call of the database.
	storeTimeout = 10 * time.Second
)

// Auditor appends audit records durably.
type Auditor interface {
	Append(ctx context.Context, r audit.Record) (audit.Record, error)
}

// Config is what a Keeper works with. All is required but what is marked.
type Config struct {
	S3   *s3.Client
	Logs *cloudwatchlogs.Client
	// Buckets and LogGroups are what may be written to: names, or for buckets BUCKET/KEY,
	// with * for any characters. What is not named is refused.
	Buckets, LogGroups []string
	Region             string // of the nodes, that events name
	// Place is the region of buckets and log groups, for URLs, and S3URL that of S3 itself;
	// by default AWS's.
	Place, S3URL string
	Store        Store
	// Open opens a recording; recording.ErrNotFound where there is none.
	Open   func(ctx context.Context, name string) (Recording, error)
	Audit  Auditor
	Member string // this process's id
	Logger *slog.Logger
	Now    func() time.Time // optional: time.Now
	// Interval is between two looks at what is to be done, and two calls for a streamed
	// session; optional: a second, as AWS's agent has it.
	Interval time.Duration
	// PartSize is how much of an object is held and sent at once, in bytes; optional: 8 MiB.
	PartSize int
}

// Keeper writes the outputs of sessions. It is safe for concurrent use.
type Keeper struct {
	cfg     Config
	log     *slog.Logger
	buckets []pattern
	groups  []pattern
	checks  checks
	stats   counters

	ctx     context.Context // of the work; ends when Close's does
	cancel  context.CancelFunc
	closing chan struct{}
	wake    chan struct{}
	wg      sync.WaitGroup
	loops   sync.WaitGroup

	streams, writers atomic.Int64 // that are running

	mu      sync.Mutex
	running map[string]bool      // by kind and session
	ended   map[string]time.Time // sessions of jobs held here that have ended
	pending Pending
}

type counters struct {
	objects, objectBytes, events, eventBytes, failures, givenUp atomic.Int64
}

// Stats are figures of one member, and what waits for all.
type Stats struct {
	Objects     int64 // written since start
	ObjectBytes int64
	Events      int64 // put since start
	EventBytes  int64
	Failures    int64 // attempts that failed since start
	GivenUp     int64 // outputs that will not be written, since start
	Streaming   int64 // sessions that are streamed now
	Pending           // of all members
}

// Stats returns the figures of now.
func (k *Keeper) Stats() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Stats{
		Objects: k.stats.objects.Load(), ObjectBytes: k.stats.objectBytes.Load(),
		Events: k.stats.events.Load(), EventBytes: k.stats.eventBytes.Load(),
		Failures: k.stats.failures.Load(), GivenUp: k.stats.givenUp.Load(),
		Streaming: k.streams.Load(), Pending: k.pending,
	}
}

// New starts a keeper, which goes on with what an earlier run of this member had begun.
func New(ctx context.Context, cfg Config) (*Keeper, error) {
	k := &Keeper{cfg: cfg, log: cfg.Logger, closing: make(chan struct{}), wake: make(chan struct{}, 1), ended: map[string]time.Time{}, running: map[string]bool{}}
	k.cfg.Interval = cmp.Or(cfg.Interval, time.Second)
	k.cfg.S3URL = cmp.Or(strings.TrimSuffix(cfg.S3URL, "/"), "https://s3."+cfg.Place+".amazonaws.com")
	k.cfg.PartSize = cmp.Or(cfg.PartSize, partSize)
	if cfg.Now == nil {
		k.cfg.Now = time.Now
	}
	var err error
	if k.buckets, err = bucketPatterns(cfg.Buckets); err != nil {
		return nil, err
	}
	if k.groups, err = groupPatterns(cfg.LogGroups); err != nil {
		return nil, err
	}
	if err := cfg.Store.ReleaseLogs(ctx, cfg.Member); err != nil {
		return nil, err
	}
	k.ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
	k.loops.Go(k.run)
	k.loops.Go(k.renew)
	return k, nil
}

func (k *Keeper) now() time.Time { return k.cfg.Now() }

// Begin takes down what is to be written of a session, before it begins.
func (k *Keeper) Begin(ctx context.Context, s Session, o Outputs) error {
	all := jobs(s, o, k.now())
	if len(all) == 0 {
		return nil
	}
	if err := k.cfg.Store.AddLogs(ctx, all); err != nil {
		return err
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return nil
}

// Jobs returns the outputs of sessions.
func (k *Keeper) Jobs(ctx context.Context, sessions []string) ([]Job, error) {
	all, err := k.cfg.Store.Logs(ctx, sessions)
	for i := range all {
		all[i].URL = all[i].url(k.cfg.S3URL, k.cfg.Place)
	}
	return all, err
}

// Close lets streams put what there is, until ctx ends; the rest is done by the next start,
// or by another member. The sessions have ended, and the archive is still open.
func (k *Keeper) Close(ctx context.Context) error {
	close(k.closing)
	stop := context.AfterFunc(ctx, k.cancel)
	defer stop()
	k.loops.Wait()
	k.wg.Wait()
	k.cancel()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	return k.cfg.Store.ReleaseLogs(ctx, k.cfg.Member)
}

func (k *Keeper) isClosing() bool {
	select {
	case <-k.closing:
		return true
	default:
		return false
	}
}

// storing gives a call of the database its time.
func (k *Keeper) storing() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(k.ctx), storeTimeout)
}

// run looks for work.
func (k *Keeper) run() {
	t := time.NewTicker(k.cfg.Interval)
	defer t.Stop()
	for {
		k.claim(true, maxStreams-int(k.streams.Load()), k.runStream)
		k.claim(false, maxWriters-int(k.writers.Load()), k.runEnded)
		select {
		case <-k.closing:
			return
		case <-t.C:
		case <-k.wake:
		}
	}
}

// claim takes jobs and starts them.
func (k *Keeper) claim(live bool, limit int, do func(Job)) {
	if limit <= 0 {
		return
	}
	ctx, cancel := k.storing()
	defer cancel()
	now := k.now()
	found, err := k.cfg.Store.ClaimLogs(ctx, Claim{
		Member: k.cfg.Member, Now: now, Lease: now.Add(leaseFor), Live: live, Orphaned: now.Add(-orphanAfter), Limit: min(limit, 100),
	})
	if err != nil {
		k.log.Warn("looking for session logs to be written", "error", err)
		return
	}
	count := &k.writers
	if live {
		count = &k.streams
	}
	for _, j := range found {
		if !k.enter(j) {
			continue
		}
		count.Add(1)
		k.wg.Go(func() {
			defer count.Add(-1)
			defer k.leave(j)
			do(j)
		})
	}
}

func (j Job) id() string { return string(j.Kind) + " " + j.ID }

// enter reports whether nobody here works on a job, whose lease may have run out while the
// database was away.
func (k *Keeper) enter(j Job) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running[j.id()] {
		return false
	}
	k.running[j.id()] = true
	return true
}

func (k *Keeper) leave(j Job) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.running, j.id())
}

// renew keeps what is held here, and learns which sessions have ended.
func (k *Keeper) renew() {
	t := time.NewTicker(renewEvery)
	defer t.Stop()
	for {
		k.renewOnce()
		select {
		case <-k.closing:
			return
		case <-t.C:
		}
	}
}

func (k *Keeper) renewOnce() {
	ctx, cancel := k.storing()
	defer cancel()
	ended, err := k.cfg.Store.RenewLogs(ctx, k.cfg.Member, k.now().Add(leaseFor))
	if err != nil {
		k.log.Warn("holding session logs that are being written", "error", err)
		return
	}
	pending, err := k.cfg.Store.PendingLogs(ctx)
	if err != nil {
		k.log.Warn("counting session logs to be written", "error", err)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended, k.pending = ended, pending
}

// endedAt is when a session ended whose job is held here, zero while it runs.
func (k *Keeper) endedAt(session string) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ended[session]
}

// save saves a job that is held here.
func (k *Keeper) save(j Job) error {
	ctx, cancel := k.storing()
	defer cancel()
	return k.cfg.Store.SaveLog(ctx, j)
}

// errClosed means that the keeper was closed before a job was done.
var errClosed = errors.New("the server is stopping")
