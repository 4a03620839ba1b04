package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/internal/datakey"
	"sallyport.dev/wire"
)

const (
	// Version is what this client tells agents. AWS's agent multiplexes forwards from
	// 1.1.70 and switches its own keep-alive off above 1.2.331.0 (docs/protocol.md §17).
	Version = "1.2.700.0"

	// maxPayload bounds what is put into one stream message, in bytes.
	maxPayload = 32 << 10

	tick            = 100 * time.Millisecond
	pingEvery       = 20 * time.Second
	probeAfter      = 2 * time.Second // a message unacknowledged for so long is reason to ping
	pongTimeout     = 5 * time.Second
	firstBackoff    = 100 * time.Millisecond
	maxBackoff      = 5 * time.Second
	handlerPatience = 2 * time.Second
	// ackHold is how long an acknowledgement waits: written at once, it would compete
	// for processors with the terminal that shows the output. ackRush is the number
	// that does not wait.
	ackHold     = 3 * time.Millisecond
	ackRush     = 8
	noticeAfter = time.Second
	// holdInput is how long input waits for the agent's first word, handshakeGrace how
	// long after its first acknowledgement a handshake may still begin.
	holdInput         = 3 * time.Second
	handshakeGrace    = 200 * time.Millisecond
	handshakePatience = 30 * time.Second
	// unsureGrace is the same where the session may be a forward, whose bytes must not be
	// taken for typed input.
	unsureGrace = 2 * time.Second
	// connectFor bounds the first opening of a data channel.
	connectFor = 30 * time.Second
	// DefaultResumeFor is how long a lost link is tried to be brought back.
	DefaultResumeFor = 10 * time.Minute
)

// Session types (docs/protocol.md §15).
const (
	StandardStream         = "Standard_Stream"
	InteractiveCommands    = "InteractiveCommands"
	NonInteractiveCommands = "NonInteractiveCommands"
	Port                   = "Port"
)

// Handler takes what the agent sends in a session of its type. Both methods are
// called by one goroutine; an error ends the data channel.
type Handler interface {
	// Start is called once, before the first Take. properties are those of the
	// document, nil for a session without handshake.
	Start(properties json.RawMessage) error
	// Take handles one payload, which is acknowledged a moment after it returns. It may
	// block: that is what holds the agent back.
	Take(pt wire.PayloadType, payload []byte) error
}

// ChannelConfig says how a data channel is opened and who handles it.
type ChannelConfig struct {
	Stream Stream
	Dial   func(ctx context.Context, url string) (Link, error)
	// Resume asks for a new token after the link broke. Nil: a broken link ends it.
	Resume func(ctx context.Context, sessionID string) (Stream, error)
	// Handlers by session type. A type without one is refused in the handshake.
	Handlers map[string]Handler
	// Direct, if set, takes everything from the first payload on, in place of Handlers:
	// sessions with an Exec have no handshake (docs/protocol.md §28).
	Direct Handler
	// DataKey, if set, makes the data key of a session that client and agent encrypt
	// between them; without it the client does not.
	DataKey DataKeyFunc
	// Notify, if set, is told what a person should know: that the link is lost or back,
	// and the agent's message. The text is not cleaned of control characters.
	Notify func(text string)
	// ResumeFor is how long a lost link is tried to be brought back; 0 for
	// DefaultResumeFor.
	ResumeFor time.Duration
	Logger    *slog.Logger

	closing func() // called when the server has closed the channel, if set
}

// negotiator is a Handler that has a say in the handshake: agree gets the agent's version
// and what it offers, and returns the action's result, or nil.
type negotiator interface {
	agree(version string, p wire.SessionTypeParameters) (result any, err error)
}

// End is how a session ended: by the other side.
type End struct {
	Output     string // the server's words, empty when the session's program ended
	ExitStatus *int   // of the session's program, where the agent told
}

// DataChannel is the client's end of one session.
type DataChannel struct {
	cfg      ChannelConfig
	clientID string
	now      func() time.Time

	opened  chan struct{}               // closed when the first opening message has gone out
	started chan struct{}               // closed when the session type is known
	taken   chan struct{}               // closed when the agent has acknowledged something
	shaking atomic.Bool                 // a handshake has begun
	handler Handler                     // set before started is closed
	unsure  bool                        // whether this is a terminal's session shows when it has started
	ctx     context.Context             // of Run, which the channel lives exactly as long as
	key     atomic.Pointer[datakey.Key] // of a session that is encrypted, else nil

	// sending keeps stream messages in order on the wire. Lock order: sending, mu.
	sending sync.Mutex

	mu       sync.Mutex
	changed  *sync.Cond // on mu: anything below moved on
	out      outgoing
	in       incoming
	link     Link // nil while away
	closed   *End // the server's channel_closed
	failed   error
	stop     bool
	heard    time.Time // when anything arrived last
	pinged   time.Time // when the unanswered ping went out; zero if answered
	nextPing time.Time
	stalled  bool           // the reader waits for room
	acks     []wire.Message // handled, to be acknowledged; without their payloads

	acksDue *time.Timer // for the keeping goroutine

	// Of the connecting goroutine alone.
	token     string
	url       string
	failures  int
	lostSince time.Time

	handshake struct {
		properties  json.RawMessage
		sessionType string
		refused     bool // something of it was refused: nothing may follow
	}
}

// NewDataChannel prepares a data channel; Run opens it.
func NewDataChannel(cfg ChannelConfig) *DataChannel {
	if cfg.ResumeFor == 0 {
		cfg.ResumeFor = DefaultResumeFor
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Notify == nil {
		cfg.Notify = func(string) {}
	}
	d := &DataChannel{
		cfg:      cfg,
		clientID: uuid.NewString(),
		now:      time.Now,
		opened:   make(chan struct{}),
		started:  make(chan struct{}),
		taken:    make(chan struct{}),
		acksDue:  time.NewTimer(time.Hour),
		out:      newOutgoing(),
		in:       newIncoming(),
		token:    cfg.Stream.Token,
		url:      cfg.Stream.URL,
	}
	d.changed = sync.NewCond(&d.mu)
	return d
}

// Opened is closed when the channel was opened for the first time.
func (d *DataChannel) Opened() <-chan struct{} { return d.opened }

// Started is closed when the agent has said what session this is.
func (d *DataChannel) Started() <-chan struct{} { return d.started }

// Ready waits until input can be sent without being lost: an agent in a handshake
// throws it away (docs/protocol.md §6). That is when the session has started; or when
// the agent acknowledged something and began no handshake; or after a while, because
// a shell may be silent. It reports false when ctx ends first.
func (d *DataChannel) Ready(ctx context.Context) bool {
	if !await(ctx, d.opened, nil, 0) {
		return false
	}
	patience, grace := holdInput, handshakeGrace
	if d.unsure {
		patience, grace = 0, unsureGrace
	}
	if !await(ctx, d.started, d.taken, patience) || !await(ctx, d.started, nil, grace) {
		return false
	}
	if d.shaking.Load() {
		return await(ctx, d.started, nil, handshakePatience)
	}
	return true
}

// await waits for a or b, at most d unless that is 0. It reports false when ctx ends.
func await(ctx context.Context, a, b <-chan struct{}, d time.Duration) bool {
	var due <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-a:
	case <-b:
	case <-due:
	case <-ctx.Done():
		return false
	}
	return true
}

// Run opens the channel and keeps it open until the session ends, the link is lost
// for good, a handler fails or ctx ends. All that arrived is handled before it returns.
func (d *DataChannel) Run(ctx context.Context) (End, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wake := context.AfterFunc(ctx, d.halt)
	defer wake()

	d.ctx = ctx
	if err := d.startDirect(); err != nil {
		return End{}, err
	}
	var crew, deliverer crew
	deliverer.run(cancel, func() { d.deliver(cancel) })
	crew.run(cancel, func() { d.keep(ctx) })
	err := d.connect(ctx)
	if err != nil {
		cancel(err)
	}
	d.finish()
	crew.wait()
	// A handler may hang in a write that nobody takes. It ends when that write does,
	// or with the process; leaving must not wait for it.
	deliverer.waitFor(handlerPatience)
	return d.result(ctx, err)
}

// startDirect hands the channel to a handler that waits for no handshake.
func (d *DataChannel) startDirect() error {
	if d.cfg.Direct == nil {
		return nil
	}
	return d.start(d.cfg.Direct, nil)
}

// result is what Run returns: the first cause of the end.
func (d *DataChannel) result(ctx context.Context, err error) (End, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.failed != nil:
		return End{}, d.failed
	case d.closed != nil:
		return *d.closed, nil
	case ctx.Err() != nil:
		return End{}, context.Cause(ctx)
	}
	return End{}, err
}

// halt wakes everything that waits, because the context ended.
func (d *DataChannel) halt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop = true
	d.changed.Broadcast()
	if d.link != nil {
		d.link.Close()
	}
}

// finish waits until what arrived in order is handled, then stops the crew.
func (d *DataChannel) finish() {
	d.mu.Lock()
	for !d.stop && d.in.moving() {
		d.changed.Wait()
	}
	d.mu.Unlock()
	d.acknowledgeHandled()
	d.halt()
}

// connect attaches and reads, again and again.
func (d *DataChannel) connect(ctx context.Context) error {
	for {
		link, err := d.attach(ctx)
		if err != nil {
			return err
		}
		err = d.read(link)
		if d.over() {
			return nil // the link stays for the last acknowledgements
		}
		d.detach(link)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if d.cfg.Resume == nil {
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
		d.cfg.Logger.Debug("link lost", "session", d.cfg.Stream.SessionID, "error", err)
	}
}

func (d *DataChannel) over() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed != nil || d.failed != nil
}

func (d *DataChannel) detach(link Link) {
	d.mu.Lock()
	d.link = nil
	d.mu.Unlock()
	link.Close()
}

// attach brings a link up, with patience.
func (d *DataChannel) attach(ctx context.Context) (Link, error) {
	notice := d.noticeOfLoss()
	link, err := d.attachUntil(ctx, notice)
	if notice.end() && err == nil {
		d.cfg.Notify("reconnected")
	}
	return link, err
}

func (d *DataChannel) attachUntil(ctx context.Context, notice *notice) (Link, error) {
	lost := errors.New("the server hangs up")
	for {
		if err := d.pause(ctx); err != nil {
			return nil, err
		}
		if d.now().After(d.giveUp()) {
			return nil, d.giveUpError(lost)
		}
		link, err := d.tryAttach(ctx)
		if err == nil {
			return link, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if lost = err; errors.Is(err, ErrTimedOut) || permanent(err) {
			return nil, d.giveUpError(err)
		}
		d.cfg.Logger.Debug("could not attach", "session", d.cfg.Stream.SessionID, "error", err)
		notice.give()
	}
}

// notice tells the person once that the link is lost: when an attempt to bring it
// back failed, or takes long. A break that is mended at once goes unmentioned.
type notice struct {
	timer *time.Timer
	mu    sync.Mutex
	tell  func() // nil when it is not to be told, or has been
	given bool
}

func (d *DataChannel) noticeOfLoss() *notice {
	n := &notice{}
	if !d.isOpen() {
		return n
	}
	n.tell = func() { d.cfg.Notify("connection lost, reconnecting (" + d.leaving() + " leaves)") }
	n.timer = time.AfterFunc(noticeAfter, n.give)
	return n
}

// leaving is what a person types to leave: what a command has for input is the command's.
func (d *DataChannel) leaving() string {
	if d.cfg.Direct != nil {
		return "Ctrl-C twice"
	}
	return "~."
}

func (n *notice) give() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tell != nil {
		n.tell()
		n.tell, n.given = nil, true
	}
}

// end takes the notice back if it was not given, and reports whether it was.
func (n *notice) end() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.timer != nil {
		n.timer.Stop()
	}
	n.tell = nil
	return n.given
}

func (d *DataChannel) giveUpError(err error) error {
	if errors.Is(err, ErrTimedOut) || !d.isOpen() {
		return err
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

func (d *DataChannel) isOpen() bool {
	select {
	case <-d.opened:
		return true
	default:
		return false
	}
}

// giveUp is when attaching is not tried any longer.
func (d *DataChannel) giveUp() time.Time {
	if !d.isOpen() {
		return d.lostSince.Add(connectFor)
	}
	return d.lostSince.Add(d.cfg.ResumeFor)
}

// pause waits before the next attempt, longer after every failure. A link that
// brought something makes up for all failures.
func (d *DataChannel) pause(ctx context.Context) error {
	d.mu.Lock()
	if d.heard.After(d.lostSince) || d.lostSince.IsZero() {
		d.failures, d.lostSince = 0, d.now()
	}
	d.mu.Unlock()
	d.failures++
	if d.failures == 1 {
		return nil
	}
	backoff := min(firstBackoff<<min(d.failures-2, 10), maxBackoff)
	timer := time.NewTimer(backoff/2 + rand.N(backoff))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tryAttach makes one attempt: a token, a link, the opening message, and everything
// that was not acknowledged, in order.
func (d *DataChannel) tryAttach(ctx context.Context) (Link, error) {
	if err := d.renew(ctx); err != nil {
		return nil, err
	}
	link, err := d.cfg.Dial(ctx, d.url)
	if err != nil {
		var refused *RefusedError
		if errors.As(err, &refused) && d.cfg.Resume != nil {
			d.token = ""
		}
		return nil, fmt.Errorf("opening data channel: %w", err)
	}
	opening, err := json.Marshal(wire.Opening{
		MessageSchemaVersion: "1.0",
		RequestID:            uuid.NewString(),
		TokenValue:           d.token,
		ClientID:             d.clientID,
		ClientVersion:        Version,
	})
	if err != nil {
		panic(err)
	}
	d.token = "" // presented, so spent
	if err := link.Write(true, opening); err != nil {
		link.Close()
		return nil, fmt.Errorf("opening data channel: %w", err)
	}
	return d.resume(link)
}

// resume puts link into use and resends.
func (d *DataChannel) resume(link Link) (Link, error) {
	link.OnPong(func() { d.hear() })
	d.sending.Lock()
	defer d.sending.Unlock()
	d.mu.Lock()
	if d.stop {
		d.mu.Unlock()
		link.Close()
		return nil, context.Canceled
	}
	now := d.now()
	d.link, d.pinged, d.nextPing = link, time.Time{}, now
	frames := d.out.all(now)
	d.mu.Unlock()
	for _, f := range frames {
		if err := link.Write(false, f); err != nil {
			d.detach(link)
			return nil, fmt.Errorf("resending: %w", err)
		}
	}
	if !d.isOpen() {
		close(d.opened)
	}
	return link, nil
}

// renew gets a token when the last one is spent.
func (d *DataChannel) renew(ctx context.Context) error {
	if d.token != "" {
		return nil
	}
	if d.cfg.Resume == nil {
		return fmt.Errorf("opening data channel: %w", ErrTimedOut)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	s, err := d.cfg.Resume(ctx, d.cfg.Stream.SessionID)
	if err != nil {
		return fmt.Errorf("resuming session: %w", err)
	}
	if s.Token == "" {
		return ErrTimedOut
	}
	d.token = s.Token
	if s.URL != "" {
		d.url = s.URL
	}
	return nil
}

// read takes what arrives until the link breaks or the session ends.
func (d *DataChannel) read(link Link) error {
	for {
		text, p, err := link.Read()
		if err != nil {
			return err
		}
		d.hear()
		if text {
			continue // nothing unframed is meant for a client
		}
		m, err := wire.Decode(p)
		if err != nil {
			d.cfg.Logger.Debug("message dropped", "error", err)
			continue
		}
		if d.dispatch(link, m) {
			return nil
		}
	}
}

// dispatch acts on one message and reports whether the session ended.
func (d *DataChannel) dispatch(link Link, m *wire.Message) (ended bool) {
	switch m.Type {
	case wire.TypeOutputStreamData:
		m.Payload = bytes.Clone(m.Payload)
		return d.arrive(link, m)
	case wire.TypeAcknowledge:
		var ack wire.Acknowledge
		if err := json.Unmarshal(m.Payload, &ack); err == nil {
			d.acknowledged(ack.SequenceNumber)
		}
	case wire.TypeNotice:
		d.noticed(m.Payload)
	case wire.TypeChannelClosed:
		d.close(m.Payload)
		return true
	}
	return false
}

// noticed passes on what the server has to say beside the session.
func (d *DataChannel) noticed(payload []byte) {
	var n wire.Notice
	if json.Unmarshal(payload, &n) == nil && n.Text != "" {
		d.cfg.Notify(n.Text)
	}
}

func (d *DataChannel) hear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard, d.pinged = d.now(), time.Time{}
}

func (d *DataChannel) acknowledged(seq int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.out.acknowledge(seq, d.now())
	d.changed.Broadcast()
	select {
	case <-d.taken:
	default:
		close(d.taken)
	}
}

// close notes the end. A payload that cannot be read ends the session all the same.
func (d *DataChannel) close(payload []byte) {
	var c wire.ChannelClosed
	if err := json.Unmarshal(payload, &c); err != nil {
		d.cfg.Logger.Debug("unreadable channel_closed", "error", err)
	}
	d.mu.Lock()
	d.closed = &End{Output: c.Output, ExitStatus: c.ExitStatus}
	d.changed.Broadcast()
	d.mu.Unlock()
	if d.cfg.closing != nil {
		d.cfg.closing()
	}
}

// arrive keeps a stream message for the handler, waiting for room if it must.
func (d *DataChannel) arrive(link Link, m *wire.Message) (ended bool) {
	d.mu.Lock()
	v := d.in.arrive(m)
	for v == wait && !d.stop {
		d.stalled = true
		d.changed.Wait()
		v = d.in.arrive(m)
	}
	if d.stalled {
		d.stalled, d.heard, d.pinged = false, d.now(), time.Time{}
	}
	stop := d.stop
	d.changed.Broadcast()
	d.mu.Unlock()
	if v == repeat {
		d.acknowledge(link, m)
	}
	return stop
}

func (d *DataChannel) acknowledge(link Link, m *wire.Message) {
	if err := link.Write(false, wire.NewAcknowledge(m, d.now()).Encode()); err != nil {
		d.cfg.Logger.Debug("acknowledgement lost", "error", err)
	}
}

// deliver hands messages to the handler in order and acknowledges each afterwards.
func (d *DataChannel) deliver(fail context.CancelCauseFunc) {
	for {
		m := d.nextMessage()
		if m == nil {
			return
		}
		if err := d.handle(m); err != nil {
			d.mu.Lock()
			d.failed = err
			d.mu.Unlock()
			fail(err)
			return
		}
		d.handled(m)
	}
}

// handled notes that m is to be acknowledged: soon, or at once if many wait or the
// session ends.
func (d *DataChannel) handled(m *wire.Message) {
	d.mu.Lock()
	d.acks = append(d.acks, wire.Message{Type: m.Type, ID: m.ID, SequenceNumber: m.SequenceNumber})
	n, rush := len(d.acks), d.closed != nil
	d.mu.Unlock()
	switch {
	case rush, n >= ackRush:
		d.acknowledgeHandled()
	case n == 1:
		d.acksDue.Reset(ackHold)
	}
	d.mu.Lock()
	d.in.handled() // last, so that the end waits for the acknowledgement
	d.changed.Broadcast()
	d.mu.Unlock()
}

// acknowledgeHandled writes the acknowledgements that wait. While there is no link
// they are dropped: the agent sends again over the next one.
func (d *DataChannel) acknowledgeHandled() {
	d.mu.Lock()
	link, acks := d.link, d.acks
	d.acks = nil
	d.mu.Unlock()
	for i := range acks {
		if link != nil {
			d.acknowledge(link, &acks[i])
		}
	}
}

// nextMessage waits for the next message in order; nil when the channel stops.
func (d *DataChannel) nextMessage() *wire.Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.stop {
		if m := d.in.take(); m != nil {
			return m
		}
		d.changed.Wait()
	}
	return nil
}

// Send sends one stream message. While the link is away it is kept and sent later;
// Send waits when too much is kept already.
func (d *DataChannel) Send(ctx context.Context, pt wire.PayloadType, payload []byte) error {
	wake := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.changed.Broadcast()
	})
	defer wake()
	for {
		if err := d.waitForRoom(ctx); err != nil {
			return err
		}
		if d.trySend(pt, payload, false) {
			return nil
		}
	}
}

func (d *DataChannel) waitForRoom(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.out.full() && !d.stop && ctx.Err() == nil {
		d.changed.Wait()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.stop {
		return context.Canceled
	}
	return nil
}

// trySend reports false if there is no room. A failed write is no failure: the
// message is kept, and the reader notices the broken link.
func (d *DataChannel) trySend(pt wire.PayloadType, payload []byte, always bool) bool {
	d.sending.Lock()
	defer d.sending.Unlock()
	payload = d.encrypt(pt, payload)
	d.mu.Lock()
	if d.out.full() && !always {
		d.mu.Unlock()
		return false
	}
	frame, link := d.out.add(pt, payload, d.now()), d.link
	d.mu.Unlock()
	if link == nil {
		return true
	}
	if err := link.Write(false, frame); err != nil {
		d.cfg.Logger.Debug("message kept for resending", "error", err)
		link.Close()
	}
	return true
}

// drain waits until the agent has acknowledged everything, at most for patience.
func (d *DataChannel) drain(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	wake := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.changed.Broadcast()
	})
	defer wake()
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.out.queue) > 0 && !d.stop && ctx.Err() == nil {
		d.changed.Wait()
	}
}

// lastSent returns the number of the last stream message.
func (d *DataChannel) lastSent() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.next - 1
}

// isAcknowledged reports whether everything up to a message has been acknowledged.
func (d *DataChannel) isAcknowledged(seq int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.out.queue) == 0 || d.out.queue[0].seq > seq
}

// keep resends what is overdue, pings, and closes a link that does not answer.
func (d *DataChannel) keep(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.acksDue.C:
			d.acknowledgeHandled()
			continue
		case <-ticker.C:
		}
		if d.stopped() {
			return
		}
		d.keepOnce(d.now())
	}
}

func (d *DataChannel) stopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stop
}

func (d *DataChannel) keepOnce(now time.Time) {
	d.mu.Lock()
	link := d.link
	if link == nil {
		d.mu.Unlock()
		return
	}
	if !d.stalled && !d.pinged.IsZero() && now.Sub(d.pinged) > pongTimeout {
		d.mu.Unlock()
		d.cfg.Logger.Debug("link does not answer")
		link.Close()
		return
	}
	ping := d.pingDueLocked(now)
	frame := d.out.due(now)
	d.mu.Unlock()
	var err error
	if frame != nil {
		err = link.Write(false, frame)
	}
	if ping && err == nil {
		err = link.Ping()
	}
	if err != nil {
		link.Close()
	}
}

// pingDueLocked decides on a ping, and notes it: at its time, or early when an
// acknowledgement is overdue, which is how a dead link shows while someone types.
func (d *DataChannel) pingDueLocked(now time.Time) bool {
	if !d.pinged.IsZero() {
		return false
	}
	probe := d.out.waiting(now) > probeAfter && now.Sub(d.heard) > probeAfter
	if now.Before(d.nextPing) && !probe {
		return false
	}
	d.pinged, d.nextPing = now, now.Add(pingEvery)
	return true
}

// handle processes one message in order (docs/protocol.md §15).
func (d *DataChannel) handle(m *wire.Message) error {
	if d.cfg.Direct != nil {
		return d.handler.Take(m.PayloadType, m.Payload)
	}
	payload, err := d.decrypt(m)
	if err != nil {
		return err
	}
	m.Payload = payload
	switch m.PayloadType {
	case wire.PayloadHandshakeRequest:
		return d.answerHandshake(m.Payload)
	case wire.PayloadEncChallengeRequest:
		return d.answerChallenge(m.Payload)
	case wire.PayloadHandshakeComplete:
		return d.completeHandshake(m.Payload)
	}
	if d.handler == nil {
		return d.first(m)
	}
	return d.handler.Take(m.PayloadType, m.Payload)
}

// first decides on the session type without a handshake: output means a shell, any
// other payload is swallowed.
func (d *DataChannel) first(m *wire.Message) error {
	if d.handshake.refused {
		return errRefused
	}
	if d.handshake.sessionType != "" {
		return nil // output before the handshake is complete
	}
	if m.PayloadType != wire.PayloadOutput && m.PayloadType != wire.PayloadStdErr {
		return nil
	}
	h, ok := d.cfg.Handlers[StandardStream]
	if !ok {
		return errors.New("the agent started a shell, which was not asked for")
	}
	if err := d.start(h, nil); err != nil {
		return err
	}
	return h.Take(m.PayloadType, m.Payload)
}

func (d *DataChannel) start(h Handler, properties json.RawMessage) error {
	if err := h.Start(properties); err != nil {
		return err
	}
	d.handler = h
	close(d.started)
	return nil
}

// errRefused ends a session that an agent begins although its handshake was refused: what
// was to be encrypted would be shown in clear.
var errRefused = errors.New("the node went on with a session that was refused in its handshake")

func (d *DataChannel) answerHandshake(payload []byte) error {
	d.shaking.Store(true)
	var req wire.HandshakeRequest
	if err := json.Unmarshal(payload, &req); err != nil {
		return fmt.Errorf("decoding handshake request: %w", err)
	}
	res := wire.HandshakeResponse{ClientVersion: Version}
	for _, a := range req.RequestedClientActions {
		p := d.processAction(req.AgentVersion, a)
		if p.Error != "" {
			res.Errors = append(res.Errors, p.Error)
		}
		res.ProcessedClientActions = append(res.ProcessedClientActions, p)
	}
	b, err := json.Marshal(res)
	if err != nil {
		panic(err)
	}
	d.trySend(wire.PayloadHandshakeResponse, b, true)
	if len(res.Errors) > 0 {
		d.handshake.refused = true
		d.cfg.Notify(strings.Join(res.Errors, "; "))
	}
	return nil
}

func (d *DataChannel) processAction(version string, a wire.RequestedAction) wire.ProcessedAction {
	p := wire.ProcessedAction{ActionType: a.ActionType, ActionStatus: wire.ActionFailed}
	switch a.ActionType {
	case wire.ActionSessionType:
		var params wire.SessionTypeParameters
		if err := json.Unmarshal(a.ActionParameters, &params); err != nil {
			p.Error = "unreadable parameters of the session type"
			return p
		}
		h, ok := d.cfg.Handlers[params.SessionType]
		if !ok {
			p.Error = fmt.Sprintf("session type %q is not supported by this client", params.SessionType)
			return p
		}
		if err := agree(&p, h, version, params); err != nil {
			p.Error = err.Error()
			return p
		}
		d.handshake.sessionType, d.handshake.properties = params.SessionType, params.Properties
		p.ActionStatus = wire.ActionSuccess
	case wire.ActionKMSEncryption:
		if d.cfg.DataKey == nil {
			p.ActionStatus = wire.ActionUnsupported
			p.Error = "this client does not support encryption with KMS; the document sets kmsKeyId"
			return p
		}
		result, err := d.agreeEncryption(a.ActionParameters)
		if err != nil {
			p.Error = err.Error()
			return p
		}
		p.ActionStatus, p.ActionResult = wire.ActionSuccess, result
	default:
		p.ActionStatus = wire.ActionUnsupported
		p.Error = fmt.Sprintf("handshake action %q is not known to this client", a.ActionType)
	}
	return p
}

// agree lets h have its say on the session.
func agree(p *wire.ProcessedAction, h Handler, version string, params wire.SessionTypeParameters) error {
	n, ok := h.(negotiator)
	if !ok {
		return nil
	}
	result, err := n.agree(version, params)
	if err != nil || result == nil {
		return err
	}
	p.ActionResult, err = json.Marshal(result)
	return err
}

func (d *DataChannel) completeHandshake(payload []byte) error {
	var done wire.HandshakeComplete
	if err := json.Unmarshal(payload, &done); err != nil {
		return fmt.Errorf("decoding handshake completion: %w", err)
	}
	if d.handshake.refused {
		return errRefused
	}
	if done.CustomerMessage != "" {
		d.cfg.Notify(done.CustomerMessage)
	}
	if d.handler != nil || d.handshake.sessionType == "" {
		return nil
	}
	return d.start(d.cfg.Handlers[d.handshake.sessionType], d.handshake.properties)
}
