package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sallyport.dev/cli"
	"sallyport.dev/internal/needs"
)

// The programs are this test binary under their own names, so that what the scripts
// run is built with the race detector too.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sallyportd":             func() { os.Exit(run()) },
		"sallyport":              func() { os.Exit(cli.Main(os.Args)) },
		"session-manager-plugin": func() { os.Exit(cli.Main(os.Args)) },
	})
}

// TestScripts runs what a user could type: testdata/script/*.txtar.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			env.Setenv("AWS_PAGER", "")
			env.Setenv("TERM", "xterm-256color")
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else each program sleeps for a second as it ends
			return nil
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"dev":      cmdDev,
			"aws":      cmdAWS,
			"capture":  cmdCapture,
			"eventual": cmdEventual,
			"status":   cmdStatus,
			"awsonly":  cmdAWSOnly,
			"sshd":     cmdSSHD,
			"terminal": cmdTerminal,
		},
	})
}

// condition answers [tool:NAME]: whether a program is there, and [aws:OPERATION]: whether
// the aws there is knows an operation of ssm. With SALLYPORT_REQUIRE_ALL=1 they must be.
func condition(cond string) (bool, error) {
	if operation, ok := strings.CutPrefix(cond, "aws:"); ok {
		return knowsOperation(operation)
	}
	name, ok := strings.CutPrefix(cond, "tool:")
	if !ok {
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	_, err := exec.LookPath(name)
	if err != nil && needs.All() {
		return false, fmt.Errorf("%s is not installed, and SALLYPORT_REQUIRE_ALL=1", name)
	}
	return err == nil, nil
}

// knowsOperation asks the stock CLI for what it demands of an operation's arguments.
func knowsOperation(operation string) (bool, error) {
	out, _ := exec.Command("aws", "ssm", operation).CombinedOutput()
	knows := strings.Contains(string(out), "arguments are required")
	if !knows && needs.All() {
		return false, fmt.Errorf("aws does not know ssm %s, and SALLYPORT_REQUIRE_ALL=1", operation)
	}
	return knows, nil
}

const devPatience = 30 * time.Second

// cmdDev starts "sallyportd dev" with the given flags, waits for its line "ready",
// and takes over the environment in DIR/env. The server is interrupted at the end of
// the script and must then end cleanly.
func cmdDev(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs("dev")
	args = append([]string{"dev", "--dir", dir, "--listen", "127.0.0.1:0"}, args...)
	cmd := exec.Command(lookPath(ts, "sallyportd"), args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("HOME"), "GORACE=halt_on_error=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ready := make(chan error, 1)
	go func() { ready <- awaitReady(out) }()
	ts.Defer(func() { stopDev(ts, cmd, &stderr) })
	select {
	case err := <-ready:
		if err != nil {
			ts.Fatalf("sallyportd dev: %v\n%s", err, stderr.String())
		}
	case <-time.After(devPatience):
		ts.Fatalf("sallyportd dev is not ready after %v\n%s", devPatience, stderr.String())
	}
	sourceEnv(ts, filepath.Join(dir, "env"))
}

func awaitReady(out io.Reader) error {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "ready" {
			go io.Copy(io.Discard, out) // ends with the process
			return nil
		}
	}
	return errors.New("ended before it was ready")
}

func stopDev(ts *testscript.TestScript, cmd *exec.Cmd, stderr *strings.Builder) {
	cmd.Process.Signal(os.Interrupt)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			ts.Logf("%s", stderr.String())
			ts.Fatalf("sallyportd dev did not end cleanly: %v", err)
		}
	case <-time.After(devPatience):
		cmd.Process.Kill()
		<-done
		ts.Fatalf("sallyportd dev did not end after an interrupt\n%s", stderr.String())
	}
}

func lookPath(ts *testscript.TestScript, name string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path := filepath.Join(dir, name); isExecutable(path) {
			return path
		}
	}
	ts.Fatalf("%s is not in PATH", name)
	return ""
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir() && info.Mode()&0o111 != 0
}

// sourceEnv does what ". DIR/env" does, with a real shell.
func sourceEnv(ts *testscript.TestScript, file string) {
	sh := exec.Command("sh", "-c", `. "$0" && env -0`, file)
	sh.Env = []string{"PATH=" + ts.Getenv("PATH")}
	out, err := sh.Output()
	ts.Check(err)
	for kv := range strings.SplitSeq(string(out), "\x00") {
		if k, v, ok := strings.Cut(kv, "="); ok && (strings.HasPrefix(k, "AWS_") || k == "PATH") {
			ts.Setenv(k, v)
		}
	}
}

// cmdAWS runs the stock CLI, naming the endpoint for old versions that do not know
// AWS_ENDPOINT_URL.
func cmdAWS(ts *testscript.TestScript, neg bool, args []string) {
	args = append([]string{"--endpoint-url", ts.Getenv("AWS_ENDPOINT_URL")}, args...)
	err := ts.Exec("aws", args...)
	switch {
	case err == nil && neg:
		ts.Fatalf("aws succeeded, which it should not have")
	case err != nil && !neg:
		ts.Fatalf("aws: %v", err)
	}
}

// cmdCapture runs "capture NAME PATTERN" on the last standard output: the first group
// of the pattern becomes the variable NAME.
func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: capture NAME PATTERN")
	}
	m := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) < 2 {
		ts.Fatalf("standard output has no %q:\n%s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], m[1])
}

// cmdEventual runs "eventual PATTERN COMMAND…" until its output matches.
func cmdEventual(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: eventual PATTERN COMMAND [ARGUMENT...]")
	}
	pattern := regexp.MustCompile(args[0])
	ctx, cancel := context.WithTimeout(context.Background(), devPatience)
	defer cancel()
	for {
		out, err := runQuietly(ctx, ts, args[1:])
		if err == nil && pattern.MatchString(out) {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("%q never showed %q; last: %v\n%s", args[1:], args[0], err, out)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// runQuietly runs a command of the script without writing to its log, which repeated tries
// would fill.
func runQuietly(ctx context.Context, ts *testscript.TestScript, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, lookPath(ts, args[0]), args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ENDPOINT_URL", "AWS_REGION"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err := cmd.Output()
	return string(out), err
}
