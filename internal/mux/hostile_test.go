package mux

import (
	"errors"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"
)

// flooded is a server whose targets take their time, and whose peer hears nothing.
func flooded(t *testing.T, cfg Config) *Session {
	t.Helper()
	stop := make(chan struct{})
	cfg.Accept = func(*Stream) { <-stop } // dialling
	cfg.Send = func([]byte) error { <-stop; return net.ErrClosed }
	s := New(cfg)
	t.Cleanup(func() {
		close(stop)
		s.Close(nil)
	})
	return s
}

// A peer that gives streams up as fast as it opens them has no more targets dialled at
// once than one that keeps them.
func TestOpenAndGiveUp(t *testing.T) {
	both(t, func(t *testing.T, extended bool) {
		s := flooded(t, Config{Extended: extended, Streams: 10})
		give := cmdFIN
		if extended {
			give = cmdReset
		}
		var err error
		for i := 0; i < 100 && err == nil; i++ {
			id := uint32(3 + 2*i)
			err = s.Receive(slices.Concat(appendFrame(nil, cmdSYN, id, nil), appendFrame(nil, give, id, nil)))
		}
		if !errors.Is(err, errLimit) {
			t.Errorf("got %v, want %v", err, errLimit)
		}
	})
}

// Unread bytes take about as much memory as they are counted for, however they come: one
// by one, or each with much beside it that is nothing.
func TestUnreadIsCounted(t *testing.T) {
	one := appendFrame(nil, cmdPSH, 3, []byte{1})
	nothing := appendFrame(nil, cmdNOP, 0, nil)
	for name, message := range map[string][]byte{
		"one by one":     slices.Repeat(one, 3000),
		"beside nothing": slices.Concat(one, slices.Repeat(nothing, 4000)),
	} {
		t.Run(name, func(t *testing.T) {
			s := flooded(t, Config{Extended: true})
			if err := s.Receive(appendFrame(nil, cmdSYN, 3, nil)); err != nil {
				t.Fatal(err)
			}
			before := heap()
			for range 100 {
				if err := s.Receive(slices.Clone(message)); err != nil {
					t.Fatal(err)
				}
			}
			held := heap() - before
			s.mu.Lock()
			defer s.mu.Unlock()
			if held > int64(2*s.unread)+1<<20 {
				t.Errorf("%d bytes are held for %d that are unread", held, s.unread)
			}
		})
	}
}

// heap is what is in use of it.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What was copied comes out as it went in.
func TestSmallFrames(t *testing.T) {
	got := make(chan []byte, 1)
	p := connect(t, Config{Extended: true}, func(st *Stream) {
		var all []byte
		time.Sleep(time.Millisecond) // some of it gathers
		b := make([]byte, 7)
		for {
			n, err := st.Read(b)
			all = append(all, b[:n]...)
			if err != nil {
				break
			}
		}
		st.CloseWrite()
		got <- all
	})
	st, err := p.client.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var want []byte
	for i := range 20_000 {
		b := make([]byte, 1+i%11)
		for k := range b {
			b[k] = byte(i + k)
		}
		want = append(want, b...)
		if _, err := st.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	st.CloseWrite()
	if all := <-got; !slices.Equal(all, want) {
		t.Errorf("got %d other bytes than the %d that were sent", len(all), len(want))
	}
}
