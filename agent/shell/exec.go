package shell

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// Exec is a program to run as an SSH server would.
type Exec struct {
	// Command is a line for the user's login shell; empty for that shell itself.
	Command string
	// Words has Command split as a shell would, and run without one.
	Words bool
	// SFTP serves files in the place of both.
	SFTP bool
	// Environment comes on top of the login's; what could change how the login
	// shell, its loader or an interpreter starts is left out.
	Environment map[string]string
	// Terminal is nil for pipes.
	Terminal *Terminal
	// AuthSocket is the path of an SSH agent's socket; empty for none.
	AuthSocket string
}

// Exec starts the program of e as u. Without a terminal its input, output and errors are
// pipes.
func (o Options) Exec(u User, e Exec) (*Process, error) {
	run, err := o.program(u, e)
	if err != nil {
		return nil, err
	}
	run.env = append(run.env, clientEnviron(e.Environment)...)
	if e.AuthSocket != "" {
		run.env = append(run.env, "SSH_AUTH_SOCK="+e.AuthSocket)
	}
	if e.Terminal != nil {
		run.tty = "SSH_TTY"
		return o.startTTY(run, u, *e.Terminal)
	}
	return o.startPipes(run, u)
}

func (o Options) program(u User, e Exec) (program, error) {
	switch {
	case e.SFTP:
		return program{}, nil
	case e.Words:
		return o.words(u, e.Command)
	case e.Command == "":
		return o.loginShell(u), nil
	}
	path := o.shell(u)
	return program{path: path, args: []string{filepath.Base(path), "-c", e.Command}}, nil
}

// startPipes starts a program on three pipes.
func (o Options) startPipes(run program, u User) (*Process, error) {
	var pipes []*os.File
	abandon := func(err error) error {
		for _, f := range pipes {
			f.Close()
		}
		return err
	}
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, abandon(err)
		}
		pipes = append(pipes, r, w)
	}
	in, out, errs := pipes[0], pipes[3], pipes[5] // the program's
	started, err := o.start(run, u, in, out, errs, &syscall.SysProcAttr{Setsid: true})
	if err != nil {
		return nil, abandon(err)
	}
	if err := errors.Join(in.Close(), out.Close(), errs.Close()); err != nil {
		started.cmd.Process.Kill()
		started.cmd.Wait()
		return nil, abandon(err)
	}
	return newProcess(started, pipes[1], pipes[2], pipes[4]), nil
}
