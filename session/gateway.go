package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"sallyport.dev/audit"
	"sallyport.dev/internal/seal"
	"sallyport.dev/node"
	"sallyport.dev/recording"
)

// Errors of the gateway.
var (
	ErrNotConnected = errors.New("node is not connected")
	ErrEnded        = errors.New("session has ended")
	ErrRecording    = errors.New("session cannot be recorded")
	// ErrRecordingFull is the ErrRecording of a spool without room; its text, for the person,
	// says why.
	ErrRecordingFull error = recordingFull{}
	ErrNoResponder         = errors.New("no member serves the subject")
	ErrStopped             = errors.New("server is shutting down")
)

// Member is a server process of the cluster.
type Member struct {
	ID  string
	URL string // at which other members reach it
}

// Cluster is what the gateway needs of the routing between members.
type Cluster interface {
	Member() string
	Members() []Member // that are alive, this one included
	Serve(subject string, h func(context.Context, []byte) ([]byte, error)) (stop func(), err error)
	Request(ctx context.Context, subject string, data []byte) ([]byte, error) // ErrNoResponder
	Broadcast(subject string, data []byte) error
	Listen(subject string, hear func([]byte)) (stop func(), err error)
}

// Nodes notes which member holds a node's control channel.
type Nodes interface {
	Nodes(ctx context.Context, f node.Filter) ([]node.Node, error)
	SetConnected(ctx context.Context, id, member string, at time.Time) error
	ClearConnected(ctx context.Context, id, member string) error
}

// Auditor appends audit records durably.
type Auditor interface {
	Append(ctx context.Context, r audit.Record) (audit.Record, error)
}

// Recorder takes down what a session shows. An error of any method but Close ends
// the session. *recording.Writer is one.
type Recorder interface {
	// Err returns the error by which it cannot go on, if there is one. It is called often.
	Err() error
	Output(at time.Time, p []byte) error
	Input(at time.Time, p []byte) error
	Resize(at time.Time, cols, rows int) error
	Flush() error
	// Holds reports whether something waits for a later Flush, though nothing follows.
	Holds() bool
	Close(end recording.End) (recording.Summary, error)
	// Attach has f follow what is recorded, for watchers, from an offset of the recording
	// on. What lies before can be read once it is flushed.
	Attach(f recording.Follower) (offset int64)
	Detach(f recording.Follower)
}

// Config says what a gateway works with. Durations and sizes have defaults.
type Config struct {
	Store   Store        // required
	Nodes   Nodes        // required
	Cluster Cluster      // required
	Key     *seal.Key    // required; shared by all members
	Audit   Auditor      // required
	Logger  *slog.Logger // required
	Jobs    Jobs         // optional: without it no jobs are sent
	// Record opens the recording of a session and returns it with its name in the
	// recording store. Required unless no session asks to be recorded.
	Record func(ctx context.Context, s Session, o Options) (Recorder, string, error)
	// Redact returns a command line without what must not be kept of it; optional.
	Redact func(command string) string
	// Unrecorded has no session recorded: what recording costs is measured against that.
	// No configuration file can say so.
	Unrecorded bool
	// Recorded returns the summary of a recording that a member left behind, by its name;
	// optional. An error means that it is not finished yet.
	Recorded func(ctx context.Context, name string) (recording.Summary, error)
	// DataKey decrypts the data key of a session that its ends encrypt and the gateway
	// records: what the client handed in, with the encryption context that it must have.
	// Required unless no such session is to be recorded.
	DataKey func(ctx context.Context, s Session, blob []byte, encryptionContext map[string]string) ([]byte, error)
	Now     func() time.Time
	// Tracer gets spans of how sessions begin; optional.
	Tracer trace.Tracer

	// OpeningTimeout bounds how long a channel may take to send its opening
	// message. Default 10 s.
	OpeningTimeout time.Duration
	// PingInterval is between pings on control channels; a link that stays silent
	// for two and a half of them is dead. Default 10 s.
	PingInterval time.Duration
	// StartResend is how often a session's start is repeated until the agent asks
	// for the data channel; StartTimeout is when it counts as failed. Defaults 2 s
	// and 30 s.
	StartResend, StartTimeout time.Duration
	// DisconnectGrace is how long a session outlives its client, so that it can
	// come back; AgentGrace the same for the agent's data channel. Defaults 60 s.
	DisconnectGrace, AgentGrace time.Duration
	// IdleTimeout applies to sessions that name none. Default 20 min.
	IdleTimeout time.Duration
	// CloseHold is how long channel_closed keeps its distance from the end of a
	// handshake: AWS's client hangs when they come together. Default 1 s.
	CloseHold time.Duration
	// Linger is how long an ended session is remembered, to tell a late client why.
	// Default 60 s.
	Linger time.Duration
	// Buffer bounds the bytes held per direction of a session. Default 4 MiB.
	Buffer int
	// RecordLimit bounds how much output, and how much input where that is recorded, of
	// a program without a terminal goes into its recording, in bytes. Default 16 MiB.
	RecordLimit int64
	// Tick is the period of the clocks. Default 250 ms.
	Tick time.Duration
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.OpeningTimeout, 10*time.Second)
	set(&c.PingInterval, 10*time.Second)
	set(&c.StartResend, 2*time.Second)
	set(&c.StartTimeout, 30*time.Second)
	set(&c.DisconnectGrace, time.Minute)
	set(&c.AgentGrace, time.Minute)
	set(&c.IdleTimeout, 20*time.Minute)
	set(&c.CloseHold, time.Second)
	set(&c.Linger, time.Minute)
	set(&c.Tick, 250*time.Millisecond)
	if c.Buffer == 0 {
		c.Buffer = 4 << 20
	}
	if c.RecordLimit == 0 {
		c.RecordLimit = 16 << 20
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Tracer == nil {
		c.Tracer = noop.Tracer{}
	}
	return c
}

// Gateway holds the control channels of nodes and relays the sessions whose home is
// this member: those on nodes that were connected to it when they started.
type Gateway struct {
	cfg Config
	log *slog.Logger

	ctx    context.Context // lives as long as the gateway
	cancel context.CancelFunc

	closing  atomic.Bool // sessions are being ended: no client comes back
	life     sync.Mutex  // a leaf: guards stopping, and wg against a late Add
	stopping bool
	wg       sync.WaitGroup // everything the gateway has started

	mu       sync.Mutex          // guards the maps; taken before a live session's
	controls map[string]*control // by node id
	sessions map[string]*live    // by session id, ended ones lingering

	// waiting holds a place for each channel that has not sent its opening message:
	// until then nobody knows who it is.
	waiting chan struct{}

	bulkConns atomic.Int64 // bulk connections of all sessions
	watches   atomic.Int64 // watches of all sessions
	pipes     pipes        // for splicing them

	keeper atomic.Pointer[Keeper]

	unlisten func()
	counters counters
}

type counters struct {
	started, bytesIn, bytesOut atomic.Int64

	mu    sync.Mutex
	began map[string]int64 // by kind
	ended map[End]int64
}

// maxWaiting bounds the channels whose opening message is still to come, at about
// 15 KB each and for as long as OpeningTimeout.
const maxWaiting = 4096

// Stats are figures of one member, for metrics.
type Stats struct {
	Nodes    int              // control channels held
	Sessions map[string]int   // sessions relayed now, by kind
	Started  map[string]int64 // sessions opened since start, by kind
	Ended    map[End]int64    // sessions ended since start
	BytesIn  int64            // payload bytes from clients of ended sessions
	BytesOut int64            // payload bytes from agents of ended sessions
}

// End tells ended sessions apart in Stats.
type End struct {
	Kind   string // as of Kind
	Reason string // one of the Reason constants
}

// Kinds of sessions in Stats.
const (
	KindShell    = "shell"
	KindCommand  = "command"
	KindForward  = "forward"
	KindTransfer = "transfer"
)

// kind is what the session is for.
func (s *live) kind() string {
	switch {
	case s.row.SessionType == "Port":
		return KindForward
	case s.exec != nil && s.exec.follow != nil: // SFTP, scp
		return KindTransfer
	case s.exec != nil && s.exec.Command != "", strings.HasSuffix(s.row.SessionType, "Commands"):
		return KindCommand
	}
	return KindShell
}

// New starts a gateway: it closes what an earlier run of this member left open, and
// listens to the other members. Close ends it.
func New(ctx context.Context, cfg Config) (*Gateway, error) {
	g := &Gateway{
		cfg:      cfg.withDefaults(),
		log:      cfg.Logger,
		controls: map[string]*control{},
		sessions: map[string]*live{},
		waiting:  make(chan struct{}, maxWaiting),
		pipes:    newPipes(),
	}
	g.counters.began, g.counters.ended = map[string]int64{}, map[End]int64{}
	g.ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := g.closeLeftovers(ctx); err != nil {
		g.cancel()
		return nil, fmt.Errorf("closing sessions of an earlier run: %w", err)
	}
	stop, err := cfg.Cluster.Listen(subjectTaken, g.heardTaken)
	if err != nil {
		g.cancel()
		return nil, fmt.Errorf("listening to members: %w", err)
	}
	g.unlisten = stop
	g.wg.Go(g.clock)
	g.wg.Go(g.sweeper)
	return g, nil
}

func (g *Gateway) now() time.Time { return g.cfg.Now() }

// start runs f as a goroutine of the gateway, unless that has stopped.
func (g *Gateway) start(f func()) bool {
	g.life.Lock()
	defer g.life.Unlock()
	if g.stopping {
		return false
	}
	g.wg.Go(f)
	return true
}

// Close ends every session with a word to its person, closes every channel and waits
// for it all, at most until ctx ends; then it drops what is left.
func (g *Gateway) Close(ctx context.Context) error {
	g.closing.Store(true)
	g.mu.Lock()
	ending := slices.Collect(maps.Values(g.sessions))
	g.mu.Unlock()
	for _, s := range ending {
		s.end(&Cause{Reason: ReasonShutdown, Terminal: "The server is shutting down."})
	}
	var late error
	for _, s := range ending {
		select {
		case <-s.done:
		case <-ctx.Done():
			late = fmt.Errorf("closing sessions: %w", ctx.Err())
		}
	}
	g.unlisten()
	g.stop()
	g.wg.Wait()
	g.pipes.close()
	return late
}

// stop closes what is still open.
func (g *Gateway) stop() {
	g.cancel()
	g.life.Lock()
	g.stopping = true
	g.life.Unlock()
	g.mu.Lock()
	controls := slices.Collect(maps.Values(g.controls))
	sessions := slices.Collect(maps.Values(g.sessions))
	g.mu.Unlock()
	for _, c := range controls {
		c.conn.Close()
	}
	for _, s := range sessions {
		s.drop()
	}
}

// Stats returns the member's figures.
func (g *Gateway) Stats() Stats {
	g.mu.Lock()
	st := Stats{Nodes: len(g.controls), Sessions: map[string]int{}}
	for _, s := range g.sessions {
		if !s.isDone() {
			st.Sessions[s.kind()]++
		}
	}
	g.mu.Unlock()
	st.BytesIn, st.BytesOut = g.counters.bytesIn.Load(), g.counters.bytesOut.Load()
	g.counters.mu.Lock()
	defer g.counters.mu.Unlock()
	st.Started, st.Ended = maps.Clone(g.counters.began), maps.Clone(g.counters.ended)
	return st
}

// session returns a session that this member relays or has lately relayed.
func (g *Gateway) session(id string) *live {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions[id]
}

// clock drives everything in sessions that depends on time.
func (g *Gateway) clock() {
	t := time.NewTicker(g.cfg.Tick)
	defer t.Stop()
	var all []*live
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-t.C:
		}
		all = all[:0]
		now := g.now()
		g.mu.Lock()
		for id, s := range g.sessions {
			if s.forgotten(now) {
				delete(g.sessions, id)
				continue
			}
			all = append(all, s)
		}
		g.mu.Unlock()
		for _, s := range all {
			s.tick(now)
		}
	}
}

// The subjects on which members talk.
const (
	subjectNode    = "sallyport.node."    // + node id: the member with its control channel
	subjectSession = "sallyport.session." // + session id: the session's home
	subjectTaken   = "sallyport.control.taken"
)

// audit appends a record about a session and reports whether that worked. Request is the
// id of the one that the session is for, where it is known.
func (g *Gateway) audit(ctx context.Context, event string, s Session, request, reason string, details map[string]string) error {
	_, err := g.cfg.Audit.Append(ctx, audit.Record{
		Time:      g.now(),
		Event:     event,
		Principal: s.Owner,
		Session:   s.ID,
		Node:      s.NodeID,
		Document:  s.Document,
		SourceIP:  s.SourceIP,
		RequestID: request,
		Reason:    reason,
		Details:   details,
	})
	if err != nil {
		g.log.Error("writing audit record", "session", s.ID, "event", event, "error", err)
	}
	return err
}

// auditNode records that a node came or went. The node's own link does not hang on
// it: what a node may do is audited where it is done.
func (g *Gateway) auditNode(node, reason string, details map[string]string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(g.ctx), storeTimeout)
	defer cancel()
	_, err := g.cfg.Audit.Append(ctx, audit.Record{Event: audit.EventNode, Node: node, Reason: reason, Details: details})
	if err != nil {
		g.log.Error("recording that a node "+reason, "node", node, "error", err)
	}
}
