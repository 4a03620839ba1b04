package transcript

import (
	"bytes"
	"time"

	"sallyport.dev/recording"
)

const (
	// readRate and readBurst bound what is read of a session, in bytes per second and at
	// once: what people can read is a hundredth of it.
	readRate  = 64 << 10
	readBurst = 512 << 10
	// readAgain is how much must be in the bucket before reading goes on after a flood,
	// so that a lasting flood is left out in few large pieces.
	readAgain = 64 << 10
	// eventCost is the least that an event costs.
	eventCost = 32
	// tailSize is how much of the end of what is left out is read all the same: there
	// stand the last words of a program, and the next prompt.
	tailSize = 4 << 10
)

// Piece is an event that is to be read, after what was left out before it.
type Piece struct {
	At   time.Duration
	Kind recording.Kind
	Data []byte // valid until Take or Flush returns
	// LeftOut is how many bytes of output were left out before; Data is then the end of
	// them. Screen tells whether they switched screens.
	LeftOut int64
	Screen  Screen
}

// Screen is which screen a terminal shows.
type Screen int8

// Screens.
const (
	SameScreen  Screen = iota // nothing switched
	MainScreen                // the one that scrolls
	OtherScreen               // that of full-screen programs
)

// Meter passes on what a transcript reads of a session's events, so that a session that
// floods its terminal costs no more than others. It depends on nothing but the events and
// their times. It is not safe for concurrent use. The zero Meter is ready.
type Meter struct {
	bucket  bucket
	leftOut int64
	tail    []byte
	size    []byte // the last resize that was left out, nil for none
	screen  Screen
	at      time.Duration
}

// Take passes on an event, unless it is of a flood, with what came before it.
func (m *Meter) Take(at time.Duration, kind recording.Kind, data []byte, pass func(Piece)) {
	m.bucket.rate, m.bucket.most = readRate, readBurst
	room := m.bucket.refill(at)
	if m.leftOut > 0 && (room >= readAgain || kind == recording.KindEnd || at-m.at >= dwell) {
		m.Flush(pass)
	}
	cost := max(len(data), eventCost)
	if kind == recording.KindEnd {
		cost = 0
	}
	if m.leftOut == 0 && m.bucket.take(at, cost) {
		m.at = at
		pass(Piece{At: at, Kind: kind, Data: data})
		return
	}
	m.at = at
	m.leave(kind, data)
}

func (m *Meter) leave(kind recording.Kind, data []byte) {
	m.leftOut += int64(len(data))
	if kind == recording.KindResize {
		m.size = append(m.size[:0], data...)
	}
	if kind != recording.KindOutput {
		return // typing in a flood is no loss
	}
	m.watchScreen(data)
	if len(data) >= tailSize {
		m.tail = append(m.tail[:0], data[len(data)-tailSize:]...)
		return
	}
	if over := len(m.tail) + len(data) - tailSize; over > 0 {
		m.tail = append(m.tail[:0], m.tail[over:]...)
	}
	m.tail = append(m.tail, data...)
}

// watchScreen finds the last switch between screens.
func (m *Meter) watchScreen(data []byte) {
	i := bytes.LastIndex(data, []byte("\x1b[?1049"))
	if i < 0 || i+7 >= len(data) {
		return
	}
	switch data[i+7] {
	case 'h':
		m.screen = OtherScreen
	case 'l':
		m.screen = MainScreen
	}
}

// Flush passes on what is held of a flood that is over.
func (m *Meter) Flush(pass func(Piece)) {
	if m.leftOut == 0 {
		return
	}
	if m.size != nil {
		pass(Piece{At: m.at, Kind: recording.KindResize, Data: m.size})
	}
	p := Piece{At: m.at, Kind: recording.KindOutput, Data: m.tail, LeftOut: m.leftOut - int64(len(m.tail)), Screen: m.screen}
	if i := bytes.IndexByte(p.Data, '\n'); i >= 0 && p.LeftOut > 0 {
		p.LeftOut += int64(i + 1) // the rest of a line
		p.Data = p.Data[i+1:]
	}
	m.leftOut, m.tail, m.size, m.screen = 0, nil, nil, SameScreen
	pass(p)
}
