package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport.dev/client"
)

// proxyUnderTest is a proxy whose sessions are fakes.
type proxyUnderTest struct {
	*socks
	t       *testing.T
	ctx     context.Context
	told    *events
	mu      sync.Mutex
	started map[target]int
	refuse  map[target]error // what starting a session answers
	deaf    map[target]bool  // targets that refuse connections
}

func newProxyUnderTest(t *testing.T) *proxyUnderTest {
	ctx, cancel := context.WithCancel(t.Context())
	p := &proxyUnderTest{t: t, ctx: ctx, told: &events{}, started: map[target]int{}, refuse: map[target]error{}, deaf: map[target]bool{}}
	var crew sync.WaitGroup
	p.socks = newSOCKS(p.startSession, p.told.tell, &crew, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { cancel(); crew.Wait() })
	return p
}

func (p *proxyUnderTest) startSession(_ context.Context, l *lane) (portSession, string, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started[l.target]++
	if err := p.refuse[l.target]; err != nil {
		return nil, "", nil, err
	}
	s := newFakePort()
	if p.deaf[l.target] {
		s.refused = &client.ForwardRefusedError{Reason: "connection refused"}
	}
	return s, "alice-0a", func() {}, nil
}

// connect asks for host:80 and returns the connection and the reply.
func (p *proxyUnderTest) connect(host string) (net.Conn, byte) {
	p.t.Helper()
	near, far := net.Pipe()
	go p.serve(p.ctx, far)
	go fmt.Fprintf(near, "\x05\x01\x00\x05\x01\x00\x03%c%s\x00\x50", len(host), host)
	answer := make([]byte, 2+10)
	if _, err := io.ReadFull(near, answer); err != nil {
		p.t.Fatalf("%s: %v", host, err)
	}
	return near, answer[3]
}

func to(host string) target { return target{host: host, port: "80"} }

func TestSOCKSCarries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxyUnderTest(t)
		for range 3 {
			c, reply := p.connect("db")
			if reply != socksSucceeded {
				t.Fatalf("got reply %d", reply)
			}
			go fmt.Fprintln(c, "hello")
			if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "hello\n" {
				t.Errorf("got %q, %v, want the echo", line, err)
			}
			c.Close()
		}
		synctest.Wait()
		if got := p.started[to("db")]; got != 1 {
			t.Errorf("%d sessions to one target, want 1", got)
		}
		if u := p.usage(); u.sent != 18 || u.received != 18 || u.conns != 0 || u.state != "1 target" {
			t.Errorf("got usage %+v", u)
		}
	})
}

func TestSOCKSReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxyUnderTest(t)
		p.refuse[to("forbidden")] = refusal("AccessDeniedException")
		p.refuse[to("away")] = refusal("TargetNotConnected")
		p.deaf[to("deaf")] = true
		for host, want := range map[string]byte{"forbidden": socksNotAllowed, "away": socksFailure, "deaf": socksRefused} {
			c, reply := p.connect(host)
			if reply != want {
				t.Errorf("%s: got reply %d, want %d", host, reply, want)
			}
			c.Close()
		}
	})
}

// A program that tries again and again does not make the server decide each time.
func TestSOCKSRemembersRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxyUnderTest(t)
		p.refuse[to("forbidden")] = refusal("AccessDeniedException")
		for range 5 {
			p.connect("forbidden")
		}
		if got := p.started[to("forbidden")]; got != 1 {
			t.Errorf("the server was asked %d times, want 1", got)
		}
		time.Sleep(refusedFor + time.Second)
		delete(p.refuse, to("forbidden"))
		if _, reply := p.connect("forbidden"); reply != socksSucceeded {
			t.Errorf("got reply %d, want it allowed by now", reply)
		}
	})
}

// Targets are bounded: an idle one makes room, and one in use does not.
func TestSOCKSBoundsTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxyUnderTest(t)
		var held []net.Conn
		for i := range maxTargets {
			c, reply := p.connect(fmt.Sprintf("host-%d", i))
			if reply != socksSucceeded {
				t.Fatalf("target %d: got reply %d", i, reply)
			}
			held = append(held, c)
		}
		if _, reply := p.connect("one-more"); reply != socksFailure {
			t.Errorf("got reply %d, want a failure: every target is in use", reply)
		}
		held[7].Close()
		synctest.Wait()
		if _, reply := p.connect("one-more"); reply != socksSucceeded {
			t.Errorf("got reply %d, want room: a target is idle", reply)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.lanes) != maxTargets || p.lanes[to("host-7")] != nil {
			t.Errorf("got %d lanes, want %d without the idle one", len(p.lanes), maxTargets)
		}
	})
}

func TestSOCKSEndsIdleTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxyUnderTest(t)
		go p.tidy(p.ctx)
		idle, _ := p.connect("idle")
		p.connect("busy")
		idle.Close()
		time.Sleep(2 * targetIdle)
		synctest.Wait()
		if u := p.usage(); u.state != "1 target" || p.lanes[to("busy")] == nil {
			t.Errorf("got %+v, want the one in use", u)
		}
	})
}

// Somebody who connects and says nothing, or half of it, does not stay.
func TestSOCKSSilentProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxyUnderTest(t)
		near, far := net.Pipe()
		go p.serve(p.ctx, far)
		go near.Write([]byte{5})
		if _, err := io.ReadAll(near); err != nil {
			t.Error(err)
		}
	})
}
