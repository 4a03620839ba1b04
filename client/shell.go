package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muesli/cancelreader"

	"sallyport.dev/wire"
)

const (
	// inputSize is how much is read of standard input at once; AWS's agent is used
	// to messages of this size.
	inputSize       = 1024
	endOfInput      = 0x04 // what a terminal takes for the end of input
	firstEndOfInput = 250 * time.Millisecond
	lastEndOfInput  = time.Minute
)

// ErrLeft says that the person left with ~.
var ErrLeft = errors.New("left the session")

// SignalError says that a signal ended the client. Status is the exit status that
// tells so, 128 and the signal's number.
type SignalError struct {
	Signal os.Signal
	Status int
}

// Error implements error.
func (e *SignalError) Error() string { return "ended by " + e.Signal.String() }

// ShellConfig says how a session is shown.
type ShellConfig struct {
	Terminal *Terminal
	// Escape makes ~. at the start of a typed line leave, and ~? explain. It needs
	// a terminal.
	Escape bool
	// Plugin is how AWS's client does it: standard error and the line with the exit
	// status go to standard output, and SIGINT and SIGQUIT are passed on as keys.
	Plugin bool
	// Exact leaves piped input as it is. Otherwise a last line without a newline gets
	// one, because a shell's line editor needs it.
	Exact bool
	// Started, if set, is called when the session has started, before anything is shown.
	Started func()
}

// shell is the handler of sessions with a terminal or a command.
type shell struct {
	cfg     ShellConfig
	term    *Terminal
	channel *DataChannel
	forward *Forward        // what a Port session is, where that is possible; else nil
	ctx     context.Context // of the session, which the shell lives exactly as long as
	cancel  context.CancelCauseFunc

	mu   sync.Mutex
	size wire.TerminalSize // sent last
	exit *int              // of the agent's ExitCode payload
}

// RunShell opens the data channel and connects the terminal with it until the session
// ends. The terminal is always given back as it was. The error is ErrLeft, a *SignalError,
// ErrTimedOut, ErrLost or what made reading and writing impossible.
func RunShell(ctx context.Context, channel ChannelConfig, cfg ShellConfig) (End, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &shell{cfg: cfg, term: cfg.Terminal, ctx: ctx, cancel: cancel}
	channel.Handlers = s.handlers()
	if channel.Notify == nil {
		channel.Notify = s.term.Say
	}
	s.channel = NewDataChannel(channel)
	return s.run(s.channel.Run)
}

// RunSession is RunShell for a session that may turn out to be a Port session: then port
// is called with the forward, once that is ready, and its error ends the session.
func RunSession(ctx context.Context, channel ChannelConfig, cfg ShellConfig, fc ForwardConfig, port func(context.Context, *Forward) error) (End, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &shell{cfg: cfg, term: cfg.Terminal, ctx: ctx, cancel: cancel}
	if channel.Notify == nil {
		channel.Notify = s.term.Say
	}
	s.forward = NewForward(channel, fc)
	s.channel = s.forward.channel
	for name, h := range s.handlers() {
		s.channel.cfg.Handlers[name] = h
	}
	s.channel.unsure = true
	return s.run(func(ctx context.Context) (End, error) {
		var crew crew
		defer crew.wait()
		crew.run(cancel, func() {
			if s.forward.await(ctx) != nil {
				return
			}
			if err := port(ctx, s.forward); err != nil {
				cancel(err)
			}
		})
		return s.forward.Run(ctx)
	})
}

func (s *shell) handlers() map[string]Handler {
	return map[string]Handler{StandardStream: s, InteractiveCommands: s, NonInteractiveCommands: s}
}

// isPort reports whether the session has turned out to be a Port session, in which there
// is nothing to type.
func (s *shell) isPort() bool { return s.forward != nil && s.forward.isReady() }

// run connects the terminal with the session that open opens.
func (s *shell) run(open func(context.Context) (End, error)) (End, error) {
	ctx, cancel := s.ctx, s.cancel
	defer s.term.Restore()
	defer ignoreBrokenPipes()()
	s.sendSize(true)

	var crew, input crew
	crew.run(cancel, s.watchSignals)
	crew.run(cancel, func() { watchSize(ctx, s.sendNewSize, s.term.again) })
	input.run(cancel, s.input)
	end, err := open(ctx)
	cancel(nil)
	s.term.reset()
	s.term.Restore()
	crew.wait()
	// Reading may not be interruptible where standard input is neither terminal nor
	// pipe; such a read ends by itself or with the process.
	input.waitFor(time.Second)
	return s.withExit(end), err
}

func (s *shell) withExit(end End) End {
	s.mu.Lock()
	defer s.mu.Unlock()
	if end.ExitStatus == nil {
		end.ExitStatus = s.exit
	}
	return end
}

// Start implements Handler: from here on keys belong to the session.
func (s *shell) Start(json.RawMessage) error {
	if s.cfg.Started != nil {
		s.cfg.Started()
	}
	s.sendSize(true) // an agent in a handshake threw the first one away
	return s.term.MakeRaw()
}

// Take implements Handler.
func (s *shell) Take(pt wire.PayloadType, payload []byte) error {
	switch pt {
	case wire.PayloadOutput:
		return s.write(s.term.Stdout, payload)
	case wire.PayloadStdErr:
		if s.cfg.Plugin {
			return s.write(s.term.Stdout, payload)
		}
		return s.write(s.term.Stderr, payload)
	case wire.PayloadExitCode:
		if s.cfg.Plugin {
			return s.write(s.term.Stdout, payload)
		}
		s.noteExit(payload)
	}
	return nil
}

func (s *shell) write(w io.Writer, p []byte) error {
	if _, err := w.Write(p); err != nil {
		return fmt.Errorf("writing output: %w", err)
	}
	s.term.follow(w, p)
	return nil
}

// noteExit reads "EXIT_CODE: n".
func (s *shell) noteExit(payload []byte) {
	text, ok := strings.CutPrefix(string(payload), "EXIT_CODE:")
	if !ok {
		return
	}
	code, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exit = &code
}

// sendSize tells the agent the terminal's size, if it changed or anyway.
func (s *shell) sendSize(anyway bool) {
	size := s.term.Size()
	s.mu.Lock()
	same := size == s.size
	s.size = size
	s.mu.Unlock()
	if same && !anyway {
		return
	}
	b, err := json.Marshal(size)
	if err != nil {
		panic(err)
	}
	s.channel.trySend(wire.PayloadSize, b, true)
}

func (s *shell) sendNewSize() {
	if !s.isPort() {
		s.sendSize(false)
	}
}

func (s *shell) watchSignals() {
	c := make(chan os.Signal, 4)
	signal.Notify(c, endingSignals...)
	defer signal.Stop(c)
	for {
		select {
		case <-s.ctx.Done():
			return
		case sig := <-c:
			if key, ok := typedSignal(sig); ok && s.cfg.Plugin && !s.isPort() {
				s.channel.trySend(wire.PayloadOutput, []byte{key}, true)
				continue
			}
			s.cancel(&SignalError{Signal: sig, Status: signalStatus(sig)})
			return
		}
	}
}

// input passes standard input on, once the agent is ready for it.
func (s *shell) input() {
	if !s.channel.Ready(s.ctx) || s.isPort() {
		return
	}
	if err := s.term.MakeRaw(); err != nil {
		s.cancel(err)
		return
	}
	r, stop := interruptible(s.ctx, s.term.Stdin)
	defer stop()
	err := s.copyInput(r)
	if err == io.EOF {
		s.endInput()
	} else if err != nil && s.ctx.Err() == nil {
		s.cancel(err)
	}
}

// interruptible makes reads of f end when ctx does, where the system can.
func interruptible(ctx context.Context, f *os.File) (r io.Reader, stop func()) {
	if f == nil {
		return strings.NewReader(""), func() {}
	}
	c, err := cancelreader.NewReader(f)
	if err != nil { // a plain file or /dev/null: reads do not block
		return f, func() {}
	}
	wake := context.AfterFunc(ctx, func() { c.Cancel() })
	return c, func() {
		wake()
		c.Close()
	}
}

// copyInput sends what is read until the input or the session ends; io.EOF is the end
// of the input.
func (s *shell) copyInput(r io.Reader) error {
	typed := s.cfg.Escape && s.term.Interactive()
	last := byte('\n')
	var escapes escapeFilter
	buf := make([]byte, inputSize)
	for {
		n, err := r.Read(buf)
		p := buf[:n]
		if n > 0 {
			last = p[n-1]
		}
		for len(p) > 0 {
			send, action, rest := p, escapeNone, []byte(nil)
			if typed {
				send, action, rest = escapes.filter(p)
			}
			if err := s.send(send); err != nil {
				return err
			}
			s.escape(action)
			p = rest
		}
		if err == io.EOF {
			return s.completeLine(last)
		}
		if err != nil {
			return fmt.Errorf("reading input: %w", err)
		}
	}
}

func (s *shell) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	return s.channel.Send(s.ctx, wire.PayloadOutput, p)
}

func (s *shell) escape(action escapeAction) {
	switch action {
	case escapeLeave:
		s.cancel(ErrLeft)
	case escapeHelp:
		s.term.Say("typed at the start of a line: ~. leaves the session, ~~ sends one ~, ~? shows this")
	}
}

// completeLine prepares the remote terminal for the end of input, which it sees only
// at the start of a line: a shell gets a newline, a command's line is handed over by
// a first end of input.
func (s *shell) completeLine(last byte) error {
	complete := []byte{'\n'}
	if s.cfg.Exact {
		complete = []byte{endOfInput}
	}
	if last != '\n' && last != '\r' {
		if err := s.send(complete); err != nil {
			return err
		}
	}
	return io.EOF
}

// endInput types the end of input until the session ends. Once is not enough: a
// program that changes the terminal's mode meanwhile, as every shell with a line
// editor does around each command, makes the terminal forget it.
func (s *shell) endInput() {
	for wait := firstEndOfInput; ; wait = min(wait*2, lastEndOfInput) {
		if s.send([]byte{endOfInput}) != nil {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			timer.Stop()
			return
		}
	}
}
