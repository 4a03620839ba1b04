package client

import (
	"strings"
	"testing"
)

func TestEscapeFilter(t *testing.T) {
	tests := []struct {
		name   string
		typed  []string
		send   string
		action escapeAction
	}{
		{"at the very start", []string{"~."}, "", escapeLeave},
		{"after a line", []string{"ls\r", "~."}, "ls\r", escapeLeave},
		{"with Enter at once", []string{"\r~."}, "\r", escapeLeave},
		{"key by key", []string{"\r", "~", "."}, "\r", escapeLeave},
		{"in the middle of a line", []string{"a~."}, "a~.", escapeNone},
		{"help", []string{"~?"}, "", escapeHelp},
		{"a tilde after help", []string{"~?", "~~a~."}, "~~a~.", escapeHelp},
		{"a tilde", []string{"~~."}, "~.", escapeNone},
		{"a path", []string{"~/x"}, "~/x", escapeNone},
		{"tilde and enter, then leaving", []string{"~\r", "~."}, "~\r", escapeLeave},
		{"pasted", []string{"~. ends a session\r~.\r"}, "~. ends a session\r~.\r", escapeNone},
		{"pasted after a tilde", []string{"~", ".bashrc"}, "~.bashrc", escapeNone},
		{"pasted, then typed", []string{"some lines\r", "~."}, "some lines\r", escapeLeave},
		{"bracketed paste", []string{"\x1b[200~a\r", "~.", "\r\x1b[201~"}, "\x1b[200~a\r~.\r\x1b[201~", escapeNone},
		{"after a bracketed paste", []string{"\x1b[200~a\x1b[201~", "\r", "~."}, "\x1b[200~a\x1b[201~\r", escapeLeave},
		{"held back", []string{"~"}, "", escapeNone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e escapeFilter
			var sent string
			action := escapeNone
			for _, typed := range tt.typed {
				send, a, _ := e.filter([]byte(typed))
				sent += string(send)
				action = max(action, a)
			}
			if sent != tt.send || action != tt.action {
				t.Errorf("got %q and %d, want %q and %d", sent, action, tt.send, tt.action)
			}
		})
	}
}

func TestClean(t *testing.T) {
	tests := []struct{ in, want string }{
		{"plain\ntwo", "plain\ntwo"},
		{"a\x1b[2Jb\x00\x07\x7f", "a␛[2Jb␀␇\ufffd"},
		{"a\u009bb\u202ec", "a\ufffdb\ufffdc"},
		{"bad \xff byte", "bad \ufffd byte"},
		{" \r\n x \r\n", "x"},
	}
	for _, tt := range tests {
		if got := Clean(tt.in); got != tt.want {
			t.Errorf("Clean(%q): got %q, want %q", tt.in, got, tt.want)
		}
	}
	for _, tt := range []struct{ in, want string }{
		{"plain", "plain"},
		{"ok\n2026-11-20 11:10:00  Allowed", "ok␊2026-11-20 11:10:00 Allowed"},
		{"a\r\tb\u2028c\u2029d\u0085e", "a␍␉b\ufffdc\ufffdd\ufffde"},
		{"wide" + strings.Repeat(" ", 200) + "\u00a0\u2003second line", "wide second line"},
		{"\u2066a\u202eb\u200bc\U000E0041", "\ufffda\ufffdb\ufffdc\ufffd"},
	} {
		if got := CleanLine(tt.in); got != tt.want {
			t.Errorf("CleanLine(%q): got %q, want %q", tt.in, got, tt.want)
		}
	}
	if got := Clean(strings.Repeat("é", maxClean)); len(got) > maxClean+4 {
		t.Errorf("length: got %d", len(got))
	}
}
