package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"slices"
)

// maxEarly bounds the bytes of one transfer that wait for those before them.
const maxEarly = 4 << 20

// budget is what is left of maxEarly for all files of a transfer together.
type budget struct{ left int }

// content sums up the bytes of a file in the order of the file.
type content struct {
	early *budget

	bytes  int64
	first  int64 // where the hashed bytes begin
	next   int64 // where they end
	digest hash.Hash
	held   []part // beyond next, ascending
	broken string // why there is no hash
}

type part struct {
	offset int64
	data   []byte
}

func newContent(early *budget) *content { return &content{early: early, digest: sha256.New()} }

// add takes bytes that belong at an offset. They are not kept.
func (c *content) add(offset int64, data []byte) {
	c.bytes += int64(len(data))
	switch {
	case c.broken != "" || len(data) == 0:
	case offset < c.next:
		c.spoil("some bytes were transferred more than once")
	case offset == c.next:
		c.hash(data)
		c.takeHeld()
	case len(data) > c.early.left:
		c.beginLate()
		if c.broken == "" {
			c.addAgain(offset, data)
		}
	default:
		c.hold(part{offset, bytes.Clone(data)})
	}
}

// addAgain is add after beginLate has made room, if it could.
func (c *content) addAgain(offset int64, data []byte) {
	switch {
	case offset < c.next:
		c.spoil("some bytes were transferred more than once")
	case offset == c.next:
		c.hash(data)
		c.takeHeld()
	case len(data) > c.early.left:
		c.spoil("the bytes came too far out of order")
	default:
		c.hold(part{offset, bytes.Clone(data)})
	}
}

func (c *content) hash(data []byte) {
	c.digest.Write(data)
	c.next += int64(len(data))
}

func (c *content) hold(p part) {
	i, _ := slices.BinarySearchFunc(c.held, p, func(a, b part) int {
		return compare(a.offset, b.offset)
	})
	c.held = slices.Insert(c.held, i, p)
	c.early.left -= len(p.data)
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (c *content) takeHeld() {
	for len(c.held) > 0 && c.broken == "" {
		p := c.held[0]
		if p.offset > c.next {
			return
		}
		if p.offset < c.next {
			c.spoil("some bytes were transferred more than once")
			return
		}
		c.held[0] = part{}
		c.held = c.held[1:]
		c.early.left += len(p.data)
		c.hash(p.data)
	}
}

// beginLate lets the hash begin at the first bytes there are, where none from the
// beginning of the file have come: a transfer that is taken up again.
func (c *content) beginLate() {
	if c.next > 0 {
		c.spoil("the bytes came too far out of order")
		return
	}
	if len(c.held) > 0 {
		c.first, c.next = c.held[0].offset, c.held[0].offset
		c.takeHeld()
	}
}

// spoil gives the hash up.
func (c *content) spoil(why string) {
	c.broken = why
	c.release()
}

func (c *content) release() {
	for _, p := range c.held {
		c.early.left += len(p.data)
	}
	c.held = nil
}

// finish says what was transferred.
func (c *content) finish(e *Event) {
	if c.broken == "" && len(c.held) > 0 {
		c.beginLateAtEnd()
	}
	e.Bytes, e.Offset, e.Note = c.bytes, c.first, c.broken
	if c.broken == "" {
		e.SHA256 = hex.EncodeToString(c.digest.Sum(nil))
	}
	c.release()
}

func (c *content) beginLateAtEnd() {
	if c.next == 0 {
		c.beginLate()
	}
	if c.broken == "" && len(c.held) > 0 {
		c.spoil("some bytes between were not transferred")
	}
}
