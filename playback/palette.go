package playback

// The colours that pages and pictures show: a terminal on dark ground.

type rgb [3]uint8

var (
	ground = rgb{0x12, 0x12, 0x12}
	ink    = rgb{0xd0, 0xd0, 0xd0}
)

// basic are the first 16 of the 256 colours.
var basic = [16]rgb{
	{0x00, 0x00, 0x00}, {0xcd, 0x31, 0x31}, {0x0d, 0xbc, 0x79}, {0xe5, 0xe5, 0x10},
	{0x24, 0x72, 0xc8}, {0xbc, 0x3f, 0xbc}, {0x11, 0xa8, 0xcd}, {0xe5, 0xe5, 0xe5},
	{0x66, 0x66, 0x66}, {0xf1, 0x4c, 0x4c}, {0x23, 0xd1, 0x8b}, {0xf5, 0xf5, 0x43},
	{0x3b, 0x8e, 0xea}, {0xd6, 0x70, 0xd6}, {0x29, 0xb8, 0xdb}, {0xff, 0xff, 0xff},
}

// indexedRGB is one of xterm's 256 colours: 16 of them, a cube of 6, and greys.
func indexedRGB(n uint8) rgb {
	switch {
	case n < 16:
		return basic[n]
	case n < 232:
		n -= 16
		return rgb{cube(n / 36), cube(n / 6 % 6), cube(n % 6)}
	}
	grey := 8 + 10*(n-232)
	return rgb{grey, grey, grey}
}

func cube(n uint8) uint8 {
	if n == 0 {
		return 0
	}
	return 55 + 40*n
}

// shown is a colour as it is drawn.
func (c Color) shown(otherwise rgb) rgb {
	if n, ok := c.Index(); ok {
		return indexedRGB(n)
	}
	if r, g, b, ok := c.RGB(); ok {
		return rgb{r, g, b}
	}
	return otherwise
}

// colors are the two of a cell, with what attributes make of them.
func (st Style) colors(reversed bool) (fg, bg rgb) {
	fg, bg = st.FG.shown(ink), st.BG.shown(ground)
	if n, ok := st.FG.Index(); ok && n < 8 && st.Attr&Bold != 0 {
		fg = basic[n+8]
	}
	if st.Attr&Faint != 0 {
		fg = mix(fg, bg, 160)
	}
	if (st.Attr&Reverse != 0) != reversed {
		fg, bg = bg, fg
	}
	if st.Attr&Hidden != 0 {
		fg = bg
	}
	return fg, bg
}

// mix is so much of 255 parts of a, and the rest of b.
func mix(a, b rgb, part int) (c rgb) {
	for i := range c {
		c[i] = uint8((int(a[i])*part + int(b[i])*(255-part)) / 255)
	}
	return c
}
