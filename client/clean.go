package client

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxClean bounds text of the server that is shown to a person, in bytes.
const maxClean = 4 << 10

// Clean makes text of a server fit for a terminal: control and formatting characters,
// which could move the cursor or hide words, become a replacement character; line
// ends and tabs stay. What exceeds 4 KiB is cut.
func Clean(s string) string {
	if len(s) > maxClean {
		cut := maxClean
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	s = strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n"))
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return utf8.RuneError
		}
		return r
	}, s)
}
