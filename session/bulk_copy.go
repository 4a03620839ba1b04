package session

import (
	"net"
	"sync/atomic"

	"sallyport.dev/internal/bulk"
)

// copySize is the buffer of a direction that goes through a TLS of the gateway's, whose
// records are no longer than 16 KiB.
const copySize = 64 << 10

// carry moves what src says to dst until one of them is gone, counts it and takes it for
// activity, unless its size shows that it carries nothing. Where both are sockets the bytes
// stay in the kernel.
func (b *bulkEnds) carry(dst, src bulkEnd, sum *atomic.Int64) {
	moved := func(n int) {
		sum.Add(int64(n))
		if n == bulk.Still {
			return
		}
		b.s.active.Store(b.s.g.now().UnixNano())
	}
	to, tcp := dst.Conn.(*net.TCPConn)
	from, both := src.Conn.(*net.TCPConn)
	if tcp && both && splice(to, from, b.s.g.pipes, moved) {
		return
	}
	p := make([]byte, copySize)
	for {
		n, err := src.Read(p)
		if n > 0 {
			moved(n)
			if _, err := dst.Write(p[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
