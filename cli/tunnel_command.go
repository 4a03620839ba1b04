package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Exit statuses of a command that did not start, as shells have them.
const (
	statusNotRunnable = 126
	statusNotFound    = 127
	// stopPatience is how long a command has to end when its tunnel is over.
	stopPatience = 5 * time.Second
)

// runCommand runs a command while the tunnel is up, and returns its exit status.
func (t *tunnel) runCommand(ctx context.Context, words []string) error {
	words, env := t.fill(words)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = t.p.stdin, t.p.stdout, t.p.stderr
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopPatience
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errLeft):
		return t.ended(context.Cause(ctx))
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return &statusError{status: exitStatus(exit.ProcessState)}
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return &statusError{status: statusNotFound, err: err}
	}
	return &statusError{status: statusNotRunnable, err: err}
}

// fill puts ports and addresses in place of {port}, {port2}, {address}…, and returns
// them for the environment, too.
func (t *tunnel) fill(words []string) (filled, env []string) {
	var pairs []string
	for i, d := range t.doors {
		n, suffix := "", ""
		if i > 0 {
			n = fmt.Sprint(i + 1)
			suffix = "_" + n
		}
		pairs = append(pairs, "{port"+n+"}", d.port(), "{address"+n+"}", d.address())
		env = append(env, "SALLYPORT_PORT"+suffix+"="+d.port(), "SALLYPORT_ADDRESS"+suffix+"="+d.address())
	}
	put := strings.NewReplacer(pairs...)
	for _, w := range words {
		filled = append(filled, put.Replace(w))
	}
	return filled, env
}

// exitStatus is that of an ended process, 128 and more if a signal ended it.
func exitStatus(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}
