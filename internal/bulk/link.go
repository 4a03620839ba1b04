package bulk

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// handshakeWait bounds the ends' handshake, which waits for the gateway to find the
	// other end.
	handshakeWait = 10 * time.Second
)

// link is a connection between the two ends, which carries forwarded connections one
// after the other. One goroutine at a time reads; any may write frames.
type link struct {
	socket net.Conn // what is under everything, to look at and to close
	rw     io.ReadWriter
	gather *gather // nil in tests without TLS
	pool   *buffers

	once    sync.Once
	writing sync.Mutex // guards what follows
	wrote   time.Time
	mute    bool // nothing may be written now but the next frame in turn
}

// stillAfter is how long an end may write nothing: proxies forget what is silent.
const stillAfter = 25 * time.Second

// isSilent reports whether it is time to write something.
func (l *link) isSilent(now time.Time) bool {
	if !l.writing.TryLock() {
		return false // something is being written
	}
	defer l.writing.Unlock()
	return !l.mute && now.Sub(l.wrote) > stillAfter
}

// still writes a frame that means nothing.
func (l *link) still() {
	l.writing.Lock()
	defer l.writing.Unlock()
	if !l.mute && l.writeLocked(kindStill, textFrame("")) != nil {
		l.close()
	}
}

// newLink makes a link of a connection that the gateway will pair, once both ends have
// shown who they are. server is the agent's part.
func newLink(ctx context.Context, conn, socket net.Conn, config *tls.Config, server bool, pool *buffers) (*link, error) {
	g := &gather{Conn: conn, pool: pool}
	make := tls.Client
	if server {
		make = tls.Server
	}
	t := make(g, config)
	// The agent has nothing to say before the client has.
	l := &link{socket: socket, rw: t, gather: g, pool: pool, wrote: time.Now(), mute: server}
	if err := t.HandshakeContext(ctx); err != nil {
		l.close()
		return nil, fmt.Errorf("handshake between the ends: %w", err)
	}
	return l, nil
}

func (l *link) close() { l.once.Do(func() { l.socket.Close() }) }

// write writes one frame. payload starts headerSize bytes into b, whose first bytes
// are overwritten.
func (l *link) write(k kind, b []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.writeLocked(k, b)
}

func (l *link) writeLocked(k kind, b []byte) error {
	l.wrote = time.Now()
	putHeader(b, k, len(b)-headerSize)
	if l.gather == nil {
		_, err := l.rw.Write(b)
		return err
	}
	l.gather.hold(len(b))
	_, err := l.rw.Write(b)
	if e := l.gather.release(); err == nil {
		err = e
	}
	return err
}

// textFrame is a frame with a short text, or none, for write.
func textFrame(text string) []byte {
	return append(make([]byte, headerSize), text[:min(len(text), maxReason)]...)
}

// whole reports whether more can be read without waiting.
func (l *link) whole() bool { return l.gather != nil && l.gather.whole() }

// fresh reports whether nothing has come on an idle link, not even its end.
func (l *link) fresh() bool { return l.rest() && Quiet(l.socket) }

// rest gives back the buffers of an idle link, and reports whether they were empty.
func (l *link) rest() bool { return l.gather == nil || l.gather.rest() }

// body reads the payload of one frame.
type body struct {
	l    *link
	left int
}

// Read reads at least one byte. An end in the midst of a frame is io.ErrUnexpectedEOF.
func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.l.rw.Read(p[:min(len(p), b.left)])
	b.left -= n
	if err == io.EOF && b.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// gather reads once, and then as much more of the frame as needs no waiting.
func (b *body) gather(p []byte) (int, error) {
	n, err := b.Read(p)
	for err == nil && b.left > 0 && n < len(p) && b.l.whole() {
		var k int
		k, err = b.Read(p[n:])
		n += k
	}
	return n, err
}

// text reads a short payload.
func (b *body) text() (string, error) {
	p := make([]byte, b.left)
	_, err := io.ReadFull(b, p)
	return string(p), err
}

// discard reads the payload and forgets it.
func (b *body) discard() error {
	if b.left == 0 {
		return nil
	}
	p := b.l.pool.get(middle)
	defer b.l.pool.put(p)
	for b.left > 0 {
		if _, err := b.Read(p); err != nil {
			return err
		}
	}
	return nil
}
