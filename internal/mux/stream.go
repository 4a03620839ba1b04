package mux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Stream is one connection through a session. One goroutine may read while another
// writes.
type Stream struct {
	s  *Session
	id uint32

	answered chan struct{} // closed when the peer has answered, or never will

	// All guarded by the session's mu.
	changed  *sync.Cond
	chunks   [][]byte // received and unread
	gathers  bool     // the last of chunks is a copy, which small pieces are added to
	unread   int      // bytes of chunks
	owed     int      // bytes read whose room the peer has not been told of
	received int64
	credit   int   // bytes that may be sent; of the extension
	eof      bool  // the peer has finished
	finished bool  // we have
	err      error // why the stream is over
	told     bool  // answered is closed
}

func newStream(s *Session, id uint32) *Stream {
	st := &Stream{s: s, id: id, credit: s.cfg.Window, answered: make(chan struct{})}
	st.changed = sync.NewCond(&s.mu)
	return st
}

// copied bounds a chunk of bytes that came in small pieces.
const copied = 4 << 10

// arriveLocked keeps what the peer sent until it is read. Where small is set, b is a small
// part of what it came in, which must not be kept for it.
func (st *Stream) arriveLocked(b []byte, small bool) error {
	if st.eof || st.err != nil {
		return nil
	}
	if st.s.cfg.Extended && st.unread+st.owed+len(b) > st.s.cfg.Window {
		return fmt.Errorf("%w: window of stream %d exceeded", ErrProtocol, st.id)
	}
	st.keepLocked(b, small)
	st.unread += len(b)
	st.received += int64(len(b))
	st.s.unread += len(b)
	st.changed.Broadcast()
	return nil
}

func (st *Stream) keepLocked(b []byte, small bool) {
	if !small {
		st.chunks, st.gathers = append(st.chunks, b), false
		return
	}
	if last := len(st.chunks) - 1; last >= 0 && st.gathers && len(st.chunks[last])+len(b) <= copied {
		st.chunks[last] = append(st.chunks[last], b...)
		return
	}
	st.chunks, st.gathers = append(st.chunks, append([]byte(nil), b...)), true
}

// finLocked notes that the peer will send no more. In plain smux that ends both ways.
func (st *Stream) finLocked() {
	st.eof = true
	st.tellLocked()
	if !st.s.cfg.Extended || st.finished {
		st.forgetLocked()
	}
	st.changed.Broadcast()
}

func (st *Stream) resetLocked(err error) {
	st.failLocked(err)
	st.forgetLocked()
}

// failLocked ends the stream for its readers and writers.
func (st *Stream) failLocked(err error) {
	if st.err == nil {
		st.err = err
	}
	st.s.unread -= st.unread
	st.chunks, st.unread = nil, 0
	st.tellLocked()
	st.changed.Broadcast()
	st.s.room.Broadcast()
}

// forgetLocked takes the stream out of the session; what it has unread stays readable.
func (st *Stream) forgetLocked() {
	if st.s.streams[st.id] == st {
		delete(st.s.streams, st.id)
	}
}

func (st *Stream) answerLocked() { st.tellLocked() }

func (st *Stream) tellLocked() {
	if !st.told {
		st.told = true
		close(st.answered)
	}
}

// grantLocked lets n more bytes be sent.
func (st *Stream) grantLocked(n uint32) error {
	if int64(n) > int64(st.s.cfg.Window) || st.credit+int(n) > st.s.cfg.Window {
		return fmt.Errorf("%w: window of %d bytes more", ErrProtocol, n)
	}
	st.credit += int(n)
	st.changed.Broadcast()
	return nil
}

// Answer waits until the peer has reached the stream's target. The error is a
// *ResetError where it has not. Plain smux knows no answer, and nothing is waited for.
func (st *Stream) Answer(ctx context.Context) error {
	if !st.s.cfg.Extended {
		return nil
	}
	select {
	case <-st.answered:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return st.err
}

// Opened tells the peer that the stream's target has been reached.
func (st *Stream) Opened() error {
	if !st.s.cfg.Extended {
		return nil
	}
	return st.s.send(cmdOpened, st.id, nil)
}

// Refuse ends the stream and tells the peer why, where that can be told.
func (st *Stream) Refuse(reason string) {
	st.end(&ResetError{reason}, reason)
}

// Reset ends the stream at once; what the peer has not read may be lost.
func (st *Stream) Reset() { st.end(ErrClosed, "") }

func (st *Stream) end(err error, reason string) {
	st.s.mu.Lock()
	over := st.err != nil || st.gone()
	st.resetLocked(err)
	st.s.mu.Unlock()
	if over {
		return
	}
	if st.s.cfg.Extended {
		st.s.send(cmdReset, st.id, []byte(reason[:min(len(reason), maxReason)]))
		return
	}
	st.s.send(cmdFIN, st.id, nil)
}

// gone reports whether the session has forgotten the stream.
func (st *Stream) gone() bool { return st.s.streams[st.id] != st }

// Received returns how many bytes the peer has sent.
func (st *Stream) Received() int64 {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return st.received
}

// Read implements io.Reader.
func (st *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	st.s.mu.Lock()
	if err := st.awaitDataLocked(); err != nil {
		st.s.mu.Unlock()
		return 0, err
	}
	n := copy(p, st.chunks[0])
	if st.chunks[0] = st.chunks[0][n:]; len(st.chunks[0]) == 0 {
		st.popLocked()
	}
	grant := st.readLocked(n)
	st.s.mu.Unlock()
	st.grant(grant)
	return n, nil
}

// WriteTo implements io.WriterTo: it spares a copy.
func (st *Stream) WriteTo(w io.Writer) (total int64, err error) {
	for {
		st.s.mu.Lock()
		if err := st.awaitDataLocked(); err != nil {
			st.s.mu.Unlock()
			if err == io.EOF {
				err = nil
			}
			return total, err
		}
		b := st.chunks[0]
		st.popLocked()
		st.s.mu.Unlock()
		n, err := w.Write(b)
		total += int64(n)
		st.s.mu.Lock()
		grant := 0
		if st.err == nil {
			grant = st.readLocked(len(b))
		}
		st.s.mu.Unlock()
		if err != nil {
			return total, err
		}
		st.grant(grant)
	}
}

func (st *Stream) awaitDataLocked() error {
	for len(st.chunks) == 0 {
		switch {
		case st.err != nil:
			return st.err
		case st.eof:
			return io.EOF
		}
		st.changed.Wait()
	}
	return nil
}

func (st *Stream) popLocked() {
	st.chunks[0] = nil
	if st.chunks = st.chunks[1:]; len(st.chunks) == 0 {
		st.chunks = nil
	}
}

// readLocked notes that n bytes have been read, and returns what to grant the peer
// now: room is told of by the half window, lest there be a frame for every read.
func (st *Stream) readLocked(n int) (grant int) {
	st.unread -= n
	st.s.unread -= n
	st.s.room.Broadcast()
	if !st.s.cfg.Extended || st.eof {
		return 0
	}
	if st.owed += n; st.owed < st.s.cfg.Window/2 {
		return 0
	}
	grant, st.owed = st.owed, 0
	return grant
}

func (st *Stream) grant(n int) {
	if n > 0 {
		st.s.send(cmdWindow, st.id, binary.LittleEndian.AppendUint32(nil, uint32(n)))
	}
}

// Write implements io.Writer.
func (st *Stream) Write(p []byte) (total int, err error) {
	for len(p) > 0 {
		n, err := st.spend(min(len(p), MaxData))
		if err != nil {
			return total, err
		}
		if err := st.s.send(cmdPSH, st.id, p[:n]); err != nil {
			return total, err
		}
		total += n
		p = p[n:]
	}
	return total, nil
}

// spend waits until something may be sent, and takes up to n bytes of it.
func (st *Stream) spend(n int) (int, error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	for {
		switch {
		case st.err != nil:
			return 0, st.err
		case st.finished:
			return 0, io.ErrClosedPipe
		case !st.s.cfg.Extended && st.eof:
			return 0, errors.New("connection closed by the other side")
		case !st.s.cfg.Extended:
			return n, nil
		case st.credit > 0:
			n = min(n, st.credit)
			st.credit -= n
			return n, nil
		}
		st.changed.Wait()
	}
}

// WriteClosed reports whether nothing can be written any more although the peer may have
// sent something that is unread: in plain smux, once the peer has closed the stream.
func (st *Stream) WriteClosed() bool {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return st.err != nil || st.finished || st.eof && !st.s.cfg.Extended
}

// CloseWrite says that nothing more will be written. In plain smux it closes the
// stream.
func (st *Stream) CloseWrite() error {
	if !st.s.cfg.Extended {
		return st.Close()
	}
	st.s.mu.Lock()
	if st.finished || st.err != nil {
		defer st.s.mu.Unlock()
		return st.err
	}
	st.finished = true
	if st.eof {
		st.forgetLocked()
	}
	st.changed.Broadcast()
	st.s.mu.Unlock()
	return st.s.send(cmdFIN, st.id, nil)
}

// Close ends the stream. After CloseWrite and the peer's end it is over already; before
// that, what the peer still sends is dropped.
func (st *Stream) Close() error {
	st.s.mu.Lock()
	clean := st.s.cfg.Extended && st.finished && st.eof
	if clean || st.err != nil {
		st.failLocked(ErrClosed)
		st.forgetLocked()
		st.s.mu.Unlock()
		return nil
	}
	st.s.mu.Unlock()
	st.Reset()
	return nil
}
