package frontdoor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/access"
	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/server"
	"sallyport.dev/wire"
)

// Documents of the kinds of sessions. Each is named, so that policies can allow one and
// refuse another.
const (
	documentShell    = "SSM-SessionManagerRunShell"
	documentCommand  = "AWS-StartNonInteractiveCommand"
	documentTerminal = "AWS-StartInteractiveCommand"
	documentTransfer = "Sallyport-FileTransfer"
)

const (
	actionForwardAgent = "sallyport:ForwardAgent"
	// ownAgent is what our agent calls itself; others know nothing of an Exec.
	ownAgent = "sallyport-agent"
	// startPatience bounds the start of a session; the gateway gives up before.
	startPatience = 45 * time.Second
	// leavePatience is how long the client may take to read what is left when its
	// session has ended.
	leavePatience = 5 * time.Second
	inputSize     = 32 << 10
	smallInput    = 1024 // what AWS's agent is used to
)

// program is what runs in a session, as the SSH client sees it.
type program struct {
	s    *sessionChannel
	ch   ssh.Channel
	data *client.DataChannel
	auth *authStreams // nil where no agent is forwarded

	mu     sync.Mutex
	exited bool
}

// run starts the session and carries it until it ends; then it says how.
func (s *sessionChannel) run() {
	for _, text := range s.c.takeNotices() {
		s.say(text)
	}
	started, ours, err := s.startOrAsk()
	if err != nil {
		s.ch.Stderr().Write([]byte(line(s.c.explain(err))))
		s.exit(statusRefused)
		return
	}
	p := &program{s: s, ch: s.ch}
	end, err := p.carry(started, ours)
	if err != nil {
		s.c.terminate(started.SessionID, err)
	}
	p.finish(end, err)
}

// startOrAsk starts the session. Who is refused is asked, where there is a terminal,
// whether they want to ask for access, and the session starts once they have it.
func (s *sessionChannel) startOrAsk() (started server.Started, ours bool, err error) {
	started, ours, err = s.startSession()
	denied := (*access.DeniedError)(nil)
	if !errors.As(err, &denied) {
		return started, ours, err
	}
	if err := s.askAccess(err); err != nil {
		return started, ours, err
	}
	for deadline := time.Now().Add(takesHold); ; {
		started, ours, err = s.startSession()
		if !errors.As(err, &denied) || time.Now().After(deadline) {
			return started, ours, err
		}
		select {
		case <-time.After(takesHoldStep):
		case <-s.ctx.Done():
			return started, ours, err
		}
	}
}

// startSession starts the session on the node. ours reports that the node runs our own
// agent.
func (s *sessionChannel) startSession() (started server.Started, ours bool, err error) {
	if len(s.exec.Command) > maxCommand {
		return started, false, &wire.Exception{Code: "InvalidParameters", Message: fmt.Sprintf("The command has %d bytes; %d are allowed.", len(s.exec.Command), maxCommand)}
	}
	// A start that is under way is not broken off, so that its session can be ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), startPatience)
	defer cancel()
	p, err := s.c.principal(ctx)
	if err != nil {
		return started, false, err
	}
	n, known, err := s.c.node(ctx, p)
	if err != nil {
		return started, false, err
	}
	ours = !known || n.AgentName == "" || n.AgentName == ownAgent
	in := server.StartInput{Target: n.ID, RunAs: s.c.proven.target.login, Exec: &s.exec}
	in.Document, in.Parameters = s.document()
	if !ours {
		if in.Document != documentShell {
			return started, false, s.refuseForeign(ctx, p, in)
		}
		in.Exec = nil
	}
	started, err = s.c.door.cfg.Server.StartSession(ctx, p, s.c.newOrigin(), in)
	if denied := (*access.DeniedError)(nil); s.exec.ForwardAgent && errors.As(err, &denied) && denied.Action == actionForwardAgent {
		s.say("Your SSH agent is not forwarded: " + denied.Error())
		s.exec.ForwardAgent = false
		started, err = s.c.door.cfg.Server.StartSession(ctx, p, s.c.newOrigin(), in)
	}
	return started, ours, err
}

// errForeign says what AWS's agent cannot do.
var errForeign = &wire.Exception{Code: "UnsupportedOperation", Message: "The node runs AWS's agent, which knows shells and forwards only: commands and file transfers by SSH need sallyport-agent there."}

// refuseForeign tells those who may use the node why it cannot do what they ask, and
// others nothing of its agent.
func (s *sessionChannel) refuseForeign(ctx context.Context, p identity.Principal, in server.StartInput) error {
	if err := s.c.door.cfg.Server.CheckSession(ctx, p, s.c.newOrigin(), in); err != nil {
		return err
	}
	return errForeign
}

// document returns the session's document and its parameters.
func (s *sessionChannel) document() (name string, parameters map[string][]string) {
	switch {
	case s.exec.Subsystem != "":
		return documentTransfer, nil
	case s.exec.Command == "":
		return documentShell, nil
	case s.exec.Terminal != nil:
		name = documentTerminal
	default:
		name = documentCommand
	}
	return name, map[string][]string{"command": {s.exec.Command}}
}

// carry connects the channel with the session until either ends. The error is that of
// an end which the gateway does not know of yet.
func (p *program) carry(started server.Started, ours bool) (client.End, error) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(p.s.ctx))
	defer cancel(nil)
	defer context.AfterFunc(p.s.ctx, func() { p.leave(cancel) })()
	cfg := client.ChannelConfig{
		Stream: client.Stream{SessionID: started.SessionID, Token: started.Token},
		Dial:   p.s.c.dialer(ctx, started.SessionID, cancel),
		Notify: p.s.say,
		Logger: p.s.c.log,
	}
	if ours {
		cfg.Direct = p
	} else {
		cfg.Handlers = map[string]client.Handler{client.StandardStream: p}
	}
	p.data = client.NewDataChannel(cfg)
	var crew sync.WaitGroup
	if ours && p.s.exec.ForwardAgent {
		auth, err := newAuthStreams(ctx, p.s.c.ssh, p.data)
		if err != nil {
			return client.End{}, err
		}
		p.auth = auth
		crew.Go(auth.serve)
	}
	crew.Go(func() { p.sendInput(ctx, ours) })
	crew.Go(func() { p.sendEvents(ctx, ours) })
	end, err := p.data.Run(ctx)
	cancel(nil)
	if p.auth != nil {
		p.auth.close()
	}
	// The goroutine that reads input ends when the channel is closed, which waits for
	// what finish has to say.
	p.s.c.wg.Go(crew.Wait)
	return end, err
}

// leave ends the session because the client has gone. Where its program has ended, the
// client goes for that reason, and the session's own end is a moment away.
func (p *program) leave(cancel context.CancelCauseFunc) {
	if !p.hasExited() {
		cancel(context.Cause(p.s.ctx))
		return
	}
	time.AfterFunc(leavePatience, func() { cancel(errLeft) }) // harmless after the end
}

// dialer opens a session's data channel on the member that is its home. Where that is
// this one and the session has ended, the client has a moment to read what is left.
func (c *connection) dialer(ctx context.Context, id string, cancel context.CancelCauseFunc) func(context.Context, string) (client.Link, error) {
	return func(dialing context.Context, _ string) (client.Link, error) {
		home, err := c.door.cfg.Gateway.Home(dialing, id)
		if err != nil {
			return nil, err
		}
		if home != "" {
			return c.door.dial(dialing, home, id)
		}
		l, err := c.door.cfg.Gateway.Attach(id)
		if err != nil {
			return nil, err
		}
		c.wg.Go(func() { leaveAfter(ctx, l.Done(), cancel) })
		return l, nil
	}
}

var errLeft = errors.New("the session has ended")

func leaveAfter(ctx context.Context, over <-chan struct{}, cancel context.CancelCauseFunc) {
	select {
	case <-over:
	case <-ctx.Done():
		return
	}
	patience := time.NewTimer(leavePatience)
	defer patience.Stop()
	select {
	case <-patience.C:
		cancel(errLeft)
	case <-ctx.Done():
	}
}

// dial opens a data channel on another member.
func (d *Door) dial(ctx context.Context, home, id string) (client.Link, error) {
	if d.cfg.Dial == nil {
		return nil, errors.New("the session is on another member, which cannot be reached from here")
	}
	url := strings.Replace(strings.TrimSuffix(home, "/"), "http", "ws", 1)
	return d.cfg.Dial(ctx, url+"/v1/data-channel/"+id+"?role=publish_subscribe")
}

// Start implements client.Handler.
func (p *program) Start(json.RawMessage) error { return nil }

// Take implements client.Handler.
func (p *program) Take(pt wire.PayloadType, payload []byte) error {
	var err error
	switch pt {
	case wire.PayloadOutput:
		_, err = p.ch.Write(payload)
	case wire.PayloadStdErr:
		_, err = p.ch.Stderr().Write(payload)
	case wire.PayloadExecControl:
		p.control(payload)
	case wire.PayloadExecStreams:
		if p.auth != nil {
			p.auth.take(payload)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errClosed, err)
	}
	return nil
}

// control takes the word of how the program ended, which comes behind all its output.
func (p *program) control(payload []byte) {
	var c wire.ExecControl
	if json.Unmarshal(payload, &c) != nil || c.Op != wire.ExecExit {
		return
	}
	p.mu.Lock()
	said := p.exited
	p.exited = true
	p.mu.Unlock()
	switch {
	case said:
	case c.Signal != "":
		p.s.exitSignal(c.Signal, c.Core)
	default:
		p.s.exit(c.Status)
	}
}

func (p *program) hasExited() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exited
}

// finish says how the session ended, unless its program did.
func (p *program) finish(end client.End, err error) {
	if p.hasExited() {
		return
	}
	switch {
	case err != nil && !errors.Is(err, errLeft):
		p.s.say("The session has ended: " + err.Error() + ".")
		p.s.exit(statusRefused)
	case end.ExitStatus != nil:
		p.s.exit(*end.ExitStatus)
	case end.Output != "":
		p.s.say(end.Output)
		p.s.exit(statusRefused)
	default:
		p.s.exit(0)
	}
}

// exit reports an exit status and closes the channel.
func (s *sessionChannel) exit(status int) {
	s.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
	s.ch.Close()
}

// exitSignal reports that a signal ended the program, and closes the channel.
func (s *sessionChannel) exitSignal(name string, core bool) {
	s.ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
		Name          string
		Core          bool
		Message, Lang string
	}{Name: client.Clean(name), Core: core}))
	s.ch.Close()
}

// sendInput passes the client's input on, up to its end.
func (p *program) sendInput(ctx context.Context, ours bool) {
	size := inputSize
	if !ours {
		size = smallInput
		if !p.data.Ready(ctx) {
			return
		}
	}
	buffer := make([]byte, size)
	for {
		n, err := p.s.input.Read(buffer)
		if n > 0 && p.data.Send(ctx, wire.PayloadOutput, buffer[:n]) != nil {
			return
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF) && ours:
			p.sendControl(ctx, wire.ExecControl{Op: wire.ExecEOF})
		}
		return
	}
}

func (p *program) sendControl(ctx context.Context, c wire.ExecControl) {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and numbers
	}
	p.data.Send(ctx, wire.PayloadExecControl, b)
}

// sendEvents passes sizes and signals on.
func (p *program) sendEvents(ctx context.Context, ours bool) {
	if !ours {
		if !p.data.Ready(ctx) {
			return
		}
		if t := p.s.exec.Terminal; t != nil && t.Cols > 0 && t.Rows > 0 {
			p.sendSize(ctx, wire.TerminalSize{Cols: t.Cols, Rows: t.Rows})
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-p.s.events:
			switch {
			case e.size != nil:
				p.sendSize(ctx, *e.size)
			case ours && e.noOutput:
				p.sendControl(ctx, wire.ExecControl{Op: wire.ExecNoOutput})
			case ours:
				p.sendControl(ctx, wire.ExecControl{Op: wire.ExecSignal, Signal: e.signal})
			}
		}
	}
}

func (p *program) sendSize(ctx context.Context, size wire.TerminalSize) {
	b, err := json.Marshal(size)
	if err != nil {
		panic(err) // numbers
	}
	p.data.Send(ctx, wire.PayloadSize, b)
}
