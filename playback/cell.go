package playback

import (
	"unicode"

	"sallyport.dev/internal/escape"
)

// Color is the colour of a cell: that of the terminal, one of 256, or red, green and blue.
type Color uint32

// Kinds of colours, in the highest byte; the zero Color is the terminal's own.
const (
	colorIndexed Color = 1 << 24
	colorRGB     Color = 2 << 24
	colorKind    Color = 0xff << 24
)

// Indexed is one of the 256 colours of xterm.
func Indexed(n uint8) Color { return colorIndexed | Color(n) }

// RGB is a colour by its parts.
func RGB(r, g, b uint8) Color { return colorRGB | Color(r)<<16 | Color(g)<<8 | Color(b) }

// Index returns the number of one of the 256 colours.
func (c Color) Index() (n uint8, ok bool) { return uint8(c), c&colorKind == colorIndexed }

// RGB returns the parts of a colour that is given by them.
func (c Color) RGB() (r, g, b uint8, ok bool) {
	return uint8(c >> 16), uint8(c >> 8), uint8(c), c&colorKind == colorRGB
}

// Attr are attributes of a cell, as bits.
type Attr uint8

// Attributes that are shown. Blinking is not.
const (
	Bold Attr = 1 << iota
	Faint
	Italic
	Underline
	Reverse
	Hidden
	Struck
)

// Style is how a cell is drawn.
type Style struct {
	FG, BG Color
	Attr   Attr
}

// Cell is one position of a screen. Rune is a space where nothing was written, and 0 in
// the right half of a wide character.
type Cell struct {
	Rune  rune
	Marks [2]rune // combining characters over it
	Style Style
}

// Text is what the cell shows; empty in the right half of a wide character.
func (c Cell) Text() string {
	switch {
	case c.Rune == 0:
		return ""
	case c.Marks[0] == 0:
		return string(c.Rune)
	case c.Marks[1] == 0:
		return string([]rune{c.Rune, c.Marks[0]})
	}
	return string([]rune{c.Rune, c.Marks[0], c.Marks[1]})
}

// runeWidth is how many columns a character takes: 2 for wide ones, 0 for combining ones,
// and -1 for what is not shown at all: controls, and characters that format, which could
// turn the direction of text around.
func runeWidth(r rune) int {
	switch {
	case r >= 0x20 && r < 0x7f:
		return 1
	case r < 0x300:
		if r < 0xa0 || r == 0xad {
			return -1
		}
		return 1
	case !unicode.IsGraphic(r) && !unicode.Is(unicode.Co, r):
		return -1
	}
	return escape.Columns(r)
}
