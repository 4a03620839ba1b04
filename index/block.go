package index

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"sallyport.dev/transcript"
)

const (
	// blockText and blockLines are when a block is full.
	blockText  = 16 << 10
	blockLines = 1024
)

// Block is some lines of a transcript, as they are kept together.
type Block struct {
	// Text is the lines, joined by newlines.
	Text string
	// Times are when they came, and of which kind they are, one for each: the kind's
	// byte and the difference to the one before in milliseconds, as a varint.
	Times []byte
}

var errTimes = errors.New("a block's times do not fit its lines")

// lines takes a block apart.
func (b Block) lines() ([]transcript.Line, error) {
	var lines []transcript.Line
	at, times := time.Duration(0), b.Times
	for text := range strings.SplitSeq(b.Text, "\n") {
		if len(times) < 2 {
			return nil, errTimes
		}
		kind := transcript.Kind(times[0])
		ms, n := binary.Varint(times[1:])
		if n <= 0 {
			return nil, errTimes
		}
		at += time.Duration(ms) * time.Millisecond
		times = times[1+n:]
		lines = append(lines, transcript.Line{At: at, Kind: kind, Text: text})
	}
	return lines, nil
}

// builder puts lines into blocks.
type builder struct {
	text  strings.Builder
	times []byte
	n     int
	last  time.Duration
	full  []Block
}

func (b *builder) add(l transcript.Line) {
	if b.n > 0 {
		b.text.WriteByte('\n')
	}
	b.text.WriteString(l.Text)
	at := l.At.Truncate(time.Millisecond)
	b.times = append(b.times, byte(l.Kind))
	b.times = binary.AppendVarint(b.times, (at - b.last).Milliseconds())
	b.last = at
	if b.n++; b.n == blockLines || b.text.Len() >= blockText {
		b.end()
	}
}

// end makes a block of what there is.
func (b *builder) end() {
	if b.n == 0 {
		return
	}
	b.full = append(b.full, Block{Text: b.text.String(), Times: b.times})
	b.text, b.times, b.n, b.last = strings.Builder{}, nil, 0, 0
}

// take returns the blocks that are full.
func (b *builder) take() []Block {
	full := b.full
	b.full = nil
	return full
}

// Blocks puts lines together as they are kept.
func Blocks(lines []transcript.Line) []Block {
	var b builder
	for _, l := range lines {
		b.add(l)
	}
	b.end()
	return b.take()
}
