package playback

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// rows are what a screen shows, up to its last row that shows anything.
func rows(s *Screen) []string {
	var all []string
	_, n := s.Size()
	for y := range n {
		all = append(all, s.Text(y))
	}
	for len(all) > 0 && all[len(all)-1] == "" {
		all = all[:len(all)-1]
	}
	return all
}

func TestScreen(t *testing.T) {
	tests := []struct {
		name, output string
		want         []string
	}{
		{"lines", "a\r\nb", []string{"a", "b"}},
		{"a line feed alone goes straight down", "a\nb", []string{"a", " b"}},
		{"wrapping", "1234567890ab", []string{"1234567890", "ab"}},
		{"a full line does not wrap before the next character", "1234567890\r\nab", []string{"1234567890", "ab"}},
		{"no wrapping", "\x1b[?7l1234567890ab", []string{"123456789b"}},
		{"scrolling", "1\r\n2\r\n3\r\n4\r\n5\r\n6", []string{"2", "3", "4", "5", "6"}},
		{"backspace", "ab\bc", []string{"ac"}},
		{"tabs", "a\tb", []string{"a       b"}},
		{"a tab stops at the edge", "a\t\t\tb", []string{"a        b"}},
		{"moving", "\x1b[2;3Hx\x1b[Ay\x1b[5Dz", []string{"z  y", "  x"}},
		{"erasing the line's rest", "abcdef\x1b[3D\x1b[K", []string{"abc"}},
		{"erasing the line's beginning", "abcdef\x1b[3D\x1b[1K", []string{"    ef"}},
		{"erasing all", "abc\r\ndef\x1b[2J", nil},
		{"inserting characters", "abc\x1b[2D\x1b[2@X", []string{"aX bc"}},
		{"deleting characters", "abcdef\x1b[5D\x1b[2P", []string{"adef"}},
		{"insert mode", "abc\x1b[2D\x1b[4hXY\x1b[4l", []string{"aXYbc"}},
		{"inserting lines", "1\r\n2\r\n3\x1b[2;1H\x1b[Lx", []string{"1", "x", "2", "3"}},
		{"deleting lines", "1\r\n2\r\n3\x1b[1;1H\x1b[M", []string{"2", "3"}},
		{"a scrolling region", "1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[3;1H\nx", []string{"1", "3", "x", "4"}},
		{"going up scrolls back", "1\r\n2\x1b[1;1H\x1bMx", []string{"x", "1", "2"}},
		{"scrolling by sequence", "1\r\n2\r\n3\x1b[S", []string{"2", "3"}},
		{"saving the cursor", "a\x1b7bc\x1b8X", []string{"aXc"}},
		{"the alternate screen", "a\x1b[?1049hxyz\x1b[?1049lb", []string{"ab"}},
		{"line drawing", "\x1b(0lqk\x1b(Bq", []string{"┌─┐q"}},
		{"shift out", "\x1b)0\x0eq\x0fq", []string{"─q"}},
		{"repeating", "ab\x1b[3b", []string{"abbbb"}},
		{"wide characters", "漢字x", []string{"漢字x"}},
		{"a wide character that does not fit", "123456789漢", []string{"123456789", "漢"}},
		{"half of a wide character overwritten", "漢\bx", []string{" x"}},
		{"combining", "e\u0301x", []string{"e\u0301x"}},
		{"a reset", "abc\x1b[31m\x1bcx", []string{"x"}},
		{"a title", "a\x1b]0;rm -rf\x07b", []string{"ab"}},
		{"a link", "\x1b]8;;javascript:alert(1)\x1b\\here\x1b]8;;\x1b\\", []string{"here"}},
		{"a clipboard", "a\x1b]52;c;cm0=\x1b\\b", []string{"ab"}},
		{"pictures and keys", "a\x1bPq#0~\x1b\\\x1b_Gx\x1b\\b", []string{"ab"}},
		{"a string cut off by another sequence", "a\x1b]0;t\x1b[1mb", []string{"ab"}},
		{"controls within a sequence", "a\x1b[3\r1mb", []string{"b"}},
		{"cancelled", "a\x1b[31\x18mb", []string{"amb"}},
		{"questions", "a\x1b[c\x1b[6n\x1b[>q\x1b[?u\x05\x1bZb", []string{"ab"}},
		{"direction of text", "a\u202eb\u200fc", []string{"abc"}},
		{"8-bit controls", "a\u009b31mb", []string{"ab"}},
		{"endless parameters", "a\x1b[" + strings.Repeat("1;", 1000) + "mb", []string{"ab"}},
		{"huge numbers", "a\x1b[999999999999999999999Cb\x1b[99999;99999Hc\x1b[99999Ax\x1b[99999b", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, step := range []int{1, 3, len([]rune(tt.output))} {
				s := NewScreen(10, 5)
				for r := []rune(tt.output); len(r) > 0; r = r[min(step, len(r)):] {
					s.Write(string(r[:min(step, len(r))]))
				}
				switch tt.name {
				case "huge numbers": // it is enough to live through them
				default:
					if diff := cmp.Diff(tt.want, rows(s), cmpopts.EquateEmpty()); diff != "" {
						t.Errorf("in pieces of %d (-want +got):\n%s", step, diff)
					}
				}
			}
		})
	}
}

func TestScreenStyles(t *testing.T) {
	tests := []struct {
		sequence string
		want     Style
	}{
		{"", Style{}},
		{"\x1b[1;31;42m", Style{FG: Indexed(1), BG: Indexed(2), Attr: Bold}},
		{"\x1b[97;104m", Style{FG: Indexed(15), BG: Indexed(12)}},
		{"\x1b[38;5;200m", Style{FG: Indexed(200)}},
		{"\x1b[48;2;1;2;3m", Style{BG: RGB(1, 2, 3)}},
		{"\x1b[38:2::1:2:3m", Style{FG: RGB(1, 2, 3)}},
		{"\x1b[38:2:1:2:3m", Style{FG: RGB(1, 2, 3)}},
		{"\x1b[38:5:9;4m", Style{FG: Indexed(9), Attr: Underline}},
		{"\x1b[4:3m", Style{Attr: Underline}},
		{"\x1b[4m\x1b[4:0m", Style{}},
		{"\x1b[58;5;1;3m", Style{Attr: Italic}},
		{"\x1b[1;3;4;7;9m\x1b[22;23;24;27;29m", Style{}},
		{"\x1b[31m\x1b[m", Style{}},
		{"\x1b[31;38m", Style{FG: Indexed(1)}},
		{"\x1b[38;5m", Style{FG: Indexed(0)}},
	}
	for _, tt := range tests {
		s := NewScreen(10, 2)
		s.Write(tt.sequence + "x")
		if got := s.Line(0)[0].Style; got != tt.want {
			t.Errorf("%q: got %+v, want %+v", tt.sequence, got, tt.want)
		}
	}
}

func TestScreenResize(t *testing.T) {
	s := NewScreen(10, 4)
	s.Write("1\r\n2\r\n3\r\n漢字")
	s.Resize(3, 2)
	if diff := cmp.Diff([]string{"3", "漢"}, rows(s)); diff != "" {
		t.Errorf("smaller (-want +got):\n%s", diff)
	}
	s.Resize(20, 5)
	s.Write("!")
	if diff := cmp.Diff([]string{"3", "漢!"}, rows(s)); diff != "" {
		t.Errorf("larger again (-want +got):\n%s", diff)
	}
	s.Write("漢")
	s.Resize(1, 2)
	s.Write("\x1b[9b") // it again, where it has no room
	for _, size := range [][2]int{{0, 0}, {-5, 7}, {1 << 30, 1 << 30}, {1, 65535}, {65535, 1}} {
		s.Resize(size[0], size[1])
		s.Write("\x1b[99;99Hx漢\r\n\t")
		if cols, rows := s.Size(); cols < 1 || rows < 1 || cols*rows > maxCells {
			t.Errorf("of %v: got %dx%d", size, cols, rows)
		}
	}
}

// FuzzScreen: whatever is written, a screen stays within its size, shows nothing that a
// terminal acts on, and views and pictures of it can be made.
func FuzzScreen(f *testing.F) {
	f.Add("a\x1b[31m漢\x1b[2;3r\x1b[?1049h\x1b[10L\x1b[5@\x1b[?6h\x1b[9;9H\x1b[3g\t\x1b[?1049l", 10, 4)
	f.Add("\x1b[4h漢字\x1b[D\x1b[PX\x1b[2X\x1b[1J\x1b[?5h", 3, 3)
	f.Add("\x1b7\x1b[1;1H\x1bM\x1bM\x1b8\x1b[999b", 1, 1)
	f.Add("漢漢\x1b[999b", 1, 1)
	f.Fuzz(func(t *testing.T, output string, cols, rows int) {
		s := NewScreen(8, 4)
		v := NewView(6, 3)
		half := len(output) / 2
		for _, part := range []string{output[:half], output[half:]} {
			s.Write(strings.ToValidUTF8(part, "?"))
			check(t, s)
			harmless(t, v.Draw(s, part))
			s.Resize(cols, rows)
			check(t, s)
		}
		harmless(t, v.Draw(s, ""))
		harmless(t, s.Print(5))
	})
}

func check(t *testing.T, s *Screen) {
	t.Helper()
	cols, rows := s.Size()
	x, y, _ := s.Cursor()
	if x < 0 || y < 0 || x >= cols || y >= rows {
		t.Fatalf("cursor at %d,%d of %dx%d", x, y, cols, rows)
	}
	for y := range rows {
		line := s.Line(y)
		if len(line) != cols {
			t.Fatalf("row %d has %d of %d cells", y, len(line), cols)
		}
		for x, c := range line {
			if c.Rune == 0 && (x == 0 || !line[x-1].isWide()) {
				t.Fatalf("row %d: half a character at %d: %q", y, x, s.Text(y))
			}
			if c.isWide() && (x+1 == cols || line[x+1].Rune != 0) {
				t.Fatalf("row %d: a wide character at %d has no right half", y, x)
			}
		}
	}
}

// harmless fails on anything that a terminal would answer or keep: what is drawn uses the
// few sequences below.
func harmless(t *testing.T, drawn string) {
	t.Helper()
	for rest := drawn; rest != ""; {
		i := strings.IndexByte(rest, 0x1b)
		text := rest
		if i >= 0 {
			text = rest[:i]
		}
		for _, r := range text {
			if runeWidth(r) < 0 && r != '\r' && r != '\n' {
				t.Fatalf("%q is written in %q", r, drawn)
			}
		}
		if i < 0 {
			return
		}
		rest = rest[i:]
		var n int
		var final byte
		if n, final = sequenceLength(rest); !strings.ContainsRune("mHGJhl", rune(final)) {
			t.Fatalf("sequence %q", rest[:n])
		}
		if seq := rest[:n]; (final == 'h' || final == 'l') && seq != "\x1b[?25h" && seq != "\x1b[?25l" {
			t.Fatalf("sequence %q", seq)
		}
		rest = rest[n:]
	}
}

func sequenceLength(s string) (n int, final byte) {
	for n = 2; n < len(s) && (s[n] < 0x40 || s[n] > 0x7e); n++ {
	}
	if len(s) < 3 || s[1] != '[' || n == len(s) {
		return min(n, len(s)), 0
	}
	return n + 1, s[n]
}

func TestView(t *testing.T) {
	tests := []struct {
		name       string
		cols, rows int // of the terminal
		output     string
		want       []string // on the terminal
	}{
		{"as large, but for the status", 10, 6, "1\r\n2", []string{"1", "2", "", "", "", "status"}},
		{"larger", 14, 7, "1\r\n2", []string{"1", "2", "", "", "", "", "status"}},
		{"lower: the cursor's part", 10, 3, "1\r\n2\r\n3\r\n4\r\n5", []string{"4", "5", "status"}},
		{"narrower: the cursor's part", 5, 6, "1234567890\x1b[1;10H", []string{"67890", "", "", "", "", "statu"}},
		{"a wide character in half, left", 5, 6, "1234漢890\x1b[1;10H", []string{" 890", "", "", "", "", "statu"}},
		{"a wide character in half, right", 5, 6, "1234漢\x1b[1;1H", []string{"1234", "", "", "", "", "statu"}},
		{"tiny", 1, 1, "ab\x1b[1;1H", []string{"a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := NewScreen(10, 5)
			v := NewView(tt.cols, tt.rows)
			terminal := NewScreen(tt.cols, tt.rows)
			terminal.Write(v.Enter())
			terminal.Write(v.Draw(s, "nothing yet"))
			s.Write(tt.output)
			terminal.Write(v.Draw(s, "status"))
			var got []string
			for y := range tt.rows {
				got = append(got, terminal.Text(y))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if again := v.Draw(s, "status"); again != "" {
				t.Errorf("nothing has changed, and it draws %q", again)
			}
			terminal.Write(v.Leave())
			if terminal.Alternate() || len(rows(terminal)) > 0 {
				t.Errorf("the terminal is not as it was: %q", rows(terminal))
			}
		})
	}
}

// What is drawn of a screen makes the same screen.
func TestViewIsFaithful(t *testing.T) {
	s, v := NewScreen(20, 6), NewView(20, 7)
	terminal := NewScreen(20, 7)
	terminal.Write(v.Enter())
	for i, output := range []string{
		"\x1b[1;31mred\x1b[0m plain \x1b[38;5;99;48;2;1;2;3mcolours\r\n", "漢字 e\u0301\x1b[7mreverse\x1b[0m\r\n", "\x1b[2;3Hx\x1b[K",
		"\x1b[?5h", "\x1b[?5l\x1b[H\x1b[Lnew\x1b[8mhidden\x1b[0m", "\x1b[6;1H\n\n", "\x1b[?25l", "\x1b[?1049h\x1b[3;3Hfull\x1b[9mscreen",
	} {
		s.Write(output)
		terminal.Write(v.Draw(s, fmt.Sprint("step ", i)))
		for y := range 6 {
			want := make([]Cell, 20)
			for x, c := range s.Line(y) {
				if s.Reversed() {
					c.Style.Attr ^= Reverse
				}
				if c.Style.Attr&Hidden != 0 {
					c = Cell{Rune: ' ', Style: c.Style}
					c.Style.Attr &^= Hidden
				}
				want[x] = c
			}
			if diff := cmp.Diff(want, terminal.Line(y)); diff != "" {
				t.Fatalf("step %d, row %d (-want +got):\n%s", i, y, diff)
			}
		}
		x, y, shown := s.Cursor()
		if gx, gy, gshown := terminal.Cursor(); gx != x || gy != y || gshown != shown {
			t.Errorf("step %d: cursor at %d,%d %v, want %d,%d %v", i, gx, gy, gshown, x, y, shown)
		}
	}
}

func BenchmarkScreen(b *testing.B) {
	output := strings.Repeat("drwxr-xr-x 2 root root 4096 \x1b[01;34mdir\x1b[0m\r\n", 700)
	s := NewScreen(80, 24)
	b.SetBytes(int64(len(output)))
	for b.Loop() {
		s.Write(output)
	}
}
