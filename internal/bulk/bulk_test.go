package bulk

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRoundTrips(t *testing.T) {
	w := newWorld(t, listen(t, echo))
	for _, n := range []int{0, 1, 100, maxSingle, maxSingle + 1, chunk - headerSize, chunk, 3 << 20, 20 << 20} {
		c := w.open()
		if err := roundTrip(c, noise(n)); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		c.Close()
	}
	if w.g.raws.Load() == 0 {
		t.Error("no connection left the outer TLS")
	}
}

// Thousands of short connections need no more links than are open at once.
func TestChurn(t *testing.T) {
	w := newWorld(t, listen(t, echo))
	const workers, each = 8, 625
	data := noise(700)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				c := w.open()
				if err := roundTrip(c, data); err != nil {
					t.Error(err)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	if n := w.links(); n > 3*workers+maxSpare {
		t.Errorf("%d connections one after the other, %d at a time, made %d links", workers*each, workers, n)
	}
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t, listen(t, echo))
	data := noise(300 << 10)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			c := w.open()
			defer c.Close()
			if err := roundTrip(c, data); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Connections that are given up in the midst of what they carry neither block the next
// ones nor leave anything behind.
func TestGivingUp(t *testing.T) {
	w := newWorld(t, listen(t, func(c *net.TCPConn) {
		p := noise(64 << 10)
		for {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	}))
	for i := range 50 {
		c := w.open()
		if i%2 == 0 {
			c.CloseWrite()
		}
		if _, err := io.ReadFull(c, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("reading after the close: got %v", err)
		}
	}
}

// Each side may finish before the other one has begun.
func TestHalfClose(t *testing.T) {
	heard := make(chan string, 1)
	for name, serve := range map[string]func(*net.TCPConn){
		"the client first": func(c *net.TCPConn) {
			all, _ := io.ReadAll(c)
			io.WriteString(c, "you said "+string(all))
		},
		"the target first": func(c *net.TCPConn) {
			io.WriteString(c, "you said hello")
			c.CloseWrite()
			all, _ := io.ReadAll(c)
			heard <- string(all)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, listen(t, serve))
			c := w.open()
			defer c.Close()
			if name == "the target first" {
				if all, err := io.ReadAll(c); string(all) != "you said hello" || err != nil {
					t.Errorf("read %q, %v", all, err)
				}
			}
			io.WriteString(c, "hello")
			c.CloseWrite()
			if _, err := io.WriteString(c, "more"); !errors.Is(err, net.ErrClosed) {
				t.Errorf("writing after the end: got %v", err)
			}
			if name == "the target first" {
				if got := <-heard; got != "hello" {
					t.Errorf("target read %q, want hello", got)
				}
			} else {
				if all, err := io.ReadAll(c); string(all) != "you said hello" || err != nil {
					t.Errorf("read %q, %v", all, err)
				}
			}
		})
	}
}

func TestTargetThatIsNotReached(t *testing.T) {
	w := newWorld(t, func(context.Context) (net.Conn, error) {
		return nil, errors.New("connecting to db:5432: " + strings.Repeat("no", 1000))
	})
	var made int
	for range 20 {
		c := w.open()
		io.Copy(c, strings.NewReader("hello")) // may be too late
		_, err := c.Read(make([]byte, 1))
		var refused *TargetError
		if !errors.As(err, &refused) || !strings.HasPrefix(refused.Reason, "connecting to db:5432: no") {
			t.Fatalf("got %v, want the agent's reason", err)
		}
		if err := c.Answer(t.Context()); !errors.As(err, &refused) {
			t.Errorf("answer: got %v", err)
		}
		c.Close()
		made = w.links()
	}
	if made > 2*maxSpare {
		t.Errorf("refusals used up %d links", made)
	}
}

// A connection that nobody used costs nothing, and its link carries the next one.
func TestUnused(t *testing.T) {
	w := newWorld(t, func(context.Context) (net.Conn, error) {
		t.Error("the target was dialled")
		return nil, errors.New("no")
	})
	for range 100 {
		c := w.open()
		c.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("reading: got %v", err)
		}
	}
	if n := w.links(); n > 2*minSpare {
		t.Errorf("100 connections that nobody used made %d links", n)
	}
}

func TestAnswer(t *testing.T) {
	w := newWorld(t, listen(t, echo))
	for range 20 {
		c := w.open()
		if err := c.Answer(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := roundTrip(c, []byte("after the answer")); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

func TestTargetThatBreaks(t *testing.T) {
	w := newWorld(t, listen(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 5))
		c.SetLinger(0)
	}))
	for range 20 {
		c := w.open()
		io.WriteString(c, "hello")
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrReset) {
			t.Fatalf("got %v, want %v", err, ErrReset)
		}
		if _, err := io.WriteString(c, "more"); !errors.Is(err, ErrReset) {
			t.Errorf("writing: got %v, want %v", err, ErrReset)
		}
		c.Close()
	}
}

// A link that breaks breaks the connection on it, and new ones come up on new links.
func TestCut(t *testing.T) {
	w := newWorld(t, listen(t, echo))
	for range 5 {
		c := w.open()
		_, err := io.WriteString(c, "hello")
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 5))
		}
		if err != nil { // its link was cut with the last one
			c.Close()
			continue
		}
		w.g.cut(false)
		if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Fatalf("got %v, want the break", err)
		}
		c.Close()
	}
	var err error
	for range 5 { // links that were cut while they were ready may not know yet
		c := w.open()
		err = roundTrip(c, noise(1<<20))
		c.Close()
		if err == nil {
			return
		}
	}
	t.Errorf("after the cuts: %v", err)
}

// Where something in between does not let bytes pass that are not of the outer TLS, the
// ends stay inside.
func TestStaysInside(t *testing.T) {
	w := newWorld(t, listen(t, echo), func(g *gateway) { g.strict.Store(true) })
	for range 3 {
		c := w.open()
		if err := roundTrip(c, noise(3<<20)); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

// What a burst has made goes when nobody needs it, and what broke while it was idle is
// replaced.
func TestIdleLinks(t *testing.T) {
	w := newWorld(t, listen(t, echo))
	var all []*Conn
	for range 12 {
		all = append(all, w.open())
	}
	for _, c := range all {
		if err := roundTrip(c, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	o := w.opener
	ready := func() int {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.ready)
	}
	if n := ready(); n < 12 {
		t.Errorf("%d links are ready after a burst of 12", n)
	}
	for range 20 {
		o.mu.Lock()
		o.shrinkLocked(time.Now().Add(2 * idleLink))
		o.mu.Unlock()
	}
	if n := ready(); n != minSpare {
		t.Errorf("%d links are ready after a while, want %d", n, minSpare)
	}
	w.g.cut(false)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		o.mu.Lock()
		o.shrinkLocked(time.Now())
		o.growLocked()
		fresh := len(o.ready) == minSpare && len(o.links) == minSpare
		o.mu.Unlock()
		if fresh {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("broken links are not replaced")
		}
	}
	c := w.open()
	defer c.Close()
	if err := roundTrip(c, []byte("hello")); err != nil {
		t.Error(err)
	}
}

// What keeps silent connections from being forgotten on the way disturbs neither those in
// use nor those that are ready, and has the size by which the gateway knows it.
func TestStill(t *testing.T) {
	w := newWorld(t, listen(t, echo))
	c := w.open()
	defer c.Close()
	say := func() {
		t.Helper()
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	say()
	for w.links() < 1+minSpare {
		time.Sleep(time.Millisecond)
	}
	later := time.Now().Add(2 * stillAfter)
	for range 3 {
		w.opener.mu.Lock()
		for l := range w.opener.links {
			if !l.isSilent(later) {
				t.Error("a link is not silent")
			}
			l.still()
		}
		ready := len(w.opener.ready)
		w.opener.mu.Unlock()
		w.agent.look(later)
		say()
		if ready == 0 {
			t.Fatal("no link is ready")
		}
	}
	if err := roundTrip(c, []byte("the rest")); err != nil {
		t.Error(err)
	}
	for range 10 {
		c := w.open()
		if err := roundTrip(c, []byte("hello")); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

func TestStillSize(t *testing.T) {
	a, b := tcpPair(t)
	client, agent := identity(t), identity(t)
	go func() {
		l, err := newLink(t.Context(), b, b, agent.config(client.Fingerprint()), true, &buffers{})
		if err == nil {
			readHeader(l.rw)
			b.Close()
		}
	}()
	counted := &countingConn{Conn: a}
	l, err := newLink(t.Context(), counted, a, client.config(agent.Fingerprint()), false, &buffers{})
	if err != nil {
		t.Fatal(err)
	}
	before := counted.n
	l.still()
	if got := counted.n - before; got != Still {
		t.Errorf("got %d bytes, want %d", got, Still)
	}
}

type countingConn struct {
	net.Conn
	n int
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.n += len(p)
	return c.Conn.Write(p)
}

// Closing the opener ends what waits.
func TestCloseEndsConnections(t *testing.T) {
	w := newWorld(t, listen(t, echo))
	c := w.open()
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	time.Sleep(10 * time.Millisecond)
	w.opener.Close()
	select {
	case err := <-read:
		if err == nil {
			t.Error("read without an error")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the reader waits still")
	}
	if _, err := w.opener.Open(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("opening after the close: got %v, want %v", err, ErrUnavailable)
	}
}
