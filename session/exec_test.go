package session

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/audit"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

func withExec(e wire.Exec) func(*StartRequest) {
	return func(r *StartRequest) {
		r.Session.SessionType = "NonInteractiveCommands"
		r.Start.Exec, r.Options.Record = &e, true
	}
}

// In sessions of the SSH front door, what has no place arrives empty.
func TestExecPayloads(t *testing.T) {
	terminal := &wire.ExecTerminal{Term: "xterm"}
	for _, c := range []struct {
		name    string
		exec    wire.Exec
		agent   bool
		payload wire.PayloadType
		text    string
		passes  bool
	}{
		{"output", wire.Exec{}, true, wire.PayloadOutput, "x", true},
		{"errors", wire.Exec{}, true, wire.PayloadStdErr, "x", true},
		{"exit", wire.Exec{}, true, wire.PayloadExecControl, `{"Op":"exit","Status":7}`, true},
		{"signal from the agent", wire.Exec{}, true, wire.PayloadExecControl, `{"Op":"signal","Signal":"TERM"}`, false},
		{"control that hides text", wire.Exec{}, true, wire.PayloadExecControl, strings.Repeat("x", 2000), false},
		{"a handshake", wire.Exec{}, true, wire.PayloadHandshakeRequest, `{}`, false},
		{"an exit code of AWS's", wire.Exec{}, true, wire.PayloadExitCode, "EXIT_CODE: 3", false},
		{"agent streams that nobody asked for", wire.Exec{}, true, wire.PayloadExecStreams, "x", false},
		{"agent streams", wire.Exec{ForwardAgent: true}, true, wire.PayloadExecStreams, "x", true},
		{"end of input", wire.Exec{}, false, wire.PayloadExecControl, `{"Op":"eof"}`, true},
		{"exit from the client", wire.Exec{}, false, wire.PayloadExecControl, `{"Op":"exit"}`, false},
		{"size without a terminal", wire.Exec{}, false, wire.PayloadSize, `{"cols":1,"rows":2}`, false},
		{"size", wire.Exec{Terminal: terminal}, false, wire.PayloadSize, `{"cols":1,"rows":2}`, true},
		{"errors from the client", wire.Exec{}, false, wire.PayloadStdErr, "x", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			_, _, agent, client := w.pair(withExec(c.exec))
			from, to, typ := client, agent, wire.TypeInputStreamData
			if c.agent {
				from, to, typ = agent, client, wire.TypeOutputStreamData
			}
			from.conn.Write(websocket.Binary, wire.NewStream(typ, 0, c.payload, time.Now(), []byte(c.text)).Encode())
			eventually(t, "the message", func() bool { to.mu.Lock(); defer to.mu.Unlock(); return len(to.frames) >= 1 })
			to.mu.Lock()
			defer to.mu.Unlock()
			m, err := wire.Decode(to.frames[0])
			if err != nil {
				t.Fatal(err)
			}
			if got := string(m.Payload) == c.text && m.PayloadType == c.payload; got != c.passes {
				t.Errorf("got %q of type %d, want passed %v", m.Payload, m.PayloadType, c.passes)
			}
		})
	}
}

// A command's output is recorded up to the limit, and summed up beyond it.
func TestExecRecordLimit(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.RecordLimit = 10 })
	_, id, agent, client := w.pair(withExec(wire.Exec{Command: "cat big"}))
	agent.say("0123456789")
	agent.say("abc")
	client.wantText("output", "0123456789abc")
	w.g.Terminate(t.Context(), id, &Cause{Reason: ReasonTerminated})
	w.wantState(id, StateTerminated)
	const rest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // sha256 of abc
	want := "0123456789\r\n[sallyport] 3 more bytes of output were not recorded; SHA-256 of them: " + rest + "\r\n"
	if diff := cmp.Diff(want, w.rec.text()); diff != "" {
		t.Error(diff)
	}
}

// The session ends with its client, which cannot come back; another cannot take over.
func TestExecEndsWithItsClient(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.DisconnectGrace = time.Hour })
	_, id, _, client := w.pair(withExec(wire.Exec{Command: "sleep 1000"}))
	token, err := w.g.Resume(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	other := w.dial("/v1/data-channel/"+id, "", wire.Opening{TokenValue: token, ClientID: "other"})
	if _, _, err := other.Read(); err == nil {
		t.Error("another client was let in")
	}
	if got := w.store.row(id).State; got != StateConnected {
		t.Errorf("got %s, want %s", got, StateConnected)
	}
	client.cut()
	if row := w.wantState(id, StateTerminated); row.EndReason != ReasonClientGone {
		t.Errorf("ended by %q, want %q", row.EndReason, ReasonClientGone)
	}
}

// A file transfer that cannot be followed does not go on.
func TestTransferThatCannotBeFollowed(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair(withExec(wire.Exec{Subsystem: "sftp"}))
	agent.say("\x00\x00\x00\x09\x67\x00\x00\x00\x01\x00\x00\x00\x00") // data that nobody asked for
	client.wantGoodbye("The file transfer could not be followed, so the session has ended.")
	if row := w.wantState(id, StateFailed); !strings.HasPrefix(row.EndReason, ReasonTransferLost) {
		t.Errorf("ended by %q", row.EndReason)
	}
	if w.rec.text() != "" {
		t.Error("a file transfer was recorded as a screen")
	}
}

// Files of a transfer are in the audit log before the session's end is.
func TestTransferIsAudited(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair(withExec(wire.Exec{Command: "scp -t /srv"}))
	turn := func(p, to *peer, text, all string) {
		p.say(text)
		to.wantText("stream", all)
	}
	turn(agent, client, "\x00", "\x00")
	turn(client, agent, "C0644 2 f\n", "C0644 2 f\n")
	turn(agent, client, "\x00", "\x00\x00")
	turn(client, agent, "hi\x00", "C0644 2 f\nhi\x00")
	turn(agent, client, "\x00", "\x00\x00\x00")
	w.g.Terminate(t.Context(), id, &Cause{Reason: ReasonTerminated})
	w.wantState(id, StateTerminated)
	want := []string{audit.EventSessionStart, audit.EventTransfer, audit.EventSessionEnd}
	eventually(t, "the session's records", func() bool { return len(w.store.events(id)) >= len(want) })
	if diff := cmp.Diff(want, w.store.events(id)); diff != "" {
		t.Error(diff)
	}
}

func TestLine(t *testing.T) {
	client, server := newLine()
	if err := client.Write(true, []byte("opening")); err != nil {
		t.Fatal(err)
	}
	if kind, b, err := server.Read(); kind != websocket.Text || string(b) != "opening" || err != nil {
		t.Errorf("got %v %q, %v", kind, b, err)
	}
	pongs := 0
	client.OnPong(func() { pongs++ })
	client.Ping()
	client.Write(false, []byte("a"))
	server.Read() // answers the ping on the way
	for i := range lineMessages - 1 {
		server.Write(websocket.Binary, fmt.Append(nil, i))
	}
	if server.HasRoom() {
		t.Error("a full line has room")
	}
	server.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if err := server.Write(websocket.Binary, nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("writing to a full line: got %v, want %v", err, os.ErrDeadlineExceeded)
	}
	server.Close()
	for i := range lineMessages - 1 {
		if _, b, err := client.Read(); string(b) != fmt.Sprint(i) || err != nil {
			t.Fatalf("message %d: got %q, %v", i, b, err)
		}
	}
	if _, _, err := client.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: got %v, want %v", err, io.EOF)
	}
	if err := client.Write(false, nil); !errors.Is(err, ErrLineClosed) {
		t.Errorf("writing after the end: got %v, want %v", err, ErrLineClosed)
	}
	if pongs != 1 {
		t.Errorf("got %d pongs, want 1", pongs)
	}
}

// A program that makes up transfers does not fill the audit log at once.
func TestTransfersArePaced(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair(withExec(wire.Exec{Command: "scp -f x"}))
	client.say("\x00")
	agent.wantText("stream", "\x00")
	const more = 250
	start := time.Now()
	agent.say(strings.Repeat("\x01x\n", freeTransfers+more))
	eventually(t, "all records", func() bool { return len(w.store.events(id)) > freeTransfers+more })
	if got := time.Since(start); got < more*transferPause {
		t.Errorf("got %d records in %v, want at least %v", freeTransfers+more, got, more*transferPause)
	}
}
