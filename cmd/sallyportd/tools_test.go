package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"

	"sallyport.dev/internal/readalong"
)

// cmdStatus runs "status N COMMAND [ARG]..." and wants the exit status N.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND [ARG]...")
	}
	got, err := 0, ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got, err = exit.ExitCode(), nil
	}
	if err != nil || fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit status: got %d (%v), want %s", got, err, args[0])
	}
}

// cmdAWSOnly puts a server in front of the deployment that knows AWS's operations only,
// as AWS itself does, and points the environment at it.
func cmdAWSOnly(ts *testscript.TestScript, neg bool, args []string) {
	behind, err := url.Parse(ts.Getenv("AWS_ENDPOINT_URL"))
	ts.Check(err)
	pass := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(behind); r.Out.Host = r.In.Host }, // which is signed
		ErrorLog: nil,
	}
	front := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("X-Amz-Target"), "Sallyport.") {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"__type":"UnknownOperationException"}`)
			return
		}
		pass.ServeHTTP(w, r)
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		front.Serve(l)
	}()
	ts.Defer(func() { front.Close(); <-served })
	ts.Setenv("AWS_ENDPOINT_URL", "http://"+l.Addr().String())
}

// cmdSSHD starts an sshd of the script's own on a free port, which lets the key in the
// file "key" in as whoever runs the test, and sets SSHD_PORT and SSHD_USER.
func cmdSSHD(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(".")
	run := func(name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			ts.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "hostkey")
	run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	config := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n",
		port, filepath.Join(dir, "hostkey"), filepath.Join(dir, "key.pub"))
	ts.Check(os.WriteFile(filepath.Join(dir, "sshd_config"), []byte(config), 0o600))
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	if os.Geteuid() == 0 {
		os.MkdirAll("/run/sshd", 0o755) // its own folder, which it insists on
	}
	cmd := exec.Command(sshd, "-D", "-e", "-f", filepath.Join(dir, "sshd_config"))
	var log strings.Builder
	cmd.Stderr = &log
	ts.Check(cmd.Start())
	ts.Defer(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(devPatience); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			ts.Fatalf("sshd did not start: %s", log.String())
		}
	}
	ts.Setenv("SSHD_PORT", fmt.Sprint(port))
	who, err := exec.Command("id", "-un").Output()
	ts.Check(err)
	ts.Setenv("SSHD_USER", strings.TrimSpace(string(who)))
}

// cmdTerminal runs "terminal SCRIPT COMMAND [ARG]..." on a terminal of 100 columns and 30
// rows. Lines of SCRIPT: "want REGEXP" waits until it is shown behind what was wanted
// before, "type QUOTED" types, "run LINE" runs a line of the shell elsewhere meanwhile,
// "status N" wants that exit status at the end (0 unless given). All that was shown is
// then in the file terminal.out.
func cmdTerminal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: terminal SCRIPT COMMAND [ARG]...")
	}
	cmd := exec.Command(lookPath(ts, args[1]), args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "TERM=xterm-256color")
	for _, name := range []string{"PATH", "HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ENDPOINT_URL", "AWS_REGION", "SALLYPORT_CONFIG"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 100, Rows: 30})
	ts.Check(err)
	defer screen.Close()
	shown := &readalong.Text{}
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(shown, screen) // ends with the command
	}()
	defer func() {
		cmd.Process.Kill()
		ts.Check(os.WriteFile(ts.MkAbs("terminal.out"), []byte(shown.String()), 0o600))
	}()
	status := "0"
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "want":
			ts.Check(shown.Await(regexp.MustCompile(rest), devPatience))
		case "type":
			text, err := strconv.Unquote(rest)
			ts.Check(err)
			fmt.Fprint(screen, text)
		case "run":
			elsewhere := exec.Command("sh", "-c", rest)
			elsewhere.Dir, elsewhere.Env = cmd.Dir, cmd.Env
			out, err := elsewhere.CombinedOutput()
			ts.Logf("%s\n%s", rest, out)
			ts.Check(err)
		case "status":
			status = rest
		}
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(devPatience):
		ts.Fatalf("%q did not end; it showed %q", args[1:], shown.String())
	}
	<-read
	if got := fmt.Sprint(cmd.ProcessState.ExitCode()); got != status {
		ts.Fatalf("exit status: got %s, want %s; it showed %q", got, status, shown.String())
	}
}
