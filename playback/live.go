package playback

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"sallyport.dev/recording"
)

// Live follows a recording that comes in pieces, cut anywhere: the screen of a session
// that goes on.
type Live struct {
	Screen *Screen
	Header recording.Header
	End    *recording.End // once it has come
	// Each, if set, is told of every event.
	Each func(recording.Event) error

	rest   []byte // of a line that is not whole yet
	headed bool
}

// NewLive follows a recording from its beginning.
func NewLive() *Live { return &Live{Screen: NewScreen(80, 24)} }

// Skip goes on somewhere else in the recording, with an empty screen of that size: what
// comes next begins a line, and is no header.
func (l *Live) Skip(cols, rows int) {
	l.rest, l.headed = nil, true
	if cols < 1 || rows < 1 {
		cols, rows = l.Screen.Size()
	}
	l.Screen = NewScreen(cols, rows)
}

// Write takes the next piece.
func (l *Live) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		line := p[:i]
		if len(l.rest) > 0 {
			line = append(l.rest, line...)
			l.rest = nil
		}
		if err := l.line(line); err != nil {
			return 0, err
		}
		p = p[i+1:]
	}
	l.rest = append(l.rest, p...)
	if len(l.rest) > recording.MaxLine {
		return 0, fmt.Errorf("%w: a line exceeds %d bytes", recording.ErrFormat, recording.MaxLine)
	}
	return n, nil
}

func (l *Live) line(line []byte) (err error) {
	if !l.headed {
		l.headed = true
		if l.Header, err = recording.ParseHeader(line); err == nil {
			l.Screen = NewScreen(l.Header.Width, l.Header.Height)
		}
		return err
	}
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	e, err := recording.ParseEvent(line)
	if err != nil {
		return err
	}
	Apply(l.Screen, e)
	if e.Kind == recording.KindEnd {
		l.End = recording.ParseEnd(e)
	}
	if l.Each != nil {
		return l.Each(e)
	}
	return nil
}

// Apply makes a screen show what an event says.
func Apply(s *Screen, e recording.Event) {
	switch e.Kind {
	case recording.KindOutput:
		s.Write(e.Data)
	case recording.KindResize:
		if cols, rows, ok := parseSize(e.Data); ok {
			s.Resize(cols, rows)
		}
	}
}

func parseSize(text string) (cols, rows int, ok bool) {
	c, r, _ := strings.Cut(text, "x")
	cols, err := strconv.Atoi(c)
	rows, err2 := strconv.Atoi(r)
	return cols, rows, err == nil && err2 == nil && cols > 0 && rows > 0
}
