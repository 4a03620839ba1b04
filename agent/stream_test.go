package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// shellSession starts an agent and a shell on it.
func shellSession(t *testing.T, id string) (*gateway, *control, *peer) {
	t.Helper()
	g := newGateway(t)
	run(t, g.config())
	c := g.control()
	c.start(wire.StartSession{SessionID: id, DataChannelToken: "given"})
	p := g.attach(id)
	p.size(80, 24)
	p.expect("$ ")
	return g, c, p
}

// reset forgets the output so far.
func (p *peer) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Reset()
}

// TestPaste types 100 kB at once to a program that echoes them.
func TestPaste(t *testing.T) {
	_, c, p := shellSession(t, "paste")
	p.typed("stty raw -echo; echo rea''dy; head -c 100000 | od -An -v -tx1 | tr -d ' \\n' | sha256sum; stty sane\n")
	p.expect("ready")
	var text bytes.Buffer
	for i := range 100_000 {
		text.WriteByte(byte(i * 7))
	}
	b := text.Bytes()
	for len(b) > 0 {
		n := min(1024, len(b))
		p.send(wire.PayloadOutput, b[:n])
		b = b[n:]
	}
	sum := sha256.Sum256([]byte(hex.EncodeToString(text.Bytes())))
	p.expect(hex.EncodeToString(sum[:]))
	p.typed("exit\n")
	c.completed("paste")
}

// TestPasteWhileFlooded pastes into a program that writes as much as it reads: neither
// direction may wait for the other.
func TestPasteWhileFlooded(t *testing.T) {
	_, _, p := shellSession(t, "flood")
	p.typed("stty raw -echo; echo rea''dy; exec cat\n")
	p.expect("ready")
	time.Sleep(20 * time.Millisecond)
	p.reset()
	line := bytes.Repeat([]byte("x"), 1024)
	for range 2000 {
		p.send(wire.PayloadOutput, line)
	}
	p.until("echo of 2 MB", func() bool { return p.out.Len() >= 2000*1024 })
}

// TestBulk sends 20 MB of output through, intact, in large messages.
func TestBulk(t *testing.T) {
	const size = 20_000_000
	_, c, p := shellSession(t, "bulk")
	file := filepath.Join(t.TempDir(), "data")
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(b)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	p.typed("stty raw -echo; echo rea''dy; sleep 0.1; cat " + file + "; exit\n")
	p.expect("ready")
	p.until("silence", func() bool { return p.out.Len() > 0 })
	began := time.Now()
	c.completed("bulk")
	t.Logf("%.0f MB/s, largest message %d bytes", size/1e6/time.Since(began).Seconds(), p.largest)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !bytes.HasSuffix(p.out.Bytes(), b) {
		t.Errorf("got %d bytes that do not end in the %d sent", p.out.Len(), size)
	}
	if p.repeats > 64 {
		t.Errorf("%d messages were sent again", p.repeats)
	}
}

// TestSilentPeer has the peer acknowledge nothing while a program writes without end:
// memory stays bounded, and everything arrives once it does.
func TestSilentPeer(t *testing.T) {
	_, _, p := shellSession(t, "silent")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p.mu.Lock()
	p.noAcks = true
	p.mu.Unlock()
	p.typed("stty -opost; exec seq 1 3000000\n")
	last, same := 0, 0
	for same < 10 { // until nothing new has come for half a second
		time.Sleep(50 * time.Millisecond)
		p.mu.Lock()
		if p.out.Len() == last {
			same++
		} else {
			last, same = p.out.Len(), 0
		}
		p.mu.Unlock()
	}
	if last > windowBytes+maxPending {
		t.Errorf("%d bytes were sent without an acknowledgement, want at most %d", last, windowBytes)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	// The peer's copy is in the same process.
	if grown := int(after.HeapAlloc) - int(before.HeapAlloc); grown > 4*windowBytes {
		t.Errorf("memory grew by %d bytes", grown)
	}
	p.mu.Lock()
	p.noAcks = false
	p.mu.Unlock()
	p.expect("\n3000000\n")
}

// TestLinkCuts breaks the link at random points while data goes both ways: no byte is
// lost, none comes twice.
func TestLinkCuts(t *testing.T) {
	g, c, p := shellSession(t, "cuts")
	p.typed("stty raw -echo; echo rea''dy; exec cat\n")
	p.expect("ready")
	time.Sleep(20 * time.Millisecond)
	p.reset()
	var want bytes.Buffer
	for i := range 20 {
		for j := range 50 {
			line := fmt.Appendf(nil, "%d.%d %s\n", i, j, strings.Repeat("y", rand.IntN(2000)))
			want.Write(line)
			p.send(wire.PayloadOutput, line)
		}
		time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
		if i%2 == 0 {
			p.cut()
		}
	}
	p.until("all of the echo", func() bool { return p.out.Len() >= want.Len() })
	p.mu.Lock()
	if !bytes.Equal(p.out.Bytes(), want.Bytes()) {
		t.Errorf("got %d bytes, want the %d that were sent", p.out.Len(), want.Len())
	}
	if n := len(p.states); n != 1 {
		t.Errorf("got states %v, want Connected once", p.states)
	}
	p.mu.Unlock()
	if got := len(g.openings["cuts"]); got != 11 {
		t.Errorf("got %d links, want 11", got)
	}
	c.terminate("cuts")
	c.completed("cuts")
}

// TestOutOfOrder sends input in an order of its own, some of it twice.
func TestOutOfOrder(t *testing.T) {
	_, _, p := shellSession(t, "order")
	base := p.inputSeq
	words := []string{"ec", "ho one", "-two-", "three\n"}
	for _, i := range []int64{2, 0, 0, 3, 2, 1, 3} {
		m := wire.NewStream(wire.TypeInputStreamData, base+i, wire.PayloadOutput, time.Now(), []byte(words[i]))
		p.conn.Write(websocket.Binary, m.Encode())
	}
	p.expect("\none-two-three\r\n")
	p.until("an acknowledgement of each copy", func() bool { return len(p.acked) >= 8 })
}

// TestPause holds output back while the server asks for it.
func TestPause(t *testing.T) {
	_, _, p := shellSession(t, "pause")
	p.typed("sleep 0.2; echo lat''er\n")
	p.expect("lat''er")
	p.until("acknowledgement", func() bool { return len(p.unacked) == 0 })
	p.conn.Write(websocket.Binary, wire.New(wire.TypePausePublication, time.Now(), nil).Encode())
	time.Sleep(400 * time.Millisecond)
	if strings.Contains(p.screen(), "\nlater") {
		t.Error("output came while publication was paused")
	}
	p.conn.Write(websocket.Binary, wire.New(wire.TypeStartPublication, time.Now(), nil).Encode())
	p.expect("\nlater")
}

// TestAlreadyTerminated has the server end the session while the link is down.
func TestAlreadyTerminated(t *testing.T) {
	g, c, p := shellSession(t, "over")
	pid := shellPID(t, p)
	g.mu.Lock()
	g.denied = func(string) string { return "Session is already terminated" }
	g.mu.Unlock()
	p.conn.Abort()
	if tc := c.completed("over"); tc.FinalTaskStatus != "Success" {
		t.Errorf("got %+v, want Success", tc)
	}
	gone(t, pid)
}

// shellPID asks the shell for its process id.
func shellPID(t *testing.T, p *peer) int {
	t.Helper()
	p.typed("echo pid=$$=\n")
	p.expect("\npid=")
	p.until("pid", func() bool { return strings.Count(p.out.String(), "=") >= 4 })
	_, rest, _ := strings.Cut(p.screen(), "\npid=")
	digits, _, _ := strings.Cut(rest, "=")
	pid, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// gone checks that no process of the session is left, now or within moments.
func gone(t *testing.T, sid int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		left := members(t, sid)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes %v of session %d are left", left, sid)
		}
	}
}

func members(t *testing.T, sid int) []string {
	t.Helper()
	var left []string
	for _, path := range stats(t) {
		if f := stat(path); len(f) > 3 && f[3] == strconv.Itoa(sid) {
			left = append(left, path)
		}
	}
	return left
}

func stats(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// stat returns the fields of a process after its name: state, parent, group, session.
func stat(path string) []string {
	b, _ := os.ReadFile(path)
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// running waits until a session of this process runs the command: a key typed before
// then would reach the shell.
func running(t *testing.T, command ...string) {
	t.Helper()
	want := strings.Join(command, "\x00") + "\x00"
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for _, path := range stats(t) {
			line, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			if string(line) != want {
				continue
			}
			f := stat(path)
			if len(f) < 4 {
				continue
			}
			if leader := stat("/proc/" + f[3] + "/stat"); len(leader) > 1 && leader[1] == strconv.Itoa(os.Getpid()) {
				return
			}
		}
	}
	t.Fatalf("%q does not run", command)
}

// TestNoProcessLeft ends sessions in every way; their programs resist.
func TestNoProcessLeft(t *testing.T) {
	const stubborn = "trap '' HUP TERM; sleep 1000 & (trap '' HUP; nohup sleep 1000) & sleep 0.05\n"
	for name, end := range map[string]func(c *control, p *peer, stop func() error){
		"exit":             func(_ *control, p *peer, _ func() error) { p.typed("exit\n") },
		"killed":           func(_ *control, p *peer, _ func() error) { p.typed("kill -9 $$\n") },
		"terminate":        func(c *control, _ *peer, _ func() error) { c.terminate("left") },
		"closed on data":   func(_ *control, p *peer, _ func() error) { p.conn.Write(websocket.Binary, closedMessage()) },
		"shutdown":         func(_ *control, _ *peer, stop func() error) { go stop() },
		"link never again": func(c *control, p *peer, _ func() error) { p.g.srv.CloseClientConnections(); p.conn.Abort() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t)
			cfg := g.config()
			cfg.Reattach = 300 * time.Millisecond
			_, stop := run(t, cfg)
			c := g.control()
			c.start(wire.StartSession{SessionID: "left", DataChannelToken: "given"})
			p := g.attach("left")
			p.size(80, 24)
			p.expect("$ ")
			pid := shellPID(t, p)
			p.typed(stubborn + "echo armed=$((1+1))\n")
			p.expect("armed=2")
			if name == "link never again" {
				g.mu.Lock()
				g.denied = func(string) string { return "try again" }
				g.mu.Unlock()
			}
			end(c, p, stop)
			gone(t, pid)
			if name != "link never again" {
				c.completed("left")
			}
		})
	}
}

// The server says after how long it has given a session up, and the agent keeps it no
// longer than that, whether or not anybody is there to say so.
func TestReattachNoLongerThanTheServer(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	cfg.Reattach = time.Hour
	run(t, cfg)
	c := g.control()
	c.start(wire.StartSession{SessionID: "left", DataChannelToken: "given", Reattach: 1})
	p := g.attach("left")
	p.size(80, 24)
	p.expect("$ ")
	pid := shellPID(t, p)
	g.mu.Lock()
	g.denied = func(string) string { return "try again" }
	g.mu.Unlock()
	g.srv.CloseClientConnections()
	p.conn.Abort()
	gone(t, pid)
}

func closedMessage() []byte {
	return wire.NewJSON(wire.TypeChannelClosed, time.Now(), wire.ChannelClosed{
		MessageType: wire.TypeChannelClosed, SchemaVersion: 1, CreatedDate: "now",
	}).Encode()
}

// TestFirstAttachFails has no data channel come about: the session fails with a reason.
func TestDataChannelRefused(t *testing.T) {
	g := newGateway(t)
	g.denied = func(string) string { return "Session is already terminated" }
	run(t, g.config())
	c := g.control()
	c.start(wire.StartSession{SessionID: "never"})
	if tc := c.completed("never"); tc.FinalTaskStatus != "Success" {
		t.Errorf("got %+v", tc)
	}
}
