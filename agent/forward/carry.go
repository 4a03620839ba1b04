package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// Stream is the client's end of one connection.
type Stream interface {
	io.Reader
	io.WriterTo
	io.Writer
	// CloseWrite says that the target sends no more.
	CloseWrite() error
	// Reset ends the stream at once.
	Reset()
}

// buffers are what Carry reads into: a connection that is silent holds on to one.
var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// bufferSize is what fits into one frame of the multiplexer and one stream message.
const bufferSize = 32<<10 - 8

// Carry carries bytes between the target and the client's stream until both directions
// have ended or ctx has. Where one side has finished, the other is told so and goes on.
// It closes the target.
func Carry(ctx context.Context, target net.Conn, st Stream) {
	stop := context.AfterFunc(ctx, func() {
		st.Reset()
		target.Close()
	})
	defer stop()
	defer target.Close()
	var up sync.WaitGroup
	up.Go(func() { carryUp(target, st) })
	carryDown(target, st)
	up.Wait()
}

// carryUp copies to the target. When the client has finished, the target is told: by
// half an end where it may still answer, and by a whole one where st cannot be written
// to any more.
func carryUp(target net.Conn, st Stream) {
	_, err := st.WriteTo(target)
	half, ok := target.(interface{ CloseWrite() error })
	if w, whole := st.(interface{ WriteClosed() bool }); err != nil || !ok || whole && w.WriteClosed() {
		target.Close()
		st.Reset()
		return
	}
	if half.CloseWrite() != nil {
		target.Close()
	}
}

// carryDown copies from the target. A stream that cannot be written to any more may have
// bytes to read still: carryUp sees to its end.
func carryDown(target net.Conn, st Stream) {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		n, err := target.Read(*b)
		if n > 0 {
			if _, err := st.Write((*b)[:n]); err != nil {
				return
			}
		}
		switch {
		case err == io.EOF:
			st.CloseWrite()
			return
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			st.Reset()
			return
		}
	}
}
