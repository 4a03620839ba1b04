package client

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// line is a line of a transcript of the official programs (wire/testdata/vectors).
type line struct {
	N       int    `json:"n"`
	From    string `json:"from"`
	To      string `json:"to"`
	Event   string `json:"ev"`
	Chan    string `json:"chan"`
	Text    string `json:"text"`
	Hex     string `json:"hex"`
	RelayOf int    `json:"relay_of"`
}

func vector(t *testing.T, name string) []line {
	t.Helper()
	file, err := os.Open(filepath.Join("..", "wire", "testdata", "vectors", name+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var lines []line
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var l line
		if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

// replay is one recorded session played to our client.
type replay struct {
	t      *testing.T
	server *fakeServer
	conn   *fakeConn
	hex    map[int]string
	sent   map[int64]bool // numbers of the agent's messages

	mu sync.Mutex
	// acked and typed are what the client sent: numbers acknowledged, and the payloads
	// of each type joined in the order of their numbers.
	acked map[int64]bool
	typed map[int64]*wire.Message
}

// play sends what the server sent to the plugin, reads what the client sends, and
// breaks the link where the server broke it.
func (r *replay) play(lines []line) {
	r.conn = r.server.next()
	stop := r.collect()
	for _, l := range lines {
		if l.Hex != "" {
			r.hex[l.N] = l.Hex
		}
		if l.To != "plugin" || l.From != "server" {
			continue
		}
		switch l.Event {
		case "ws-drop":
			time.Sleep(50 * time.Millisecond) // what is under way arrives
			r.conn.drop()
			stop()
			r.conn = r.server.next()
			stop = r.collect()
		case "ws-binary":
			b := l.Hex
			if b == "" {
				b = r.hex[l.RelayOf]
			}
			p, err := hex.DecodeString(b)
			if err != nil || len(p) == 0 {
				r.t.Fatalf("line %d: %v", l.N, err)
			}
			m, err := wire.Decode(p)
			if err != nil {
				r.t.Fatalf("line %d: %v", l.N, err)
			}
			switch m.Type {
			case wire.TypeAcknowledge:
				continue // of what the plugin typed, under its own numbers
			case wire.TypeChannelClosed:
				r.settle()
			case wire.TypeOutputStreamData:
				r.sent[m.SequenceNumber] = true
			}
			r.conn.raw(p)
		}
	}
	stop()
}

// settle waits until everything sent is acknowledged, as the official agent does
// before it lets a session end.
func (r *replay) settle() {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		r.mu.Lock()
		n := len(r.acked)
		r.mu.Unlock()
		if n == len(r.sent) {
			return
		}
	}
	r.t.Fatalf("acknowledged: got %d messages, want %d", len(r.acked), len(r.sent))
}

// collect reads from the client until the link ends; stop waits for that.
func (r *replay) collect() (stop func()) {
	c, done := r.conn, make(chan struct{})
	go func() {
		defer close(done)
		for {
			kind, p, err := c.conn.Read()
			if err != nil {
				return
			}
			m, err := wire.Decode(append([]byte(nil), p...))
			if kind != websocket.Binary || err != nil {
				r.t.Errorf("the client sent %q: %v", p, err)
				return
			}
			r.note(c, m)
		}
	}()
	return func() { <-done }
}

func (r *replay) note(c *fakeConn, m *wire.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m.Type {
	case wire.TypeAcknowledge:
		var ack wire.Acknowledge
		if err := json.Unmarshal(m.Payload, &ack); err != nil {
			r.t.Error(err)
		}
		r.acked[ack.SequenceNumber] = true
	case wire.TypeInputStreamData:
		r.typed[m.SequenceNumber] = m
		c.acknowledge(m)
	}
}

// expectation is what the official plugin did in the same session.
func expectation(lines []line) (screen string, acked []int64) {
	seen := map[int64]bool{}
	for _, l := range lines {
		if l.From == "plugin" && (l.Event == "terminal-out" || l.Event == "stdout") {
			screen += l.Text
		}
		if l.From != "plugin" || l.Event != "ws-binary" {
			continue
		}
		p, _ := hex.DecodeString(l.Hex)
		m, err := wire.Decode(p)
		if err != nil || m.Type != wire.TypeAcknowledge {
			continue
		}
		var ack wire.Acknowledge
		json.Unmarshal(m.Payload, &ack)
		if !seen[ack.SequenceNumber] {
			seen[ack.SequenceNumber] = true
			acked = append(acked, ack.SequenceNumber)
		}
	}
	sort.Slice(acked, func(i, j int) bool { return acked[i] < acked[j] })
	return screen, acked
}

// trimScreen leaves the session alone: without the plugin's first and last words,
// and without the carriage returns that its half-raw terminal adds.
func trimScreen(s string) string {
	_, s, _ = strings.Cut(strings.ReplaceAll(s, "\r", ""), "\nStarting session with SessionId: ")
	_, s, _ = strings.Cut(s, "\n")
	for _, end := range []string{"\n\nExiting session with sessionId: ", "\n\nSessionId: "} {
		if i := strings.LastIndex(s, end); i >= 0 {
			s = s[:i]
		}
	}
	return s
}

// Our client shows what the official plugin showed and acknowledges what it
// acknowledged, when it gets the same frames.
func TestReplay(t *testing.T) {
	for _, name := range []string{
		"03-shell", "04-shell-terminate-api", "05-shell-client-resume", "05b-shell-client-resume-pending-output",
		"06-shell-agent-reattach", "06b-shell-agent-reattach-pending-output", "13-interactive-command",
		"14-noninteractive-command", "14b-noninteractive-command-combined", "14c-noninteractive-command-lost-ack",
		"15-bad-parameter-separator",
	} {
		t.Run(name, func(t *testing.T) {
			lines := vector(t, name)
			wantScreen, wantAcked := expectation(lines)
			f := newFakeServer(t)
			out := newOutput()
			done := make(chan error, 1)
			var end End
			go func() {
				var err error
				end, err = RunShell(context.Background(), f.config(), ShellConfig{Plugin: true, Terminal: &Terminal{Stdin: os.Stdin, Stdout: out, Stderr: newOutput()}})
				done <- err
			}()
			r := &replay{t: t, server: f, hex: map[int]string{}, sent: map[int64]bool{}, acked: map[int64]bool{}, typed: map[int64]*wire.Message{}}
			r.play(lines)
			if err := <-done; err != nil {
				t.Fatalf("end: got %v", err)
			}
			if diff := cmp.Diff(trimScreen(wantScreen), strings.ReplaceAll(out.String(), "\r", "")); diff != "" {
				t.Errorf("screen (-plugin +ours):\n%s", diff)
			}
			for _, seq := range wantAcked {
				if !r.acked[seq] {
					t.Errorf("message %d was not acknowledged", seq)
				}
			}
			if strings.HasPrefix(name, "15") && end.Output == "" {
				t.Error("the server's words are missing")
			}
			checkHandshake(t, name, r.typed)
		})
	}
}

// checkHandshake wants an answer to the handshake in sessions that have one.
func checkHandshake(t *testing.T, name string, typed map[int64]*wire.Message) {
	answered := false
	for _, m := range typed {
		if m.PayloadType == wire.PayloadHandshakeResponse {
			answered = strings.Contains(string(m.Payload), `"ActionType":"SessionType","ActionStatus":1,"ActionResult":null`)
		}
	}
	if want := strings.HasPrefix(name, "14") || name == "15-bad-parameter-separator"; answered != want {
		t.Errorf("handshake answered: got %t, want %t", answered, want)
	}
}
