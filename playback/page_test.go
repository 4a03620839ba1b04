package playback

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"sallyport.dev/internal/browser"
)

// cast makes a recording of lines, which are events.
func cast(t testing.TB, header string, events ...[3]any) *Tape {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(header + "\n")
	for _, e := range events {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	tape, err := NewTape(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return tape
}

const plainHeader = `{"version":2,"width":20,"height":4,"title":"alice on web"}`

func page(t testing.TB, tape *Tape, o FrameOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := WritePage(&b, tape, tape.Header.Title, []Fact{{"Reason", tape.Header.Reason}}, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A recording that tries everything to run script, to load or to be followed somewhere.
func hostileTape(t testing.TB) *Tape {
	const evil = `</script><script>document.title='owned'</script><img src=x onerror="document.title='owned'"><!--<script>`
	header, err := json.Marshal(map[string]any{
		"version": 2, "width": 200, "height": 10, "title": evil,
		"sallyport": map[string]any{"session": "s", "principal": "p", "node": "n", "reason": evil, "command": evil, "started": time.Time{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return cast(t, string(header),
		[3]any{0.1, "o", evil + "\r\n"},
		[3]any{0.2, "o", "\x1b]8;;javascript:document.title='owned'\x1b\\click me\x1b]8;;\x1b\\\r\n"},
		[3]any{0.3, "o", "\x1b]0;" + evil + "\x07\u2028\u2029\u202e\r\n"},
		[3]any{0.4, "m", evil},
		[3]any{0.5, "o", "\x1b[38;2;1;2;3mhttps://evil.example/\x1b[0m 漢字 e\u0301\r\n"},
		[3]any{0.6, "o", "the end"},
	)
}

// Attack: a reason turns the direction of the text around, so that the page says something
// else of whose session it was.
func TestPageFactsAreClean(t *testing.T) {
	var b bytes.Buffer
	err := WritePage(&b, hostileTape(t), "t", []Fact{{"Reason", "for \u202eecila\u202c \u2066x\x1b\u0085"}}, FrameOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\u202e\u202c\u2066\x1b\u0085") || !strings.Contains(b.String(), "for \ufffdecila") {
		t.Error("the page has characters that turn text around")
	}
}

// Nothing of what was recorded gets into the page but as data that cannot end its script.
func TestPageEscapes(t *testing.T) {
	got := page(t, hostileTape(t), FrameOptions{})
	if n := strings.Count(got, "<script"); n != 2 {
		t.Errorf("%d script elements, want the data's and the page's own", n)
	}
	for _, bad := range []string{"<img", "<!--", "onerror=\"", "javascript:", " src=\"", "href="} {
		if strings.Contains(got, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if !strings.Contains(got, "default-src 'none'") {
		t.Error("the page has no policy")
	}
}

// viewer is a page in Chromium.
type viewer struct {
	t   *testing.T
	ctx context.Context
	dir string

	mu    sync.Mutex
	loads []string
}

func newViewer(t *testing.T) *viewer {
	v := &viewer{t: t, ctx: browser.New(t), dir: t.TempDir()}
	err := chromedp.Listen(v.ctx, func(ev any) {
		if e, ok := ev.(*network.EventRequestWillBeSent); ok {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.loads = append(v.loads, e.Request.URL)
		}
	})
	if err == nil {
		_, err = chromedp.Call(v.ctx, network.Enable, network.EnableParams{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// open shows a page, and returns its address.
func (v *viewer) open(name, html string) string {
	v.t.Helper()
	path := filepath.Join(v.dir, name)
	if err := os.WriteFile(path, []byte(html), 0o600); err != nil {
		v.t.Fatal(err)
	}
	address := (&url.URL{Scheme: "file", Path: path}).String()
	if err := chromedp.Do(v.ctx, chromedp.Navigate(address)); err != nil {
		v.t.Fatal(err)
	}
	return address
}

func eval[T any](v *viewer, expression string) T {
	v.t.Helper()
	got, err := chromedp.Run(v.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		v.t.Fatalf("%s: %v", expression, err)
	}
	return got
}

// text is what the screen shows, without empty lines.
func (v *viewer) text() []string {
	v.t.Helper()
	return eval[[]string](v, `document.getElementById("screen").innerText.split("\n").map(l => l.trimEnd()).filter(l => l)`)
}

func (v *viewer) seek(ms int) []string {
	v.t.Helper()
	eval[bool](v, fmt.Sprintf(`(() => { const s = document.getElementById("seek"); s.value = "%d"; return s.dispatchEvent(new Event("input")) })()`, ms))
	return v.text()
}

// TestPageInBrowser plays a page in Chromium.
func TestPageInBrowser(t *testing.T) {
	var events [][3]any
	for i := range 1000 { // keyframes are every hundred
		if i == 500 {
			events = append(events, [3]any{50.0, "m", "half"})
		}
		events = append(events, [3]any{float64(i) / 10, "o", fmt.Sprintf("\x1b[2J\x1b[H\x1b[31mframe\x1b[0m %d\r\n", i)})
	}
	v := newViewer(t)
	v.open("plain.html", page(t, cast(t, plainHeader, events...), FrameOptions{}))
	check := func(what string, got, want []string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("at first", v.text(), []string{"frame 0"})
	check("late", v.seek(90_000), []string{"frame 900"})
	check("back", v.seek(12_340), []string{"frame 123"})
	check("a little further", v.seek(12_440), []string{"frame 124"})
	eval[any](v, `document.querySelector("#marks button").click()`)
	check("at the mark", v.text(), []string{"frame 500"})
	check("clock and mark", []string{eval[string](v, `document.getElementById("clock").textContent`), eval[string](v, `document.querySelector("#marks button.now").textContent`)},
		[]string{"0:50 / 1:39", "0:50  half"})
	if got := eval[string](v, `getComputedStyle(document.querySelector("#screen span")).color`); got != "rgb(205, 49, 49)" {
		t.Errorf("colour: got %s", got)
	}
	v.seek(99_700)
	eval[any](v, `document.getElementById("play").click()`)
	if _, err := chromedp.Run(v.ctx, chromedp.Poll[bool](`document.getElementById("seek").value === "99900" && document.getElementById("play").textContent === "Play"`)); err != nil {
		t.Fatal(err)
	}
	check("played to the end", v.text(), []string{"frame 999"})
}

// A hostile recording runs nothing, links to nothing and loads nothing.
func TestHostilePageInBrowser(t *testing.T) {
	v := newViewer(t)
	address := v.open("hostile.html", page(t, hostileTape(t), FrameOptions{}))
	shown := strings.Join(v.seek(600), "\n")
	for _, want := range []string{"<img src=x onerror=", "click me", "漢字", "the end"} {
		if !strings.Contains(shown, want) {
			t.Errorf("shown: %q, want %q in it", shown, want)
		}
	}
	if got := eval[string](v, "document.title"); !strings.HasPrefix(got, "</script><script>") {
		t.Errorf("title: got %q", got)
	}
	counts := eval[[]int](v, `["script", "img", "a", "iframe", "[onerror]", "#marks button"].map(s => document.querySelectorAll(s).length)`)
	if diff := cmp.Diff([]int{2, 0, 0, 0, 0, 2}, counts); diff != "" {
		t.Errorf("elements (-want +got):\n%s", diff)
	}
	// The page's policy keeps what would get into it all the same from running.
	eval[any](v, `(() => { const s = document.createElement("script"); s.textContent = "document.title='owned'"; document.body.append(s); new Image().src = "https://evil.example/"; document.body.insertAdjacentHTML("beforeend", "<img src=x onerror=\"document.title='owned'\">"); })()`)
	time.Sleep(100 * time.Millisecond)
	if got := eval[string](v, "document.title"); got == "owned" {
		t.Error("the policy lets scripts run that are not the page's own")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, l := range v.loads {
		if l != address && !strings.Contains(l, "evil.example") && !strings.HasSuffix(l, "/x") {
			t.Errorf("the page loads %s", l)
		}
	}
}

func TestFrames(t *testing.T) {
	tape := cast(t, plainHeader,
		[3]any{0.0, "o", "a"}, [3]any{0.01, "o", "b"}, [3]any{1.0, "o", "c"}, [3]any{61.0, "o", "d"}, [3]any{61.5, "r", "30x5"}, [3]any{62.0, "o", "e"})
	type shown struct {
		At   time.Duration
		Text string
	}
	ms := time.Millisecond
	tests := []struct {
		name string
		o    FrameOptions
		want []shown
	}{
		{"as it was", FrameOptions{}, []shown{{0, "a"}, {10 * ms, "ab"}, {1000 * ms, "abc"}, {61000 * ms, "abcd"}, {61500 * ms, "abcd"}, {62000 * ms, "abcde"}}},
		{"pauses cut", FrameOptions{IdleLimit: 500 * ms}, []shown{{0, "a"}, {10 * ms, "ab"}, {510 * ms, "abc"}, {1010 * ms, "abcd"}, {1510 * ms, "abcd"}, {2010 * ms, "abcde"}}},
		{"at most every 100 ms", FrameOptions{IdleLimit: 500 * ms, Interval: 100 * ms}, []shown{{0, "a"}, {100 * ms, "ab"}, {510 * ms, "abc"}, {1010 * ms, "abcd"}, {1510 * ms, "abcd"}, {2010 * ms, "abcde"}}},
		{"twice as fast", FrameOptions{Speed: 2, From: 60 * time.Second}, []shown{{0, "abc"}, {500 * ms, "abcd"}, {750 * ms, "abcd"}, {1000 * ms, "abcde"}}},
		{"a part", FrameOptions{From: 500 * ms, To: 61 * time.Second, IdleLimit: time.Second}, []shown{{0, "ab"}, {500 * ms, "abc"}, {1500 * ms, "abcd"}}},
		{"behind the end", FrameOptions{From: time.Hour}, []shown{{0, "abcde"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []shown
			if err := tape.Frames(tt.o, func(f Frame) error {
				got = append(got, shown{f.At.Round(ms), f.Screen.Text(0)})
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
