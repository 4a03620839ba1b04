package playback

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/recording"
)

const watched = `{"version":2,"width":20,"height":5}
[0.1, "o", "one\r\n"]

[0.2, "r", "30x6"]
[0.3, "o", "two"]
[0.4, "e", "{\"reason\":\"exit\",\"ended\":\"2026-11-20T09:00:00Z\"}"]
`

// Wherever a recording is cut, the screen is the same, and each event is told of once.
func TestLive(t *testing.T) {
	for piece := 1; piece <= len(watched); piece++ {
		l := NewLive()
		var kinds string
		l.Each = func(e recording.Event) error {
			kinds += string(e.Kind)
			return nil
		}
		for rest := watched; rest != ""; rest = rest[min(piece, len(rest)):] {
			if _, err := l.Write([]byte(rest[:min(piece, len(rest))])); err != nil {
				t.Fatal(err)
			}
		}
		cols, lines := l.Screen.Size()
		got := []any{rows(l.Screen), cols, lines, kinds, l.Header.Width, l.End != nil && l.End.Reason == "exit"}
		if diff := cmp.Diff([]any{[]string{"one", "two"}, 30, 6, "oroe", 20, true}, got); diff != "" {
			t.Fatalf("in pieces of %d (-want +got):\n%s", piece, diff)
		}
	}
}

// After what is left out a line begins, on an empty screen.
func TestLiveSkips(t *testing.T) {
	l := NewLive()
	for _, step := range []func(){
		func() { l.Write([]byte(watched[:50])) },
		func() { l.Skip(40, 7) },
		func() { l.Write([]byte("[0.3, \"o\", \"two\"]\n")) },
	} {
		step()
	}
	if cols, lines := l.Screen.Size(); cols != 40 || lines != 7 || l.Screen.Text(0) != "two" {
		t.Errorf("got %q on %dx%d, want two on 40x7", l.Screen.Text(0), cols, lines)
	}
	l.Skip(0, 0) // nobody knows the size
	if cols, lines := l.Screen.Size(); cols != 40 || lines != 7 || l.Screen.Text(0) != "" {
		t.Errorf("got %q on %dx%d, want nothing on 40x7", l.Screen.Text(0), cols, lines)
	}
}

func TestLiveRefuses(t *testing.T) {
	stop := errors.New("stop")
	tests := map[string]struct {
		in   string
		want error
	}{
		"no recording":      {"{}\n", recording.ErrFormat},
		"no event":          {"{\"version\":2}\n{}\n", recording.ErrFormat},
		"an endless line":   {strings.Repeat("x", recording.MaxLine+1), recording.ErrFormat},
		"what Each refuses": {watched, stop},
	}
	for name, tt := range tests {
		l := NewLive()
		l.Each = func(recording.Event) error { return stop }
		if _, err := l.Write([]byte(tt.in)); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}
