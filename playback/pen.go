package playback

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/gofont/gomonobold"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// fontSize is the height of letters in pictures, in pixels.
const fontSize = 14

// pen draws cells with a font of its own. It has Latin, Greek and Cyrillic letters and
// what frames are drawn with; of other characters it draws a box.
type pen struct {
	width, height, ascent int // of a cell, in pixels
	palette               color.Palette
	faces                 [2]font.Face // regular, bold
	glyphs                map[glyph]*image.Alpha
	nearest               map[shade]uint8
}

type glyph struct {
	r    rune
	bold bool
}

// shade is a mixture of two colours, in sixteenths of the first.
type shade struct {
	fg, bg rgb
	part   uint8
}

// maxGlyphs and maxShades bound what a pen remembers.
const maxGlyphs, maxShades = 4096, 1 << 16

func newPen() (*pen, error) {
	p := &pen{palette: xtermPalette(), glyphs: map[glyph]*image.Alpha{}, nearest: map[shade]uint8{}}
	for i, ttf := range [][]byte{gomono.TTF, gomonobold.TTF} {
		f, err := opentype.Parse(ttf)
		if err == nil {
			p.faces[i], err = opentype.NewFace(f, &opentype.FaceOptions{Size: fontSize, DPI: 72, Hinting: font.HintingFull})
		}
		if err != nil {
			return nil, fmt.Errorf("reading the font: %w", err)
		}
	}
	m := p.faces[0].Metrics()
	advance, _ := p.faces[0].GlyphAdvance('M')
	p.width, p.height, p.ascent = advance.Ceil(), m.Ascent.Ceil()+m.Descent.Ceil(), m.Ascent.Ceil()
	return p, nil
}

// draw draws a part of cells.
func (p *pen) draw(cells [][]Cell, part image.Rectangle) *image.Paletted {
	bounds := image.Rect(part.Min.X*p.width, part.Min.Y*p.height, part.Max.X*p.width, part.Max.Y*p.height)
	img := image.NewPaletted(bounds, p.palette)
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			if x == part.Min.X && x > 0 && cells[y][x].Rune == 0 {
				p.cell(img, x-1, y, cells[y][x-1]) // its right half
			}
			p.cell(img, x, y, cells[y][x])
		}
	}
	return img
}

func (p *pen) cell(img *image.Paletted, x, y int, c Cell) {
	fg, bg := c.Style.colors(false)
	left, top := x*p.width, y*p.height
	at := image.Rect(left, top, left+p.width, top+p.height)
	if c.Rune == 0 { // the right half of a wide character, which was drawn with it
		return
	}
	if c.isWide() {
		at.Max.X += p.width
	}
	at = at.Intersect(img.Rect)
	draw.Draw(img, at, image.NewUniform(p.palette[p.index(fg, bg, 0)]), image.Point{}, draw.Src)
	if c.Rune != ' ' {
		p.stamp(img, at, image.Pt(left, top), p.glyph(c), fg, bg)
	}
	if c.Style.Attr&Underline != 0 {
		p.line(img, at, top+p.ascent+1, fg, bg)
	}
	if c.Style.Attr&Struck != 0 {
		p.line(img, at, top+p.ascent*2/3, fg, bg)
	}
}

func (p *pen) line(img *image.Paletted, at image.Rectangle, y int, fg, bg rgb) {
	for x := at.Min.X; x < at.Max.X && y < at.Max.Y; x++ {
		img.SetColorIndex(x, y, p.index(fg, bg, 15))
	}
}

// stamp draws a glyph whose corner is at origin, as far as it is within at.
func (p *pen) stamp(img *image.Paletted, at image.Rectangle, origin image.Point, mask *image.Alpha, fg, bg rgb) {
	for y := at.Min.Y; y < at.Max.Y; y++ {
		for x := at.Min.X; x < at.Max.X; x++ {
			if part := mask.AlphaAt(x-origin.X, y-origin.Y).A >> 4; part > 0 {
				img.SetColorIndex(x, y, p.index(fg, bg, part))
			}
		}
	}
}

func (p *pen) glyph(c Cell) *image.Alpha {
	key := glyph{c.Rune, c.Style.Attr&Bold != 0}
	if mask, ok := p.glyphs[key]; ok {
		return mask
	}
	face := p.faces[0]
	if key.bold {
		face = p.faces[1]
	}
	mask := image.NewAlpha(image.Rect(0, 0, 2*p.width, p.height))
	d := font.Drawer{Dst: mask, Src: image.Opaque, Face: face, Dot: fixed.P(0, p.ascent)}
	d.DrawString(string(c.Rune))
	if len(p.glyphs) < maxGlyphs {
		p.glyphs[key] = mask
	}
	return mask
}

// index is the colour of the palette that is nearest to a mixture.
func (p *pen) index(fg, bg rgb, part uint8) uint8 {
	key := shade{fg, bg, part}
	if n, ok := p.nearest[key]; ok {
		return n
	}
	c := mix(fg, bg, int(part)*17)
	n := uint8(p.palette.Index(color.RGBA{c[0], c[1], c[2], 0xff}))
	if len(p.nearest) < maxShades {
		p.nearest[key] = n
	}
	return n
}
