package websocket

import (
	"crypto/subtle"
	"encoding/binary"
	"math/bits"
	"sync"
)

// The sizes of pooled buffers: keystrokes and screens, our own stream messages with
// their headers, and the growth steps of larger ones.
const (
	smallBuffer = 4 << 10
	largeBuffer = 40 << 10
)

var (
	smallPool = sync.Pool{New: func() any { b := make([]byte, smallBuffer); return &b }}
	largePool = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}
)

// buffer is a growing byte slice from a pool. Its zero value is empty.
type buffer struct {
	b *[]byte
	n int // bytes in use
}

func (b *buffer) bytes() []byte {
	if b.b == nil {
		return nil
	}
	return (*b.b)[:b.n]
}

// grow appends up to want bytes, of undefined content, and returns them. It at most
// doubles what is there already, so that memory follows the bytes that arrived.
func (b *buffer) grow(want int) []byte {
	b.reserve(b.n + min(want, max(largeBuffer, b.n)))
	part := (*b.b)[b.n:min(b.n+want, cap(*b.b))]
	b.n += len(part)
	return part
}

func (b *buffer) append(p []byte) { b.n += copy((*b.b)[b.n:], p) }

// reserve makes room for n bytes in all.
func (b *buffer) reserve(n int) {
	if b.b != nil && n <= len(*b.b) {
		return
	}
	old := *b
	switch {
	case n <= smallBuffer:
		b.b = smallPool.Get().(*[]byte)
	case n <= largeBuffer:
		b.b = largePool.Get().(*[]byte)
	default:
		s := make([]byte, max(n, 2*old.n)) // doubling, for messages in many fragments
		b.b = &s
	}
	b.n = copy(*b.b, old.bytes())
	old.release()
}

func (b *buffer) release() {
	switch {
	case b.b == nil:
	case len(*b.b) == smallBuffer:
		smallPool.Put(b.b)
	case len(*b.b) == largeBuffer:
		largePool.Put(b.b)
	}
	b.b, b.n = nil, 0
}

// mask applies the masking key to p, whose first byte is at position pos of the
// payload. Long payloads are masked by vector instructions against a repeated key.
func mask(p []byte, key uint32, pos int) {
	key = bits.RotateLeft32(key, -8*(pos&3))
	var pad [256]byte
	n := min(len(p)+3, len(pad))
	for i := 0; i+4 <= n; i += 4 {
		binary.LittleEndian.PutUint32(pad[i:], key)
	}
	if n < len(pad) {
		subtle.XORBytes(p, p, pad[:])
		return
	}
	for len(p) > 0 {
		m := subtle.XORBytes(p, p, pad[:])
		p = p[m:]
	}
}
