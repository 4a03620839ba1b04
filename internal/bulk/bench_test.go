package bulk

import (
	"io"
	"net"
	"testing"
)

// BenchmarkStream carries one stream to a target that reads, with both ends and the
// gateway in this process.
func BenchmarkStream(b *testing.B) {
	w := newWorld(b, listen(b, func(c *net.TCPConn) {
		p := make([]byte, chunk)
		for {
			if _, err := c.Read(p); err != nil {
				return
			}
		}
	}))
	local := listen(b, func(c *net.TCPConn) {
		conn := w.open()
		defer conn.Close()
		conn.ReadFrom(c)
		conn.CloseWrite()
		io.Copy(io.Discard, conn)
	})
	c, err := local(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 1<<20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
	}
	c.(*net.TCPConn).CloseWrite()
	io.Copy(io.Discard, c)
	c.Close()
}

// BenchmarkConnection opens connections one after the other, each until a byte came back.
func BenchmarkConnection(b *testing.B) {
	w := newWorld(b, listen(b, echo))
	for b.Loop() {
		c := w.open()
		p := []byte{1}
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, p); err != nil {
			b.Fatal(err)
		}
		c.CloseWrite()
		if _, err := c.Read(p); err != io.EOF {
			b.Fatal(err)
		}
		c.Close()
	}
}
