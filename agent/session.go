package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sallyport.dev/agent/forward"
	"sallyport.dev/agent/shell"
	"sallyport.dev/internal/bulk"
	"sallyport.dev/wire"
)

const (
	// sizeWait is how long a shell waits for its terminal's size, lest it draws its
	// first prompt for another width. Our client sends the size first thing; AWS's
	// after the first output.
	sizeWait = 100 * time.Millisecond
	// drainPatience is how long the last output may go without an acknowledgement.
	drainPatience = 10 * time.Second
	// quiet is how long a terminal that a background process keeps open may be
	// silent after its shell has ended.
	quiet = 200 * time.Millisecond
	// goodbye bounds the closing of a data channel.
	goodbye = 2 * time.Second

	maxInput     = 1 << 20 // bytes of input that the program has not read
	maxEnded     = 256     // ended sessions that are remembered
	readBuffer   = 8 << 10 // a terminal gives at most 4,095 bytes at once
	shutdownText = "the agent is shutting down"
)

// errClosed is the cause of a session's end by the server.
var errClosed = errors.New("closed by the server")

// errShutdown is the cause of a session's end by the agent's.
var errShutdown = errors.New(shutdownText)

// sessions are the sessions that run, and the last ones that did.
type sessions struct {
	max int
	wg  sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	live    map[string]context.CancelCauseFunc
	ended   []string // oldest first: the server repeats its requests
}

// admit registers a session, or says why it will not run: known sessions are
// repetitions of a request and are passed over in silence.
func (s *sessions) admit(id string, cancel context.CancelCauseFunc) (ok bool, refusal string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.live[id]; known {
		return false, ""
	}
	for _, e := range s.ended {
		if e == id {
			return false, ""
		}
	}
	switch {
	case s.stopped:
		refusal = shutdownText
	case len(s.live) >= s.max:
		refusal = fmt.Sprintf("the node runs %d sessions, which is its limit", s.max)
	default:
		s.live[id] = cancel
		s.wg.Add(1)
		return true, ""
	}
	s.rememberLocked(id)
	return false, refusal
}

func (s *sessions) rememberLocked(id string) {
	if s.ended = append(s.ended, id); len(s.ended) > maxEnded {
		s.ended = s.ended[1:]
	}
}

func (s *sessions) leave(id string) {
	s.mu.Lock()
	delete(s.live, id)
	s.rememberLocked(id)
	s.mu.Unlock()
	s.wg.Done()
}

// cancel ends a session for the server.
func (s *sessions) cancel(id string) {
	s.mu.Lock()
	cancel := s.live[id]
	s.mu.Unlock()
	if cancel != nil {
		cancel(errClosed)
	}
}

// stop ends all sessions and waits until nothing of them is left.
func (s *sessions) stop() {
	s.mu.Lock()
	s.stopped = true
	for _, cancel := range s.live {
		cancel(errShutdown)
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// startSession acts on an interactive_shell message.
func (a *Agent) startSession(m *wire.Message) {
	var task wire.ControlTask
	var start wire.StartSession
	if err := json.Unmarshal(m.Payload, &task); err != nil {
		a.log.Warn("dropping a session request", "error", err)
		return
	}
	err := json.Unmarshal([]byte(task.Content), &start)
	if !validID(start.SessionID) {
		a.log.Warn("dropping a session request without a usable session id", "error", err)
		return
	}
	ctx, cancel := context.WithCancelCause(a.sessionsCtx)
	ok, refusal := a.sessions.admit(start.SessionID, cancel)
	if !ok {
		cancel(nil)
		if refusal != "" {
			a.complete(start.SessionID, outcome{status: statusFailed, output: refusal})
		}
		return
	}
	go func() {
		defer cancel(nil)
		defer a.sessions.leave(start.SessionID)
		log := a.log.With("session", start.SessionID, "trace", start.Trace)
		out := outcome{status: statusFailed}
		if err != nil {
			out.output = "invalid session request: " + err.Error()
		} else {
			s := a.newSession(start, log)
			defer s.wait()
			out = s.run(ctx)
		}
		log.Info("session ended", "status", out.status, "output", out.output)
		a.complete(start.SessionID, out)
	}()
}

// Final states of a session.
const (
	statusSuccess = "Success"
	statusFailed  = "Failed"
)

// outcome is how a session ended.
type outcome struct {
	status string
	output string // for the person, of a session that failed
	exit   *int   // of the program, if it ended by itself
}

func failed(format string, args ...any) outcome {
	return outcome{status: statusFailed, output: fmt.Sprintf(format, args...)}
}

// complete reports the end of a session until the server has acknowledged it.
func (a *Agent) complete(id string, o outcome) {
	node := a.NodeID()
	a.outbox.add(wire.TypeAgentTaskComplete, func(try int) any {
		return wire.TaskComplete{
			SchemaVersion: 1, TaskID: id, Topic: wire.TypeAgentTaskComplete, FinalTaskStatus: o.status,
			InstanceID: node, Output: o.output, RetryNumber: try, ExitStatus: o.exit,
		}
	})
}

// session is one session on this node.
type session struct {
	start  wire.StartSession
	opts   shell.Options
	log    *slog.Logger
	stream *stream
	exec   *execution              // of a session with an Exec, else nil
	port   *port                   // of a Port session, else nil
	rules  forward.Rules           // the node's
	cancel context.CancelCauseFunc // set by run
	beside func() bulk.Dialer      // for connections beside the data channel
	// dataKey has the key service decrypt the data key of a session that is encrypted.
	dataKey func(ctx context.Context, in decryptInput) ([]byte, error)

	wg sync.WaitGroup // goroutines around the program

	encrypted  bool        // nothing but what is encrypted is taken from the client, or sent to it
	challenges chan []byte // the client's answers to the encryption challenge

	command   bool                        // a plain command: input is only looked at for signals
	responses chan wire.HandshakeResponse // the client's, of a plain command
	sized     chan struct{}               // closed when the first size, or input, has come
	sizedOnce sync.Once

	mu       sync.Mutex
	size     shell.Size
	proc     *shell.Process // nil until started
	queue    [][]byte       // input that the program has not taken
	queued   int
	typing   bool // a goroutine is writing the queue to the program
	lastRead time.Time
	sending  bool // the last output read is on its way into the stream
}

func (a *Agent) newSession(start wire.StartSession, log *slog.Logger) *session {
	s := &session{start: start, opts: a.cfg.Shell, rules: a.cfg.rules, log: log, sized: make(chan struct{}), responses: make(chan wire.HandshakeResponse, 1), challenges: make(chan []byte, 1)}
	s.dataKey = a.decryptDataKey
	s.stream = newStream(start.SessionID, a.NodeID(), a.cfg.now)
	s.stream.connect = a.dataChannel(start.SessionID, start.DataChannelToken, a.reattach(start))
	s.beside = a.besideDataChannel(start.SessionID)
	s.stream.deliver = s.deliver
	s.stream.closed = func() { s.cancel(errClosed) }
	if start.Exec != nil {
		s.exec = newExecution()
		s.stream.hold = s.exec.hold
	}
	return s
}

// run runs the session to its end: the program's, the server's or the agent's.
func (s *session) run(ctx context.Context) outcome {
	ctx, s.cancel = context.WithCancelCause(ctx)
	defer s.cancel(nil)
	p, err := readPlan(s.start)
	if err != nil {
		return failed("%v", err)
	}
	if p.sessionType == typePort {
		s.port = newPort()
		s.stream.hold = s.port.hold
	}
	s.command, s.encrypted = p.sessionType == typeNonInteractive, p.encrypted()
	streamCtx, stopStream := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStream()
	streamed := make(chan error, 1)
	go func() {
		err := s.stream.run(streamCtx)
		if err != nil {
			s.cancel(fmt.Errorf("data channel: %w", err))
		}
		streamed <- err
	}()
	// A first connection that never comes must not outlast the session's end.
	unhook := context.AfterFunc(ctx, func() {
		select {
		case <-s.stream.attached:
		default:
			stopStream()
		}
	})
	defer unhook()
	out := s.serve(ctx, p)
	s.stream.finish(out.exit != nil)
	s.await(streamed, stopStream)
	return out
}

// await waits for the stream's goroutine, for a bounded time by its own will.
func (s *session) await(streamed <-chan error, stop func()) {
	limit := time.NewTimer(goodbye)
	defer limit.Stop()
	select {
	case <-streamed:
		return
	case <-limit.C:
	}
	stop()
	<-streamed
}

// serve starts the program once the data channel is open and stays until it is gone.
func (s *session) serve(ctx context.Context, p plan) outcome {
	if s.port != nil {
		return s.servePort(ctx, p)
	}
	user, err := s.opts.Resolve(ctx, shell.RunAs{
		Enabled: bool(p.in.RunAsEnabled), User: orDefault(s.start.RunAsUser, p.in.RunAsDefaultUser),
		Elevated: p.command.RunAsElevated, Root: s.start.RunAsRoot && s.start.RunAsUser != "", Detached: bool(p.in.KeepDetached),
	})
	if err != nil {
		return failed("Unable to start command: %v", err)
	}
	select {
	case <-ctx.Done():
		return s.ended(ctx)
	case <-s.stream.attached:
	}
	if s.exec != nil {
		return s.serveExec(ctx, user, p)
	}
	if p.sessionType == typeNonInteractive {
		return s.serveCommand(ctx, user, p)
	}
	if s.encrypted {
		if err := s.handshake(ctx, p); err != nil {
			return s.unshaken(ctx, err)
		}
	}
	s.awaitSize(ctx)
	if ctx.Err() != nil {
		return s.ended(ctx)
	}
	proc, err := s.startProcess(user, p)
	if err != nil {
		return failed("Unable to start command: %v", err)
	}
	return s.attend(ctx, proc, func() { s.pump(proc.Read, wire.PayloadOutput, "") }, nil)
}

// ended is the outcome of a session that ctx ended.
func (s *session) ended(ctx context.Context) outcome {
	switch err := context.Cause(ctx); {
	case errors.Is(err, errClosed), errors.Is(err, errTerminated):
		return outcome{status: statusSuccess}
	default:
		return failed("%v", err)
	}
}

func (s *session) awaitSize(ctx context.Context) {
	limit := time.NewTimer(sizeWait)
	defer limit.Stop()
	select {
	case <-s.sized:
	case <-limit.C:
	case <-ctx.Done():
	}
}

func (s *session) startProcess(u shell.User, p plan) (*shell.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var proc *shell.Process
	var err error
	if p.sessionType == typeShell {
		proc, err = s.opts.Login(u, s.size)
	} else {
		proc, err = s.opts.Interactive(u, p.commands, s.size)
	}
	if err != nil {
		return nil, err
	}
	s.proc = proc
	if profile := p.profile(); profile != "" {
		s.queue = append([][]byte{[]byte(profile + "\n")}, s.queue...)
		s.queued += len(profile) + 1
	}
	s.typeLocked()
	return proc, nil
}

// profile is what is typed for the person when a shell starts.
func (p plan) profile() string {
	if p.sessionType != typeShell {
		return ""
	}
	if platform() == "macos" {
		return p.in.ShellProfile.MacOS
	}
	return p.in.ShellProfile.Linux
}

// attend carries the program's output until the program, the server or the agent
// ends the session; pump does the carrying, and last sends what is to follow the
// output. What remains of the program's processes goes in the background; wait waits
// for that.
func (s *session) attend(ctx context.Context, proc *shell.Process, pump func(), last func(shell.Exit)) outcome {
	pumped := make(chan struct{})
	s.wg.Go(func() {
		defer close(pumped)
		pump()
	})
	select {
	case <-ctx.Done():
	case <-proc.Exited():
		s.settle(ctx, pumped)
	}
	s.wg.Go(proc.Close)
	if ctx.Err() != nil {
		return s.ended(ctx)
	}
	exit := proc.Exit()
	if last != nil {
		last(exit)
	}
	s.stream.drain(ctx, drainPatience)
	if ctx.Err() != nil {
		return s.ended(ctx)
	}
	return outcome{status: statusSuccess, exit: &exit.Status}
}

// wait waits until nothing of the session is left.
func (s *session) wait() { s.wg.Wait() }

// pump sends what read gives, each piece after prefix. While the stream's window is
// full it does not read, so that the program waits as it would for a slow terminal.
func (s *session) pump(read func([]byte) (int, error), pt wire.PayloadType, prefix string) {
	buf := make([]byte, readBuffer)
	k := copy(buf, prefix)
	for {
		n, err := read(buf[k:])
		s.noteRead(true)
		if n > 0 && !s.stream.Send(pt, buf[:k+n]) || err != nil {
			return
		}
		s.noteRead(false)
	}
}

func (s *session) noteRead(sending bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastRead, s.sending = time.Now(), sending
}

// settle waits, after the shell has ended, for its last output: the terminal's end,
// or silence where a background process keeps the terminal. The pipes of an Exec are
// read to their end, as by sshd: "late &" has its say.
func (s *session) settle(ctx context.Context, pumped <-chan struct{}) {
	if s.exec != nil && s.start.Exec.Terminal == nil {
		select {
		case <-pumped:
		case <-ctx.Done():
		}
		return
	}
	s.noteExit()
	for {
		s.mu.Lock()
		rest := quiet - time.Since(s.lastRead)
		if s.sending {
			rest = quiet
		}
		s.mu.Unlock()
		if rest <= 0 {
			return
		}
		t := time.NewTimer(rest)
		select {
		case <-pumped:
		case <-ctx.Done():
		case <-t.C:
			continue
		}
		t.Stop()
		return
	}
}

// noteExit starts the clock of silence.
func (s *session) noteExit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastRead = time.Now()
}

// deliver takes the client's messages.
func (s *session) deliver(pt wire.PayloadType, b []byte, must bool) bool {
	if s.encrypted && pt.IsEncrypted(false) {
		var ok bool
		if b, ok = s.decrypt(b); !ok {
			return true
		}
	}
	switch pt {
	case wire.PayloadEncChallengeResponse:
		s.challengeResponse(b)
	case wire.PayloadOutput:
		if s.command {
			s.interrupt(b)
			return true
		}
		return s.input(b, must)
	case wire.PayloadHandshakeResponse:
		return s.handshakeResponse(b)
	case wire.PayloadSize:
		s.resize(b)
	case wire.PayloadExecControl:
		s.execControl(b)
	case wire.PayloadFlag:
		s.portFlag(b)
	}
	return true
}

// input queues what the person typed; false if the program is too far behind.
func (s *session) input(b []byte, must bool) bool {
	s.sizedOnce.Do(func() { close(s.sized) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b) == 0 {
		return true
	}
	if s.queued+len(b) > maxInput && !must {
		return false
	}
	// A key that the program can take at once spares its person the way through the
	// queue.
	if s.proc != nil && !s.typing && len(s.queue) == 0 {
		if b = b[s.proc.TryWrite(b):]; len(b) == 0 {
			return true
		}
	}
	s.queue = append(s.queue, append([]byte(nil), b...))
	s.queued += len(b)
	s.typeLocked()
	return true
}

// typeLocked has the queue written to the program, by a goroutine of its own since
// that blocks for as long as the program does not read.
func (s *session) typeLocked() {
	if s.proc == nil || s.typing || len(s.queue) == 0 {
		return
	}
	s.typing = true
	s.wg.Go(s.typeQueue)
}

func (s *session) typeQueue() {
	for {
		s.mu.Lock()
		if len(s.queue) == 0 {
			s.typing, s.queue = false, nil
			s.mu.Unlock()
			return
		}
		b := s.queue[0]
		s.queue = s.queue[1:]
		s.mu.Unlock()
		_, err := s.proc.Write(b) // after an error the program is going: input is moot
		s.mu.Lock()
		if s.queued -= len(b); err != nil {
			s.queue, s.queued = nil, 0
		}
		s.mu.Unlock()
	}
}

// resize applies a terminal size; nonsense is ignored.
func (s *session) resize(b []byte) {
	var t wire.TerminalSize
	if json.Unmarshal(b, &t) != nil || t.Cols == 0 || t.Rows == 0 {
		return
	}
	size := shell.Size{Cols: uint16(min(t.Cols, 0xffff)), Rows: uint16(min(t.Rows, 0xffff))}
	s.mu.Lock()
	s.size = size
	proc := s.proc
	s.mu.Unlock()
	s.sizedOnce.Do(func() { close(s.sized) })
	if proc == nil {
		return
	}
	if err := proc.Resize(size); err != nil {
		s.log.Debug("resizing the terminal", "error", err)
	}
}
