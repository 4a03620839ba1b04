package playback

import (
	"bytes"
	"errors"
	"image"
	"image/gif"
	"strings"
	"testing"
)

func TestGIF(t *testing.T) {
	tape := cast(t, plainHeader,
		[3]any{0.0, "o", "\x1b[?25l\x1b[41ma\x1b[0m"}, [3]any{0.5, "o", "\x1b[2;3H\x1b[4;9mX漢\x1b[0m"}, [3]any{60.0, "o", "\x1b[2;6Hc"}, [3]any{60.5, "r", "10x2"}, [3]any{61.0, "o", "\x1b[?5h"})
	var b bytes.Buffer
	if err := WriteGIF(&b, tape, FrameOptions{IdleLimit: 2_000_000_000}); err != nil {
		t.Fatal(err)
	}
	g, err := gif.DecodeAll(&b)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPen()
	if err != nil {
		t.Fatal(err)
	}
	if g.Config.Width != 20*p.width || g.Config.Height != 4*p.height {
		t.Errorf("size: got %dx%d, want %dx%d", g.Config.Width, g.Config.Height, 20*p.width, 4*p.height)
	}
	for i, want := range []int{50, 200, 100, 300} { // that the terminal became smaller is not seen
		if i >= len(g.Delay) || g.Delay[i] != want {
			t.Fatalf("delays: got %v, want 50, 200, 100 and 300", g.Delay)
		}
	}
	// What changes is drawn, and no more.
	if got, want := g.Image[1].Rect, image.Rect(1*p.width, p.height, 6*p.width, 2*p.height); got != want {
		t.Errorf("the second frame draws %v, want %v", got, want)
	}
	if c := g.Image[0].At(p.width/2, 0); c != p.palette[p.index(basic[1], basic[1], 0)] {
		t.Errorf("red ground: got %v", c)
	}
}

// Long recordings make no endless pictures or pages.
func TestTooLong(t *testing.T) {
	var events [][3]any
	for i := range maxPictures + 10 {
		events = append(events, [3]any{float64(i) / 5, "o", strings.Repeat("x", 1+i%3) + "\r\n"})
	}
	tape := cast(t, plainHeader, events...)
	var b bytes.Buffer
	if err := WriteGIF(&b, tape, FrameOptions{}); !errors.Is(err, ErrTooLong) || b.Len() > 0 {
		t.Errorf("got %v and %d bytes, want ErrTooLong", err, b.Len())
	}
	if err := WriteGIF(&b, tape, FrameOptions{To: 10_000_000_000}); err != nil {
		t.Errorf("a part of it: got %v", err)
	}
}
