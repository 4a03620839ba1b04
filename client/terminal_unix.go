//go:build unix

package client

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// prepareConsole has nothing to do: terminals understand escape sequences.
func prepareConsole(io.Writer) (undo func()) { return func() {} }

// endingSignals end the process, after the terminal was given back.
var endingSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}

// signalStatus is the exit status that says which signal ended a process.
func signalStatus(s os.Signal) int {
	if n, ok := s.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return 1
}

// signalName is how an SSH client names one of endingSignals.
func signalName(s os.Signal) string {
	switch s {
	case syscall.SIGTERM:
		return "TERM"
	case syscall.SIGHUP:
		return "HUP"
	case syscall.SIGQUIT:
		return "QUIT"
	}
	return "INT"
}

// ignoreTerminalStops makes reading from a terminal fail, instead of stopping the
// process, while that is in the background: isTerminalStop tells.
func ignoreTerminalStops() (undo func()) {
	if signal.Ignored(syscall.SIGTTIN) {
		return func() {}
	}
	signal.Ignore(syscall.SIGTTIN)
	return func() { signal.Reset(syscall.SIGTTIN) }
}

func isTerminalStop(err error) bool { return errors.Is(err, syscall.EIO) }

// typedSignal is the key that a signal stands for, where signals are passed on.
func typedSignal(s os.Signal) (byte, bool) {
	switch s {
	case syscall.SIGINT:
		return 0x03, true
	case syscall.SIGQUIT:
		return 0x1c, true
	}
	return 0, false
}

// ignoreBrokenPipes turns the death by SIGPIPE, which would leave the terminal raw,
// into a write error.
func ignoreBrokenPipes() (undo func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGPIPE)
	return func() { signal.Stop(c) }
}

// watchSize calls resized when the window changes and continued when the process
// goes on after having been stopped, until ctx ends.
func watchSize(ctx context.Context, resized, continued func()) {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGWINCH, syscall.SIGCONT)
	defer signal.Stop(c)
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-c:
			if s == syscall.SIGCONT {
				continued()
			}
			resized()
		}
	}
}
