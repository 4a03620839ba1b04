package document

import (
	"errors"
	"strings"
	"unicode"
)

// checkCharacters refuses text that no node can run (NUL), and text that reads
// otherwise than it runs: characters that turn the direction of what follows, and those
// that stand for what was not text.
func checkCharacters(n *node, path string) error {
	for i, item := range n.items {
		if err := checkCharacters(item, indexed(path, i)); err != nil {
			return err
		}
	}
	for _, key := range n.keys {
		if strings.ContainsFunc(key, deceives) {
			return n.field(key).fault(path, "has a key with the character U+%04X", firstDeceiving(key))
		}
		if err := checkCharacters(n.field(key), joined(path, key)); err != nil {
			return err
		}
	}
	if strings.ContainsFunc(n.text, deceives) {
		return n.fault(path, "holds the character U+%04X, which is not allowed", firstDeceiving(n.text))
	}
	return nil
}

func firstDeceiving(s string) rune {
	i := strings.IndexFunc(s, deceives)
	for _, r := range s[i:] {
		return r
	}
	return 0
}

func deceives(r rune) bool {
	return r == 0 || r == unicode.ReplacementChar ||
		'\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069'
}

// errNUL is the problem of a value that no program can be given.
var errNUL = errors.New("holds a NUL character")
