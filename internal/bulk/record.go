package bulk

import (
	"io"
	"net"
	"sync"
)

const (
	recordHeader = 5
	// maxRecord is the longest TLS record on the wire, with its header (RFC 8446 §5.2).
	maxRecord = recordHeader + 16384 + 256
	// maxSingle is what goes into one record.
	maxSingle = 16384
)

// recordLength returns the length of the TLS record that begins with b, header included.
func recordLength(b []byte) int { return recordHeader + (int(b[3])<<8 | int(b[4])) }

// exactConn reads never more than the TLS record that has begun. What follows the last
// record that TLS asked for stays in the socket, so that the connection can go on
// without that TLS.
type exactConn struct {
	net.Conn
	head [recordHeader]byte
	have int // bytes of the header that were read
	left int // bytes of the record that are still to be read
}

// Read implements net.Conn.
func (c *exactConn) Read(p []byte) (int, error) {
	if c.left > 0 {
		n, err := c.Conn.Read(p[:min(len(p), c.left)])
		c.left -= n
		return n, err
	}
	n, err := c.Conn.Read(p[:min(len(p), recordHeader-c.have)])
	copy(c.head[c.have:], p[:n])
	if c.have += n; c.have == recordHeader {
		c.have, c.left = 0, recordLength(c.head[:])-recordHeader
	}
	return n, err
}

// between reports whether no record has begun.
func (c *exactConn) between() bool { return c.have == 0 && c.left == 0 }

// gather stands between TLS and its connection and makes large reads and writes of many
// records: the cost of a system call, and of waking up whoever waits at the other end,
// is that of eight records. It hands out one record at a time, so that it knows how
// much can be decrypted without waiting.
type gather struct {
	net.Conn
	pool *buffers

	in   []byte // what was read is in[r:w]
	r, w int
	last int // bytes that came with the last read
	left int // bytes of the record that is being handed out

	mu      sync.Mutex // of the writing side: a reader may have to write an alert
	out     []byte
	holding bool
}

// Read implements net.Conn for one goroutine.
func (g *gather) Read(p []byte) (int, error) {
	for g.left == 0 && g.w-g.r < recordHeader || g.left > 0 && g.w == g.r {
		if err := g.fill(); err != nil {
			return 0, err
		}
	}
	if g.left == 0 {
		if g.left = recordLength(g.in[g.r:g.w]); g.left > maxRecord {
			return 0, errFrame
		}
	}
	n := copy(p, g.in[g.r:min(g.w, g.r+g.left)])
	g.r += n
	g.left -= n
	return n, nil
}

// fill reads once, into a larger buffer when the last read filled this one.
func (g *gather) fill() error {
	if g.in == nil {
		g.in = g.pool.get(small)
	}
	if g.r > 0 {
		g.w = copy(g.in, g.in[g.r:g.w])
		g.r = 0
	}
	if g.w == 0 {
		g.in = g.pool.fit(g.in, g.last)
	}
	if g.w == len(g.in) {
		return io.ErrShortBuffer // cannot be: a header and less than a record are kept
	}
	n, err := g.Conn.Read(g.in[g.w:])
	if g.w += n; g.w == len(g.in) {
		g.in = g.pool.grow(g.in)
	}
	g.last = n
	if n > 0 {
		return nil
	}
	return err
}

// whole reports whether the next record was read as a whole.
func (g *gather) whole() bool {
	have := g.w - g.r
	return g.left == 0 && have >= recordHeader && have >= recordLength(g.in[g.r:g.w])
}

// rest gives back the buffers of a connection that will be silent for a while. It
// reports whether there was nothing left in them.
func (g *gather) rest() bool {
	if g.r != g.w {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pool.put(g.in)
	g.in, g.r, g.w = nil, 0, 0
	g.pool.put(g.out)
	g.out = nil
	return true
}

// Write implements net.Conn. TLS calls it under a lock of its own, record by record.
func (g *gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.holding {
		return g.Conn.Write(p)
	}
	if len(g.out)+len(p) > cap(g.out) {
		if err := g.flushLocked(); err != nil {
			return 0, err
		}
	}
	g.out = append(g.out, p...)
	return len(p), nil
}

// hold makes what TLS writes of the next n bytes wait for release.
func (g *gather) hold(n int) {
	if n < maxSingle {
		return // one record, one write
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if sealed := n + n/16; cap(g.out) < sealed {
		g.pool.put(g.out)
		g.out = g.pool.get(sealed)[:0]
	}
	g.holding = true
}

// release writes what was held.
func (g *gather) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = false
	err := g.flushLocked()
	g.pool.put(g.out)
	g.out = nil
	return err
}

func (g *gather) flushLocked() error {
	if len(g.out) == 0 {
		return nil
	}
	_, err := g.Conn.Write(g.out)
	g.out = g.out[:0]
	return err
}
