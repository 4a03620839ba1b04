package bulk

import "sync"

// Sizes of buffers. Connections that are silent have none; one that has much to carry
// gets a large one, of which there is a bounded number.
const (
	small  = 4 << 10
	middle = 2 * maxRecord
	large  = 16 * (recordHeader + 16384 + 17) // sixteen full records; more than a chunk
)

// buffers lends buffers to the connections of one session.
type buffers struct {
	mu   sync.Mutex
	free [3][][]byte
	lent int // large ones
}

const (
	maxLarge = 64 // lent at a time: 16 MiB
	maxFree  = 8  // of each size, kept for the next
)

var sizes = [3]int{small, middle, large}

// get returns a buffer of at least n bytes, or a smaller one of at least two records
// where the large ones are all lent.
func (p *buffers) get(n int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := 0
	for i < len(sizes)-1 && sizes[i] < n {
		i++
	}
	if i == 2 {
		if p.lent >= maxLarge {
			i = 1
		} else {
			p.lent++
		}
	}
	if k := len(p.free[i]); k > 0 {
		b := p.free[i][k-1]
		p.free[i] = p.free[i][:k-1]
		return b
	}
	return make([]byte, sizes[i])
}

// put takes a buffer back; nil is allowed.
func (p *buffers) put(b []byte) {
	if b == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b = b[:cap(b)]
	for i, size := range sizes {
		if len(b) != size {
			continue
		}
		if i == 2 {
			p.lent--
		}
		if len(p.free[i]) < maxFree {
			p.free[i] = append(p.free[i], b)
		}
	}
}

// fit returns the buffer to go on with after one of which used bytes were needed.
func (p *buffers) fit(b []byte, used int) []byte {
	if used >= min(len(b), chunk) {
		return p.grow(b)
	}
	if used < len(b)/8 && len(b) > small {
		p.put(b)
		return p.get(small)
	}
	return b
}

// grow returns a buffer of the next size that begins with what is in b, which it takes
// back; or b where there is none larger.
func (p *buffers) grow(b []byte) []byte {
	next := middle
	if len(b) >= middle {
		next = large
	}
	if len(b) >= large {
		return b
	}
	more := p.get(next)
	if len(more) <= len(b) {
		p.put(more)
		return b
	}
	copy(more, b)
	p.put(b)
	return more
}
