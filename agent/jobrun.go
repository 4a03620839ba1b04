package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sallyport.dev/agent/shell"
	"sallyport.dev/wire"
)

// Exit statuses with a meaning of their own (AWS's).
const (
	exitSuccess = 168 // the rest of the steps is not needed
	exitFailure = 169
	exitReboot  = 194 // not done: nobody restarts the machine for a script here
	exitKilled  = 137
)

const (
	// maxStdout and maxStderr bound what is kept of a step's outputs, in bytes: the
	// beginning, and a quarter of it from the end.
	maxStdout = 64 << 10
	maxStderr = 32 << 10
	// maxPluginOutput bounds the short form of both.
	maxPluginOutput = 2500
	// outputPatience is how long outputs are read after the script has exited, where
	// something that it left running keeps them open.
	outputPatience = 2 * time.Second
)

const noCommands = "this node runs no commands (no_commands in its agent's configuration)"

// execute runs the steps of a command.
func (j *jobs) execute(ctx context.Context, id, jobID string, c wire.Command) outcomeOf {
	if j.a.cfg.NoCommands {
		return failedOutcome(noCommands)
	}
	steps, err := readJob(c)
	if err != nil {
		return failedOutcome(err.Error())
	}
	j.tidy(j.a.cfg.now())
	j.a.log.Info("running a command", "command", id, "document", c.DocumentName)
	out := outcomeOf{status: statusInProgress}
	j.progress(jobID, out)
	over := false
	for n, s := range steps {
		if over && !s.finally {
			continue
		}
		result := j.step(ctx, id, n, s)
		out.add(s.name, result)
		if ctx.Err() != nil {
			break
		}
		over = over || s.ends(result)
		if n < len(steps)-1 {
			j.progress(jobID, out)
		}
	}
	out.finish()
	return out
}

// ends reports whether no ordinary step follows.
func (s step) ends(r wire.JobPlugin) bool {
	switch {
	case r.Code == exitSuccess && r.Status == statusSuccess, r.Code == exitFailure:
		return true
	case r.Code == 0 && r.Status == statusSuccess:
		return s.onSuccess == "exit"
	case r.Status == "Skipped":
		return false
	}
	return s.onFailure == "exit" || s.onFailure == "successAndExit"
}

// step runs one step and says what it came to.
func (j *jobs) step(ctx context.Context, id string, n int, s step) wire.JobPlugin {
	began := j.a.cfg.now()
	out := wire.JobPlugin{Name: s.plugin, StepName: s.name, StartDateTime: began.UTC().Format(jobTime)}
	switch {
	case s.skip != "":
		out.Status, out.Output = "Skipped", "Step execution skipped: "+s.skip+"."
	case s.unsupported != "":
		out.Status, out.Code, out.StandardError = statusFailed, 1, s.unsupported
	default:
		j.script(ctx, id, n, s, &out)
	}
	if out.Output == "" {
		out.Output = bothOutputs(out.StandardOutput, out.StandardError)
	}
	out.EndDateTime = j.a.cfg.now().UTC().Format(jobTime)
	return out
}

// bothOutputs joins outputs in the form that AWS's agent uses.
func bothOutputs(stdout, stderr string) string {
	if stderr != "" {
		stdout += "\n----------ERROR-------\n" + stderr
	}
	if len(stdout) > maxPluginOutput {
		stdout = strings.ToValidUTF8(stdout[:maxPluginOutput-len(cutMark)], "") + cutMark
	}
	return stdout
}

const cutMark = "\n--output truncated--"

// script writes a step's script to disk and runs it.
func (j *jobs) script(ctx context.Context, id string, n int, s step, out *wire.JobPlugin) {
	dir := filepath.Join(j.dir(), id, fmt.Sprint(n))
	defer os.RemoveAll(filepath.Join(j.dir(), id))
	path, err := s.write(dir)
	var proc *shell.Process
	if err == nil {
		proc, err = j.startScript(ctx, path)
	}
	if err != nil {
		out.Status, out.Code, out.StandardError = statusFailed, 1, "starting the script: "+err.Error()
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, errJobTimeout)
	defer cancel()
	stdout, stderr := newCapture(maxStdout), newCapture(maxStderr)
	var reading sync.WaitGroup
	reading.Go(func() { stdout.read(proc.Read) })
	reading.Go(func() { stderr.read(proc.ReadError) })
	s.attend(ctx, proc, &reading, out)
	reading.Wait()
	out.StandardOutput, out.StandardError = stdout.String(), withNote(stderr.String(), out.StandardError)
}

// withNote puts what the agent has to say below what the script said.
func withNote(stderr, note string) string {
	if note != "" && stderr != "" && !strings.HasSuffix(stderr, "\n") {
		stderr += "\n"
	}
	return stderr + note
}

// attend waits for a script and ends it if its time is over, with all that it started.
func (s step) attend(ctx context.Context, proc *shell.Process, reading *sync.WaitGroup, out *wire.JobPlugin) {
	select {
	case <-proc.Exited():
	case <-ctx.Done():
		proc.Close()
		cause := context.Cause(ctx)
		out.Status, out.Code = statusOf(cause), exitKilled
		out.StandardError = cause.Error() + "\n"
		return
	}
	read := make(chan struct{})
	go func() { // ends with Release at the latest
		defer close(read)
		reading.Wait()
	}()
	patience := time.NewTimer(outputPatience)
	defer patience.Stop()
	select {
	case <-read:
	case <-patience.C:
	case <-ctx.Done():
	}
	proc.Release()
	out.Code = proc.Status()
	out.Status = statusFailed
	switch out.Code {
	case 0, exitSuccess:
		out.Status = statusSuccess
	case exitReboot:
		out.StandardError = "exit status 194 asks for a restart of the machine, which this agent does not do\n"
	}
	if s.onFailure == "successAndExit" && out.Status == statusFailed {
		out.Status = statusSuccess
	}
}

// statusOf is the status of a step that was ended.
func statusOf(cause error) string {
	switch {
	case errors.Is(cause, errJobTimeout):
		return statusTimedOut
	case errors.Is(cause, errJobCancelled):
		return statusCancelled
	}
	return statusFailed
}

// startScript runs the script as the agent's own user, as AWS's agent does.
func (j *jobs) startScript(ctx context.Context, path string) (*shell.Process, error) {
	u, err := j.a.cfg.Shell.Resolve(ctx, shell.RunAs{Elevated: true})
	if err != nil {
		return nil, err
	}
	return j.a.cfg.Shell.Command(u, "/bin/sh "+quoted(path), true)
}

// write puts the script into dir, beside one that sets up what it needs: nothing of it
// is ever in an argument, which everybody on the machine can read.
func (s step) write(dir string) (path string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	script, setup := filepath.Join(dir, "_script.sh"), filepath.Join(dir, "setup")
	if err := os.WriteFile(script, []byte(s.script), 0o700); err != nil {
		return "", err
	}
	var b strings.Builder
	for name, value := range s.environment {
		fmt.Fprintf(&b, "export %s=%s\n", name, quoted(value))
	}
	if s.dir != "" {
		fmt.Fprintf(&b, "cd %s || exit 1\n", quoted(s.dir))
	}
	fmt.Fprintf(&b, "exec </dev/null\n")
	if strings.HasPrefix(s.script, "#!") {
		fmt.Fprintf(&b, "exec %s\n", quoted(script))
	} else {
		fmt.Fprintf(&b, "exec /bin/sh %s\n", quoted(script))
	}
	return setup, os.WriteFile(setup, []byte(b.String()), 0o600)
}

// quoted is one word of a shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// capture keeps the beginning and the end of an output.
type capture struct {
	head, tail []byte
	max        int // of both
	left       int // bytes between them
}

func newCapture(most int) *capture { return &capture{max: most} }

func (c *capture) read(from func([]byte) (int, error)) {
	b := make([]byte, 16<<10)
	for {
		n, err := from(b)
		c.write(b[:n])
		if err != nil {
			return
		}
	}
}

func (c *capture) write(b []byte) {
	if room := c.max*3/4 - len(c.head); room > 0 {
		n := min(room, len(b))
		c.head = append(c.head, b[:n]...)
		b = b[n:]
	}
	c.tail = append(c.tail, b...)
	if over := len(c.tail) - c.max/4; over > 0 {
		c.left += over
		c.tail = append(c.tail[:0], c.tail[over:]...)
	}
}

// String is what was kept, with a mark where something is missing.
func (c *capture) String() string {
	if c.left == 0 {
		return string(c.head) + string(c.tail)
	}
	return fmt.Sprintf("%s\n--output truncated: %d bytes left out--\n%s", c.head, c.left, c.tail)
}
