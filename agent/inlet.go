package agent

import (
	"io"
	"sync"
)

// Bounds of an inlet. They are more than our client keeps in flight (1 MiB in 4096
// messages), which therefore never has to send anything twice.
const (
	maxInlet       = 2 << 20
	maxInletPieces = 8192
)

// inlet is a bounded queue of what the client sent and its reader has not taken yet.
// A message is acknowledged when it has been taken, so that the client's window is the
// reader's. One goroutine reads.
type inlet struct {
	mu     sync.Mutex
	more   *sync.Cond
	queue  []piece
	bytes  int
	ended  bool // no more will come
	closed bool // nobody reads any more: what comes is dropped
}

type piece struct {
	data  []byte
	taken func() // nil where there is nothing left to acknowledge
}

func newInlet() *inlet {
	i := &inlet{}
	i.more = sync.NewCond(&i.mu)
	return i
}

// put adds a copy of b. False says that there is no room, which does not count for what
// was acknowledged before (taken is nil).
func (i *inlet) put(b []byte, taken func()) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed || i.ended || len(b) == 0 {
		if taken != nil {
			taken()
		}
		return true
	}
	if taken != nil && (i.bytes+len(b) > maxInlet || len(i.queue) >= maxInletPieces) {
		return false
	}
	i.queue = append(i.queue, piece{append([]byte(nil), b...), taken})
	i.bytes += len(b)
	i.more.Signal()
	return true
}

// end lets the reader come to an end once it has all.
func (i *inlet) end() {
	i.mu.Lock()
	i.ended = true
	i.mu.Unlock()
	i.more.Broadcast()
}

// close drops what there is and what comes. A reader that waits gets io.EOF.
func (i *inlet) close() {
	i.mu.Lock()
	dropped := i.queue
	i.closed, i.queue, i.bytes = true, nil, 0
	i.mu.Unlock()
	i.more.Broadcast()
	for _, p := range dropped {
		p.done()
	}
}

func (p piece) done() {
	if p.taken != nil {
		p.taken()
	}
}

// next waits for the oldest piece; false once there will be none.
func (i *inlet) next() (piece, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for len(i.queue) == 0 && !i.ended && !i.closed {
		i.more.Wait()
	}
	if len(i.queue) == 0 {
		return piece{}, false
	}
	p := i.queue[0]
	i.queue[0] = piece{}
	if i.queue = i.queue[1:]; len(i.queue) == 0 {
		i.queue = nil
	}
	i.bytes -= len(p.data)
	return p, true
}

// writeTo writes everything to w, until the end or an error; after one the inlet is
// closed.
func (i *inlet) writeTo(w io.Writer) error {
	defer i.close()
	for {
		p, ok := i.next()
		if !ok {
			return nil
		}
		_, err := w.Write(p.data)
		p.done()
		if err != nil {
			return err
		}
	}
}

// reader returns an io.Reader of the inlet.
func (i *inlet) reader() io.Reader { return &inletReader{inlet: i} }

type inletReader struct {
	inlet *inlet
	rest  piece
}

func (r *inletReader) Read(b []byte) (int, error) {
	for len(r.rest.data) == 0 {
		p, ok := r.inlet.next()
		if !ok {
			return 0, io.EOF
		}
		if r.rest = p; len(p.data) == 0 {
			p.done()
		}
	}
	n := copy(b, r.rest.data)
	if r.rest.data = r.rest.data[n:]; len(r.rest.data) == 0 {
		r.rest.done()
	}
	return n, nil
}
