package transcript

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/recording"
)

// told is what is told of output that comes at once, on a terminal of 20 columns and 4
// rows.
func told(t testing.TB, output ...string) []string {
	t.Helper()
	var lines []string
	tr := New(Config{Width: 20, Height: 4, Line: func(l Line) { lines = append(lines, l.Text) }})
	for i, o := range output {
		tr.Take(Piece{At: time.Duration(i) * 10 * time.Second, Kind: recording.KindOutput, Data: []byte(o)})
	}
	tr.End()
	return lines
}

func TestLines(t *testing.T) {
	tests := []struct {
		name   string
		output []string
		want   []string
	}{
		{"plain", []string{"one\r\ntwo\r\n"}, []string{"one", "two"}},
		{"without a terminal's carriage returns", []string{"one\ntwo\n"}, []string{"one", "two"}},
		{"scrolled away", []string{"1\r\n2\r\n3\r\n4\r\n5\r\n6"}, []string{"1", "2", "3", "4", "5", "6"}},
		{"colours and titles are gone", []string{"\x1b[1;31mred\x1b[0m\x1b]0;title\x07 \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\"}, []string{"red link"}},
		{"wrapped lines are joined", []string{strings.Repeat("x", 45) + "\r\nend"}, []string{strings.Repeat("x", 45), "end"}},
		{"wrapped over the screen's edge", []string{"a\r\nb\r\n" + strings.Repeat("y", 100) + "\r\nend"}, []string{"a", "b", strings.Repeat("y", 100), "end"}},
		{"a full line that is not wrapped", []string{strings.Repeat("x", 20) + "\r\nend"}, []string{strings.Repeat("x", 20), "end"}},
		{"progress by carriage returns", []string{"10%\r50%\r100%\r\ndone"}, []string{"100%", "done"}},
		{"backspaces", []string{"lsx\b \b -l\r\n"}, []string{"ls -l"}},
		{"readline deletes in the middle", []string{"$ echo abcd\b\b\x1b[P\r\n"}, []string{"$ echo abd"}},
		{"readline inserts in the middle", []string{"$ echo ad\b\x1b[1@b\r\n"}, []string{"$ echo abd"}},
		{"history: the line is erased and written again", []string{"$ first\r\x1b[K$ second\r\n"}, []string{"$ second"}},
		{"wide characters", []string{"日本語\b\b\x1b[K\r\n" + strings.Repeat("語", 11)}, []string{"日本", strings.Repeat("語", 11)}},
		{"half of a wide character is overwritten", []string{"日本\rx\r\n"}, []string{"x 本"}},
		{"combining characters", []string{"e\u0301 n\u0303\u0331\r\n"}, []string{"\u00e9 \u00f1\u0331"}},
		{"emoji", []string{"ok 😀 ok\r\n"}, []string{"ok 😀 ok"}},
		{"what has no width or turns text is gone", []string{"r\u200bm \u202e-rf\u202c\u2066x\ufeff\r\n"}, []string{"rm -rfx"}},
		{"boxes", []string{"\x1b(0lqk\x1b(B ok\x0eq\x0fq\r\n"}, []string{"┌─┐ okqq"}},
		{"bytes that are no text", []string{"a\xff\xfeb\r\n"}, []string{"a\ufffd\ufffdb"}},
		{"tabs", []string{"a\tb\tc\r\n"}, []string{"a       b       c"}},
		{"the screen is cleared", []string{"secret\r\n\x1b[H\x1b[2Jnew"}, []string{"secret", "new"}},
		{"and the same is shown again", []string{"$ ls\r\nx\r\n\x1b[H\x1b[J$ ls\r\nx\r\n"}, []string{"$ ls", "x", "$ ls", "x"}},
		{"full reset", []string{"secret\x1bcnew"}, []string{"secret", "new"}},
		{"bars above are updated", []string{"a 10%\r\nb 10%\r\n\x1b[2Aa 99%\r\n\r\n"}, []string{"a 99%", "b 10%"}},
		{"what stood there is told", []string{"a 10%\r\nb 10%\r\n", "\x1b[2Aa 99%\r\n\r\n"}, []string{"a 10%", "b 10%", "a 99%"}},
		{"the prompt becomes the command", []string{"$ ", "ls\r\nfile\r\n$ "}, []string{"$ ls", "file", "$"}},
		{"a line that was seen and erased", []string{"the code is 1234", "\r\x1b[Kbye\r\n"}, []string{"the code is 1234", "bye"}},
		{"and overwritten with combining characters", []string{"the code is 1234", "\r\x1b[Kn\u0303\u0331 is not what was\r\n"}, []string{"the code is 1234", "\u00f1\u0331 is not what was"}},
		{"full-screen program, standing still", []string{"$ vim\r\n\x1b[?1049h\x1b[2Jtext\r\n~\r\n~", "\x1b[H\x1b[2Jmore", "\x1b[?1049l$ "}, []string{"$ vim", "text", "~", "more", "$"}},
		{"the same screen again", []string{"\x1b[?1049hone\r\ntwo\r\n", "\x1b[H\x1b[2Jone\r\ntwo\r\n", "\x1b[?1049l"}, []string{"one", "two"}},
		{"scrolling region", []string{"\x1b[1;3r1\r\n2\r\n3\r\n4\x1b[r\x1b[4;1Hstatus"}, []string{"1", "2", "3", "4", "status"}},
		{"lines are inserted and deleted", []string{"1\r\n2\r\n3\x1b[2;1H\x1b[Lnew\x1b[1;1H\x1b[M"}, []string{"1", "new", "2", "3"}},
		{"C1 controls", []string{"a\u009b1;31mb\u009d0;t\u009cc\r\n"}, []string{"abc"}},
		{"sequences over pieces", []string{"a\x1b", "[31", "mb\r\n"}, []string{"ab"}},
		{"cut-off string", []string{"a\x1b]0;never ends \x18b\r\n"}, []string{"ab"}},
		{"repeated", []string{"a\x1b[3b\r\n"}, []string{"aaaa"}},
		{"no wrapping", []string{"\x1b[?7l" + strings.Repeat("x", 30) + "\x1b[?7h\r\nend"}, []string{strings.Repeat("x", 20), "end"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, told(t, tt.output...)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What stands still is told while other lines go on, once, and at the next event.
func TestStandingStill(t *testing.T) {
	tests := []struct {
		name   string
		every  time.Duration
		output []string // one each time
		want   []string // of what was told before the last
	}{
		{"a line every second", time.Second, []string{"1\r\n", "2\r\n", "3\r\n", "4\r\n", "5\r\n", "6\r\n"}, []string{"1", "2", "3", "4"}},
		{"a line that spins below", 400 * time.Millisecond, []string{"seen\r\n", "|", "\r/", "\r-", "\r\\", "\r|", "\r/", "\r-"}, []string{"seen"}},
		{"a bar above that stops", time.Second, []string{"a 10%\r\nb 10%\r\n", "\x1b[1Ab 20%\r\n", "\x1b[1Ab 30%\r\n", "\x1b[2Aa 99%\r\n\r\n"}, []string{"a 10%"}},
		{"a full-screen program with a clock", 200 * time.Millisecond, []string{"\x1b[?1049hfile\r\n", "10:01", "\r10:02", "\r10:03", "\r10:04"}, []string{"file"}},
		{"what flashes by", time.Second, []string{"x\r", "y\r", "z\r", "\r\n"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			tr := New(Config{Width: 20, Height: 10, Line: func(l Line) { got = append(got, l.Text) }})
			for i, o := range tt.output {
				tr.Take(Piece{At: time.Duration(i) * tt.every, Kind: recording.KindOutput, Data: []byte(o)})
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A line's time is when its last character came.
func TestTimes(t *testing.T) {
	var got []Line
	tr := New(Config{Line: func(l Line) { got = append(got, l) }})
	for i, s := range []string{"$ ", "l", "s", "\r\n", "file\r\n"} {
		tr.Take(Piece{At: time.Duration(i) * time.Minute, Kind: recording.KindOutput, Data: []byte(s)})
	}
	tr.End()
	want := []Line{{2 * time.Minute, Shown, "$ ls"}, {4 * time.Minute, Shown, "file"}}
	// The pause between l and s is long enough for "$ l" to have been seen, and it is
	// the beginning of what became of it.
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTyped(t *testing.T) {
	tests := map[string][]string{
		"ls -l\r":                    {"ls -l"},
		"lx\x7fs\r\x04":              {"ls"},
		"wrong\x15right\r":           {"right"},
		"one two\x17three\r":         {"one three"},
		"a\x1b[A\x1b[Db\x1bOCc\r":    {"abc"},
		"gone\x03next\n":             {"gone", "next"},
		"\x1b[200~pasted\x1b[201~\r": {"pasted"},
		"not ended":                  {"not ended"},
		"\u202eevil\r":               {"evil"},
	}
	for in, want := range tests {
		var got []string
		tr := New(Config{Line: func(l Line) { got = append(got, l.Text) }})
		tr.Take(Piece{Kind: recording.KindInput, Data: []byte(in)})
		tr.End()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", in, diff)
		}
	}
}

func TestResize(t *testing.T) {
	var got []string
	tr := New(Config{Width: 20, Height: 4, Line: func(l Line) { got = append(got, l.Text) }})
	out := func(s string) { tr.Take(Piece{Kind: recording.KindOutput, Data: []byte(s)}) }
	size := func(s string) { tr.Take(Piece{Kind: recording.KindResize, Data: []byte(s)}) }
	out("1\r\n2\r\n3\r\n4")
	for _, s := range []string{"10x2", "99999x99999", "0x0", "-1x5", "x", "20x1", "1x1"} {
		size(s)
	}
	out("\r\n日5")
	size("40x10")
	out("\r\n" + strings.Repeat("z", 30) + "\r\n")
	tr.End()
	want := []string{"1", "2", "3", "4", "5", strings.Repeat("z", 30)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// read is the transcript of a recording of events.
func read(t testing.TB, record func(w *recording.Writer)) []Line {
	t.Helper()
	var b bytes.Buffer
	w, err := recording.NewWriter(&b, recording.Header{Width: 80, Height: 24, Metadata: recording.Metadata{Started: start}})
	if err != nil {
		t.Fatal(err)
	}
	record(w)
	if _, err := w.Close(recording.End{Reason: "exit", Ended: start.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	r, err := recording.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	var lines []Line
	if err := Read(r, Config{Line: func(l Line) { lines = append(lines, l) }}); err != nil {
		t.Fatal(err)
	}
	return lines
}

var start = time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)

// A flood is read as far as its allowance goes, then its last words are, and so is what
// comes after it.
func TestFlood(t *testing.T) {
	lines := read(t, func(w *recording.Writer) {
		w.Output(start, []byte("$ base64 /dev/urandom\r\n"))
		for i := range 10000 { // 10 MB in 10 s
			w.Output(start.Add(time.Duration(i)*time.Millisecond), bytes.Repeat([]byte("0123456789abcdef 0123456789abc\r\n"), 32))
		}
		w.Resize(start.Add(10*time.Second), 40, 24)
		w.Output(start.Add(10*time.Second), []byte("^C\r\n$ \x1b[?2004h"))
		w.Output(start.Add(20*time.Second), []byte("echo after\r\nafter\r\n\x1b[999C|\r\n"))
	})
	var size int
	var text strings.Builder
	notes := 0
	for _, l := range lines {
		size += len(l.Text)
		if l.Kind == Note {
			notes++
		}
		text.WriteString(l.Text + "\n")
	}
	if size > 2<<20 || size < 100<<10 || notes == 0 || notes > 20 {
		t.Errorf("got %d bytes and %d notes", size, notes)
	}
	for _, want := range []string{"$ base64 /dev/urandom\n", " KiB of output left out]\n", "^C\n$ echo after\nafter\n" + strings.Repeat(" ", 39) + "|\n"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
}

// Short sequences that write long lines tell no more than the allowance.
func TestAmplification(t *testing.T) {
	size := 0
	tr := New(Config{Width: 1000, Height: 60, Line: func(l Line) { size += len(l.Text) }})
	for i := range 20000 {
		tr.Take(Piece{Kind: recording.KindOutput, Data: []byte(string(rune('a'+i%26)) + "\x1b[999b\r\n")})
	}
	tr.End()
	if size > tellBurst+64<<10 {
		t.Errorf("got %d bytes of 160 KB", size)
	}
}

func TestCommands(t *testing.T) {
	cast := func(output ...string) []byte {
		var b bytes.Buffer
		w, err := recording.NewWriter(&b, recording.Header{Width: 20, Height: 3, Metadata: recording.Metadata{Started: start}})
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range output {
			w.Output(start.Add(time.Duration(i)*time.Second), []byte(o))
		}
		w.Close(recording.End{Ended: start.Add(time.Duration(len(output)) * time.Second)})
		return b.Bytes()
	}
	tests := []struct {
		name   string
		output []string
		want   string
	}{
		{"as bash marks", []string{"\x1b]133;A\x07$ \x1b]133;B\x07", "ls\r\n\x1b]133;C\x07", "x\r\n\x1b]133;D;2\x07\x1b]133;A\x07$ "}, "1s ls → 2 after 1s\n"},
		{"typed over two rows", []string{"\x1b]133;A\x07$ \x1b]133;B\x07echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\x1b]133;C\x07\x1b]133;D\x07"}, "0s echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa → ? after 0s\n"},
		{"edited", []string{"\x1b]133;B\x07lsx\b \b -l\r\n\x1b]133;C\x07\x1b]133;D;0\x07"}, "0s ls -l → 0 after 0s\n"},
		{"as fish tells", []string{"\x1b]133;A\x07> \x1b]133;C;cmdline_url=echo%20hi%3B%20ls\x07hi\r\n\x1b]133;D;0\x07"}, "0s echo hi; ls → 0 after 0s\n"},
		{"as Visual Studio Code tells", []string{"\x1b]633;A\x07$ \x1b]633;B\x07x\x1b]633;E;echo a\\x3b b\\\\n;nonce\x07\r\n\x1b]633;C\x07\x1b]633;D;130\x07"}, "0s echo a; b\\n → 130 after 0s\n"},
		{"does not end", []string{"\x1b]133;B\x07vim\r\n\x1b]133;C\x07"}, "0s vim\n"},
		{"an empty line is none", []string{"\x1b]133;B\x07\r\n\x1b]133;C\x07\x1b]133;D\x07\x1b]133;D;1\x07"}, ""},
		{"forged: controls and directions", []string{"\x1b]633;E;ls \\x1b[2J\\x07 \u202eevil\x07\x1b]633;C\x07\x1b]633;D;99999999999999\x07"}, "0s ls [2J evil → ? after 0s\n"},
		{"forged: other strings", []string{"\x1b]52;c;cm0=\x07\x1b]133\x07\x1b]133;\x07\x1b]133;Z\x07\x1b]133;D;0\x07"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all, err := Commands(bytes.NewReader(cast(tt.output...)))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, c := range all {
				got += fmt.Sprint(c.At, " ", c.Text)
				if c.Exact {
					t.Error("a node's word counts as exact")
				}
				if c.Ended {
					exit := "?"
					if c.Exit != nil {
						exit = fmt.Sprint(*c.Exit)
					}
					got += fmt.Sprint(" → ", exit, " after ", c.Took)
				}
				got += "\n"
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	many := cast(strings.Repeat("\x1b]633;E;x\x07\x1b]633;C\x07\x1b]633;D;0\x07", 20000))
	if all, err := Commands(bytes.NewReader(many)); err != nil || len(all) > maxCommands {
		t.Errorf("got %d commands, %v", len(all), err)
	}
}

// TestCut: it does not matter where output is cut, so that text which is read at once ends as
// that which is read character by character.
func TestCut(t *testing.T) {
	fragments := []string{"plain text ", "abc", "日本", "e\u0301", "\r", "\n", "\r\n", "\b\b", "\t", "\x1b[3G", "\x1b[2;5H", "\x1b[4h", "\x1b[4l",
		"\x1b[?7l", "\x1b[?7h", "\x1b[1K", "\x1b[K", "\x1b[2@", "\x1b[3b", "\x1b(0lqk", "\x1b(B", "\x1b[?1049h", "\x1b[?1049l", "\x1b]0;title\x07"}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var text strings.Builder
		for range 40 {
			text.WriteString(fragments[random.IntN(len(fragments))])
		}
		read := func(pieces ...string) (lines []Line) {
			tr := New(Config{Width: 9, Height: 4, Line: func(l Line) { lines = append(lines, l) }})
			for _, p := range pieces {
				tr.Take(Piece{Kind: recording.KindOutput, Data: []byte(p)})
			}
			tr.End()
			return lines
		}
		if diff := cmp.Diff(read(strings.Split(text.String(), "")...), read(text.String())); diff != "" {
			t.Fatalf("%q at once, against character by character:\n%s", text.String(), diff)
		}
	}
}

// FuzzTranscript: whatever nodes write, no line is unsafe to print, and the screen stays
// within its bounds.
func FuzzTranscript(f *testing.F) {
	for _, seed := range []string{"a\x1b[999;999Hb\x1b[999L\x1b[999M\x1b[2;3r\x1bM\x1bD\x1b[999P\x1b[999@", "日\b\x1b[X\x1b[1@語\u0301", "\x1b[?1049h\x1b[2J\x1b[?1049l\x1bc", "\x1b]133;A\x07x\x1b]133;C\x07\x1b]133;D;1\x07", "\x1b[4hab\rc\x1b(0q", "\u009b999b"} {
		f.Add([]byte(seed), uint8(20), uint8(4), uint16(300))
	}
	f.Fuzz(func(t *testing.T, data []byte, w, h uint8, gap uint16) {
		check := func(text string) {
			for _, r := range text {
				if r < 0x20 || !unicode.IsGraphic(r) && r != '\ufffd' {
					t.Fatalf("%q holds %U", text, r)
				}
			}
		}
		tr := New(Config{Width: int(w), Height: int(h), Line: func(l Line) {
			check(l.Text)
			if l.Text == "" || len([]rune(l.Text)) > MaxLine {
				t.Fatalf("a line of %d bytes", len(l.Text))
			}
		}, Command: func(c Command) { check(c.Text) }})
		var m Meter
		at := time.Duration(0)
		for i := 0; len(data) > 0; i++ {
			n := min(len(data), 1+i%7)
			m.Take(at, recording.KindOutput, data[:n], tr.Take)
			if i%5 == 4 {
				m.Take(at, recording.KindResize, []byte(fmt.Sprintf("%dx%d", data[0], i%40)), tr.Take)
			}
			data = data[n:]
			at += time.Duration(gap) * time.Millisecond
			for _, g := range []*grid{tr.main, tr.other} {
				if g != nil && (len(g.rows) != g.height || g.y >= g.height || g.x >= g.width) {
					t.Fatalf("cursor %d,%d on %dx%d", g.x, g.y, g.width, g.height)
				}
			}
		}
		tr.End()
	})
}
