package frontdoor

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/client"
	"sallyport.dev/wire"
)

// Bounds of what one session may ask for before it starts.
const (
	maxVariables    = 64
	maxVariableName = 128
	maxVariable     = 4 << 10 // bytes of a value
	maxCommand      = 65535   // bytes; what a parameter may have
	maxModes        = 1 << 10 // bytes of a terminal's modes
	maxTerm         = 64
	maxSide         = 10_000 // columns or rows
	// maxWaiting bounds the sizes and signals that wait to be sent; more are dropped.
	maxWaiting = 64
)

// sessionChannel is one channel of type session (RFC 4254 §6).
type sessionChannel struct {
	c     *connection
	ch    ssh.Channel
	input *typed        // what is read of ch
	done  chan struct{} // closed when everything has been said

	ctx    context.Context // of the channel
	cancel context.CancelCauseFunc

	saying sync.Mutex // one at a time

	// Of the goroutine that reads requests, until started.
	started bool
	exec    wire.Exec

	events chan event // sizes and signals for the program
}

// event is something for the program beside its input.
type event struct {
	size     *wire.TerminalSize
	signal   string
	noOutput bool
}

func (c *connection) serveSession(nc ssh.NewChannel) {
	s := &sessionChannel{c: c, done: make(chan struct{}), events: make(chan event, maxWaiting)}
	c.mu.Lock()
	c.sessions[s] = struct{}{}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.sessions, s)
		c.mu.Unlock()
		close(s.done)
	}()
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	s.setChannel(ch)
	s.input = &typed{source: ch}
	s.ctx, s.cancel = context.WithCancelCause(c.ctx)
	defer s.cancel(nil)
	s.serve(requests)
}

func (s *sessionChannel) setChannel(ch ssh.Channel) {
	s.saying.Lock()
	defer s.saying.Unlock()
	s.ch = ch
}

// say writes a line of the door's own where the person sees it.
func (s *sessionChannel) say(text string) {
	s.saying.Lock()
	defer s.saying.Unlock()
	if s.ch != nil {
		s.ch.Stderr().Write([]byte("\r\n[sallyport] " + client.Clean(text) + "\r\n"))
	}
}

// serve reads the channel's requests until it closes; the program runs beside.
func (s *sessionChannel) serve(requests <-chan *ssh.Request) {
	var running sync.WaitGroup
	defer running.Wait() // it has last words
	late := time.NewTimer(s.c.door.cfg.HandshakeTimeout)
	defer late.Stop()
	for {
		select {
		case <-late.C:
			if !s.started {
				s.cancel(errUnused)
			}
		case r, ok := <-requests:
			if !ok {
				s.cancel(errClosed)
				return
			}
			starts := !s.started
			answer := s.request(r)
			if r.WantReply {
				r.Reply(answer, nil)
			}
			if starts && s.started {
				running.Go(func() { s.run(); s.ch.Close() })
			}
		case <-s.ctx.Done():
			s.c.wg.Go(func() { ssh.DiscardRequests(requests) }) // ends with the channel
			return
		}
	}
}

// request acts on one request and reports what to answer.
func (s *sessionChannel) request(r *ssh.Request) bool {
	switch r.Type {
	case "env":
		return s.setVariable(r.Payload)
	case "pty-req":
		return s.setTerminal(r.Payload)
	case "auth-agent-req@openssh.com":
		return s.askAgent()
	case "shell", "exec", "subsystem":
		return s.start(r)
	case "window-change":
		return s.resize(r.Payload)
	case "signal":
		return s.signal(r.Payload)
	case "eow@openssh.com": // the client's own output is closed: ssh NODE yes | head
		return s.started && s.queue(event{noOutput: true})
	}
	return false
}

// start takes note of what is to run, which can be asked for once.
func (s *sessionChannel) start(r *ssh.Request) bool {
	if s.started {
		return false
	}
	var what struct{ Text string }
	if r.Type != "shell" && ssh.Unmarshal(r.Payload, &what) != nil {
		return false
	}
	switch {
	case r.Type == "exec" && (what.Text == "" || strings.ContainsRune(what.Text, 0)):
		return false
	case r.Type == "exec":
		s.exec.Command = what.Text
	case r.Type == "subsystem" && what.Text != sftp:
		return false
	case r.Type == "subsystem":
		s.exec.Subsystem, s.exec.Terminal = sftp, nil
	}
	s.started = true
	return true
}

const sftp = "sftp"

func (s *sessionChannel) askAgent() bool {
	if s.started || !s.c.proven.mayAgent {
		return false
	}
	s.exec.ForwardAgent = true
	return true
}

// setVariable keeps an environment variable that the configuration lets through.
func (s *sessionChannel) setVariable(payload []byte) bool {
	var v struct{ Name, Value string }
	if s.started || ssh.Unmarshal(payload, &v) != nil || len(s.exec.Environment) >= maxVariables {
		return false
	}
	if !mayName(s.c.door.cfg.Environment, v.Name) || len(v.Value) > maxVariable || strings.ContainsRune(v.Value, 0) {
		return false
	}
	if s.exec.Environment == nil {
		s.exec.Environment = map[string]string{}
	}
	s.exec.Environment[v.Name] = v.Value
	return true
}

// never are variables that decide which code runs; no configuration lets them through.
var never = []string{"LD_*", "DYLD_*", "PATH", "IFS", "ENV", "BASH_ENV", "BASH_FUNC_*", "SHELL", "SHELLOPTS", "BASHOPTS",
	"PS4", "PROMPT_COMMAND", "HOME", "USER", "LOGNAME", "MAIL", "PYTHON*", "PERL*", "RUBY*", "NODE_*", "GCONV_PATH", "LOCPATH",
	"NLSPATH", "HOSTALIASES", "RES_OPTIONS", "MALLOC_*", "GLIBC_TUNABLES", "TMPDIR", "SSH_*", "EDITOR", "VISUAL", "PAGER", "GIT_*",
	"TERMINFO*", "TERMCAP", "JAVA_TOOL_OPTIONS", "_*"}

// mayName reports whether a list of names lets a variable through.
func mayName(allowed []string, name string) bool {
	if name == "" || len(name) > maxVariableName || strings.ContainsFunc(name, notInName) || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	fits := func(pattern string) bool {
		start, open := strings.CutSuffix(pattern, "*")
		return name == pattern || open && strings.HasPrefix(name, start)
	}
	return slices.ContainsFunc(allowed, fits) && !slices.ContainsFunc(never, fits)
}

func notInName(r rune) bool {
	return !(r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9')
}

// setTerminal reads a request for a terminal (RFC 4254 §6.2).
func (s *sessionChannel) setTerminal(payload []byte) bool {
	var t struct {
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}
	if s.started || s.exec.Terminal != nil || !s.c.proven.mayPTY || ssh.Unmarshal(payload, &t) != nil {
		return false
	}
	if len(t.Term) > maxTerm || strings.ContainsFunc(t.Term, notInTerm) || len(t.Modes) > maxModes {
		return false
	}
	s.exec.Terminal = &wire.ExecTerminal{Term: t.Term, Cols: side(t.Cols), Rows: side(t.Rows), Modes: []byte(t.Modes)}
	return true
}

func notInTerm(r rune) bool { return notInName(r) && !strings.ContainsRune("-+.", r) }

func side(n uint32) uint32 { return min(n, maxSide) }

func (s *sessionChannel) resize(payload []byte) bool {
	var z struct{ Cols, Rows, Width, Height uint32 }
	if s.exec.Terminal == nil || ssh.Unmarshal(payload, &z) != nil {
		return false
	}
	size := wire.TerminalSize{Cols: side(z.Cols), Rows: side(z.Rows)}
	if !s.started {
		s.exec.Terminal.Cols, s.exec.Terminal.Rows = size.Cols, size.Rows
		return true
	}
	return s.queue(event{size: &size})
}

func (s *sessionChannel) signal(payload []byte) bool {
	var sig struct{ Name string }
	if !s.started || ssh.Unmarshal(payload, &sig) != nil || len(sig.Name) > 16 || strings.ContainsFunc(sig.Name, notInName) {
		return false
	}
	return s.queue(event{signal: sig.Name})
}

// queue hands something to the program, unless too much waits already.
func (s *sessionChannel) queue(e event) bool {
	select {
	case s.events <- e:
		return true
	default:
		return false
	}
}
