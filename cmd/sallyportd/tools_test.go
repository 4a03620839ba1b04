package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
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
