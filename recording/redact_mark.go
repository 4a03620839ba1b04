package recording

import (
	"bytes"
	"encoding/hex"
	"slices"
)

// Shells tell terminals of the commands that they run (OSC 133 and 633), some in another
// form than on the screen: fish and kitty as in URLs, Visual Studio Code with backslashes.
// Lists of commands show them undone, so that they are looked at undone, too.

// inMark reports whether a mark of a shell has begun that is held as a whole. It has no
// control characters; what has some may be text after all, on a terminal that knows no OSC.
func (s *redactStream) inMark() bool {
	c := &s.screen
	if !c.inOSC() || c.from < s.base {
		return false
	}
	osc := s.held[c.from-s.base:]
	return isMark(osc) && !slices.ContainsFunc(osc[1:], func(b byte) bool { return b < ' ' })
}

// isMark reports whether an OSC is a mark of a shell, as far as it has come.
func isMark(osc []byte) bool {
	osc = bytes.TrimLeft(osc, "\x1b]\u009d")
	return startsLike(osc, "133;") || startsLike(osc, "633;")
}

func startsLike(p []byte, want string) bool {
	n := min(len(p), len(want))
	return string(p[:n]) == want[:n]
}

// told looks for matches in a mark of a shell that ends at an offset.
func (s *redactStream) told(from, end int64) {
	from = max(from, s.base)
	raw := s.held[from-s.base : end-s.base]
	if !isMark(raw) {
		return
	}
	for _, undo := range []func([]byte) (byte, int){undoPercent, undoBackslash} {
		text, places := undone(raw, undo)
		if len(text) == len(raw) {
			continue
		}
		for _, u := range s.rules {
			for _, m := range u.re.FindAllIndex(text, -1) {
				s.cover(u, from+int64(places[m[0]]), from+int64(places[m[1]]))
			}
		}
	}
}

// undone returns a text without its escapes, and where in it each byte and the end stood.
func undone(raw []byte, undo func([]byte) (byte, int)) (text []byte, places []int) {
	for i := 0; i < len(raw); {
		b, n := undo(raw[i:])
		text, places = append(text, b), append(places, i)
		i += n
	}
	return text, append(places, len(raw))
}

// undoPercent takes a byte, or what stands for one in URLs.
func undoPercent(p []byte) (b byte, n int) {
	if p[0] == '%' && len(p) > 2 && unhex(&b, p[1:3]) {
		return b, 3
	}
	return p[0], 1
}

// undoBackslash takes a byte, or what stands for one behind a backslash: xHH, or itself.
func undoBackslash(p []byte) (b byte, n int) {
	switch {
	case p[0] != '\\' || len(p) == 1:
		return p[0], 1
	case p[1] == 'x' && len(p) > 3 && unhex(&b, p[2:4]):
		return b, 4
	}
	return p[1], 2
}

func unhex(b *byte, digits []byte) bool {
	var one [1]byte
	_, err := hex.Decode(one[:], digits)
	*b = one[0]
	return err == nil
}
