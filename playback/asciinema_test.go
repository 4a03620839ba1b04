package playback

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"sallyport.dev/internal/needs"
	"sallyport.dev/recording"
)

// Recordings are asciicasts to asciinema's own program, with what is ours in them: the
// header's object, resizes, markers and the end.
func TestAsciinemaReadsRecordings(t *testing.T) {
	asciinema := needs.Program(t, "asciinema")
	path := filepath.Join(t.TempDir(), "session.cast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	w, err := recording.NewWriter(f, recording.Header{Width: 80, Height: 24, Title: "alice on web", Env: map[string]string{"TERM": "xterm-256color"},
		Metadata: recording.Metadata{Session: "alice-1", Principal: "arn", Node: "i-1", Command: "ls", Started: start}})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		w.Resize(start, 100, 30), w.Output(start, []byte("one \x1b[31mżółć\x1b[0m\r\n")), w.Input(start, []byte("typed")),
		w.Marker(start.Add(time.Millisecond), "here"), w.Output(start.Add(2*time.Millisecond), []byte("\xffend\r\n")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(recording.End{Reason: "exit", Ended: start.Add(3 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"cat", "play"} {
		cmd := exec.Command(asciinema, command, path)
		cmd.Env = append(os.Environ(), "ASCIINEMA_CONFIG_HOME="+t.TempDir(), "LC_ALL=C.UTF-8")
		terminal, err := pty.Start(cmd) // it wants one, whatever it is asked to do
		if err != nil {
			t.Fatal(err)
		}
		out, _ := io.ReadAll(terminal) // which a terminal ends with an error
		terminal.Close()
		err = cmd.Wait()
		if got, want := strings.ReplaceAll(string(out), "\r\r\n", "\r\n"), "one \x1b[31mżółć\x1b[0m\r\n\ufffdend\r\n"; err != nil || got != want {
			t.Errorf("asciinema %s: got %q, %v, want %q", command, got, err, want)
		}
	}
}
