package escape

import (
	"unicode"

	"golang.org/x/text/width"
)

// Columns returns how many columns a character takes on a terminal: 2 where it is wide, 0
// where it combines with the one before it or only formats, and otherwise 1.
func Columns(r rune) int {
	if r < 0x300 {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// lineDrawing is DEC's Special Graphics set from ` to ~.
var lineDrawing = [...]rune{
	'◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺',
	'⎻', '─', '⎼', '⎽', '├', '┤', '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
}

// LineDrawing returns what a character stands for in the set that ESC ( 0 chooses, DEC's
// Special Graphics: the lines of boxes for most small letters.
func LineDrawing(r rune) rune {
	if i := int(r - '`'); i >= 0 && i < len(lineDrawing) {
		return lineDrawing[i]
	}
	return r
}
