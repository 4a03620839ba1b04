package tty

import (
	"strings"
	"testing"
)

func TestUndo(t *testing.T) {
	tests := []struct{ name, output, want string }{
		{"a shell that did nothing", "$ ls\r\nfile\r\n$ ", ""},
		{"vim", "\x1b[?1049h\x1b[22;0;0t\x1b[>4;2m\x1b[?1h\x1b=\x1b[?2004h\x1b[?1004h\x1b[?25l\x1b[1;1H~",
			"\x1b[>4m\x1b[?1l\x1b[?25h\x1b>\x1b[?1004l\x1b[?2004l\x1b[?1049l"},
		{"vim that ended", "\x1b[?1049h\x1b[?1h\x1b=\x1b[?25l\x1b[?25h\x1b[?1l\x1b>\x1b[?1049l", ""},
		{"a prompt with bracketed paste", "\x1b[?2004h\x1b[01;32malice\x1b[00m$ ", "\x1b[?2004l"},
		{"mouse, several modes at once", "\x1b[?1000;1002;1006h", "\x1b[?1000l\x1b[?1002l\x1b[?1006l"},
		{"the older alternate screens", "\x1b[?47h\x1b[?1047h", "\x1b[?47l\x1b[?1047l"},
		{"colour", "\x1b[1;31mred", "\x1b[0m"},
		{"wrapping off", "\x1b[?7l", "\x1b[?7h"},
		{"a full reset", "\x1b[?1049h\x1b[?25l\x1bc", ""},
		{"other modes", "\x1b[4h\x1b[?12h\x1b[20h", ""},
		{"text that looks so", "[?1049h", ""},
		{"in a title", "\x1b]0;[?1049h\x07", ""},
		{"where a title is cut off", "\x1b]0;\x1b[?1049h\x07", "\x1b[?1049l"},
		{"cancelled", "\x1b[?1049\x18h", ""},
		{"character sets", "\x1b(0=\x1b(B", ""},
		{"endless parameters", "\x1b[?" + strings.Repeat("1;", 1000) + "h", "\x1b[?1l"}, // terminals take the first
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, step := range []int{1, 3, len(tt.output)} {
				var m Modes
				for rest := tt.output; rest != ""; {
					n := min(step, len(rest))
					m.Write([]byte(rest[:n]))
					rest = rest[n:]
				}
				if got := m.Undo(); got != tt.want {
					t.Errorf("in pieces of %d: got %q, want %q", step, got, tt.want)
				}
				if got := m.Undo(); got != "" {
					t.Errorf("a second time: got %q", got)
				}
			}
		})
	}
}

func TestInLine(t *testing.T) {
	tests := []struct {
		name, output string
		want         bool
	}{
		{"nothing", "", false},
		{"a whole line", "file\r\n", false},
		{"a prompt", "file\r\n$ ", true},
		{"a progress bar", "50%\r", true},
		{"sequences behind the line", "exit\r\n\x1b[?2004l\r", false},
		{"a title behind the line", "exit\r\n\x1b]0;title\x07", false},
		{"a title behind a prompt", "$ \x1b]0;title\x1b\\", true},
		{"a full-screen program after a command line", "$ vim\r\n\x1b[?1049h~", true},
		{"one that was left", "$ vim\r\n\x1b[?1049h~\x1b[?1049l", false},
		{"one that was left, over a prompt", "$ \x1b[?1049h~\n\x1b[?1049l", true},
	}
	for _, tt := range tests {
		var m Modes
		m.Write([]byte(tt.output))
		if got := m.InLine(); got != tt.want {
			t.Errorf("%s: got %t, want %t", tt.name, got, tt.want)
		}
	}
	m := Modes{}
	m.Write([]byte("$ vim\r\n\x1b[?1049h~"))
	if m.Undo(); m.InLine() {
		t.Error("after leaving the alternate screen: got a line begun, want the start of one")
	}
}

func FuzzModes(f *testing.F) {
	f.Add([]byte("a\x1b[?1049h\x1b]0;t\x07\x1b=\x1b[1;31mx"))
	f.Fuzz(func(t *testing.T, p []byte) {
		var m Modes
		m.Write(p)
		undo := m.Undo()
		m.Write([]byte("\x18" + undo))
		if again := m.Undo(); undo != "" && strings.Contains(again, undo) {
			t.Errorf("%q is not undone by %q", p, undo)
		}
	})
}

func BenchmarkModes(b *testing.B) {
	p := []byte(strings.Repeat("drwxr-xr-x 2 root root 4096 \x1b[01;34mdir\x1b[0m\r\n", 700))
	b.SetBytes(int64(len(p)))
	var m Modes
	for b.Loop() {
		m.Write(p)
	}
}
