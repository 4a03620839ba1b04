package sallyporttest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/agent"
	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/internal/needs"
	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
	"sallyport.dev/wire"
)

const privateNode = "i-0f3a9c1de5b7a2468"

// typingPerson is a person at a shell who types key by key and waits for what is shown.
type typingPerson struct {
	t       *testing.T
	id      string
	channel *client.DataChannel
	done    chan struct{}

	mu    sync.Mutex
	more  *sync.Cond
	shown []byte
	seen  int // of shown
	over  bool
}

// Start implements client.Handler.
func (p *typingPerson) Start(json.RawMessage) error { return nil }

// Take implements client.Handler.
func (p *typingPerson) Take(pt wire.PayloadType, b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pt == wire.PayloadOutput {
		p.shown = append(p.shown, b...)
		p.more.Broadcast()
	}
	return nil
}

// sit opens a shell.
func sit(t *testing.T, s *sallyporttest.System, key sallyporttest.Key, node string) *typingPerson {
	t.Helper()
	api := s.API(key)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	stream, err := api.Start(ctx, client.StartInput{Target: node})
	if err != nil {
		t.Fatal(err)
	}
	p := &typingPerson{t: t, id: stream.SessionID, done: make(chan struct{})}
	p.more = sync.NewCond(&p.mu)
	p.channel = client.NewDataChannel(client.ChannelConfig{
		Stream: stream, Dial: client.Dialer(api.TLS(), "sallyporttest"), Resume: api.ResumeSession,
		Handlers: map[string]client.Handler{client.StandardStream: p},
	})
	go func() {
		defer close(p.done)
		end, err := p.channel.Run(ctx)
		t.Logf("the shell ended: %+v, %v", end, err)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.over = true
		p.more.Broadcast()
	}()
	t.Cleanup(func() {
		cancel()
		<-p.done
	})
	select {
	case <-p.channel.Started():
	case <-p.done:
		t.Fatal("the shell did not start")
	}
	if err := p.channel.Send(ctx, wire.PayloadSize, []byte(`{"cols":132,"rows":40}`)); err != nil {
		t.Fatal(err)
	}
	return p
}

// keys types a text key by key.
func (p *typingPerson) keys(text string) {
	p.t.Helper()
	for _, r := range text {
		p.paste(string(r))
		time.Sleep(2 * time.Millisecond) // faster than anybody
	}
}

// paste types a text at once.
func (p *typingPerson) paste(text string) {
	p.t.Helper()
	if err := p.channel.Send(p.t.Context(), wire.PayloadOutput, []byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

// see waits until a text is shown behind what was seen before.
func (p *typingPerson) see(text string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if i := bytes.Index(p.shown[p.seen:], []byte(text)); i >= 0 {
			p.seen += i + len(text)
			return
		}
		if p.over {
			p.t.Fatalf("%q was not shown; it was %q", text, p.shown[p.seen:])
		}
		p.more.Wait()
	}
}

// command types a line at the prompt and waits until all of it is shown, so that what the
// command asks for comes after that.
func (p *typingPerson) command(line string) {
	p.t.Helper()
	p.keys(line)
	p.see(line[max(0, len(line)-6):])
	p.keys("\r")
}

// private is a system that records input, with all of its state in one folder.
type private struct {
	*sallyporttest.System
	dir string
	log *lockedText
}

func newPrivate(t *testing.T, configure func(*member.Sessions)) (*private, sallyporttest.Key) {
	t.Helper()
	p := &private{dir: t.TempDir(), log: &lockedText{}}
	log := slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", p.log)
		}
	})
	p.System = sallyporttest.Start(t, "one", sallyporttest.Options{Dir: p.dir, Configure: func(c *member.Config) {
		c.Logger, c.Sessions = log, &member.Sessions{RecordInput: true}
		if configure != nil {
			configure(c.Sessions)
		}
	}})
	key := p.User("admin", nil, sallyporttest.Everything)
	// Nobody's start-up files, which may do anything.
	program := filepath.Join(t.TempDir(), "shell")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexec env PS1='ready> ' bash --norc --noprofile -i\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.NodeWith(privateNode, identity.Tags{"Name": "private"}, func(c *agent.Config) {
		c.Shell.Program = program
		c.Logger = log
	})
	return p, key
}

// leave ends the shell and returns its recording, with the input of it.
func (p *private) leave(t *testing.T, key sallyporttest.Key, at *typingPerson) (cast, input string) {
	t.Helper()
	at.keys("exit\r")
	<-at.done
	p.Eventually(func() bool { return strings.Contains(recorded(t, p.System, key, at.id), `"e",`) }, "the recording ends")
	cast = recorded(t, p.System, key, at.id)
	var all strings.Builder
	for line := range strings.Lines(cast) {
		var e []any
		if json.Unmarshal([]byte(line), &e) == nil && len(e) == 3 && e[1] == "i" {
			all.WriteString(e[2].(string))
		}
	}
	p.Stop() // everything is written
	return cast, all.String()
}

// nowhere fails if any of the secrets is in the recording, in a file or in the log.
func (p *private) nowhere(t *testing.T, cast string, secrets ...string) {
	t.Helper()
	files := 0
	places := map[string][]byte{"the recording": []byte(cast), "the log": []byte(p.log.String())}
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files++
			places[path], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil || files < 4 {
		t.Fatalf("%d files, %v", files, err)
	}
	for where, text := range places {
		for _, s := range secrets {
			if bytes.Contains(text, []byte(s)) {
				t.Errorf("%q is in %s", s, where)
			}
		}
	}
}

// asNobody runs a command line as a user who has to give a password.
func asNobody(line string) string {
	return "setpriv --reuid 65534 --regid 65534 --clear-groups " + line
}

// stars shows a star for each key, as sudo does with pwfeedback.
const stars = `import sys, termios, tty
old = termios.tcgetattr(0)
tty.setraw(0)
print("Value: ", end="", flush=True)
while (c := sys.stdin.read(1)) != "\r":
    print("*", end="", flush=True)
termios.tcsetattr(0, termios.TCSANOW, old)
print("\nread it")
`

// Passwords are nowhere, whoever asks for them and however they are typed, although input
// is recorded; what is typed at the prompt is.
func TestPasswordsAreNotRecorded(t *testing.T) {
	if os.Getuid() != 0 {
		needs.Missing(t, "running programs as somebody else needs root")
	}
	for _, program := range []string{"bash", "sudo", "su", "python3", "ssh-keygen", "setpriv"} {
		needs.Program(t, program)
	}
	python, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Fatal(err)
	}
	py := strings.TrimSpace(string(python))
	script := filepath.Join(t.TempDir(), "stars.py")
	if err := os.WriteFile(script, []byte(stars), 0o644); err != nil {
		t.Fatal(err)
	}
	s, key := newPrivate(t, nil)
	p := sit(t, s.System, key, privateNode)
	p.see("ready> ")
	var secrets []string
	secret := func() string {
		secrets = append(secrets, fmt.Sprintf("hunter%dTwo", len(secrets)))
		return secrets[len(secrets)-1]
	}
	for _, ask := range []struct{ name, line, prompt string }{
		{"read", `read -s -p 'Na''me: ' x`, "Name: "},
		{"sudo", asNobody(`sudo -p 'Ple''ase: ' true`), "Please: "},
		{"su", asNobody("su root -c true"), "Password: "},
		{"getpass", py + ` -c 'import getpass; getpass.getpass("Va""lue: ")'`, "Value: "},
		{"stars", py + " " + script, "Value: "},
		{"ssh's own", "ssh-keygen -q -t ed25519 -f /nonexistent/key", "(empty for no passphrase): "},
	} {
		p.command(ask.line)
		p.see(ask.prompt)
		p.keys(secret() + "\r")
		p.keys("\x03") // it may ask again
		p.see("ready> ")
		p.command("true")
		p.see("ready> ")
	}

	p.command(`read -s -p 'Na''me: ' x`)
	p.see("Name: ")
	p.paste(secret() + "\r")
	p.see("ready> ")

	p.command(`read -s -p 'Na''me: ' x`)
	p.see("Name: ")
	p.paste("\x1b[200~" + secret() + "\x1b[201~")
	p.paste("\r")
	p.see("ready> ")

	// A job in the background writes the secret's characters while it is typed.
	one := secret()
	p.command(fmt.Sprintf(`(for c in %s; do sleep .03; echo $c; done; sleep .1; echo al''l) & read -s -p 'Na''me: ' x`, strings.Join(strings.Split(one, ""), " ")))
	p.see("Name: ")
	for _, r := range one {
		p.paste(string(r))
		time.Sleep(30 * time.Millisecond)
	}
	p.keys("\r")
	p.see("all")

	p.keys("\r")
	p.see("ready> ")
	p.command("echo vis''ible-$((40+2))")
	p.see("visible-42")
	p.see("ready> ")
	p.keys("ls /et\t")
	p.see("/etc/")
	p.keys("hostname\r")
	p.see("ready> ")
	p.keys("ecx\x7fho cor''rected\r")
	p.see("corrected")
	p.see("ready> ")
	p.paste("\x1b[200~echo pas''ted\x1b[201~")
	p.see("pas''ted")
	p.paste("\r")
	p.see("\rpasted\r")
	p.see("ready> ")
	for _, key := range "echo wrap" + strings.Repeat("ped", 50) { // readline tells keys that come at once as it likes
		p.paste(string(key))
		p.see(string(key))
	}
	p.paste("\r")
	p.see("\rwrappedped")
	p.see("ready> ")
	p.keys("echo čau''ky\r")
	p.see("\rčauky")
	p.see("ready> ")

	cast, input := s.leave(t, key, p)
	s.nowhere(t, cast, secrets...)
	for _, want := range []string{
		"read -s -p 'Na''me: ' x\r", "true\r", "echo vis''ible-$((40+2))\r", "ls /et\thostname\r", "ecx\x7fho cor''rected\r",
		"\x1b[200~echo pas''ted\x1b[201~\r", "echo čau''ky\r", "exit\r",
		"echo wrap" + strings.Repeat("ped", 50) + "\r",
	} {
		if !strings.Contains(input, want) {
			t.Errorf("%q is not in the recorded input", want)
		}
	}
	if !strings.Contains(cast, `"m", "hidden input"`) {
		t.Error("nothing tells of the hidden input")
	}
	if t.Failed() {
		t.Logf("input %q", input)
	}
}

// What a pattern names is nowhere: not in what is typed, shown, indexed, watched or
// audited.
func TestRedactedIsNowhere(t *testing.T) {
	needs.Program(t, "bash")
	s, key := newPrivate(t, func(c *member.Sessions) {
		c.Redact = []string{`(?i)pass(?:word)?=\S+`}
		c.RedactKnown = []string{"bearer-token"}
		c.Redactions = []member.Redaction{{Name: "ticket", Pattern: `TICKET-[0-9]{6}`}}
	})
	p := sit(t, s.System, key, privateNode)
	p.see("ready> ")
	p.keys("\r") // the prompt may be shown anew in the terminal's size
	p.see("ready> ")
	p.command("echo password=typedS3cret")
	p.see("password=typedS3cret")
	p.see("ready> ")
	p.command(`printf 'Bearer \e[1mabcdefgh\e[0m.%s\nTICKET-%d\n' tok3n''S3cret 123456; echo do''ne`)
	p.see("done")
	p.see("ready> ")
	cast, input := s.leave(t, key, p)
	s.nowhere(t, cast, "typedS3cret", "tok3nS3cret", "TICKET-123456")
	for _, want := range []string{"[redacted]", "[redacted bearer-token]", "[redacted ticket]"} {
		if !strings.Contains(cast, want) {
			t.Errorf("%q is not in the recording", want)
		}
	}
	if !strings.Contains(input, "echo [redacted]\r") {
		t.Errorf("got input %q", input)
	}
	if strings.Count(string(p.shown), "password=typedS3cret") != 2 {
		t.Error("the person was not shown what is redacted for others")
	}
}
