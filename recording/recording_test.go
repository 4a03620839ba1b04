package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 11, 20, 9, 22, 6, 0, time.UTC)

func at(d time.Duration) time.Time { return start.Add(d) }

func header() Header {
	return Header{
		Width: 80, Height: 24, Title: "alice on frontend-1", Env: map[string]string{"TERM": "xterm-256color"},
		Metadata: Metadata{
			Session: "alice-0123456789abcdef0", Principal: "arn:aws:iam::111111111111:user/alice",
			Node: "i-060ee0879f3ec4eb7", NodeName: "frontend-1", Document: "SSM-SessionManagerRunShell",
			Reason: "ticket 7", Started: start,
		},
	}
}

func end(d time.Duration) End {
	status := 0
	return End{Reason: "exit", ExitStatus: &status, Ended: at(d)}
}

// must returns a check that nothing failed.
func must(t *testing.T) func(error) {
	return func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriter(t *testing.T) {
	var out bytes.Buffer
	w, err := NewWriter(&out, header())
	ok := must(t)
	ok(err)
	ok(w.Output(at(250*time.Millisecond), []byte("\x1b[1mh\u00e9llo\x1b[0m \"w\\d\"\r\n\t\x7f")))
	ok(w.Input(at(time.Second), []byte("ls\r")))
	ok(w.Resize(at(1500*time.Millisecond), 132, 43))
	ok(w.Marker(at(2*time.Second), "warned: idle"))
	summary, err := w.Close(end(3 * time.Second))
	ok(err)

	want := `{"version":2,"width":80,"height":24,"timestamp":1795166526,"title":"alice on frontend-1","env":{"TERM":"xterm-256color"},"sallyport":{"session":"alice-0123456789abcdef0","principal":"arn:aws:iam::111111111111:user/alice","node":"i-060ee0879f3ec4eb7","node_name":"frontend-1","document":"SSM-SessionManagerRunShell","reason":"ticket 7","started":"2026-11-20T09:22:06Z"}}
[0.250000, "o", "\u001b[1mhéllo\u001b[0m \"w\\d\"\r\n\t\u007f"]
[1.000000, "i", "ls\r"]
[1.500000, "r", "132x43"]
[2.000000, "m", "warned: idle"]
[3.000000, "e", "{\"reason\":\"exit\",\"exit_status\":0,\"ended\":\"2026-11-20T09:22:09Z\"}"]
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("recording (-want +got):\n%s", diff)
	}
	if summary.Size != int64(out.Len()) || summary.Duration != 3*time.Second || summary.End.Reason != "exit" || summary.Session != header().Session {
		t.Errorf("summary: got %+v", summary)
	}
	if again, err := w.Close(end(time.Hour)); err != nil || again.SHA256 != summary.SHA256 {
		t.Errorf("closing again: got %v, %v", again, err)
	}
	if err := w.Output(at(4*time.Second), []byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("output after close: got %v, want ErrClosed", err)
	}
}

func TestReaderReadsWhatWriterWrote(t *testing.T) {
	var out bytes.Buffer
	w, err := NewWriter(&out, header())
	ok := must(t)
	ok(err)
	ok(w.Output(at(time.Millisecond), []byte("one\r\n")))
	ok(w.Resize(at(2*time.Millisecond), 100, 30))
	_, err = w.Close(end(time.Second))
	ok(err)

	r, err := NewReader(&out)
	ok(err)
	if diff := cmp.Diff(header(), r.Header()); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	got := events(t, r)
	want := []Event{{time.Millisecond, KindOutput, "one\r\n"}, {2 * time.Millisecond, KindResize, "100x30"}}
	if diff := cmp.Diff(want, got[:2]); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if e := r.End(); len(got) != 3 || e == nil || e.Reason != "exit" || *e.ExitStatus != 0 || r.Truncated() {
		t.Errorf("end: got %+v after %d events", e, len(got))
	}
}

func events(t *testing.T, r *Reader) []Event {
	t.Helper()
	var out []Event
	for {
		e, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
}

// Messages cut output anywhere; however characters are cut, the text is the same.
func TestSplitCharacters(t *testing.T) {
	text := "a żółć ☃ é€😀 z"
	for size := 1; size <= 5; size++ {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			if got := replay(t, []byte(text), size); got != text {
				t.Errorf("got %q, want %q", got, text)
			}
		})
	}
}

// JSON has no room for bytes that are not UTF-8: each becomes U+FFFD, and what is
// around them stays.
func TestInvalidUTF8(t *testing.T) {
	tests := map[string]string{
		"a\xffb":               "a\ufffdb",
		"a\xe2\x98":            "a\ufffd\ufffd", // ends in the middle of a character
		"\xe2\x98\xe2\x98\x83": "\ufffd\ufffd\u2603",
		"\x80\x80":             "\ufffd\ufffd",
		"\xf0\x9fX":            "\ufffd\ufffdX",
		"\xc0\xafx":            "\ufffd\ufffdx",
		"\xed\xa0\x80":         "\ufffd\ufffd\ufffd",
	}
	for in, want := range tests {
		for size := 1; size <= 3; size++ {
			if got := replay(t, []byte(in), size); got != want {
				t.Errorf("%q cut by %d: got %q, want %q", in, size, got, want)
			}
		}
	}
}

// replay writes p in pieces of the given size and returns what the reader shows.
func replay(t *testing.T, p []byte, size int) string {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, header())
	ok := must(t)
	ok(err)
	for len(p) > 0 {
		n := min(size, len(p))
		ok(w.Output(at(0), p[:n]))
		p = p[n:]
	}
	_, err = w.Close(end(0))
	ok(err)
	r, err := NewReader(&out)
	ok(err)
	var shown strings.Builder
	for _, e := range events(t, r) {
		if e.Kind == KindOutput {
			shown.WriteString(e.Data)
		}
	}
	return shown.String()
}

func TestLargeOutputStaysInBounds(t *testing.T) {
	big := bytes.Repeat([]byte("\x1b\u00e9"), 200<<10)
	var out bytes.Buffer
	w, err := NewWriter(&out, header())
	ok := must(t)
	ok(err)
	ok(w.Output(at(0), big))
	if c := cap(w.buf); c > 128<<10 {
		t.Errorf("buffer grew to %d bytes", c)
	}
	ok(w.Flush())
	ok(w.Flush())
	if w.buf != nil {
		t.Error("an idle writer keeps its buffer")
	}
	for _, line := range bytes.Split(out.Bytes(), []byte("\n")) {
		if len(line) > 64<<10 {
			t.Fatalf("a line has %d bytes", len(line))
		}
	}
}

// Time does not run backwards, whatever the clock does.
func TestTimeIsMonotone(t *testing.T) {
	var out bytes.Buffer
	w, err := NewWriter(&out, header())
	ok := must(t)
	ok(err)
	ok(w.Output(at(5*time.Second), []byte("a")))
	ok(w.Output(at(-time.Hour), []byte("b")))
	ok(w.Flush())
	r, err := NewReader(&out)
	ok(err)
	if got := events(t, r); got[1].At != 5*time.Second {
		t.Errorf("got %v, want 5s", got[1].At)
	}
}

func TestWriterIsSafeForConcurrentUse(t *testing.T) {
	var out bytes.Buffer
	w, err := NewWriter(&out, header())
	ok := must(t)
	ok(err)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				_ = w.Output(at(time.Duration(i)), []byte("line\r\n"))
				_ = w.Flush()
			}
		})
	}
	wg.Wait()
	_, err = w.Close(end(time.Second))
	ok(err)
	r, err := NewReader(&out)
	ok(err)
	if got := len(events(t, r)); got != 801 {
		t.Errorf("got %d events, want 801", got)
	}
}

// failing takes a few bytes and then fails, as a full disk does.
type failing struct{ room int }

var errFull = errors.New("no space left")

func (f *failing) Write(p []byte) (int, error) {
	if len(p) > f.room {
		return f.room, errFull
	}
	f.room -= len(p)
	return len(p), nil
}

func TestFirstErrorSticks(t *testing.T) {
	w, err := NewWriter(&failing{room: 1000}, header())
	ok := must(t)
	ok(err)
	ok(w.Output(at(0), []byte("fits")))
	ok(w.Flush())
	ok(w.Output(at(0), bytes.Repeat([]byte("x"), 4000)))
	for name, err := range map[string]error{"flush": w.Flush(), "output": w.Output(at(0), []byte("y")), "resize": w.Resize(at(0), 1, 1), "err": w.Err()} {
		if !errors.Is(err, errFull) {
			t.Errorf("%s: got %v, want the first error", name, err)
		}
	}
	if _, err := w.Close(end(0)); !errors.Is(err, errFull) {
		t.Errorf("close: got %v, want the first error", err)
	}
}

func TestFullDevice(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("no /dev/full here: %v", err)
	}
	defer f.Close()
	if _, err := NewWriter(f, header()); err == nil {
		t.Error("got no error, want the header refused")
	}
}

func TestClosedFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	ok := must(t)
	ok(err)
	w, err := NewWriter(f, header())
	ok(err)
	ok(f.Close())
	ok(w.Output(at(0), []byte("lost")))
	if err := w.Flush(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v, want the file closed", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	const head = `{"version":2,"width":80,"height":24}` + "\n"
	tests := map[string]struct{ in, want string }{
		"empty":             {"", "no asciicast version 2 header"},
		"not JSON":          {"hello\n", "no asciicast version 2 header"},
		"version 3":         {`{"version":3}` + "\n", "no asciicast version 2 header"},
		"cut header":        {`{"version":2`, "no asciicast version 2 header"},
		"bad line":          {head + "[1,2\n[1,\"o\",\"x\"]\n", "line 2"},
		"two elements":      {head + "[1,\"o\"]\n", "an event has 3 elements, got 2"},
		"negative time":     {head + "[-1,\"o\",\"x\"]\n", "time -1 out of range"},
		"long kind":         {head + "[1,\"oo\",\"x\"]\n", `event kind "oo" is not one letter`},
		"line without end":  {head + "[1,\"o\",\"" + strings.Repeat("x", MaxLine) + "\"]\n", "line 2 exceeds"},
		"header of the sky": {strings.Repeat("x", MaxLine+1), "line 1 exceeds"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := NewReader(strings.NewReader(tt.in))
			for err == nil {
				_, err = r.Next()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

// A crash can stop the file anywhere; what is whole before that still plays.
func TestTruncatedAnywhere(t *testing.T) {
	var out bytes.Buffer
	w, err := NewWriter(&out, header())
	ok := must(t)
	ok(err)
	for i := range 3 {
		ok(w.Output(at(time.Duration(i)*time.Second), []byte("line\r\n")))
	}
	_, err = w.Close(end(4 * time.Second))
	ok(err)
	whole := out.Bytes()
	first := bytes.IndexByte(whole, '\n') + 1
	for n := first; n <= len(whole); n++ {
		r, err := NewReader(bytes.NewReader(whole[:n]))
		ok(err)
		got := len(events(t, r))
		if want := bytes.Count(whole[first:n], []byte("\n")); got != want {
			t.Fatalf("cut at %d: got %d events, want %d", n, got, want)
		}
		if cut := whole[n-1] != '\n'; r.Truncated() != cut {
			t.Fatalf("cut at %d: truncated is %v", n, r.Truncated())
		}
	}
}

// sink is a Sink that fails after some writes, if told to.
type sink struct {
	bytes.Buffer
	flushed  int
	fail     error
	finished *Summary
}

func (s *sink) Write(p []byte) (int, error) {
	n, _ := s.Buffer.Write(p)
	return n, s.fail
}

func (s *sink) Flush() error { s.flushed++; return s.fail }

func (s *sink) Finish(sum Summary) (Summary, error) {
	s.Buffer.Write(sum.EndLine())
	sum.Name, sum.Size = "name", int64(s.Len())
	s.finished = &sum
	return sum, s.fail
}

// A sink gets whole lines, is flushed when the writer is, and writes the end itself.
func TestSink(t *testing.T) {
	ok := must(t)
	var s sink
	w, err := NewWriter(&s, header())
	ok(err)
	ok(w.Output(at(time.Second), []byte("one")))
	before := s.flushed
	ok(w.Flush())
	if s.flushed != before+1 || !strings.HasSuffix(s.String(), "]\n") {
		t.Errorf("got %d flushes of %q", s.flushed-before, s.String())
	}
	ok(w.Output(at(2*time.Second), []byte("two")))
	sum, err := w.Close(end(3 * time.Second))
	ok(err)
	if sum.Name != "name" || sum.Size != int64(s.Len()) || sum.Duration != 3*time.Second || sum.Session != header().Session {
		t.Errorf("got %+v", sum)
	}
	r, err := NewReader(&s.Buffer)
	ok(err)
	if got := events(t, r); len(got) != 3 || r.End() == nil || r.End().Reason != end(0).Reason {
		t.Errorf("got %+v and end %v", got, r.End())
	}
}

// A sink that cannot go on ends the recording, which is finished all the same: what it took
// is not lost.
func TestSinkThatFails(t *testing.T) {
	ok := must(t)
	var s sink
	w, err := NewWriter(&s, header())
	ok(err)
	s.fail = errFull
	ok(w.Output(at(time.Second), []byte("one")))
	if err := w.Flush(); !errors.Is(err, errFull) {
		t.Errorf("got %v, want the sink's error", err)
	}
	if err := w.Output(at(2*time.Second), []byte("two")); !errors.Is(err, errFull) || !errors.Is(w.Err(), errFull) {
		t.Errorf("got %v and %v, want the sink's error", err, w.Err())
	}
	if _, err := w.Close(end(0)); !errors.Is(err, errFull) || s.finished == nil || !strings.Contains(s.String(), "one") {
		t.Errorf("got %v, finished %v", err, s.finished)
	}
}

func TestText(t *testing.T) {
	tests := map[string]struct {
		width    int
		in, want string
	}{
		"lines":                {80, "one\r\ntwo\r\n", "one\ntwo\n"},
		"no end of line":       {80, "$ ", "$\n"},
		"colours":              {80, "\x1b[1;31mred\x1b[0m plain\x1b(B\r\n", "red plain\n"},
		"title":                {80, "\x1b]0;alice@node\x07$ ls\r\n\x1b]2;x\x1b\\done\r\n", "$ ls\ndone\n"},
		"progress":             {80, "10%\r50%\r100%\r\n", "100%\n"},
		"shorter over longer":  {80, "hello\rJ\r\n", "Jello\n"},
		"backspace":            {80, "lss\b \b\r\n", "ls\n"},
		"erase to the end":     {80, "hello\b\b\b\x1b[K!\r\n", "he!\n"},
		"erase the line":       {80, "hello\r\x1b[2Kbye\r\n", "bye\n"},
		"insert and delete":    {80, "abd\b\x1b[@c\x1b[C!\r\x1b[P\r\n", "bcd!\n"},
		"a typing mistake":     {80, "lz\b\x1b[Ks\r\n", "ls\n"},
		"moving in the line":   {80, "abc\x1b[2D\x1b[1PX\x1b[K\r\n", "aX\n"},
		"inserting":            {80, "ac\x1b[D\x1b[@b\r\n", "abc\n"},
		"8-bit controls":       {80, "a\u009b31mb\u009d0;t\u009cc\r\n", "abc\n"},
		"cursor to a column":   {80, "abc\x1b[10Gx\r\n", "abc      x\n"},
		"tab":                  {80, "a\tb\r\n", "a       b\n"},
		"wrapped long line":    {10, "0123456789abcdef\r\n", "0123456789abcdef\n"},
		"wrapped by readline":  {10, "$ 01234567 \rabc\r\n", "$ 01234567abc\n"},
		"clear":                {80, "old\x1b[H\x1b[2J\x1b[3Jnew\r\n", "old\nnew\n"},
		"erase below":          {80, "$ l\x1b[J\x1b[?2004hs\r\n", "$ ls\n"},
		"full-screen program":  {80, "$ vi\r\n\x1b[?1049h\x1b[2;1Hfile\x1b[3;1H~\r\n\x1b[?1049l$ exit\r\n", "$ vi\n[full-screen program]\n$ exit\n"},
		"characters":           {80, "żółć ☃ 😀\r\n", "żółć ☃ 😀\n"},
		"bell and other signs": {80, "a\x07\x00\x7fb\u0085c\u202ed\r\n", "abcd\n"},
		"cut sequence":         {80, "a\x1b[31", "a\n"},
		"sequence of no end":   {80, "a\x1b]0;" + strings.Repeat("x", 1000), "a\n"},
		"huge parameter":       {80, "a\x1b[99999999999@\x1b[5000Cb\r\n", "a" + strings.Repeat(" ", 78) + "b\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, text(t, tt.width, tt.in)); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, text(t, tt.width, strings.Split(tt.in, "")...)); diff != "" {
				t.Errorf("text of characters one by one (-want +got):\n%s", diff)
			}
		})
	}
}

func text(t *testing.T, width int, shown ...string) string {
	t.Helper()
	var cast, out bytes.Buffer
	h := header()
	h.Width = width
	w, err := NewWriter(&cast, h)
	ok := must(t)
	ok(err)
	for _, s := range shown {
		ok(w.Output(at(0), []byte(s)))
	}
	_, err = w.Close(end(0))
	ok(err)
	ok(writeText(&cast, &out))
	return out.String()
}

func TestTextAfterResize(t *testing.T) {
	cast := `{"version":2,"width":5,"height":5}
[0,"o","12345"]
[1,"r","7x5"]
[2,"o","67 \r8\r\n"]
`
	var out bytes.Buffer
	must(t)(writeText(strings.NewReader(cast), &out))
	if want := "12345678\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestTextReportsFullDisk(t *testing.T) {
	cast := `{"version":2,"width":5,"height":5}` + "\n" + `[0,"o","` + strings.Repeat(`x\r\n`, 10000) + `"]` + "\n"
	if err := writeText(strings.NewReader(cast), &failing{}); !errors.Is(err, errFull) {
		t.Errorf("got %v, want the write's error", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(`{"version":2,"width":80,"height":24}` + "\n" + `[0.5,"o","a\u001b[2Kb\r\n"]` + "\n"))
	f.Add([]byte(`{"version":2}` + "\n" + `[1,"r","3x4"]` + "\n" + `[2,"e","{}"]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		_ = writeText(bytes.NewReader(b), &out)
		for _, r := range out.String() {
			if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 {
				t.Fatalf("control character %U in the text", r)
			}
		}
	})
}

// What is written is valid JSON and carries every valid byte.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("a\xff\xe2\x98\x83\x00"), 2)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if size < 1 || len(b) > 1<<12 {
			return
		}
		got := replay(t, b, size)
		if utf8.Valid(b) && got != string(b) {
			t.Errorf("got %q, want %q", got, b)
		}
		if want := string([]rune(string(b))); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func BenchmarkOutput(b *testing.B) {
	line := []byte(strings.Repeat("some output with \x1b[1mcolour\x1b[0m and ☃\r\n", 24))
	w, err := NewWriter(io.Discard, header())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Output(at(0), line); err != nil {
			b.Fatal(err)
		}
	}
}

func TestSummaryShape(t *testing.T) {
	b, err := json.Marshal(Summary{Name: "n", Metadata: Metadata{Reason: "why"}, End: End{Reason: "exit"}})
	must(t)(err)
	for _, want := range []string{`"reason":"why"`, `"end":{"reason":"exit"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("got %s, want %s in it", b, want)
		}
	}
}

// followed notes the events that it is told of.
type followed []string

func (f *followed) Follow(_ time.Duration, kind Kind, data []byte) {
	*f = append(*f, string(kind)+string(data))
}

// Followers get whole characters, in order, and the end.
func TestFollower(t *testing.T) {
	var got followed
	w, err := NewWriter(io.Discard, Header{Metadata: Metadata{Session: "s", Started: start}})
	if err != nil {
		t.Fatal(err)
	}
	w.Attach(&got)
	w.Output(start, []byte("a\xc3"))
	w.Output(start, []byte("\xa9b"))
	w.Resize(start, 100, 30)
	w.Close(End{Reason: "exit", Ended: start})
	want := followed{"oa", "oé", "ob", "r100x30", `e{"reason":"exit","ended":"2026-11-20T09:22:06Z"}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
}

// Every byte, wherever it stands among plain ones, becomes what encoding/json reads back.
func TestStringsOfAllBytes(t *testing.T) {
	for c := range 128 {
		for at := range 18 {
			in := []byte(strings.Repeat("x", 18))
			in[at] = byte(c)
			var got string
			must(t)(json.Unmarshal(appendString(nil, in), &got))
			if got != string(in) {
				t.Fatalf("got %q, want %q", got, in)
			}
		}
	}
}

// writeText writes a whole recording as text.
func writeText(r io.Reader, w io.Writer) error {
	rec, err := NewReader(r)
	if err != nil {
		return err
	}
	t := NewTextWriter(w, rec.Header().Width)
	for {
		e, err := rec.Next()
		if err == io.EOF {
			return t.Close()
		}
		if err != nil {
			return errors.Join(t.Close(), err)
		}
		if err := t.Take(e); err != nil {
			return err
		}
	}
}
