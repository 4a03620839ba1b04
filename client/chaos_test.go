package client

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"sallyport.dev/wire"
)

// An agent that echoes, behind links that break all the time, at any point: every
// byte comes back once and in order. Numbers and acknowledgements are AWS's agent's.
func TestEchoOverBreakingLinks(t *testing.T) {
	const size = 256 << 10
	rnd := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, size)
	for i := range text {
		text[i] = byte('a' + rnd.IntN(26))
	}
	f, s := newFakeServer(t), newScreen()
	cfg := shellConfig(f, s)
	r := run(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sent := make(chan error, 1)
	go func() {
		for p := text; len(p) > 0; {
			n := min(1+rnd.IntN(1024), len(p))
			if err := r.Send(ctx, wire.PayloadOutput, p[:n]); err != nil {
				sent <- err
				return
			}
			p = p[n:]
		}
		sent <- nil
	}()
	agent := &echoAgent{t: t, held: map[int64]*wire.Message{}, unacked: map[int64]string{}}
	cuts := agent.serve(f, size)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	r.wait()
	if !bytes.Equal(s.shown, text) {
		t.Errorf("echo differs: %d bytes, want %d", len(s.shown), len(text))
	}
	if cuts < 5 {
		t.Errorf("links broken: got %d, want more", cuts)
	}
}

// echoAgent is an agent that sends back what it gets.
type echoAgent struct {
	t        *testing.T
	expected int64
	held     map[int64]*wire.Message
	next     int64
	unacked  map[int64]string
	echoed   int
}

// serve runs until everything was echoed and acknowledged, breaking links.
func (a *echoAgent) serve(f *fakeServer, size int) (cuts int) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for {
		c := f.next()
		for seq := int64(0); seq < a.next; seq++ { // resend, oldest first
			if p, ok := a.unacked[seq]; ok {
				c.send(seq, wire.PayloadOutput, p)
			}
		}
		if a.session(c, 5+rnd.IntN(40), size) {
			c.closed("", nil)
			return cuts
		}
		cuts++
		c.drop()
	}
}

// session serves one link for some messages that bring something new: were those that come
// again counted, links could break before anything got further. True when all is done.
func (a *echoAgent) session(c *fakeConn, messages, size int) bool {
	if a.echoed == size {
		messages = 1 << 20
	}
	for messages > 0 {
		c.conn.SetReadDeadline(time.Now().Add(patience))
		_, p, err := c.conn.Read()
		if err != nil {
			a.t.Error(err)
			return true
		}
		m, err := wire.Decode(append([]byte(nil), p...))
		if err != nil {
			a.t.Error(err)
			return true
		}
		if a.take(c, m) {
			messages--
		}
		if a.echoed == size && len(a.unacked) == 0 {
			return true
		}
	}
	return false
}

// take reports whether the message brought something new.
func (a *echoAgent) take(c *fakeConn, m *wire.Message) bool {
	if m.Type == wire.TypeAcknowledge {
		before := len(a.unacked)
		delete(a.unacked, acknowledgedNumber(a.t, m))
		return len(a.unacked) < before
	}
	c.acknowledge(m)
	before := len(a.held) + int(a.expected)
	if m.SequenceNumber >= a.expected {
		a.held[m.SequenceNumber] = m
	}
	for m := a.held[a.expected]; m != nil; m = a.held[a.expected] {
		delete(a.held, a.expected)
		a.expected++
		if m.PayloadType == wire.PayloadOutput {
			a.unacked[a.next] = string(m.Payload)
			c.send(a.next, wire.PayloadOutput, string(m.Payload))
			a.next++
			a.echoed += len(m.Payload)
		}
	}
	return len(a.held)+int(a.expected) > before
}
