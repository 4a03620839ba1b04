package client

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxClean bounds text of the server that is shown to a person, in bytes.
const maxClean = 4 << 10

// Clean makes text of a server fit for a terminal: control and formatting characters,
// which could move the cursor or hide words, become visible signs; line
// ends and tabs stay. What exceeds 4 KiB is cut.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return visible(r)
	}, strings.TrimSpace(strings.ReplaceAll(cut(s), "\r\n", "\n")))
}

// CleanLine is Clean for text that must stay one line, such as a field of a table:
// line ends and tabs become visible signs, too, and runs of spaces, which could fill
// a line so that the next seems to be another, become one.
func CleanLine(s string) string {
	spaced := strings.FieldsFunc(strings.TrimSpace(cut(s)), func(r rune) bool { return r == ' ' || unicode.Is(unicode.Zs, r) })
	return strings.Map(visible, strings.Join(spaced, " "))
}

// visible replaces characters that act on a terminal or cannot be seen.
func visible(r rune) rune {
	switch {
	case r < ' ':
		return '\u2400' + r // the sign that pictures it
	case unicode.IsControl(r), unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp):
		return utf8.RuneError
	}
	return r
}

func cut(s string) string {
	if len(s) > maxClean {
		cut := maxClean
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}
