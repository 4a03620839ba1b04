package websocket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Kind is the kind of a message.
type Kind byte

// Kinds of messages.
const (
	Text   Kind = 1
	Binary Kind = 2
)

// Errors of Read and Write. After any error the connection is of no further use.
var (
	ErrTooLarge = errors.New("websocket message exceeds the size limit")
	ErrProtocol = errors.New("websocket protocol error")
	ErrClosed   = errors.New("websocket connection is closed")
)

// CloseError is the end of a connection by a close frame.
type CloseError struct {
	Code   int // 1005 where the frame has none
	Reason string
}

// Error implements error.
func (e *CloseError) Error() string {
	return fmt.Sprintf("websocket closed by peer: code %d %q", e.Code, e.Reason)
}

// Options are the limits of a connection. The zero value is usable.
type Options struct {
	// ReadLimit bounds a message, in bytes; 1 MiB unless set.
	ReadLimit int64
	// WriteTimeout bounds each Write and Ping; none unless set. An expiry ends the
	// connection.
	WriteTimeout time.Duration
	// ReadTimeout is the longest silence that Read endures: every message and control
	// frame renews it, parts of one do not. None unless set.
	ReadTimeout time.Duration
}

const (
	defaultReadLimit = 1 << 20
	// closeTimeout bounds how long Close tries to say goodbye.
	closeTimeout = time.Second
	// maxFragments bounds the frames of one message, so that endless empty
	// continuation frames end the connection. Official writers cut at 4,096 bytes.
	maxFragments = 4096

	maxHeader  = 14
	maxControl = 125

	opContinuation = 0
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// Conn is a websocket connection. One goroutine may read while any number write.
type Conn struct {
	conn   net.Conn
	src    io.Reader // conn, or what has buffered some of it
	client bool      // masks what it writes
	opts   Options
	limit  atomic.Int64
	quiet  atomic.Int64 // read timeout, ns
	onPong atomic.Pointer[func([]byte)]

	// in holds bytes read and not yet consumed. It is small, so that an idle
	// connection is; the payloads of larger frames are read past it.
	in       [256]byte
	inR, inW int
	msg      buffer

	closed atomic.Bool
	wmu    sync.Mutex // held while one frame is written
}

func newConn(conn net.Conn, src io.Reader, client bool, opts Options) *Conn {
	if opts.ReadLimit <= 0 {
		opts.ReadLimit = defaultReadLimit
	}
	c := &Conn{conn: conn, src: src, client: client, opts: opts}
	c.limit.Store(opts.ReadLimit)
	c.quiet.Store(int64(opts.ReadTimeout))
	return c
}

// OnPong sets what is called, by Read, with the payload of each pong. The payload
// is valid during the call.
func (c *Conn) OnPong(f func([]byte)) { c.onPong.Store(&f) }

// SetReadDeadline bounds the current and following Reads, unless a read timeout is
// in force, which sets its own. The zero time removes it.
func (c *Conn) SetReadDeadline(t time.Time) { c.conn.SetReadDeadline(t) }

// SetWriteDeadline bounds the Writes under way and following, unless a write timeout
// is in force. A write that exceeds it ends the connection.
func (c *Conn) SetWriteDeadline(t time.Time) { c.conn.SetWriteDeadline(t) }

// SetReadTimeout changes Options.ReadTimeout; zero removes it and any deadline.
func (c *Conn) SetReadTimeout(d time.Duration) {
	c.quiet.Store(int64(d))
	if d == 0 {
		c.conn.SetReadDeadline(time.Time{})
	}
}

// SetReadLimit changes Options.ReadLimit, from the next frame on.
func (c *Conn) SetReadLimit(n int64) { c.limit.Store(n) }

// RemoteAddr returns the address of the peer.
func (c *Conn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// header is a frame's header.
type header struct {
	fin    bool
	op     byte
	masked bool
	mask   uint32 // as read, little-endian
	length int64
}

// Read returns the next message. It answers pings, reports pongs to OnPong and joins
// fragments. The message is valid until the next Read. The end of the connection
// without a close frame is io.EOF, with one it is a *CloseError.
func (c *Conn) Read() (Kind, []byte, error) {
	kind, b, err := c.read()
	if err != nil {
		c.fail(err)
	}
	return kind, b, err
}

func (c *Conn) read() (Kind, []byte, error) {
	c.msg.release()
	var kind byte
	for frames := 0; ; {
		if frames == 0 {
			c.renewDeadline()
		}
		h, err := c.readHeader(frames > 0)
		if err != nil {
			return 0, nil, err
		}
		if h.op >= opClose {
			if err := c.control(h); err != nil {
				return 0, nil, err
			}
			continue
		}
		if frames++; frames == 1 {
			kind = h.op
		}
		if frames > maxFragments {
			return 0, nil, ErrTooLarge
		}
		if err := c.readPayload(h); err != nil {
			return 0, nil, err
		}
		if h.fin {
			return Kind(kind), c.msg.bytes(), nil
		}
	}
}

func (c *Conn) renewDeadline() {
	if d := time.Duration(c.quiet.Load()); d > 0 {
		c.conn.SetReadDeadline(time.Now().Add(d))
	}
}

// readHeader reads and checks a frame's header; within says that a message has begun.
func (c *Conn) readHeader(within bool) (header, error) {
	if err := c.fill(2, within); err != nil {
		return header{}, err
	}
	b0, b1 := c.in[c.inR], c.in[c.inR+1]
	h := header{fin: b0&0x80 != 0, op: b0 & 0x0f, masked: b1&0x80 != 0}
	if b0&0x70 != 0 || h.masked == c.client {
		return header{}, ErrProtocol
	}
	n := 2
	switch l := b1 & 0x7f; l {
	case 126:
		n += 2
	case 127:
		n += 8
	default:
		h.length = int64(l)
	}
	size := n
	if h.masked {
		n += 4
	}
	if err := c.fill(n, true); err != nil {
		return header{}, err
	}
	b := c.in[c.inR : c.inR+n]
	switch size {
	case 4:
		h.length = int64(binary.BigEndian.Uint16(b[2:]))
	case 10:
		h.length = int64(binary.BigEndian.Uint64(b[2:]))
	}
	if h.masked {
		h.mask = binary.LittleEndian.Uint32(b[size:])
	}
	c.inR += n
	return h, c.check(h, within)
}

// check enforces the rules on frames that do not need their payload.
func (c *Conn) check(h header, within bool) error {
	switch {
	case h.length < 0:
		return ErrProtocol
	case h.op == opClose, h.op == opPing, h.op == opPong:
		if !h.fin || h.length > maxControl {
			return ErrProtocol
		}
	case h.op > byte(Binary), (h.op == opContinuation) != within:
		return ErrProtocol
	case h.length > c.limit.Load()-int64(c.msg.n):
		return ErrTooLarge
	}
	return nil
}

// fill makes at least n bytes (at most len(c.in)) available. The end of the stream
// before the first of them is io.EOF, unless within a frame or message.
func (c *Conn) fill(n int, within bool) error {
	if c.inR == c.inW {
		c.inR, c.inW = 0, 0
	} else if c.inR+n > len(c.in) {
		c.inW = copy(c.in[:], c.in[c.inR:c.inW])
		c.inR = 0
	}
	for c.inW-c.inR < n {
		m, err := c.src.Read(c.in[c.inW:])
		c.inW += m
		if err != nil && c.inW-c.inR < n {
			if errors.Is(err, io.EOF) && (within || c.inW > c.inR) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// readPayload appends the payload of a data frame to the message, taking memory only
// as bytes arrive.
func (c *Conn) readPayload(h header) error {
	rest := int(h.length)
	for pos := 0; rest > 0; {
		part := c.msg.grow(rest)
		n := copy(part, c.in[c.inR:c.inW])
		c.inR += n
		if n < len(part) {
			if _, err := io.ReadFull(c.src, part[n:]); err != nil {
				return unexpected(err)
			}
		}
		if h.masked {
			mask(part, h.mask, pos)
		}
		pos += len(part)
		rest -= len(part)
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// control handles a control frame.
func (c *Conn) control(h header) error {
	if err := c.fill(int(h.length), true); err != nil {
		return err
	}
	p := c.in[c.inR : c.inR+int(h.length)]
	c.inR += len(p)
	if h.masked {
		mask(p, h.mask, 0)
	}
	switch h.op {
	case opPing:
		return c.writeFrame(opPong, p)
	case opPong:
		if f := c.onPong.Load(); f != nil {
			(*f)(p)
		}
	case opClose:
		e := &CloseError{Code: 1005}
		if len(p) >= 2 {
			e.Code, e.Reason = int(binary.BigEndian.Uint16(p)), string(p[2:])
		}
		return e
	}
	return nil
}

// Write sends a message in one frame. It returns once the kernel has it.
func (c *Conn) Write(kind Kind, p []byte) error { return c.writeFrame(byte(kind), p) }

// Ping sends a ping with at most 125 bytes.
func (c *Conn) Ping(p []byte) error {
	if len(p) > maxControl {
		return ErrTooLarge
	}
	return c.writeFrame(opPing, p)
}

// Pong sends a pong that nobody asked for, with at most 125 bytes: a sign of life
// while Read is not being called.
func (c *Conn) Pong(p []byte) error {
	if len(p) > maxControl {
		return ErrTooLarge
	}
	return c.writeFrame(opPong, p)
}

// HasRoom reports whether the Write of a small message, of some kilobytes, would return
// at once. False means that this is not known. It holds until something is written.
func (c *Conn) HasRoom() bool {
	if !c.wmu.TryLock() {
		return false
	}
	defer c.wmu.Unlock()
	sock, ok := c.transport().(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		return false
	}
	room := false
	err = raw.Control(func(fd uintptr) { room = writable(fd) })
	return err == nil && room
}

// transport is the connection below TLS.
func (c *Conn) transport() net.Conn {
	if t, ok := c.conn.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return c.conn
}

func (c *Conn) writeFrame(op byte, p []byte) error {
	var b buffer
	c.encode(&b, op, p)
	c.wmu.Lock()
	defer c.wmu.Unlock()
	defer b.release()
	return c.send(b.bytes())
}

// send writes one encoded frame; c.wmu is held.
func (c *Conn) send(frame []byte) error {
	if c.closed.Load() {
		return ErrClosed
	}
	if c.opts.WriteTimeout > 0 {
		c.conn.SetWriteDeadline(time.Now().Add(c.opts.WriteTimeout))
	}
	if _, err := c.conn.Write(frame); err != nil {
		c.abort()
		return fmt.Errorf("writing websocket frame: %w", err)
	}
	return nil
}

// encode puts the whole frame into b.
func (c *Conn) encode(b *buffer, op byte, p []byte) {
	var head [maxHeader]byte
	head[0] = 0x80 | op
	n := 2
	switch l := len(p); {
	case l < 126:
		head[1] = byte(l)
	case l <= 0xffff:
		head[1] = 126
		binary.BigEndian.PutUint16(head[2:], uint16(l))
		n = 4
	default:
		head[1] = 127
		binary.BigEndian.PutUint64(head[2:], uint64(l))
		n = 10
	}
	var key uint32
	if c.client {
		key = rand.Uint32()
		head[1] |= 0x80
		binary.LittleEndian.PutUint32(head[n:], key)
		n += 4
	}
	b.reserve(n + len(p))
	b.append(head[:n])
	b.append(p)
	if c.client {
		mask(b.bytes()[n:], key, 0)
	}
}

// fail ends the connection after a read error, telling the peer why where it is to
// blame.
func (c *Conn) fail(err error) {
	var closing *CloseError
	switch {
	case errors.Is(err, ErrTooLarge):
		c.close(1009)
	case errors.Is(err, ErrProtocol):
		c.close(1002)
	case errors.As(err, &closing):
		c.close(1000)
	default:
		c.abort()
	}
}

// Close says goodbye with a close frame, if no write is under way, and closes the
// connection, which ends a Read or Write that is. It takes at most a second.
func (c *Conn) Close() error { return c.close(1000) }

func (c *Conn) close(code uint16) error {
	if c.wmu.TryLock() {
		if !c.closed.Load() {
			var b buffer
			c.encode(&b, opClose, binary.BigEndian.AppendUint16(nil, code))
			c.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
			c.conn.Write(b.bytes()) // a courtesy; the connection ends in any case
			b.release()
		}
		c.wmu.Unlock()
	}
	return c.abort()
}

// Abort closes the connection at once, without a close frame.
func (c *Conn) Abort() { c.abort() }

// abort closes the transport below TLS: closing a TLS connection whose peer does not
// read would wait for it.
func (c *Conn) abort() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.transport().Close()
}
