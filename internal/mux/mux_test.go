package mux

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xtaci/smux"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test.
const patience = 20 * time.Second

// pair is two sessions that are connected by pipes.
type pair struct {
	client, server *Session
}

// connect connects a client with a server whose streams go to accept.
func connect(t *testing.T, cfg Config, accept func(*Stream)) pair {
	t.Helper()
	up, down := make(chan []byte, 64), make(chan []byte, 64)
	stop := make(chan struct{})
	send := func(to chan []byte) func([]byte) error {
		return func(b []byte) error {
			select {
			case to <- bytes.Clone(b):
				return nil
			case <-stop:
				return net.ErrClosed
			}
		}
	}
	c, s := cfg, cfg
	c.Client, c.Send = true, send(up)
	s.Send, s.Accept = send(down), accept
	p := pair{New(c), New(s)}
	var feeding sync.WaitGroup
	feed := func(to *Session, from chan []byte) {
		feeding.Go(func() {
			for {
				select {
				case b := <-from:
					if to.Receive(b) != nil {
						return
					}
				case <-stop:
					return
				}
			}
		})
	}
	feed(p.client, down)
	feed(p.server, up)
	t.Cleanup(func() {
		close(stop)
		p.client.Close(nil)
		p.server.Close(nil)
		feeding.Wait()
	})
	return p
}

func echo(st *Stream) {
	st.Opened()
	io.Copy(st, onlyReader{st})
	st.CloseWrite()
}

type onlyReader struct{ io.Reader }

func both(t *testing.T, f func(t *testing.T, extended bool)) {
	t.Run("smux", func(t *testing.T) { f(t, false) })
	t.Run("extended", func(t *testing.T) { f(t, true) })
}

// Many streams at once carry what was put in.
func TestManyStreams(t *testing.T) {
	both(t, func(t *testing.T, extended bool) {
		p := connect(t, Config{Extended: extended}, echo)
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				st, err := p.client.Open()
				if err != nil {
					t.Error(err)
					return
				}
				defer st.Close()
				if err := st.Answer(t.Context()); err != nil {
					t.Error(err)
				}
				roundTrip(t, st, uint64(i), 20_000+rand.IntN(100_000))
			})
		}
		all.Wait()
		wantEmpty(t, p)
	})
}

func wantEmpty(t *testing.T, p pair) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if p.client.Len() == 0 && p.server.Len() == 0 {
			p.client.mu.Lock()
			defer p.client.mu.Unlock()
			if p.client.unread != 0 {
				t.Errorf("unread: got %d bytes, want 0", p.client.unread)
			}
			return
		}
	}
	t.Errorf("streams left: client %d, server %d", p.client.Len(), p.server.Len())
}

func roundTrip(t *testing.T, c io.ReadWriter, seed uint64, n int) {
	t.Helper()
	sent := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(sent)
	go c.Write(sent)
	got := make([]byte, n)
	if _, err := io.ReadFull(c, got); err != nil {
		t.Errorf("stream %d: %v", seed, err)
		return
	}
	if sha256.Sum256(got) != sha256.Sum256(sent) {
		t.Errorf("stream %d: the bytes differ", seed)
	}
}

// With the extension, one end can finish and still get its answer.
func TestHalfClose(t *testing.T) {
	p := connect(t, Config{Extended: true}, func(st *Stream) {
		b, err := io.ReadAll(st)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(st, "%d bytes", len(b))
		st.CloseWrite()
	})
	st, err := p.client.Open()
	if err != nil {
		t.Fatal(err)
	}
	st.Write(make([]byte, 1<<20))
	if err := st.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write([]byte("more")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing after CloseWrite: got %v, want %v", err, io.ErrClosedPipe)
	}
	if got, err := io.ReadAll(st); string(got) != "1048576 bytes" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	st.Close()
	wantEmpty(t, p)
}

// In plain smux, what was sent before the end arrives before it.
func TestPlainEnd(t *testing.T) {
	p := connect(t, Config{}, func(st *Stream) {
		st.Write(make([]byte, 100_000))
		st.Close()
	})
	st, err := p.client.Open()
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if n, err := st.WriteTo(&got); n != 100_000 || err != nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if _, err := st.Write([]byte("x")); err == nil {
		t.Error("a stream that the peer has closed takes data")
	}
	st.Close()
	wantEmpty(t, p)
}

func TestRefuse(t *testing.T) {
	reason := "connecting to 127.0.0.1:1: connection refused"
	p := connect(t, Config{Extended: true}, func(st *Stream) { st.Refuse(reason) })
	st, err := p.client.Open()
	if err != nil {
		t.Fatal(err)
	}
	var reset *ResetError
	if err := st.Answer(t.Context()); !errors.As(err, &reset) || reset.Reason != reason {
		t.Errorf("answer: got %v, want %q", err, reason)
	}
	if _, err := st.Read(make([]byte, 1)); !errors.As(err, &reset) {
		t.Errorf("reading: got %v", err)
	}
	if _, err := st.Write([]byte("x")); !errors.As(err, &reset) {
		t.Errorf("writing: got %v", err)
	}
	st.Close()
	wantEmpty(t, p)
}

// With the extension, a stream that nobody reads holds up no other, and takes no more
// memory than its window.
func TestSlowReader(t *testing.T) {
	p := connect(t, Config{Extended: true, Window: 64 << 10}, func(st *Stream) {
		defer st.CloseWrite()
		st.Write(make([]byte, 1<<20))
	})
	slow, err := p.client.Open()
	if err != nil {
		t.Fatal(err)
	}
	fast, err := p.client.Open()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, fast); n != 1<<20 || err != nil {
		t.Errorf("fast: got %d bytes, %v", n, err)
	}
	p.client.mu.Lock()
	if slow.unread > 64<<10 {
		t.Errorf("slow: %d bytes are held", slow.unread)
	}
	p.client.mu.Unlock()
	if n, err := io.Copy(io.Discard, slow); n != 1<<20 || err != nil {
		t.Errorf("slow: got %d bytes, %v", n, err)
	}
}

// A peer that ignores windows, opens streams twice or without end, or speaks another
// protocol ends the session; nothing else happens.
func TestHostilePeer(t *testing.T) {
	block := func(st *Stream) { io.Copy(io.Discard, onlyReader{st}) }
	frame := func(cmd byte, id uint32, data []byte) []byte { return appendFrame(nil, cmd, id, data) }
	many := func(n int) (b []byte) {
		for i := range n {
			b = append(b, frame(cmdSYN, uint32(3+2*i), nil)...)
		}
		return b
	}
	for name, tt := range map[string]struct {
		cfg  Config
		b    []byte
		want error
	}{
		"version":         {Config{}, []byte{2, cmdNOP, 0, 0, 0, 0, 0, 0}, ErrProtocol},
		"command":         {Config{}, frame(9, 3, nil), ErrProtocol},
		"extension":       {Config{}, frame(cmdWindow, 3, []byte{1, 0, 0, 0}), ErrProtocol},
		"SYN with data":   {Config{Extended: true}, frame(cmdSYN, 3, []byte{1}), ErrProtocol},
		"short window":    {Config{Extended: true}, frame(cmdWindow, 3, []byte{1}), ErrProtocol},
		"long reason":     {Config{Extended: true}, frame(cmdReset, 3, make([]byte, maxReason+1)), ErrProtocol},
		"stream twice":    {Config{Extended: true}, slices.Concat(many(1), many(1)), ErrProtocol},
		"window exceeded": {Config{Extended: true, Window: 100, Accept: func(*Stream) {}}, slices.Concat(many(1), frame(cmdPSH, 3, make([]byte, 101))), ErrProtocol},
		"window widened":  {Config{Extended: true}, slices.Concat(many(1), frame(cmdWindow, 3, []byte{0xff, 0xff, 0xff, 0xff})), ErrProtocol},
		"many streams":    {Config{Extended: true, Streams: 10, Accept: block}, many(100), errLimit},
		"not a server":    {Config{Client: true}, many(1), ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := tt.cfg
			stop := make(chan struct{})
			cfg.Send = func([]byte) error { <-stop; return net.ErrClosed } // a full channel
			if cfg.Accept == nil && !cfg.Client {
				cfg.Accept = block
			}
			s := New(cfg)
			err := s.Receive(tt.b)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			close(stop)
			s.Close(nil)
		})
	}
}

// conn makes a session look like what xtaci/smux wants to talk to.
func official(t *testing.T, client bool, accept func(*Stream)) (*smux.Session, *Session) {
	t.Helper()
	ours, theirs := net.Pipe()
	s := New(Config{Client: !client, Accept: accept, Send: func(b []byte) error {
		_, err := ours.Write(b)
		return err
	}})
	var feeding sync.WaitGroup
	feeding.Go(func() {
		for {
			b := make([]byte, 1024) // as AWS's programs cut it
			n, err := ours.Read(b)
			if err != nil || s.Receive(b[:n]) != nil {
				return
			}
		}
	})
	make := smux.Server
	if client {
		make = smux.Client
	}
	peer, err := make(theirs, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		peer.Close()
		ours.Close()
		s.Close(nil)
		feeding.Wait()
	})
	return peer, s
}

// AWS's plugin is a client of xtaci/smux, AWS's agent a server.
func TestOfficialClient(t *testing.T) {
	peer, s := official(t, true, echo)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			st, err := peer.OpenStream()
			if err != nil {
				t.Error(err)
				return
			}
			roundTrip(t, st, uint64(i), 100_000)
			st.Close()
		})
	}
	all.Wait()
	for end := time.Now().Add(patience); s.Len() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("streams left: %d", s.Len())
		}
	}
}

func TestOfficialServer(t *testing.T) {
	peer, s := official(t, false, nil)
	go func() {
		for {
			st, err := peer.AcceptStream()
			if err != nil {
				return
			}
			go func() { io.Copy(st, st); st.Close() }()
		}
	}()
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			st, err := s.Open()
			if err != nil {
				t.Error(err)
				return
			}
			roundTrip(t, st, uint64(i), 100_000)
			st.Close()
		})
	}
	all.Wait()
	if err := s.KeepAlive(); err != nil || s.Len() != 0 {
		t.Errorf("keep-alive: got %v, want none; streams left: %d", err, s.Len())
	}
}

// The end of a session reaches everybody who waits.
func TestSessionEnds(t *testing.T) {
	p := connect(t, Config{Extended: true, Window: 10}, func(st *Stream) { io.ReadAll(st) })
	st, err := p.client.Open()
	if err != nil {
		t.Fatal(err)
	}
	over := errors.New("the link is gone")
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, over) {
			t.Errorf("reading: got %v", err)
		}
	})
	all.Go(func() {
		if err := st.Answer(context.Background()); !errors.Is(err, over) {
			t.Errorf("answer: got %v", err)
		}
	})
	time.Sleep(10 * time.Millisecond)
	p.client.Close(over)
	all.Wait()
	if _, err := p.client.Open(); !errors.Is(err, over) {
		t.Errorf("opening: got %v", err)
	}
}

// Whatever a peer sends, in whatever pieces, nothing panics, and what is held is bounded.
func FuzzReceive(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, cmdSYN, 3, nil), cmdPSH, 3, []byte("hello")), byte(3), true)
	f.Add(appendFrame(appendFrame(nil, cmdSYN, 3, nil), cmdReset, 3, []byte("why")), byte(1), true)
	f.Add([]byte(strings.Repeat("\x01\x00\x00\x00\x05\x00\x00\x00", 4)), byte(7), false)
	f.Fuzz(func(t *testing.T, b []byte, cut byte, extended bool) {
		s := New(Config{Extended: extended, Window: 1000, Streams: 8, Send: func([]byte) error { return nil }, Accept: func(st *Stream) {
			io.Copy(io.Discard, onlyReader{st})
			st.CloseWrite()
		}})
		for len(b) > 0 {
			n := min(int(cut)+1, len(b))
			if s.Receive(bytes.Clone(b[:n])) != nil {
				break
			}
			b = b[n:]
		}
		if n := s.Len(); n > 16 {
			t.Errorf("%d streams", n)
		}
		s.Close(nil)
	})
}
