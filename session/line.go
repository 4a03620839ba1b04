package session

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sallyport.dev/internal/websocket"
)

// conn is what carries messages to and from an end: a websocket, or a line.
type conn interface {
	Read() (websocket.Kind, []byte, error)
	Write(kind websocket.Kind, p []byte) error
	Ping(p []byte) error
	Pong(p []byte) error
	OnPong(f func([]byte))
	SetReadDeadline(t time.Time)
	SetWriteDeadline(t time.Time)
	SetReadTimeout(d time.Duration)
	SetReadLimit(n int64)
	HasRoom() bool
	Close() error
	Abort()
}

// lineMessages is how many messages may wait in one direction of a line. Their bytes
// are bounded by what the ends keep unacknowledged.
const lineMessages = 64

// ErrLineClosed is what writing to a line returns that either end has closed.
var ErrLineClosed = errors.New("line is closed")

// Line is the client's end of a data channel within the process: the SSH front door
// is such a client. It is used like a websocket: the opening message comes first. What
// is written must not be changed afterwards, because nothing copies it.
type Line struct{ end lineEnd }

// Attach opens a line to a session whose home is this member, as ServeData does for a
// websocket: the token is in the opening message.
func (g *Gateway) Attach(id string) (*Line, error) {
	client, server := newLine()
	if !g.start(func() { g.runData(server, id, "") }) {
		server.Close()
		return nil, ErrStopped
	}
	return client, nil
}

// Read returns the next message; text tells its kind.
func (l *Line) Read() (text bool, p []byte, err error) {
	kind, p, err := l.end.Read()
	return kind == websocket.Text, p, err
}

// Write sends a message. It waits while the other end does not read.
func (l *Line) Write(text bool, p []byte) error {
	if text {
		return l.end.Write(websocket.Text, p)
	}
	return l.end.Write(websocket.Binary, p)
}

// Ping asks the other end for a pong.
func (l *Line) Ping() error { return l.end.Ping(nil) }

// OnPong sets what Read calls for each pong.
func (l *Line) OnPong(f func()) { l.end.OnPong(func([]byte) { f() }) }

// Done is closed when either end has closed the line. What was written before may not
// have been read.
func (l *Line) Done() <-chan struct{} { return l.end.over.closed }

// Close ends the line at both ends. What was written before can still be read.
func (l *Line) Close() error { return l.end.Close() }

// What travels on a line beside messages.
const (
	linePing websocket.Kind = 9
	linePong websocket.Kind = 10
)

type lineMessage struct {
	kind websocket.Kind
	p    []byte
}

// lineEnd is one end of a line.
type lineEnd struct {
	in, out chan lineMessage
	over    *lineOver
	onPong  atomic.Pointer[func([]byte)]
	reading deadline
	writing deadline
}

// lineOver is closed once, by either end.
type lineOver struct {
	once   sync.Once
	closed chan struct{}
}

func newLine() (*Line, *lineEnd) {
	there, back := make(chan lineMessage, lineMessages), make(chan lineMessage, lineMessages)
	over := &lineOver{closed: make(chan struct{})}
	client := &Line{lineEnd{in: back, out: there, over: over}}
	return client, &lineEnd{in: there, out: back, over: over}
}

// Read implements conn.
func (e *lineEnd) Read() (websocket.Kind, []byte, error) {
	for {
		m, err := e.next()
		if err != nil {
			return 0, nil, err
		}
		switch m.kind {
		case linePing:
			e.Pong(m.p)
		case linePong:
			if f := e.onPong.Load(); f != nil {
				(*f)(m.p)
			}
		default:
			return m.kind, m.p, nil
		}
	}
}

// next takes what comes next; what was written before the end is read before it.
func (e *lineEnd) next() (lineMessage, error) {
	select {
	case m := <-e.in:
		return m, nil
	default:
	}
	select {
	case m := <-e.in:
		return m, nil
	case <-e.reading.expired():
		return lineMessage{}, os.ErrDeadlineExceeded
	case <-e.over.closed:
	}
	select {
	case m := <-e.in:
		return m, nil
	default:
		return lineMessage{}, io.EOF
	}
}

// Write implements conn.
func (e *lineEnd) Write(kind websocket.Kind, p []byte) error {
	select {
	case <-e.over.closed:
		return ErrLineClosed
	default:
	}
	select {
	case e.out <- lineMessage{kind, p}:
		return nil
	case <-e.over.closed:
		return ErrLineClosed
	case <-e.writing.expired():
		return os.ErrDeadlineExceeded
	}
}

// Ping implements conn.
func (e *lineEnd) Ping(p []byte) error { return e.Write(linePing, bytes.Clone(p)) }

// Pong implements conn. An end that has so much to read needs no pong.
func (e *lineEnd) Pong(p []byte) error {
	select {
	case e.out <- lineMessage{linePong, p}:
	default:
	}
	return nil
}

// OnPong implements conn.
func (e *lineEnd) OnPong(f func([]byte)) { e.onPong.Store(&f) }

// SetReadDeadline implements conn.
func (e *lineEnd) SetReadDeadline(t time.Time) { e.reading.set(t) }

// SetWriteDeadline implements conn.
func (e *lineEnd) SetWriteDeadline(t time.Time) { e.writing.set(t) }

// SetReadTimeout implements conn; within a process there is no silence to fear.
func (e *lineEnd) SetReadTimeout(time.Duration) {}

// SetReadLimit implements conn; messages are as large as their writer made them.
func (e *lineEnd) SetReadLimit(int64) {}

// HasRoom implements conn.
func (e *lineEnd) HasRoom() bool { return len(e.out) < cap(e.out)/2 }

// Close implements conn.
func (e *lineEnd) Close() error {
	e.Abort()
	return nil
}

// Abort implements conn.
func (e *lineEnd) Abort() { e.over.once.Do(func() { close(e.over.closed) }) }

// deadline is a point in time that others can wait for.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	due   chan struct{}
}

// expired returns a channel that is closed at the deadline.
func (d *deadline) expired() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.due == nil {
		d.due = make(chan struct{})
	}
	return d.due
}

// set moves the deadline. One that has passed does not come back: the connection is
// over with it.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if t.IsZero() {
		return
	}
	if d.due == nil {
		d.due = make(chan struct{})
	}
	d.timer = time.AfterFunc(time.Until(t), d.expire)
}

func (d *deadline) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.due:
	default:
		close(d.due)
	}
}
