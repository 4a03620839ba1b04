package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"time"

	"sallyport.dev/wire"
)

const (
	// execInputSize is how much of standard input is sent at once, in bytes.
	execInputSize = 32 << 10
	// signalPatience is how long a command may take to end after a signal was passed on
	// to it. A second signal ends the wait.
	signalPatience = 5 * time.Second
	// signalEcho is how soon after the first the same signal counts as one with it:
	// timeout(1) and others send it to the process and to its group.
	signalEcho = 100 * time.Millisecond
)

// execution is the handler of a command with input (docs/protocol.md §28.12).
type execution struct {
	term    *Terminal
	channel *DataChannel
	ctx     context.Context // of the session, which the execution lives exactly as long as
	cancel  context.CancelCauseFunc

	reading     context.Context // until nobody is left to read the input
	stopReading context.CancelFunc

	mu   sync.Mutex
	exit *wire.ExecControl // the agent's word of how the command ended
}

// RunExec opens the data channel of a command with input and connects the terminal's
// streams with it, as they are, until the session ends. SIGINT and the like are passed on
// to the command, which has a moment to end. The error is a *SignalError, ErrTimedOut,
// ErrLost or what made reading and writing impossible.
func RunExec(ctx context.Context, channel ChannelConfig, t *Terminal) (End, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e := &execution{term: t, ctx: ctx, cancel: cancel}
	e.reading, e.stopReading = context.WithCancel(ctx)
	defer e.stopReading()
	channel.Direct = e
	if channel.Notify == nil {
		channel.Notify = t.Say
	}
	e.channel = NewDataChannel(channel)
	return e.run()
}

func (e *execution) run() (End, error) {
	defer ignoreBrokenPipes()()
	defer ignoreTerminalStops()()
	var crew, input crew
	crew.run(e.cancel, e.watchSignals)
	input.run(e.cancel, e.input)
	end, err := e.channel.Run(e.ctx)
	e.cancel(nil)
	crew.wait()
	// Reading may not be interruptible where standard input is neither terminal nor
	// pipe; such a read ends by itself or with the process.
	input.waitFor(time.Second)
	return e.ended(end, err)
}

// ended is how the session ended: as its command did, if that is known.
func (e *execution) ended(end End, err error) (End, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exit == nil {
		return end, err
	}
	status := e.exit.Status
	switch {
	case e.exit.Signal == "":
	case end.ExitStatus != nil: // with the number that the signal has there
		status = *end.ExitStatus
	default:
		status = 128 + signalNumber(e.exit.Signal)
	}
	return End{ExitStatus: &status}, nil
}

// Start implements Handler.
func (e *execution) Start(json.RawMessage) error { return nil }

// Take implements Handler.
func (e *execution) Take(pt wire.PayloadType, payload []byte) error {
	var err error
	switch pt {
	case wire.PayloadOutput:
		_, err = e.term.Stdout.Write(payload)
	case wire.PayloadStdErr:
		_, err = e.term.Stderr.Write(payload)
	case wire.PayloadExecControl:
		e.control(payload)
	}
	if err != nil {
		return fmt.Errorf("writing output: %w", err)
	}
	return nil
}

// control takes the agent's word of how the command ended.
func (e *execution) control(payload []byte) {
	var c wire.ExecControl
	if json.Unmarshal(payload, &c) != nil || c.Op != wire.ExecExit {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exit == nil {
		e.exit = &c
		e.stopReading()
	}
}

// input passes standard input on, up to its end. What the command does not take in holds
// it back.
func (e *execution) input() {
	select {
	case <-e.channel.Opened():
	case <-e.reading.Done():
		return
	}
	r, stop := interruptible(e.reading, e.term.Stdin)
	defer stop()
	if err := e.copyInput(r); err != nil && e.reading.Err() == nil {
		e.cancel(err)
	}
}

func (e *execution) copyInput(r io.Reader) error {
	buf := make([]byte, execInputSize)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := e.channel.Send(e.reading, wire.PayloadOutput, buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), isTerminalStop(err) && e.term.Interactive():
			return e.channel.Send(e.reading, wire.PayloadExecControl, encodeControl(wire.ExecControl{Op: wire.ExecEOF}))
		default:
			return fmt.Errorf("reading standard input: %v", err) // unwrapped, lest it pass for output's
		}
	}
}

func encodeControl(c wire.ExecControl) []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and numbers
	}
	return b
}

// watchSignals passes the first signal on to the command. The second, or one before there
// is a command, ends the client, and so does a command that does not end.
func (e *execution) watchSignals() {
	c := make(chan os.Signal, 4)
	signal.Notify(c, heeded(endingSignals)...)
	defer signal.Stop(c)
	var first os.Signal
	var came time.Time
	var overdue <-chan time.Time
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-overdue:
			e.cancel(&SignalError{Signal: first, Status: signalStatus(first)})
			return
		case sig := <-c:
			if sig == first && time.Since(came) < signalEcho {
				continue
			}
			if first != nil || !e.channel.isOpen() {
				e.cancel(&SignalError{Signal: sig, Status: signalStatus(sig)})
				return
			}
			first, came = sig, time.Now()
			timer := time.NewTimer(signalPatience)
			defer timer.Stop()
			overdue = timer.C
			e.channel.trySend(wire.PayloadExecControl, encodeControl(wire.ExecControl{Op: wire.ExecSignal, Signal: signalName(sig)}), true)
		}
	}
}

// heeded leaves out what whoever started the process had it ignore, as nohup does.
func heeded(signals []os.Signal) []os.Signal {
	return slices.DeleteFunc(slices.Clone(signals), signal.Ignored)
}

// signals are the numbers of the signals that end programs, by the names that RFC 4254
// has for them: the node's own, where that runs Linux.
var signals = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10,
	"SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "XCPU": 24, "XFSZ": 25, "SYS": 31,
}

// signalNumber is the number of a signal; 0 for one that is not known. What has no name
// goes by its number.
func signalNumber(name string) int {
	if n, ok := signals[name]; ok {
		return n
	}
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 128 {
		return n
	}
	return 0
}
