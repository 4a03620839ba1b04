package recording

import (
	"slices"
	"unicode/utf8"

	"sallyport.dev/internal/escape"
)

const (
	// maxCorrected bounds what is known of a line that may be corrected, in characters.
	maxCorrected = 256
	// correctionStock and correctionBytes bound reading lines again: so many characters at
	// once, and one more for so many bytes that come. Going back and forth all the time
	// must not be made costly.
	correctionStock = 64 * maxCorrected
	correctionBytes = 4
)

// correctedLine is the line that the cursor is in. Where somebody goes back in it and
// writes something else, what the screen shows then is not what was written in turn: the
// line is read again up to there.
type correctedLine struct {
	text  []rune
	pos   int // of the cursor in text
	moved bool
	spent int64 // of what may be read again
}

// put writes a character at the cursor.
func (l *correctedLine) put(r rune) {
	switch {
	case r == '\n' || r == '\r':
		l.text, l.pos, l.moved = l.text[:0], 0, false
		return
	case r < ' ' && r != '\t' || r == 0x7f || isUnseen(r):
		return
	case l.pos < len(l.text):
		l.text[l.pos] = r
	default:
		l.text = append(l.text, r)
	}
	if l.pos++; l.pos >= 2*maxCorrected {
		l.text = append(l.text[:0], l.text[maxCorrected:]...)
		l.pos -= maxCorrected
	}
}

// move moves the cursor within what is known of the line.
func (l *correctedLine) move(by int) {
	if to := min(max(l.pos+by, 0), len(l.text)); to != l.pos {
		l.pos, l.moved = to, true
	}
}

// edit carries out what a control sequence does to the line.
func (l *correctedLine) edit(p *escape.Parser) {
	n := min(p.Param(0, 1), maxCorrected)
	switch p.Final {
	case 'C', 'a':
		l.move(n)
	case 'D':
		l.move(-n)
	case 'G', '`':
		l.move(n - 1 - l.pos)
	case 'K':
		if p.Param(0, 0) == 0 {
			l.text = l.text[:l.pos]
		}
	case 'P':
		l.text = slices.Delete(l.text, l.pos, min(l.pos+n, len(l.text)))
	case '@':
		if room := min(n, 2*maxCorrected-len(l.text)); l.pos < len(l.text) && room > 0 {
			l.text = slices.Insert(l.text, l.pos, slices.Repeat([]rune{' '}, room)...)
		}
	case 'A', 'B', 'E', 'F', 'H', 'd', 'e', 'f':
		l.put('\n')
	}
}

// again reports whether the line is to be read again before a character at an offset, and
// takes what that costs.
func (l *correctedLine) again(at int64) bool {
	if !l.moved {
		return false
	}
	l.moved = false
	l.spent = max(l.spent, at/correctionBytes) // no more is saved than the stock
	cost := int64(l.pos) + 16
	if l.spent+cost > at/correctionBytes+correctionStock {
		return false
	}
	l.spent += cost
	return true
}

// correct reads the line again, up to the cursor, before a character at an offset. What it
// finds counts from there on: what was let go is gone.
func (s *redactStream) correct(at int64) {
	l := &s.screen.line
	if !l.again(at) {
		return
	}
	if s.redone == nil {
		for _, u := range s.rules {
			s.redone = append(s.redone, newMachine(u))
		}
	}
	s.step(s.redone, -1, at, at, nil)
	s.redoing = true
	left := []byte(string(l.text[:l.pos]))
	for len(left) > 0 {
		r, n := utf8.DecodeRune(left)
		s.step(s.redone, r, at, at, left)
		left = left[n:]
	}
}
