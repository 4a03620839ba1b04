package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// benchStart measures how long a person waits for the prompt. The shell's own start,
// which all share, is a floor measured beside them.
func benchStart(ctx context.Context, l *lab) ([]figure, error) {
	s, err := l.system(ctx)
	if err != nil {
		return nil, err
	}
	pair, err := l.ssh(ctx)
	if err != nil {
		return nil, err
	}
	p, err := newPeople(ctx, s.access)
	if err != nil {
		return nil, err
	}
	const (
		ours, call, bare = "sallyport connect, to prompt", "StartSession call, to prompt", "client's own start (sallyport version)"
		shell, ssh, jump = "the shell on a local terminal", "ssh, to prompt", "ssh -J, to prompt"
		beyond, added    = "sallyport connect beyond client's own start", "… and beyond the shell's own start"
	)
	r, err := compete(ctx, l.pickInt(15, 4),
		contestant{ours, l.prompt(func() (*exec.Cmd, error) { return l.connect(s) })},
		contestant{call, func(ctx context.Context) (float64, error) { return firstOutput(ctx, p, s.node) }},
		contestant{bare, l.ownStart},
		contestant{shell, l.prompt(l.localShell)},
		contestant{ssh, l.prompt(func() (*exec.Cmd, error) { return pair.command("direct"), nil })},
		contestant{jump, l.prompt(func() (*exec.Cmd, error) { return pair.command("behind"), nil })},
	)
	if err != nil {
		return nil, err
	}
	r.minus(beyond, ours, bare)
	r.minus(added, beyond, shell)
	r.minus("ssh beyond the shell's own start", ssh, shell)
	r.minus("ssh -J beyond the shell's own start", jump, shell)
	return []figure{
		r.figure(ours, "ms", ssh, jump),
		r.figure(call, "ms", shell),
		r.figure(beyond, "ms", bare, shell),
		r.figure(added, "ms", "ssh beyond the shell's own start", "ssh -J beyond the shell's own start").atMost(50, "50 ms"),
	}, nil
}

// prompt measures from the start of a program to its first output.
func (l *lab) prompt(command func() (*exec.Cmd, error)) func(context.Context) (float64, error) {
	return func(context.Context) (float64, error) {
		cmd, err := command()
		if err != nil {
			return 0, err
		}
		began := time.Now()
		t, err := l.onTerminal(cmd, filepath.Base(cmd.Path))
		if err != nil {
			return 0, err
		}
		defer t.end()
		err = t.first()
		return milliseconds(time.Since(began)), err
	}
}

// shell writes the program that every session of the measurements runs, here and
// behind sshd and agents: a plain shell that reads nobody's start-up files, since
// those can take longer than all that is measured.
func (l *lab) shell() (string, error) {
	path := l.path("shell")
	return path, os.WriteFile(path, []byte("#!/bin/sh\nPS1='$ ' exec /bin/sh -i\n"), 0o700)
}

// localShell is that program without any network.
func (l *lab) localShell() (*exec.Cmd, error) {
	path, err := l.shell()
	return exec.Command(path), err
}

// ownStart measures a client that does nothing.
func (l *lab) ownStart(context.Context) (float64, error) {
	program, err := l.program("sallyport")
	if err != nil {
		return 0, err
	}
	began := time.Now()
	out, err := exec.Command(program, "version").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	return milliseconds(time.Since(began)), nil
}

// firstOutput measures a session of the client package from the call.
func firstOutput(ctx context.Context, p *people, node string) (float64, error) {
	began := time.Now()
	v, err := p.visit(ctx, node)
	if err != nil {
		return 0, err
	}
	took := milliseconds(time.Since(began))
	return took, p.leave(ctx, v)
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }
