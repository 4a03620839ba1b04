package transfer

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/internal/needs"
)

func TestSCPCommand(t *testing.T) {
	for _, c := range []struct {
		command    string
		fromClient bool
		ok         bool
	}{
		{"scp -t /tmp/x", true, true},
		{"scp -v -r -p -d -t -- /tmp/x", true, true},
		{"scp -rf .", false, true},
		{"/usr/bin/scp -f x", false, true},
		{"scp a b", false, false},
		{"scp -r -- -t x", false, false},
		{"rsync --server -t", false, false},
		{"", false, false},
	} {
		_, fromClient, ok := NewSCP(c.command, nil)
		if fromClient != c.fromClient || ok != c.ok {
			t.Errorf("%q: got %v, %v, want %v, %v", c.command, fromClient, ok, c.fromClient, c.ok)
		}
	}
}

// The source's name for a file is not where it goes to.
func TestSCPOperand(t *testing.T) {
	for command, want := range map[string]string{
		"scp -t /etc/cron.d/x":          "/etc/cron.d/x",
		"scp -v -r -t -p -- /srv/a  b ": "/srv/a b",
		"scp -rt -- -x":                 "-x",
		"scp -t":                        "",
	} {
		var got []Event
		s, _, _ := NewSCP(command, func(e Event) { got = append(got, e) })
		s.Sink([]byte{0})
		s.Source([]byte("C0644 0 readme\n"))
		s.Sink([]byte{0})
		s.Source([]byte{0})
		s.Sink([]byte{0})
		if diff := cmp.Diff([]Event{{Operation: Upload, Path: "readme", Target: want, SHA256: sum("")}}, got); diff != "" {
			t.Errorf("%q: %s", command, diff)
		}
	}
}

// Two real programs with an SCP between them.
func TestSCPOfRealEnds(t *testing.T) {
	program := needs.Program(t, "scp")
	from, to := t.TempDir(), t.TempDir()
	big := strings.Repeat("0123456789abcdef", 20_000)
	os.Mkdir(filepath.Join(from, "d"), 0o700)
	os.WriteFile(filepath.Join(from, "d", "big"), []byte(big), 0o600)
	os.WriteFile(filepath.Join(from, "d", "empty"), nil, 0o600)
	var events []Event
	s, _, _ := NewSCP("scp -r -f d", func(e Event) { events = append(events, e) })
	source := exec.CommandContext(t.Context(), program, "-r", "-f", filepath.Join(from, "d"))
	sink := exec.CommandContext(t.Context(), program, "-r", "-t", to)
	run(t, source, sink, s)
	s.Close()
	want := []Event{
		{Operation: Download, Path: "d/big", Target: "d", Bytes: int64(len(big)), SHA256: sum(big)},
		{Operation: Download, Path: "d/empty", Target: "d", SHA256: sum("")},
	}
	less := cmp.Transformer("byPath", func(all []Event) map[string]Event {
		m := map[string]Event{}
		for _, e := range all {
			m[e.Path] = e
		}
		return m
	})
	if diff := cmp.Diff(want, events, less); diff != "" {
		t.Error(diff)
	}
}

func run(t *testing.T, source, sink *exec.Cmd, s *SCP) {
	t.Helper()
	var pipes [2]struct {
		in  io.WriteCloser
		out io.Reader
	}
	for i, c := range []*exec.Cmd{source, sink} {
		pipes[i].in, _ = c.StdinPipe()
		pipes[i].out, _ = c.StdoutPipe()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan struct{}, 2)
	take := func(f func([]byte)) func([]byte) error { return func(p []byte) error { f(p); return nil } }
	go func() { pass(pipes[1].in, pipes[0].out, take(s.Source)); pipes[1].in.Close(); ended <- struct{}{} }()
	go func() { pass(pipes[0].in, pipes[1].out, take(s.Sink)); pipes[0].in.Close(); ended <- struct{}{} }()
	<-ended
	<-ended
	for _, c := range []*exec.Cmd{source, sink} {
		if err := c.Wait(); err != nil {
			t.Errorf("%v: %v", c.Args, err)
		}
	}
}

// turn is what one end sends: sink is true for the sink.
type turn struct {
	sink bool
	text string
}

func scpEvents(turns []turn) (events []Event) {
	s, _, _ := NewSCP("scp -t to", func(e Event) { events = append(events, e) })
	for _, n := range turns {
		if n.sink {
			s.Sink([]byte(n.text))
		} else {
			s.Source([]byte(n.text))
		}
	}
	s.Close()
	return events
}

func TestSCPTurns(t *testing.T) {
	ok := turn{true, "\x00"}
	says := func(text string) turn { return turn{false, text} }
	for _, c := range []struct {
		name  string
		turns []turn
		want  []Event
	}{
		{"one file", []turn{ok, says("C0644 2 f\n"), ok, says("hi\x00"), ok},
			[]Event{{Operation: Upload, Path: "f", Bytes: 2, SHA256: sum("hi")}}},
		{"with times", []turn{ok, says("T1 0 1 0\n"), ok, says("C0644 2 f\n"), ok, says("hi\x00"), ok},
			[]Event{{Operation: Upload, Path: "f", Bytes: 2, SHA256: sum("hi")}}},
		{"refused", []turn{ok, says("C0644 2 f\n"), {true, "\x01scp: f: Permission denied\n"}, says("C0644 1 g\n"), ok, says("x\x00"), ok},
			[]Event{{Operation: Upload, Path: "f", Error: "scp: f: Permission denied"}, {Operation: Upload, Path: "g", Bytes: 1, SHA256: sum("x")}}},
		{"folders", []turn{ok, says("D0755 0 d\n"), ok, says("C0644 0 f\n"), ok, says("\x00"), ok, says("E\n"), ok, says("C0644 0 g\n"), ok, says("\x00"), ok},
			[]Event{{Operation: Upload, Path: "d/f", SHA256: sum("")}, {Operation: Upload, Path: "g", SHA256: sum("")}}},
		{"broken off", []turn{ok, says("C0644 9 f\n"), ok, says("hi")},
			[]Event{{Operation: Upload, Path: "f", Bytes: 2, Note: "the transfer broke off", Error: "broken off"}}},
		{"does not wait", []turn{ok, says("C0644 2 f\nhi\x00")},
			[]Event{{Operation: Unfollowed, Path: "f", Note: "not the protocol of scp: the source did not wait for an answer"}}},
		{"not scp at all", []turn{ok, says("#!/bin/sh\n")},
			[]Event{{Operation: Unfollowed, Note: "not the protocol of scp: an unknown record"}}},
		{"no size", []turn{ok, says("C0644 -1 f\n")},
			[]Event{{Operation: Unfollowed, Note: "not the protocol of scp: a record without a size"}}},
		{"an endless line", []turn{ok, says("C0644 1 " + strings.Repeat("x", maxLine))},
			[]Event{{Operation: Unfollowed, Note: "not the protocol of scp: a line is too long"}}},
		{"answers out of turn", []turn{ok, ok},
			[]Event{{Operation: Unfollowed, Note: "not the protocol of scp: the sink answered out of turn"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range c.want {
				if c.want[i].Operation == Upload {
					c.want[i].Target = "to"
				}
			}
			if diff := cmp.Diff(c.want, scpEvents(c.turns)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzSCP(f *testing.F) {
	f.Add("\x00", "C0644 2 f\nhi\x00", uint8(1))
	f.Add("\x00\x00\x00", "D0755 0 d\nE\n", uint8(3))
	f.Fuzz(func(t *testing.T, sink, source string, cut uint8) {
		var turns []turn
		n := int(cut)%16 + 1
		for len(sink)+len(source) > 0 {
			a, b := min(n, len(sink)), min(n, len(source))
			turns = append(turns, turn{true, sink[:a]}, turn{false, source[:b]})
			sink, source = sink[a:], source[b:]
		}
		for _, e := range scpEvents(turns) {
			if e.Bytes < 0 || len(e.Path) > maxPath+16 {
				t.Errorf("event out of bounds: %+v", e)
			}
		}
	})
}
