package cli

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/muesli/cancelreader"
)

// key is what a person presses while something is played: a character, or one of the keys
// that have none.
type key rune

// Keys of the player.
const (
	keyPause     key = ' '
	keyStep      key = '.'
	keyQuit      key = 'q'
	keyNext      key = 'n'
	keyPrevious  key = 'p'
	keyFaster    key = '+'
	keySlower    key = '-'
	keyFind      key = '/'
	keyInterrupt key = 0x03
	keyEnter     key = '\r'
	keyEscape    key = 0x1b
	keyErase     key = 0x7f

	keyRight key = utf8.MaxRune + 1 + iota
	keyLeft
	keyUp
	keyDown
)

// escapeKeys are what terminals send for keys without a character.
var escapeKeys = map[string]key{
	"\x1b[C": keyRight, "\x1bOC": keyRight, "\x1b[D": keyLeft, "\x1bOD": keyLeft,
	"\x1b[A": keyUp, "\x1bOA": keyUp, "\x1b[B": keyDown, "\x1bOB": keyDown,
}

// readKeys reads keys until stop.
func readKeys(f *os.File) (keys <-chan key, stop func()) {
	r, err := cancelreader.NewReader(f)
	if err != nil {
		return nil, func() {}
	}
	c := make(chan key)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer close(c)
		copyKeys(r, c, quit)
	}()
	return c, func() {
		close(quit)
		r.Cancel()
		<-done
		r.Close()
	}
}

func copyKeys(r io.Reader, c chan<- key, quit <-chan struct{}) {
	buf := make([]byte, 64)
	for {
		n, err := r.Read(buf)
		if err != nil {
			return
		}
		for _, k := range keysOf(string(buf[:n])) {
			select {
			case c <- k:
			case <-quit:
				return
			}
		}
	}
}

// keysOf finds the keys in what a terminal sent at once. Sequences of keys that are not
// ours are left out, whole.
func keysOf(s string) (keys []key) {
	for s != "" {
		if s[0] != 0x1b {
			r, n := utf8.DecodeRuneInString(s)
			if r == '\n' || r == '\b' {
				r = map[rune]rune{'\n': rune(keyEnter), '\b': rune(keyErase)}[r]
			}
			if r != utf8.RuneError {
				keys = append(keys, key(r))
			}
			s = s[n:]
			continue
		}
		sequence := escapeSequence(s)
		if k, ok := escapeKeys[sequence]; ok {
			keys = append(keys, k)
		} else if sequence == "\x1b" {
			keys = append(keys, keyEscape)
		}
		s = s[len(sequence):]
	}
	return keys
}

// escapeSequence is the sequence at the beginning of what a terminal sent.
func escapeSequence(s string) string {
	if len(s) < 3 || !strings.ContainsRune("[O", rune(s[1])) {
		return s[:1]
	}
	for i := 2; i < len(s); i++ {
		if s[i] >= 0x40 && s[i] <= 0x7e {
			return s[:i+1]
		}
	}
	return s
}
