package agent

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pkg/sftp"
	"github.com/xtaci/smux"

	"sallyport.dev/internal/needs"
	"sallyport.dev/wire"
)

// Documents that sessions with an Exec have.
const (
	commandDocument  = `{"schemaVersion":"1.0","sessionType":"NonInteractiveCommands","properties":{"linux":{"commands":"false"}}}`
	terminalDocument = `{"schemaVersion":"1.0","sessionType":"InteractiveCommands","properties":{"linux":{"commands":"false"}}}`
	filesDocument    = `{"schemaVersion":"1.0","sessionType":"NonInteractiveCommands"}`
)

// execSession starts an agent and on it one session with e.
func execSession(t *testing.T, document string, e wire.Exec) (*control, *peer) {
	t.Helper()
	g := newGateway(t)
	cfg := g.config()
	cfg.Shell.Program = "/bin/sh"
	run(t, cfg)
	c := g.control()
	id := strings.ReplaceAll(strings.ToLower(t.Name()), "/", "-")
	c.start(wire.StartSession{SessionID: id, DataChannelToken: "given", DocumentContent: json.RawMessage(document), Exec: &e})
	return c, g.attach(id)
}

// streams returns what has come apart from each other.
func (p *peer) streams() (out, errs, control string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byType[wire.PayloadOutput], p.byType[wire.PayloadStdErr], p.byType[wire.PayloadExecControl]
}

// exit waits for the program's end.
func (p *peer) exit() wire.ExecControl {
	p.t.Helper()
	p.until("the exit", func() bool { return p.byType[wire.PayloadExecControl] != "" })
	var c wire.ExecControl
	_, _, text := p.streams()
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		p.t.Fatalf("reading exit %q: %v", text, err)
	}
	return c
}

func (p *peer) tell(c wire.ExecControl) {
	b, err := json.Marshal(c)
	if err != nil {
		p.t.Fatal(err)
	}
	p.send(wire.PayloadExecControl, b)
}

func TestExec(t *testing.T) {
	for name, tt := range map[string]struct {
		exec      wire.Exec
		in        string
		out, errs string
		want      wire.ExecControl
	}{
		"status":     {exec: wire.Exec{Command: "echo out; echo err >&2; exit 7"}, out: "out\n", errs: "err\n", want: wire.ExecControl{Op: "exit", Status: 7}},
		"input":      {exec: wire.Exec{Command: "cat; echo end"}, in: "one\ntwo\n", out: "one\ntwo\nend\n", want: wire.ExecControl{Op: "exit"}},
		"no input":   {exec: wire.Exec{Command: "cat"}, want: wire.ExecControl{Op: "exit"}},
		"signal":     {exec: wire.Exec{Command: "kill -TERM $$"}, want: wire.ExecControl{Op: "exit", Signal: "TERM"}},
		"late":       {exec: wire.Exec{Command: "(sleep 0.3; echo late) & echo now"}, out: "now\nlate\n", want: wire.ExecControl{Op: "exit"}},
		"shell":      {exec: wire.Exec{}, in: "echo $0 $((6*7))\nexit 3\n", out: "-sh 42\n", want: wire.ExecControl{Op: "exit", Status: 3}},
		"no command": {exec: wire.Exec{Command: "no-such-program 2>/dev/null"}, want: wire.ExecControl{Op: "exit", Status: 127}},
		"unread":     {exec: wire.Exec{Command: "exec <&-; echo deaf"}, in: "nobody reads this", out: "deaf\n", want: wire.ExecControl{Op: "exit"}},
		"words":      {exec: wire.Exec{Command: `printf '%s,' '$HOME' "a b" ;`, Words: true}, out: "$HOME,a b,;,", want: wire.ExecControl{Op: "exit"}},
		"words read": {exec: wire.Exec{Command: "cat", Words: true}, in: "one\n", out: "one\n", want: wire.ExecControl{Op: "exit"}},
		"words, no program": {
			exec: wire.Exec{Command: "./no-such-program x", Words: true},
			errs: "Unable to start command: executing ./no-such-program: no such file or directory\n", want: wire.ExecControl{Op: "exit", Status: 127},
		},
		"environment": {
			exec: wire.Exec{Command: `echo "$LC_ALL,$LD_PRELOAD,$PATH,$SSH_AUTH_SOCK"`, Environment: map[string]string{
				"LC_ALL": "C", "LD_PRELOAD": "/tmp/evil.so", "PATH": "/tmp", "SSH_AUTH_SOCK": "/tmp/evil"}},
			out: "C,,/usr/local/bin:/usr/bin:/bin,\n", want: wire.ExecControl{Op: "exit"},
		},
		"terminal of a document without": {
			exec: wire.Exec{Command: "tty", Terminal: &wire.ExecTerminal{Term: "xterm"}},
			errs: "Unable to start command: the session's document allows no terminal\n", want: wire.ExecControl{Op: "exit", Status: 127},
		},
		"unknown subsystem": {
			exec: wire.Exec{Subsystem: "netconf"},
			errs: "Unable to start command: there is no subsystem \"netconf\" on this node: there is sftp\n", want: wire.ExecControl{Op: "exit", Status: 127},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			document := commandDocument
			if tt.exec.Command == "" {
				document = testDocument
			}
			c, p := execSession(t, document, tt.exec)
			if tt.in != "" {
				p.typed(tt.in)
			}
			p.tell(wire.ExecControl{Op: wire.ExecEOF})
			if diff := cmp.Diff(tt.want, p.exit()); diff != "" {
				t.Errorf("exit: %s", diff)
			}
			out, errs, _ := p.streams()
			if os.Geteuid() == 0 {
				out = strings.ReplaceAll(out, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "/usr/local/bin:/usr/bin:/bin")
			}
			if out != tt.out || errs != tt.errs {
				t.Errorf("got output %q and errors %q, want %q and %q", out, errs, tt.out, tt.errs)
			}
			c.completed(p.id)
		})
	}
}

// TestExecTerminal has modes, size and kind applied, follows the client's window, and
// hands signals to the program.
func TestExecTerminal(t *testing.T) {
	_, p := execSession(t, terminalDocument, wire.Exec{
		Command: "test $SSH_TTY = $(tty) && echo $TERM; stty size; stty -a | tr ' ;' '\\n\\n' | grep -x -e -echo -e -icanon -e onlcr | sort; " +
			"trap 'stty size' WINCH; trap 'echo usr1; exit 4' USR1; echo ready; while :; do sleep 0.01; done",
		Terminal: &wire.ExecTerminal{Term: "vt220", Cols: 101, Rows: 33, Modes: []byte{
			53, 0, 0, 0, 0, 51, 0, 0, 0, 0, 72, 0, 0, 0, 1, 0, // ECHO and ICANON off, ONLCR on
		}},
	})
	p.expect("vt220\r\n33 101\r\n-echo\r\n-icanon\r\nonlcr\r\nready\r\n")
	p.size(55, 22)
	p.expect("22 55")
	p.tell(wire.ExecControl{Op: wire.ExecSignal, Signal: "USR1"})
	if got := p.exit(); got.Status != 4 {
		t.Errorf("got exit %+v, want status 4", got)
	}
}

// TestExecTerminalName is an attack: libraries read descriptions of terminals from the
// file that TERM leads to.
func TestExecTerminalName(t *testing.T) {
	_, p := execSession(t, terminalDocument, wire.Exec{Command: "echo $TERM", Terminal: &wire.ExecTerminal{Term: "../../tmp/evil"}})
	p.expect("xterm-256color\r\n")
	p.exit()
}

// TestExecSignalBeforeStart sends signals with the very first bytes. (SIGINT would not
// do: dash catches it, and loses it just before it executes the only command.)
func TestExecSignalBeforeStart(t *testing.T) {
	_, p := execSession(t, commandDocument, wire.Exec{Command: "sleep 60"})
	p.tell(wire.ExecControl{Op: wire.ExecSignal, Signal: "no such"})
	p.tell(wire.ExecControl{Op: wire.ExecSignal, Signal: "TERM"})
	if diff := cmp.Diff(wire.ExecControl{Op: "exit", Signal: "TERM"}, p.exit()); diff != "" {
		t.Error(diff)
	}
}

// TestExecEnds checks that the program ends with the session: it ignores that it is hung
// up on, and is killed two seconds later.
func TestExecEnds(t *testing.T) {
	c, p := execSession(t, commandDocument, wire.Exec{Command: "trap '' HUP; echo $$; while :; do sleep 0.01; done"})
	p.expect("\n")
	sid, err := strconv.Atoi(strings.TrimSpace(p.screen()))
	if err != nil {
		t.Fatal(err)
	}
	if len(members(t, sid)) == 0 {
		t.Error("the program leads no session")
	}
	c.terminate(p.id)
	c.completed(p.id)
	gone(t, sid)
}

// pour sends b as input with no more than limit messages unacknowledged.
func (p *peer) pour(b []byte, limit int) {
	p.t.Helper()
	for len(b) > 0 {
		n := min(32<<10, len(b))
		p.until("room in the window", func() bool { return len(p.unacked) < limit })
		p.send(wire.PayloadOutput, b[:n])
		b = b[n:]
	}
}

// TestExecThroughput sends 30 MB through a program, intact.
func TestExecThroughput(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 30 MB")
	}
	const size = 30_000_000
	c, p := execSession(t, commandDocument, wire.Exec{Command: "cat"})
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(b)
	p.mu.Lock()
	p.out.Grow(size + 1024)
	p.mu.Unlock()
	began := time.Now()
	p.pour(b, 32)
	p.tell(wire.ExecControl{Op: wire.ExecEOF})
	c.completed(p.id)
	t.Logf("%.0f MB/s each way", size/1e6/time.Since(began).Seconds())
	p.mu.Lock()
	defer p.mu.Unlock()
	if !bytes.HasPrefix(p.out.Bytes(), b) {
		t.Errorf("got %d bytes that are not the %d sent", p.out.Len(), size)
	}
	if p.repeats > 64 {
		t.Errorf("%d messages were sent again", p.repeats)
	}
}

// TestExecBackPressure sends to a program that does not read: what it has not taken is
// not acknowledged, also if it comes again, and no more than a bounded amount is kept.
func TestExecBackPressure(t *testing.T) {
	file := filepath.Join(t.TempDir(), "go")
	_, p := execSession(t, commandDocument, wire.Exec{Command: "while [ ! -e " + file + " ]; do sleep 0.01; done; wc -c"})
	chunk := bytes.Repeat([]byte("x"), 32<<10)
	const sent = 200 // 6.4 MB, of which a pipe holds 64 KiB and an inlet 2 MiB
	for range sent {
		p.send(wire.PayloadOutput, chunk)
	}
	time.Sleep(300 * time.Millisecond)
	p.repeat()
	time.Sleep(100 * time.Millisecond)
	p.mu.Lock()
	// What came early, behind what was refused, is acknowledged but not delivered.
	if acked, limit := sent-len(p.unacked), (64<<10+1<<20)/(32<<10)+2; acked > limit {
		t.Errorf("%d messages are acknowledged before the program has read, want at most %d", acked, limit)
	}
	p.mu.Unlock()
	p.cut() // all that is unacknowledged comes again
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.tell(wire.ExecControl{Op: wire.ExecEOF})
	p.exit()
	if out, _, _ := p.streams(); out != "6553600\n" {
		t.Errorf("got %q, want all of 6553600 bytes", out)
	}
}

// sftpPeer carries SFTP over a session.
type sftpPeer struct {
	p    *peer
	read int
}

func (s *sftpPeer) Read(b []byte) (int, error) {
	n := 0
	s.p.until("an answer", func() bool {
		all := s.p.out.Bytes()
		n = copy(b, all[s.read:])
		return n > 0 || s.p.byType[wire.PayloadExecControl] != ""
	})
	if s.read += n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (s *sftpPeer) Write(b []byte) (int, error) {
	s.p.send(wire.PayloadOutput, b)
	return len(b), nil
}

func (s *sftpPeer) Close() error {
	s.p.tell(wire.ExecControl{Op: wire.ExecEOF})
	return nil
}

func TestExecSFTP(t *testing.T) {
	_, p := execSession(t, filesDocument, wire.Exec{Subsystem: "sftp"})
	carrier := &sftpPeer{p: p}
	client, err := sftp.NewClientPipe(carrier, carrier)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	want := bytes.Repeat([]byte("0123456789abcdef"), 10_000)
	f, err := client.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFrom(bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	got, err := os.ReadFile(filepath.Join(dir, "file"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
	}
	if _, err := client.Stat(filepath.Join(dir, "absent")); !os.IsNotExist(err) {
		t.Errorf("got %v, want that there is no such file", err)
	}
	go client.Close()
	if got := p.exit(); got.Status != 0 {
		t.Errorf("got exit %+v, want status 0", got)
	}
}

// muxPeer carries the smux connection of a forwarded SSH agent.
type muxPeer struct {
	sftpPeer
	seen int
}

func (m *muxPeer) Read(b []byte) (int, error) {
	for {
		m.p.mu.Lock()
		n := copy(b, m.p.streamed[m.seen:])
		closed := m.p.byType[wire.PayloadExecControl] != ""
		m.p.mu.Unlock()
		if m.seen += n; n > 0 {
			return n, nil
		}
		if closed {
			return 0, io.EOF
		}
		time.Sleep(time.Millisecond)
	}
}

func (m *muxPeer) Write(b []byte) (int, error) {
	m.p.send(wire.PayloadExecStreams, b)
	return len(b), nil
}

func TestForwardAgent(t *testing.T) {
	needs.Program(t, "perl")
	c, p := execSession(t, commandDocument, wire.Exec{ForwardAgent: true, Command: `
		ls -l $SSH_AUTH_SOCK | cut -c1-10; stat -c %a $(dirname $SSH_AUTH_SOCK); echo $SSH_AUTH_SOCK
		perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ENV{SSH_AUTH_SOCK})) or die;
			syswrite S, "ping"; sysread S, $b, 9; print "$b\n"'; read x`})
	mux, err := smux.Server(&muxPeer{sftpPeer: sftpPeer{p: p}}, muxConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer mux.Close()
	stream, err := mux.AcceptStream()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(stream, buf); err != nil || string(buf) != "ping" {
		t.Errorf("got %q, %v, want ping", buf, err)
	}
	stream.Write([]byte("pong"))
	p.expect("pong")
	out, _, _ := p.streams()
	lines := strings.Split(out, "\n")
	if lines[0] != "srw-------" || lines[1] != "700" {
		t.Errorf("got socket of mode %s in a directory of mode %s, want srw------- and 700", lines[0], lines[1])
	}
	p.tell(wire.ExecControl{Op: wire.ExecEOF})
	c.completed(p.id)
	if _, err := os.Lstat(filepath.Dir(lines[2])); !os.IsNotExist(err) {
		t.Errorf("the socket's directory is left: %v", err)
	}
	if conn, err := net.Dial("unix", lines[2]); err == nil {
		conn.Close()
		t.Error("somebody still answers at the socket")
	}
}

// startWith starts an agent with the shell options of its configuration changed, and one
// session on it.
func startWith(t *testing.T, change func(*Config), start wire.StartSession) (*gateway, *control) {
	t.Helper()
	g := newGateway(t)
	cfg := g.config()
	cfg.Shell.Program = "/bin/sh"
	change(&cfg)
	run(t, cfg)
	c := g.control()
	start.DataChannelToken = "given"
	c.start(start)
	return g, c
}

// TestExecAs is the attack: to run as nobody that exists, or as root without leave of
// policy. Nothing is run.
func TestExecAs(t *testing.T) {
	const document = `{"schemaVersion":"1.0","sessionType":"NonInteractiveCommands","inputs":{"runAsEnabled":true},"properties":{"linux":{"commands":"false"}}}`
	for name, tt := range map[string]struct {
		user string
		root bool
		want string
	}{
		"nobody that exists": {user: "no-such-user", want: "no such user"},
		"root":               {user: "root", want: "a session cannot run as root"},
		"root by number":     {user: "0", root: true, want: "no such user"},
		"none named":         {root: true, want: "no user is named"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "ran")
			id := strings.ReplaceAll(name, " ", "-")
			_, c := startWith(t, func(*Config) {}, wire.StartSession{
				SessionID: id, DocumentContent: json.RawMessage(document), RunAsUser: tt.user, RunAsRoot: tt.root,
				Exec: &wire.Exec{Command: "touch " + file},
			})
			if got := c.completed(id); got.FinalTaskStatus != statusFailed || !strings.Contains(got.Output, tt.want) {
				t.Errorf("got %s %q, want Failed with %q", got.FinalTaskStatus, got.Output, tt.want)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("the command was run")
			}
		})
	}
}

// TestExecAsRoot runs as root where policy lets it.
func TestExecAsRoot(t *testing.T) {
	needs.Root(t)
	const document = `{"schemaVersion":"1.0","sessionType":"NonInteractiveCommands","inputs":{"runAsEnabled":true},"properties":{"linux":{"commands":"false"}}}`
	g, _ := startWith(t, func(cfg *Config) { cfg.Shell.RunAsSelf = false }, wire.StartSession{
		SessionID: "as-root", DocumentContent: json.RawMessage(document), RunAsUser: "root", RunAsRoot: true,
		Exec: &wire.Exec{Command: "id -un"},
	})
	p := g.attach("as-root")
	p.exit()
	if out, _, _ := p.streams(); out != "root\n" {
		t.Errorf("got %q, want root", out)
	}
}

// TestKeepDetachedOfDocument lets what leaves the session outlive it where its document
// says so, and not where it does not.
func TestKeepDetachedOfDocument(t *testing.T) {
	for name, tt := range map[string]struct {
		inputs string
		kept   bool
	}{
		"kept": {`{"keepDetached":true}`, true},
		"not":  {`{}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := "detached-" + name
			g, c := startWith(t, func(*Config) {}, wire.StartSession{
				SessionID: id, DocumentContent: json.RawMessage(`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":` + tt.inputs + `}`),
				Exec: &wire.Exec{Command: "setsid -f sh -c 'echo $$; exec sleep 20 </dev/null >/dev/null 2>&1'"},
			})
			p := g.attach(id)
			p.exit()
			c.completed(id)
			out, _, _ := p.streams()
			pid, err := strconv.Atoi(strings.TrimSpace(out))
			if err != nil {
				t.Fatal(err)
			}
			if !tt.kept {
				for limit := time.Now().Add(patience); syscall.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
					if time.Now().After(limit) {
						t.Fatal("the program outlived its session")
					}
				}
				return
			}
			time.Sleep(100 * time.Millisecond)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Errorf("the program has ended with its session: %v", err)
			}
		})
	}
}

// TestShellProfile types a profile of several lines, with what shells find special.
func TestShellProfile(t *testing.T) {
	const document = `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"shellProfile":{
		"linux":"export GREETING='hello  \"$USER\" {{ x }}'\ncd /usr\nif true; then\n  echo ran-$((6*7))\nfi\nprofiled() { echo \"$GREETING in $PWD\"; }"}}}`
	for name, exec := range map[string]*wire.Exec{
		"of AWS's kind":     nil,
		"with a terminal":   {Terminal: &wire.ExecTerminal{Term: "xterm", Cols: 200, Rows: 50}},
		"without terminals": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := strings.NewReplacer(" ", "-", "'", "").Replace(name)
			g, c := startWith(t, func(*Config) {}, wire.StartSession{SessionID: id, DocumentContent: json.RawMessage(document), Exec: exec})
			p := g.attach(id)
			if exec == nil {
				p.size(200, 50)
			}
			p.typed("profiled; exit 5\n")
			p.expect("ran-42")
			p.expect(`hello  "$USER" {{ x }} in /usr`)
			if got := c.completed(id); got.ExitStatus == nil || *got.ExitStatus != 5 {
				t.Errorf("got %+v, want status 5", got)
			}
		})
	}
}
