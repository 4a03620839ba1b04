package shell

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sallyport.dev/internal/needs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// self is the user that runs the tests, with a shell and home that need no set-up.
func self(t *testing.T) User {
	t.Helper()
	return User{Name: "tester", UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Home: t.TempDir(), Shell: "/bin/sh"}
}

// run runs a command line on a terminal and returns what it printed and its status.
func run(t *testing.T, command string) (string, int) {
	t.Helper()
	p, err := Options{}.Interactive(self(t), command, Size{Cols: 100, Rows: 30})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out, err := io.ReadAll(readerFunc(p.Read))
	if err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	return strings.ReplaceAll(string(out), "\r\n", "\n"), p.Status()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestInteractive(t *testing.T) {
	for _, tt := range []struct{ command, want string }{
		{"stty size", "30 100\n"},
		{"echo $TERM", "xterm-256color\n"},
		{"test -t 0 && test -t 1 && test -t 2 && echo terminal", "terminal\n"},
		{"printf 'żółć ☃ 😀'", "żółć ☃ 😀"},
	} {
		got, status := run(t, tt.command)
		if got != tt.want || status != 0 {
			t.Errorf("%s: got %q, status %d, want %q, 0", tt.command, got, status, tt.want)
		}
	}
}

func TestExitStatus(t *testing.T) {
	for command, want := range map[string]int{
		"true": 0, "exit 7": 7, "exit 255": 255, "kill -9 $$": 137, "kill -TERM $$": 143, "no-such-program": 127,
	} {
		if _, got := run(t, command); got != want {
			t.Errorf("%s: got status %d, want %d", command, got, want)
		}
	}
}

// TestEnvironment is the attack: whatever the agent was started with must not reach a
// session.
func TestEnvironment(t *testing.T) {
	t.Setenv("SALLYPORT_ACTIVATION_CODE", "secret")
	t.Setenv("LD_PRELOAD", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("LANG", "../../etc/evil")
	t.Setenv("PATH", os.Getenv("PATH")+":/evil")
	out, _ := run(t, "env")
	var names []string
	for line := range strings.Lines(out) {
		name, _, _ := strings.Cut(line, "=")
		names = append(names, name)
	}
	for _, name := range names {
		switch name {
		case "HOME", "USER", "LOGNAME", "SHELL", "PATH", "MAIL", "TERM", "LANG", "PWD", "OLDPWD", "SHLVL", "_", markName:
		default:
			t.Errorf("environment holds %s", name)
		}
	}
	if strings.Contains(out, "evil") {
		t.Errorf("something of the agent's environment is in %s", out)
	}
}

// TestNoDescriptorLeaks opens one as this package would and one that a careless parent
// left to the agent: neither reaches a program, whatever it is started on.
func TestNoDescriptorLeaks(t *testing.T) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	careless, err := unix.Open("/proc/self/maps", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(careless)
	const list = "ls /proc/$$/fd; :"
	out, _ := run(t, list)
	if got := strings.Join(strings.Fields(out), " "); !onlyStandard(got) {
		t.Errorf("on a terminal: got descriptors %s, want 0 1 2", got)
	}
	p, err := Options{}.Exec(self(t), Exec{Command: list})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	b, _ := io.ReadAll(readerFunc(p.Read))
	if got := strings.Join(strings.Fields(string(b)), " "); !onlyStandard(got) {
		t.Errorf("on pipes: got descriptors %s, want 0 1 2", got)
	}
}

// onlyStandard reports whether descriptors are the standard ones, besides those that
// shells keep to themselves.
func onlyStandard(fds string) bool {
	return strings.TrimSuffix(strings.TrimSuffix(fds, " 10"), " 255") == "0 1 2"
}

// TestSignals is the attack on whoever starts the agent under nohup: what the agent
// ignores or blocks, the session does not.
func TestSignals(t *testing.T) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1)
	defer signal.Reset(syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1)
	out, _ := run(t, "grep -E '^Sig(Blk|Ign)' /proc/self/status")
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) != 2 || strings.Trim(f[1], "0") != "" {
			t.Errorf("got %q, want no signal", line)
		}
	}
}

func TestLoginShell(t *testing.T) {
	u := self(t)
	if err := os.WriteFile(filepath.Join(u.Home, ".profile"), []byte("echo from-profile\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Options{}.Login(u, Size{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	io.WriteString(writerFunc(p.Write), "echo name=$0; stty size; pwd; exit 3\n")
	out, _ := io.ReadAll(readerFunc(p.Read))
	<-p.Exited()
	for _, want := range []string{"from-profile", "name=-sh", "24 80", u.Home} {
		if !strings.Contains(string(out), want) {
			t.Errorf("got %q, want it to contain %q", out, want)
		}
	}
	if p.Status() != 3 {
		t.Errorf("got status %d, want 3", p.Status())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestMissingHome(t *testing.T) {
	u := self(t)
	u.Home = "/nonexistent/home"
	p, err := Options{}.Interactive(u, "pwd", Size{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out, _ := io.ReadAll(readerFunc(p.Read))
	if got := strings.TrimSpace(string(out)); got != "/" {
		t.Errorf("got working directory %q, want /", got)
	}
}

func TestMissingShell(t *testing.T) {
	u := self(t)
	u.Shell = "/nonexistent/shell"
	if p, err := (Options{}).Login(u, Size{}); err == nil {
		p.Close()
		t.Error("starting a shell that does not exist succeeded")
	}
}

func TestResize(t *testing.T) {
	p, err := Options{}.Interactive(self(t), "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done", Size{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	expect(t, p, "ready")
	if err := p.Resize(Size{Cols: 132, Rows: 43}); err != nil {
		t.Fatal(err)
	}
	expect(t, p, "43 132")
}

// TestInterrupt checks that Ctrl-C and Ctrl-\ go through the terminal's line
// discipline to the program in the foreground.
func TestInterrupt(t *testing.T) {
	for key, want := range map[string]int{"\x03": 130, "\x1c": 131} {
		p, err := Options{}.Interactive(self(t), "echo ready; exec sleep 60", Size{})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, p, "ready")
		time.Sleep(20 * time.Millisecond) // until exec has reset the signals
		p.Write([]byte(key))
		<-p.Exited()
		if got := p.Status(); got != want {
			t.Errorf("key %q: got status %d, want %d", key, got, want)
		}
		p.Close()
	}
}

// expect reads until text has appeared.
func expect(t *testing.T, p *Process, text string) string {
	t.Helper()
	var all bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(all.String(), text) {
		n, err := p.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			t.Fatalf("got %q and %v, want %q", all.String(), err, text)
		}
	}
	return all.String()
}

// TestCloseEndsAll closes sessions whose programs resist; nothing may be left.
func TestCloseEndsAll(t *testing.T) {
	for name, command := range map[string]string{
		"plain":      "echo $$ ready; sleep 100",
		"background": "sleep 100 & sleep 101 & echo $$ ready; wait",
		"nohup":      "nohup sleep 100 >/dev/null 2>&1 & echo $$ ready; wait",
		"ignores":    "trap '' HUP TERM INT; echo $$ ready; sleep 100; sleep 100",
		"own groups": "set -m; sleep 100 & (trap '' HUP; sleep 100; sleep 100) & echo $$ ready; wait",
		"stopped":    "echo $$ ready; kill -STOP $$",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := Options{}.Interactive(self(t), command, Size{})
			if err != nil {
				t.Fatal(err)
			}
			expect(t, p, "ready")
			sid := p.cmd.Process.Pid
			began := time.Now()
			p.Close()
			if left := p.all.pids(); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
			if took := time.Since(began); took > grace+killFor {
				t.Errorf("closing took %v", took)
			}
			if err := syscall.Kill(sid, 0); err == nil {
				t.Error("the program has not been reaped")
			}
		})
	}
}

// TestCloseEndsDeserters is the attack: programs that leave the session, by daemonising
// for instance, end with it all the same, and those of other sessions do not.
func TestCloseEndsDeserters(t *testing.T) {
	other, err := Options{}.Interactive(self(t), "echo ready; sleep 100", Size{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, other, "ready")
	for name, command := range map[string]string{
		"setsid":         "setsid -f sleep 100",
		"double fork":    "(setsid sh -c 'sleep 100 & exec sleep 101' >/dev/null 2>&1 &)",
		"resists":        `setsid -f sh -c 'trap "" HUP TERM; sleep 100; sleep 100; sleep 100'`,
		"another name":   "setsid -f env FOO=bar sh -c 'cd /; exec sleep 100'",
		"forks for ever": `setsid -f sh -c 'trap "" HUP; while :; do setsid -f sleep 100; sleep 0.05; done'`,
		// Without the trap the child may not have left yet when the shell ends, and go
		// with the terminal.
		"shell has ended": "trap '' HUP; setsid -f sleep 100; echo ready; exit",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := Options{}.Interactive(self(t), command+"; echo ready; sleep 100", Size{})
			if err != nil {
				t.Fatal(err)
			}
			expect(t, p, "ready")
			await(t, func() bool { return deserters(p) > 0 })
			p.Close()
			if left := p.all.pids(); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
		})
	}
	t.Cleanup(func() {
		if len(other.all.pids()) == 0 {
			t.Error("another session has ended, too")
		}
		other.Close()
	})
}

// Where the node allows it, a program that left the session outlives it, and one that
// did not leave does not.
func TestKeepDetached(t *testing.T) {
	o := Options{RunAsSelf: true, KeepDetached: true}
	u, err := o.Resolve(t.Context(), RunAs{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.Interactive(u, "setsid -f sh -c 'echo $$; exec sleep 20'; sleep 100", Size{})
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(p).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if left := p.all.pids(); len(left) > 0 {
		t.Errorf("processes %v of the session are left", left)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the program that left the session has ended with it: %v", err)
	}
}

// deserters counts the processes that have left their session.
func deserters(p *Process) int {
	n := 0
	for _, pid := range p.all.pids() {
		if q, ok := readProcess(pid); ok && q.sid != p.all.sid {
			n++
		}
	}
	return n
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// TestCloseAfterExit checks that programs left behind by a shell that has ended go too.
func TestCloseAfterExit(t *testing.T) {
	p, err := Options{}.Interactive(self(t), "(trap '' HUP; sleep 100) & exit 5", Size{})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	p.Close()
	if left := p.all.pids(); len(left) > 0 || p.Status() != 5 {
		t.Errorf("got status %d and processes %v, want 5 and none", p.Status(), left)
	}
}

func TestCloseUnblocksReadAndWrite(t *testing.T) {
	p, err := Options{}.Interactive(self(t), "stty raw -echo; echo ready; sleep 100", Size{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, p, "ready")
	done := make(chan struct{}, 2)
	go func() {
		io.ReadAll(readerFunc(p.Read))
		done <- struct{}{}
	}()
	go func() {
		for {
			if _, err := p.Write(make([]byte, 4096)); err != nil {
				break
			}
		}
		done <- struct{}{}
	}()
	time.Sleep(20 * time.Millisecond) // let both block
	p.Close()
	<-done
	<-done
}

// TestSwitch runs a session as another user with that user's groups and nothing more,
// on a terminal of that user's.
func TestSwitch(t *testing.T) {
	needs.Root(t)
	u := User{Name: "other", UID: 54321, GID: 54322, Groups: []uint32{54322, 54323}, Home: "/", Shell: "/bin/sh", Switch: true}
	out := runAs(t, u, "id -u; id -g; id -G; echo x >$(tty) && grep NoNewPrivs /proc/self/status; stat -c '%u %a' $(tty); "+
		"cat /proc/self/oom_score_adj; nice")
	want := "54321 54322 54322 54323 x NoNewPrivs: 0 54321 620 0 0"
	if got := strings.Join(strings.Fields(out), " "); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// runAs runs a command line of u's shell on a terminal and returns what it printed.
func runAs(t *testing.T, u User, command string) string {
	t.Helper()
	p, err := Options{}.Exec(u, Exec{Command: command, Terminal: &Terminal{}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out, _ := io.ReadAll(readerFunc(p.Read))
	return string(out)
}

// TestNothingOfRootIsLeft is the attack: groups of the agent that were not dropped
// (CVE-2023-28436), a saved user id, capabilities of any set that a program has by
// itself.
func TestNothingOfRootIsLeft(t *testing.T) {
	needs.Root(t)
	had, err := syscall.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setgroups([]int{0, 4, 27}); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setgroups(had)
	u := User{Name: "other", UID: 54321, GID: 54322, Home: "/", Shell: "/bin/sh", Switch: true}
	out := runAs(t, u, "grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapAmb):' /proc/self/status")
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		want := map[string]string{"Uid": "54321 54321 54321 54321", "Gid": "54322 54322 54322 54322", "Groups": ""}[name]
		if strings.HasPrefix(name, "Cap") {
			want = "0000000000000000"
		}
		if got := strings.Join(strings.Fields(value), " "); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestLimits checks that a program has the limits of limits.conf, and the umask of
// login.defs, from its first instruction.
func TestLimits(t *testing.T) {
	needs.Root(t)
	o := machine(t, map[string]string{
		"etc/security/limits.conf": "other soft nofile 321\nother hard nofile 654\nother - core 0\nother - memlock 128\nother - priority 5\nother - nproc 77",
		"etc/login.defs":           "UMASK 027\n",
	})
	u := User{Name: "other", UID: 54321, GID: 54322, Home: "/", Shell: "/bin/bash", Switch: true}
	p, err := o.Exec(u, Exec{Command: "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -l; ulimit -u; umask; nice"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out, _ := io.ReadAll(readerFunc(p.Read))
	if got, want := strings.Join(strings.Fields(string(out)), " "), "321 654 0 128 77 0027 5"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestFilesAs serves files as another user: one that only root may read stays shut.
func TestFilesAs(t *testing.T) {
	needs.Root(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := User{Name: "other", UID: 54321, GID: 54322, Home: "/usr", Shell: "/bin/sh", Switch: true}
	p, err := Options{}.Exec(u, Exec{SFTP: true, Terminal: nil})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	client, err := sftp.NewClientPipe(readerFunc(p.Read), inputOf{p})
	if err != nil {
		t.Fatal(err)
	}
	if wd, err := client.Getwd(); err != nil || wd != "/usr" {
		t.Errorf("got directory %q, %v, want /usr", wd, err)
	}
	if f, err := client.Open(secret); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v, %v, want permission denied", f, err)
	}
	// Who may only transfer files must not write code into the file server.
	for _, file := range []string{"/proc/self/mem", "/proc/thread-self/mem"} {
		if f, err := client.OpenFile(file, os.O_RDWR); !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: got %v, %v, want permission denied", file, f, err)
		}
	}
	p.CloseWrite()
	client.Close()
	<-p.Exited()
	if p.Status() != 0 {
		t.Errorf("got status %d, want 0", p.Status())
	}
}

type inputOf struct{ *Process }

func (i inputOf) Close() error {
	i.CloseWrite()
	return nil
}

// TestLaunchFails reports what the launcher could not do.
func TestLaunchFails(t *testing.T) {
	u := self(t)
	u.Shell = t.TempDir() // a directory
	for name, e := range map[string]Exec{"pipes": {}, "terminal": {Terminal: &Terminal{}}} {
		p, err := Options{}.Exec(u, e)
		if err == nil {
			p.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: got %v, want permission denied", name, err)
		}
	}
}

// TestLauncherArguments is the attack: what a session runs, and with which environment,
// is for the person alone, not for all who can list processes.
func TestLauncherArguments(t *testing.T) {
	p, err := Options{}.Exec(self(t), Exec{Command: "tr '\\0' ' ' </proc/$$/cmdline; cat", Environment: map[string]string{"TOKEN": "secret"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.CloseWrite()
	out, _ := io.ReadAll(readerFunc(p.Read))
	if strings.Contains(string(out), "secret") || !strings.HasPrefix(string(out), "sh -c ") {
		t.Errorf("got command line %q, want that of the shell", out)
	}
}

func TestThreadsPerShell(t *testing.T) {
	var all []*Process
	for range 20 {
		p, err := Options{}.Interactive(self(t), "echo ready; cat", Size{})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, p, "ready")
		all = append(all, p)
	}
	defer func() {
		for _, p := range all {
			p.cmd.Process.Kill()
			p.Close()
		}
	}()
	blocked := make(chan struct{})
	for _, p := range all {
		go func() { p.Read(make([]byte, 1)); blocked <- struct{}{} }()
	}
	defer func() {
		for range all {
			<-blocked
		}
	}()
	time.Sleep(20 * time.Millisecond)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Skip(err)
	}
	// One waits for each program; reading must not hold another.
	if len(threads) > len(all)+20 {
		t.Errorf("got %d threads for %d shells: "+strconv.Itoa(len(threads)), len(threads), len(all))
	}
	for _, p := range all {
		p.cmd.Process.Kill()
	}
}
