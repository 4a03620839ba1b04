package recording

import (
	"slices"
	"unicode/utf8"

	"sallyport.dev/internal/escape"
)

// feedAtOnce is how much is looked at before what is safe is let go, in bytes.
const feedAtOnce = 4 << 10

// redactStream is one direction of a session on its way through redaction. It is read in
// two ways at once. In shown, what a terminal does not show is left out: colours,
// cursor movements, the line feeds and the like with which programs wrap long lines, the
// spaces that a backspace erases with. In apart, moving the cursor separates, as what is
// written elsewhere does not belong to what stands before it, and the texts that set
// titles count. A match in either is one.
type redactStream struct {
	*Redaction
	emit func(p []byte) error

	held    []byte // not yet emitted
	base    int64  // where held begins
	at      int64  // up to where it has been looked at
	ranges  []span // what of held is not to be emitted, ascending
	covered int64  // up to where a match has been replaced by its text

	shown, apart []machine
	redone       []machine // of the line as it was corrected; nil until one was
	redoing      bool      // the line was corrected
	screen       screenReader
}

// span is part of a stream that a rule does not let through.
type span struct {
	from, to int64
	by       *rule
	more     bool // a match that goes on: its text is there already
}

// stream returns a stream to a terminal of so many columns; 0 for none.
func (r *Redaction) stream(cols int, emit func(p []byte) error) *redactStream {
	s := &redactStream{Redaction: r, emit: emit, covered: -1, screen: screenReader{width: cols, space: -1}}
	for _, u := range r.rules {
		s.shown, s.apart = append(s.shown, newMachine(u)), append(s.apart, newMachine(u))
	}
	return s
}

// feed takes what comes next, and emits what is safe.
func (s *redactStream) feed(p []byte) error {
	quiet := 0
	if len(s.held) == 0 && s.quiet() {
		quiet = s.skip(p)
		s.at += int64(quiet)
		if quiet == len(p) {
			s.base = s.at
			return s.emit(p)
		}
	}
	for len(p) > 0 {
		part := p[:min(len(p), max(quiet, feedAtOnce))]
		p, quiet = p[len(part):], 0
		s.held = append(s.held, part...)
		s.read(false)
		s.doubt(s.base) // nothing is held for a match whose beginning is gone
		if err := s.release(s.safe()); err != nil {
			return err
		}
		if len(s.held) > maxMatch {
			if err := s.force(); err != nil {
				return err
			}
		}
	}
	return nil
}

// quiet reports whether nothing that came may belong to what comes next.
func (s *redactStream) quiet() bool {
	return s.screen.parser.InText() && s.screen.space < 0 && allIdle(s.shown) && allIdle(s.apart) && allIdle(s.redone) && !s.screen.line.moved
}

func allIdle(all []machine) bool {
	for i := range all {
		if !all[i].idle() {
			return false
		}
	}
	return true
}

// skip returns how many bytes at the beginning of p begin no match and need no other
// attention, and takes note of what they show.
func (s *redactStream) skip(p []byte) int {
	n := 0
	for n < len(p) && (!s.first[p[n]] || p[n] >= ' ' && !s.mayBegin(p[n:])) {
		n++
	}
	for n > 0 && n < len(p) && p[n]&0xc0 == 0x80 { // within a character
		n--
	}
	if n == len(p) {
		n -= partial(p)
	}
	if n == 0 {
		return 0
	}
	r, _ := utf8.DecodeLastRune(p[:n])
	for _, all := range [][]machine{s.shown, s.apart, s.redone} {
		for i := range all {
			all[i].prev = r
		}
	}
	s.screen.pass(p[:n])
	return n
}

func (s *redactStream) mayBegin(p []byte) bool {
	if p[0] == 0xc2 && len(p) > 1 && p[1] < 0xa0 { // isC1
		return true
	}
	for _, u := range s.rules {
		if u.first[p[0]] && u.mayStart(p) {
			return true
		}
	}
	return false
}

// partial returns how many bytes at the end of p begin a character that is not whole.
func partial(p []byte) int {
	for n := 1; n <= min(len(p), utf8.UTFMax-1); n++ {
		if b := p[len(p)-n]; utf8.RuneStart(b) {
			if !utf8.FullRune(p[len(p)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

// read looks at what has been added to held: at whole characters, or all that is there.
func (s *redactStream) read(all bool) {
	for {
		rest := s.held[s.at-s.base:]
		if s.quiet() {
			n := s.skip(rest)
			s.at += int64(n)
			rest = rest[n:]
		}
		if len(rest) == 0 || !all && !utf8.FullRune(rest) {
			return
		}
		r, size := utf8.DecodeRune(rest)
		at := s.at
		s.at += int64(size)
		s.screen.read(s, r, at, rest)
	}
}

// show gives a character to the text as it is shown.
func (s *redactStream) show(r rune, at, end int64, rest []byte) {
	s.correct(at)
	s.step(s.shown, r, at, end, rest)
	if s.redoing {
		s.step(s.redone, r, at, end, rest)
		s.redoing = r != '\n' && r != '\r'
	}
	s.screen.line.put(r)
}

// part gives a character to the text with what is apart in it.
func (s *redactStream) part(r rune, at, end int64, rest []byte) { s.step(s.apart, r, at, end, rest) }

func (s *redactStream) step(all []machine, r rune, at, end int64, rest []byte) {
	for i := range all {
		all[i].step(r, at, end, rest, s.cover)
	}
}

// cover notes a match. Parts of it may have been emitted.
func (s *redactStream) cover(u *rule, from, to int64) {
	if to <= s.base || from >= to {
		return
	}
	more := from < s.covered
	from = max(from, s.base)
	i, _ := slices.BinarySearchFunc(s.ranges, from, func(r span, from int64) int {
		if r.to <= from {
			return -1
		}
		return 1
	})
	j := i
	for j < len(s.ranges) && s.ranges[j].from < to {
		j++
	}
	merged := span{from, to, u, more}
	if j > i {
		first := s.ranges[i]
		merged = span{min(from, first.from), max(to, s.ranges[j-1].to), first.by, more || first.more}
	}
	s.ranges = slices.Replace(s.ranges, i, j, merged)
}

// safe returns up to where nothing can become part of a match any more.
func (s *redactStream) safe() int64 {
	safe := s.at
	for _, all := range [][]machine{s.shown, s.apart, s.redone} {
		for i := range all {
			if began, ok := all[i].began(s.base); ok {
				safe = min(safe, began)
			}
		}
	}
	return s.screen.unfinished(safe)
}

// force emits what is held, as no more can be awaited or held. What may be part of a
// match is replaced where that is likely, and let go where it is not.
func (s *redactStream) force() error {
	s.doubt(s.at)
	return s.release(s.at)
}

// doubt covers what may be part of a match that began before an offset.
func (s *redactStream) doubt(before int64) {
	for _, all := range [][]machine{s.shown, s.apart, s.redone} {
		for i := range all {
			all[i].doubt(before, s.cover)
		}
	}
}

// overdue is force for what was held for long. A mark of a shell waits for its end, which
// shows nothing that a recording would lack until then.
func (s *redactStream) overdue() error {
	if !s.inMark() {
		return s.force()
	}
	s.doubt(s.screen.from)
	return s.release(s.screen.from)
}

// end emits everything.
func (s *redactStream) end() error {
	s.read(true)
	s.screen.close(s)
	s.step(s.shown, -1, s.at, s.at, nil)
	s.step(s.redone, -1, s.at, s.at, nil)
	s.step(s.apart, -1, s.at, s.at, nil)
	return s.release(s.at)
}

// release emits what is held up to an offset.
func (s *redactStream) release(upto int64) error {
	if upto <= s.base {
		return nil
	}
	p := s.held[:upto-s.base]
	if out := s.redacted(p, upto); len(out) > 0 {
		if err := s.emit(out); err != nil {
			return err
		}
	}
	s.base = upto
	rest := len(s.held) - len(p)
	if rest == 0 {
		s.held = nil // idle sessions hold no buffer
	} else {
		s.held = append(s.held[:0], s.held[len(p):]...)
	}
	return nil
}

// redacted returns p, which ends at upto, without what a rule does not let through.
func (s *redactStream) redacted(p []byte, upto int64) []byte {
	if len(s.ranges) == 0 || s.ranges[0].from >= upto {
		return p
	}
	var out []byte
	from := s.base
	for len(s.ranges) > 0 && s.ranges[0].from < upto {
		r := s.ranges[0]
		to := min(r.to, upto)
		out = append(out, p[from-s.base:r.from-s.base]...)
		if !r.more {
			out = append(out, r.by.replace...)
		}
		out = appendControls(out, p[r.from-s.base:to-s.base])
		from, s.covered = to, to
		if r.to > upto {
			s.ranges[0].from, s.ranges[0].more = upto, true
			break
		}
		s.ranges = s.ranges[1:]
	}
	if len(s.ranges) == 0 {
		s.ranges = nil
	}
	return append(out, p[from-s.base:]...)
}

// appendControls appends what in p controls the terminal and shows nothing, so that what
// follows a match is shown as it was. Of strings that is how they begin and end; BEL may
// end one that began before.
func appendControls(out, p []byte) []byte {
	var parser escape.Parser
	from := 0 // of the sequence
	for at := 0; at < len(p); {
		if parser.InText() || parser.InString() {
			from = at
		}
		r, n := utf8.DecodeRune(p[at:])
		at += n
		found := parser.Next(r)
		switch {
		case found == escape.Text || found == escape.StringText:
		case found == escape.Control && r != '\a' && parser.InText():
		case parser.InText() || found == escape.StringBegin:
			out = append(out, p[from:at]...)
		}
	}
	if !parser.InText() && !parser.InString() {
		out = append(out, p[from:]...)
	}
	return out
}
