package recording

import "unicode/utf8"

// keyKind is what a key does to a line.
type keyKind int

const (
	keyText    keyKind = iota // a character, which echoes
	keyErase                  // backspace: it echoes as moving and erasing
	keyEdit                   // any other key of line editors, and the marks of pasted text
	keyEnter                  // the end of a line, also by an interrupt
	keyStrange                // what may be anything
)

// key is one key as a terminal sends it.
type key struct {
	kind keyKind
	r    rune
	raw  []byte
}

// maxKey bounds the bytes of one key. Terminals answer some questions in this way, too.
// maxDigits bounds its digits: what is not echoed must not be long enough for a secret
// that somebody types behind ESC.
const (
	maxKey    = 64
	maxDigits = 7
)

// scan is where in a key the reader is. Keys are no output: ESC O begins one, too, and what
// is no key must be known for strange.
type scan int

const (
	scanText scan = iota
	scanEscape
	scanCSI
	scanShift // after ESC O
	scanString
	scanStringEscape
)

// keyReader takes what is typed apart into keys.
type keyReader struct {
	state scan
	raw   []byte // of a key that is not whole
}

// next takes the next key from p; raw is nil where p holds none that is whole.
func (k *keyReader) next(p []byte) (key, []byte) {
	if k.state == scanText {
		return k.plain(p)
	}
	for i, b := range p {
		k.raw = append(k.raw, b)
		if kind, done := k.sequence(b); done {
			return k.whole(kind, 0), p[i+1:]
		}
	}
	return key{}, nil
}

func (k *keyReader) whole(kind keyKind, r rune) key {
	raw := k.raw
	k.raw, k.state = nil, scanText
	return key{kind, r, raw}
}

// plain takes a key outside of sequences.
func (k *keyReader) plain(p []byte) (key, []byte) {
	n := 0
	for n < len(p) && len(k.raw) < utf8.UTFMax {
		k.raw = append(k.raw, p[n])
		n++
		if utf8.FullRune(k.raw) {
			break
		}
	}
	if !utf8.FullRune(k.raw) {
		return key{}, nil
	}
	r, size := utf8.DecodeRune(k.raw)
	if size < len(k.raw) { // the next character begins where this one should go on
		n -= len(k.raw) - size
		k.raw = k.raw[:size]
	}
	switch {
	case r == '\x1b':
		k.state = scanEscape
		return key{}, p[n:]
	case r == utf8.RuneError && size == 1:
		return k.whole(keyStrange, 0), p[max(n, 0):]
	case r == '\r' || r == '\n' || r == 0x03 || r == 0x1a || r == 0x1c:
		return k.whole(keyEnter, 0), p[n:]
	case r == '\b' || r == 0x7f:
		return k.whole(keyErase, 0), p[n:]
	case r < ' ':
		return k.whole(keyEdit, 0), p[n:]
	}
	return k.whole(keyText, r), p[n:]
}

// sequence takes a byte after ESC. An ESC before a character counts as strange: the
// character may be meant as one.
func (k *keyReader) sequence(b byte) (kind keyKind, done bool) {
	if len(k.raw) > maxKey {
		return keyStrange, true
	}
	switch k.state {
	case scanEscape:
		switch b {
		case '[':
			k.state = scanCSI
		case 'O':
			k.state = scanShift
		case ']', 'P', '_':
			k.state = scanString
		case '\x1b':
		default:
			return keyStrange, true
		}
	case scanCSI:
		if b < '0' || b > 0x7e { // keys have nothing but numbers, which ; : < = > ? stand between
			return keyStrange, true
		}
		if b >= 0x40 && k.digits() > maxDigits {
			return keyStrange, true
		}
		return keyEdit, b >= 0x40
	case scanShift:
		return keyEdit, true
	case scanString:
		if b == '\x1b' {
			k.state = scanStringEscape
		}
		return keyStrange, b == '\a'
	case scanStringEscape:
		return keyStrange, true
	}
	return 0, false
}

// digits counts those of the key.
func (k *keyReader) digits() (n int) {
	for _, b := range k.raw {
		if b >= '0' && b <= '9' {
			n++
		}
	}
	return n
}
