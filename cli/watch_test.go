package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"sallyport.dev/client"
	"sallyport.dev/internal/readalong"
)

// watchServer is the server of a session that is being recorded.
type watchServer struct {
	url string

	mu        sync.Mutex
	recording string // as far as it has come
	piece     int    // bytes of it in one answer
	skip      int    // what lies before is skipped
	over      bool
	away      int    // so many questions are answered with an error
	refusal   string // of questions after the first
	left      bool   // somebody has said that they leave
}

func newWatchServer(t *testing.T, s *watchServer) *watchServer {
	s.url = serve(t, s)
	return s
}

func (s *watchServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in client.WatchSessionInput
	json.NewDecoder(r.Body).Decode(&in)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Header.Get("X-Amz-Target") != "Sallyport.WatchSession" || in.SessionID != "alice-0a" || in.Watch != "w" && in.Watch != "":
		refuse(w, "ValidationException", "another question was expected")
	case s.away > 0 && in.Watch != "":
		s.away--
		w.WriteHeader(http.StatusServiceUnavailable)
	case s.refusal != "" && in.Watch != "" && !in.Leave:
		refuse(w, "AccessDeniedException", s.refusal)
	default:
		out := s.answer(in)
		if len(out.Data) == 0 && !out.Ended {
			time.Sleep(20 * time.Millisecond) // as the server waits for something to tell
		}
		json.NewEncoder(w).Encode(out)
	}
}

func (s *watchServer) answer(in client.WatchSessionInput) (out client.WatchSessionOutput) {
	out.Watch, out.Offset, out.Columns, out.Rows = "w", in.Offset, 20, 5
	if in.Leave {
		s.left, out.Ended = true, true
		return out
	}
	if out.Skipped = int(in.Offset) < s.skip; out.Skipped {
		out.Offset = int64(s.skip)
	}
	rest := s.recording[out.Offset:]
	out.Data = []byte(rest[:min(len(rest), s.piece)])
	out.NextOffset = out.Offset + int64(len(out.Data))
	out.Ended = s.over && len(out.Data) == len(rest)
	return out
}

func (s *watchServer) hasLeft() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

func (s *watchServer) run(t *testing.T, stdin *os.File, stdout io.Writer) (status int, stderr string) {
	t.Helper()
	var errs bytes.Buffer
	folder := t.TempDir()
	p := &program{stdin: stdin, stdout: stdout, stderr: &errs, getenv: func(k string) string {
		return map[string]string{"XDG_STATE_HOME": folder, "XDG_CONFIG_HOME": folder}[k]
	}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return p.run(ctx, []string{"--endpoint-url", s.url, "--region", "us-east-1", "watch", "alice-0a"}), errs.String()
}

const (
	watchedHeader = `{"version":2,"width":20,"height":5}` + "\n"
	watchedShown  = `[0.5, "o", "one\r\ntw"]` + "\n" + `[0.6, "o", "o \u001b[31mred\u001b]52;c;cm0=\u0007\u202e\r\n"]` + "\n"
	watchedEnd    = `[9.0, "e", "{\"reason\":\"exit\",\"ended\":\"2026-11-20T09:00:00Z\"}"]` + "\n"
)

// In a pipe it is plain text, whatever pieces it comes in, with nothing that a terminal
// would act on.
func TestWatchAsText(t *testing.T) {
	const whole = watchedHeader + watchedShown + `[1.0, "o", "three"]` + "\n" + watchedEnd
	tests := []struct {
		name   string
		server *watchServer
		stdout string
		stderr string // a part
		status int
		leaves bool
	}{
		{"at once", &watchServer{recording: whole, piece: 1000, over: true}, "one\ntwo red\nthree\n", "the session has ended: exit", 0, false},
		{"byte by byte", &watchServer{recording: whole, piece: 1, over: true}, "one\ntwo red\nthree\n", "the session has ended: exit", 0, false},
		{"a server that is away for a moment", &watchServer{recording: whole, piece: 100, over: true, away: 1}, "one\ntwo red\nthree\n", "ended", 0, false},
		{"what lies far back is left out", &watchServer{recording: whole, piece: 7, over: true, skip: len(watchedHeader + watchedShown)}, "three\n", "ended", 0, false},
		{"the right to is taken away", &watchServer{recording: whole, piece: 100, refusal: "not allowed any more"}, "one\n", "not allowed any more", statusRefused, true},
		{"no recording", &watchServer{recording: "{}\n", piece: 100}, "", "not a recording", 1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newWatchServer(t, tt.server)
			var stdout bytes.Buffer
			status, stderr := s.run(t, nil, &stdout)
			if status != tt.status || stdout.String() != tt.stdout || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("got status %d, %q, %q; want %d, %q, and %q in it", status, stdout.String(), stderr, tt.status, tt.stdout, tt.stderr)
			}
			if s.hasLeft() != tt.leaves {
				t.Errorf("told the server that it leaves: got %v, want %v", !tt.leaves, tt.leaves)
			}
		})
	}
}

// Who is stopped while they draw gets no answer that is none.
func TestNoAnswersAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	answers, _, stop := (&watcher{}).answers(ctx, &client.WatchSessionOutput{})
	stop()
	select {
	case a := <-answers:
		t.Errorf("got %+v", a)
	default:
	}
}

// watchScreen is a person's terminal on which a session is watched.
func (s *watchServer) watchScreen(t *testing.T) (shown *readalong.Text, master *os.File, ended <-chan int) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	pty.Setsize(master, &pty.Winsize{Cols: 60, Rows: 10})
	shown = &readalong.Text{}
	drained, status := make(chan struct{}), make(chan int, 1)
	go func() {
		defer close(drained)
		io.Copy(shown, master) // ends when both ends are closed
	}()
	go func() {
		got, _ := s.run(t, slave, slave)
		slave.Close()
		status <- got
	}()
	t.Cleanup(func() {
		master.Close()
		<-drained
	})
	return shown, master, status
}

func wantShown(t *testing.T, shown *readalong.Text, pattern string) {
	t.Helper()
	if err := shown.Await(regexp.MustCompile(pattern), 30*time.Second); err != nil {
		t.Fatal(err)
	}
}

// On a terminal it is the session's screen; q leaves, and gives the terminal back.
func TestWatchOnTerminal(t *testing.T) {
	s := newWatchServer(t, &watchServer{recording: watchedHeader + watchedShown, piece: 1000})
	shown, keys, ended := s.watchScreen(t)
	wantShown(t, shown, `one(?s:.)*two (?s:.)*red(?s:.)*watching alice-0a  20x5  q leaves`)
	io.WriteString(keys, "xq")
	wantShown(t, shown, `\x1b\[\?1049l`)
	if status := <-ended; status != 0 || !s.hasLeft() {
		t.Errorf("got status %d, told the server %v; want 0 and that it is told", status, s.hasLeft())
	}
	if got := shown.String(); strings.Contains(got, "\x1b]") || strings.Contains(got, "\u202e") {
		t.Errorf("the session's own sequences reach the terminal: %q", got)
	}
}

// The last screen of a session that ends stays on the terminal.
func TestWatchToTheEndOnTerminal(t *testing.T) {
	s := newWatchServer(t, &watchServer{recording: watchedHeader + watchedShown + watchedEnd, piece: 30, over: true})
	shown, _, ended := s.watchScreen(t)
	wantShown(t, shown, `\x1b\[\?1049l(?s:.)*one\r\ntwo (?s:.)*red`)
	if status := <-ended; status != 0 || s.hasLeft() {
		t.Errorf("got status %d, told the server that it leaves %v; want 0 and that it is not", status, s.hasLeft())
	}
}
