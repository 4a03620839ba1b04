package bulk

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// script plays an end whose bytes are given: it reads what is in and discards what it is
// told.
type script struct{ in io.Reader }

func (s script) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s script) Write(p []byte) (int, error) { return len(p), nil }

// idleConn is the socket of a script.
type idleConn struct{ net.Conn }

func (idleConn) Close() error                { return nil }
func (idleConn) SetDeadline(time.Time) error { return nil }

func scripted(in []byte) *link {
	return &link{socket: idleConn{}, rw: script{bytes.NewReader(in)}, pool: &buffers{}}
}

func frame(k kind, payload string) []byte {
	b := append(make([]byte, headerSize), payload...)
	putHeader(b, k, len(payload))
	return b
}

func frames(all ...[]byte) []byte { return bytes.Join(all, nil) }

// What a client may not send ends its link.
func TestHostileClient(t *testing.T) {
	for name, in := range map[string][]byte{
		"data before the opening":  frame(kindData, "x"),
		"an end of nothing":        frame(kindEnd, ""),
		"opened twice":             frames(frame(kindOpen, ""), frame(kindOpen, "")),
		"data after the end":       frames(frame(kindOpen, ""), frame(kindEnd, ""), frame(kindData, "x")),
		"a refusal":                frames(frame(kindOpen, ""), frame(kindRefused, "no")),
		"the agent's answer":       frames(frame(kindOpen, ""), frame(kindReached, "")),
		"an unknown kind":          frame(99, ""),
		"a frame that is too long": {byte(kindData), 0xff, 0xff, 0xff},
		"an end with a payload":    frame(kindEnd, "x"),
		"a reason that is too long": frames(frame(kindOpen, ""),
			frame(kindAbort, string(make([]byte, maxReason+1)))),
	} {
		t.Run(name, func(t *testing.T) {
			a := &Acceptor{target: listen(t, echo)}
			err := a.serve(t.Context(), scripted(in))
			if !errors.Is(err, errFrame) {
				t.Errorf("got %v, want %v", err, errFrame)
			}
			a.wg.Wait()
		})
	}
}

// What an agent may not send breaks the connection and its link.
func TestHostileAgent(t *testing.T) {
	for name, in := range map[string][]byte{
		"an opening":               frame(kindOpen, ""),
		"a question":               frame(kindAsk, ""),
		"an unknown kind":          frame(0, ""),
		"a frame that is too long": {byte(kindData), 0xff, 0xff, 0xff},
		"half a header":            {byte(kindData), 0},
		"half a payload":           frame(kindData, "hello")[:6],
	} {
		t.Run(name, func(t *testing.T) {
			var kept []bool
			l := scripted(in)
			c := &Conn{link: l, body: body{l: l}, free: func(_ *link, good bool) { kept = append(kept, good) }}
			_, err := io.ReadAll(c)
			if err == nil || len(kept) != 1 || kept[0] {
				t.Errorf("got %v, link kept: %v", err, kept)
			}
		})
	}
}

// tcpPair is a connection over loopback.
func tcpPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	dial := listen(t, func(c *net.TCPConn) {
		accepted <- c
		<-t.Context().Done()
	})
	a, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b = <-accepted
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		t.Cleanup(func() { c.Close() })
	}
	return a, b
}

// Only who was named in the session's handshake is let in, on either side.
func TestImpostors(t *testing.T) {
	client, agent, impostor := identity(t), identity(t), identity(t)
	for name, ends := range map[string]struct {
		client, agent         *Identity
		wantClient, wantAgent bool
	}{
		"both are right":        {client, agent, true, true},
		"another agent":         {client, impostor, false, true},
		"another client":        {impostor, agent, true, false},
		"the agent as a client": {agent, agent, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := tcpPair(t)
			var wg sync.WaitGroup
			var agentErr error
			wg.Go(func() {
				l, err := newLink(t.Context(), b, b, ends.agent.config(client.Fingerprint()), true, &buffers{})
				if agentErr = err; err == nil {
					_, _, agentErr = readHeader(l.rw)
				}
			})
			l, err := newLink(t.Context(), a, a, ends.client.config(agent.Fingerprint()), false, &buffers{})
			if err == nil {
				l.write(kindEnd, textFrame(""))
			}
			if !ends.wantAgent { // TLS 1.3's client hears of it later
				a.Close()
			}
			wg.Wait()
			if (err == nil) != ends.wantClient || (agentErr == nil) != (ends.wantClient && ends.wantAgent) {
				t.Errorf("client: %v, agent: %v", err, agentErr)
			}
		})
	}
}

// An end that has been let in by the gateway, but speaks no TLS, or an older one.
func TestNoDowngrade(t *testing.T) {
	client, agent := identity(t), identity(t)
	a, b := tcpPair(t)
	old := agent.config(client.Fingerprint())
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	done := make(chan struct{})
	go func() {
		defer close(done)
		tls.Server(b, old).HandshakeContext(t.Context())
		b.Close()
	}()
	if _, err := newLink(t.Context(), a, a, client.config(agent.Fingerprint()), false, &buffers{}); err == nil {
		t.Error("TLS 1.2 was taken")
	}
	<-done
}

// A fresh socket's TLS record is read to its last byte and no further.
func TestExactConn(t *testing.T) {
	record := func(n int) []byte { return append([]byte{23, 3, 3, byte(n >> 8), byte(n)}, make([]byte, n)...) }
	in := frames(record(3), record(0), record(300), []byte("raw"))
	a, b := net.Pipe()
	defer a.Close()
	go func() { b.Write(in); b.Close() }()
	c := &exactConn{Conn: a}
	p := make([]byte, 1000)
	for read := 0; read < len(in)-3; {
		n, err := c.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		if read += n; c.between() != (read == 8 || read == 13 || read == 318) {
			t.Errorf("after %d bytes: between is %v", read, c.between())
		}
	}
	if rest, _ := io.ReadAll(a); string(rest) != "raw" {
		t.Errorf("%q is left, want %q", rest, "raw")
	}
}

// FuzzFrames feeds arbitrary frames to both ends.
func FuzzFrames(f *testing.F) {
	f.Add(frames(frame(kindOpen, "hello"), frame(kindData, "more"), frame(kindEnd, "")))
	f.Add(frames(frame(kindOpen, ""), frame(kindAsk, ""), frame(kindAbort, ""), frame(kindOpen, "x")))
	f.Add(frames(frame(kindReached, ""), frame(kindData, "hello"), frame(kindRefused, "no")))
	f.Add(frames(frame(kindOpen, ""), frame(kindEnd, ""), frame(kindAbort, "")))
	f.Fuzz(func(t *testing.T, in []byte) {
		a := &Acceptor{target: func(context.Context) (net.Conn, error) {
			c, d := net.Pipe()
			go func() {
				io.Copy(io.Discard, d)
				d.Close()
			}()
			return c, nil
		}}
		if err := a.serve(t.Context(), scripted(in)); err == nil {
			t.Error("a link came to no end")
		}
		a.wg.Wait()
		l := scripted(in)
		freed := 0
		c := &Conn{link: l, body: body{l: l}, free: func(*link, bool) { freed++ }, spawn: func(f func()) bool { f(); return true }}
		io.Copy(io.Discard, c)
		c.Close()
		if freed != 1 {
			t.Errorf("the link was given back %d times", freed)
		}
	})
}
