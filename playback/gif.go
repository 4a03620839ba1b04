package playback

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"io"
	"time"
)

// What bounds pictures: GIF keeps every frame, so that long recordings would make files
// that nothing opens.
const (
	maxPictures      = 5000
	maxPicturePixels = 256 << 20 // of all frames together
	pictureInterval  = 100 * time.Millisecond
	lastPicture      = 3 * time.Second
)

// ErrTooLong is what a page or a picture would be of that would grow too large.
var ErrTooLong = errors.New("the recording is too long for this")

// WriteGIF writes what a recording showed as an animated picture. Frames are as far apart
// as o says, 100 ms at least.
func WriteGIF(w io.Writer, t *Tape, o FrameOptions) error {
	o.Interval = max(o.Interval, pictureInterval)
	a, err := newAnimation(t)
	if err != nil {
		return err
	}
	if err := t.Frames(o, a.frame); err != nil {
		return err
	}
	a.delay(lastPicture)
	if err := gif.EncodeAll(w, &a.gif); err != nil {
		return fmt.Errorf("writing the picture: %w", err)
	}
	return nil
}

// animation draws frames: of each, the part that is not as it was.
type animation struct {
	gif    gif.GIF
	pen    *pen
	cells  [][]Cell // as they were drawn, with the cursor
	pixels int
	at     time.Duration // of the last frame
	spent  time.Duration // what all delays say so far
}

func newAnimation(t *Tape) (*animation, error) {
	p, err := newPen()
	if err != nil {
		return nil, err
	}
	a := &animation{pen: p}
	a.gif.Config = image.Config{ColorModel: p.palette, Width: t.Columns * p.width, Height: t.Rows * p.height}
	if a.gif.Config.Width > 1<<16-1 || a.gif.Config.Height > 1<<16-1 {
		return nil, fmt.Errorf("a terminal of %dx%d is too large for a picture", t.Columns, t.Rows)
	}
	a.cells = make([][]Cell, t.Rows)
	for y := range a.cells {
		a.cells[y] = make([]Cell, t.Columns)
	}
	return a, nil
}

func (a *animation) frame(f Frame) error {
	cells := a.picture(f.Screen)
	changed := a.changed(cells)
	if changed.Empty() {
		return nil
	}
	if n := len(a.gif.Image); n > 0 {
		a.delay(f.At - a.at)
	}
	a.at = f.At
	a.cells = cells
	img := a.pen.draw(cells, changed)
	a.gif.Image = append(a.gif.Image, img)
	a.gif.Disposal = append(a.gif.Disposal, gif.DisposalNone)
	a.pixels += len(img.Pix)
	if len(a.gif.Image) > maxPictures || a.pixels > maxPicturePixels {
		return fmt.Errorf("%w picture after %s: at most %d frames", ErrTooLong, f.Recorded.Round(time.Second), maxPictures)
	}
	return nil
}

// delay says how long the last frame is shown, in hundredths; what rounding took away
// comes back later.
func (a *animation) delay(d time.Duration) {
	due := a.at + d - a.spent
	n := int(due / (10 * time.Millisecond))
	n = min(max(n, 2), 1<<16-1)
	a.gif.Delay = append(a.gif.Delay, n)
	a.spent += time.Duration(n) * 10 * time.Millisecond
}

// picture is what is drawn of a screen: its cells, larger ones filled up with blanks, and
// the cursor as a cell that is reversed.
func (a *animation) picture(s *Screen) [][]Cell {
	cells := make([][]Cell, len(a.cells))
	cols, rows := s.Size()
	for y := range cells {
		cells[y] = make([]Cell, len(a.cells[y]))
		n := 0
		if y < rows {
			n = copy(cells[y], s.Line(y)[:min(cols, len(cells[y]))])
		}
		for x := range cells[y] {
			if x >= n {
				cells[y][x].Rune = ' '
			} else if s.Reversed() {
				cells[y][x].Style.Attr ^= Reverse
			}
		}
	}
	if x, y, shown := s.Cursor(); shown && y < len(cells) && x < len(cells[y]) {
		cells[y][x].Style.Attr ^= Reverse
	}
	return cells
}

// changed is the smallest part, in cells, that holds all that is not as it was.
func (a *animation) changed(cells [][]Cell) (part image.Rectangle) {
	if len(a.gif.Image) == 0 {
		return image.Rect(0, 0, len(cells[0]), len(cells))
	}
	for y, row := range cells {
		for x, c := range row {
			if c != a.cells[y][x] {
				part = part.Union(image.Rect(max(x-1, 0), y, min(x+2, len(row)), y+1)) // halves of wide ones
			}
		}
	}
	return part
}

// xtermPalette is the 256 colours, with ground and ink among the greys.
func xtermPalette() color.Palette {
	p := make(color.Palette, 256)
	for n := range p {
		c := indexedRGB(uint8(n))
		p[n] = color.RGBA{c[0], c[1], c[2], 0xff}
	}
	return p
}
