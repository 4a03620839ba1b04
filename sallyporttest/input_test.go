package sallyporttest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/client"
	"sallyport.dev/sallyporttest"
)

const inputDocument = "AWS-StartNonInteractiveCommand"

// inputRun is a command with input that has ended.
type inputRun struct {
	session   string
	out, errs bytes.Buffer
	end       client.End
	err       error
}

// startInput starts a command with input. The node may be about to say what its agent is.
func startInput(s *sallyporttest.System, api *client.API, t *testing.T, line string) client.Stream {
	t.Helper()
	var stream client.Stream
	s.Eventually(func() bool {
		var err error
		stream, err = api.Start(t.Context(), client.StartInput{
			Target: forwardNode, Document: inputDocument, Input: true, Parameters: map[string][]string{"command": {line}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return stream.Input
	}, "commands have input")
	return stream
}

// runInput runs a command line with input, to its end.
func runInput(s *sallyporttest.System, key sallyporttest.Key, t *testing.T, line string, stdin *os.File, change ...func(*client.ChannelConfig)) *inputRun {
	t.Helper()
	api := s.API(key)
	stream := startInput(s, api, t, line)
	cfg := client.ChannelConfig{Stream: stream, Dial: client.Dialer(api.TLS(), "sallyporttest"), Resume: api.ResumeSession, Logger: sallyporttest.Logger(t)}
	for _, c := range change {
		c(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := &inputRun{session: stream.SessionID}
	r.end, r.err = client.RunExec(ctx, cfg, &client.Terminal{Stdin: stdin, Stdout: &r.out, Stderr: &r.errs})
	return r
}

func (r *inputRun) want(t *testing.T, status int, out, errs string) {
	t.Helper()
	if r.err != nil || r.end.ExitStatus == nil || *r.end.ExitStatus != status {
		t.Errorf("got %+v, %v, want status %d", r.end, r.err, status)
	}
	if r.out.String() != out || r.errs.String() != errs {
		t.Errorf("got output %q and errors %q, want %q and %q", r.out.String(), r.errs.String(), out, errs)
	}
}

// feed is a pipe into which f writes, and which ends with it.
func feed(t *testing.T, f func(io.Writer)) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	writing.Go(func() {
		defer w.Close()
		f(w)
	})
	t.Cleanup(func() {
		r.Close()
		writing.Wait()
	})
	return r
}

func text(s string) func(io.Writer) { return func(w io.Writer) { io.WriteString(w, s) } }

func endless(w io.Writer) {
	for {
		if _, err := w.Write(bytes.Repeat([]byte("y\n"), 4096)); err != nil {
			return
		}
	}
}

func TestInput(t *testing.T) {
	s, key := forwardSystem(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, test := range []struct {
		name, line string
		stdin      *os.File
		status     int
		out, errs  string
	}{
		{"a pipe", "cat", feed(t, text("x\n")), 0, "x\n", ""},
		{"nothing", "cat", null, 0, "", ""},
		{"no file at all", "cat", nil, 0, "", ""},
		{"outputs apart", "sh -c 'cat; echo err >&2; exit 7'", feed(t, text("out")), 7, "out", "err\n"},
		{"words stay words", `printf %s, '$HOME' "a b"`, null, 0, "$HOME,a b,", ""},
		{"a reader that has enough", "head -1", feed(t, endless), 0, "y\n", ""},
		{"a command that does not read", "sh -c 'exit 5'", feed(t, endless), 5, "", ""},
		{"input that ends without a newline, keys in it", "od -An -c", feed(t, text("\x03\x04~.")), 0, " 003 004   ~   .\n", ""},
		{"a signal", "sh -c 'kill -9 $$'", null, 137, "", ""},
		{"no such program", "/no/such/program", feed(t, endless), 127, "", "Unable to start command: executing /no/such/program: no such file or directory\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			runInput(s, key, t, test.line, test.stdin).want(t, test.status, test.out, test.errs)
		})
	}
}

// 100 MB pass in both directions at once, through a link that breaks, intact.
func TestInputSurvivesCuts(t *testing.T) {
	size := 100_000_000
	if testing.Short() {
		size = 5_000_000
	}
	s, key := forwardSystem(t)
	sent := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(sent)
	var c cutter
	stop := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for range 5 {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
				c.cut()
			}
		}
	})
	r := runInput(s, key, t, "cat", feed(t, func(w io.Writer) { w.Write(sent) }), c.configure)
	close(stop)
	cutting.Wait()
	if r.err != nil || r.end.ExitStatus == nil || *r.end.ExitStatus != 0 {
		t.Errorf("got %+v, %v, want status 0", r.end, r.err)
	}
	if got, want := sha256.Sum256(r.out.Bytes()), sha256.Sum256(sent); got != want {
		t.Errorf("got %d bytes back, not the %d that were sent", r.out.Len(), size)
	}
	if c.cuts == 0 {
		t.Error("no link was cut")
	}
}

// A session that somebody ends while input is coming ends the client, and says why.
func TestInputTerminated(t *testing.T) {
	s, key := forwardSystem(t)
	api := s.API(key)
	var r *inputRun
	done := make(chan struct{})
	go func() {
		defer close(done)
		r = runInput(s, key, t, "sleep 100", feed(t, endless))
	}()
	s.Eventually(func() bool {
		list, err := api.ListSessions(t.Context(), client.ListSessionsInput{})
		if err != nil || len(list.Sessions) == 0 || list.Sessions[0].State != "Connected" {
			return false
		}
		return api.TerminateSessionFor(t.Context(), list.Sessions[0].SessionID, "lunch") == nil
	}, "the session is there to be ended")
	<-done
	if r.err != nil || r.end.ExitStatus != nil || !strings.Contains(r.end.Output, "lunch") {
		t.Errorf("got %+v, %v, want the reason", r.end, r.err)
	}
}

// A person whose token it is not cannot take the command's place, nor its input.
func TestInputOfAnotherPerson(t *testing.T) {
	s, key := forwardSystem(t)
	mallory := s.User("mallory", nil, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*"},
		{"Effect":"Allow","Action":["ssm:ResumeSession","ssm:TerminateSession"],"Resource":"arn:aws:ssm:*:*:session/${aws:username}-*"}]}`)
	stream := startInput(s, s.API(key), t, "cat")
	api := s.API(mallory)
	if _, err := api.ResumeSession(t.Context(), stream.SessionID); err == nil {
		t.Error("another person got a token")
	}
	own := startInput(s, api, t, "cat")
	own.SessionID, own.URL = stream.SessionID, stream.URL // with the token of their own session
	stdin := feed(t, text("smuggled"))
	_, err := client.RunExec(t.Context(), client.ChannelConfig{Stream: own, Dial: client.Dialer(api.TLS(), "x")},
		&client.Terminal{Stdin: stdin, Stdout: io.Discard, Stderr: io.Discard})
	if !errors.Is(err, client.ErrTimedOut) && !errors.Is(err, client.ErrLost) {
		t.Errorf("got %v, want that nothing answers", err)
	}
	api = s.API(key)
	r := &inputRun{}
	r.end, r.err = client.RunExec(t.Context(), client.ChannelConfig{Stream: stream, Dial: client.Dialer(api.TLS(), "x")},
		&client.Terminal{Stdin: feed(t, text("own")), Stdout: &r.out, Stderr: &r.errs})
	r.want(t, 0, "own", "")
}
