//go:build unix

package cli

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// controllingTerminal is the terminal that the process belongs to.
const controllingTerminal = "/dev/tty"

// inForeground reports whether the process may read from its terminal: one in the
// background would be stopped.
func inForeground(tty *os.File) bool {
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// batchParent reports whether the program that started this one was told on its command
// line to ask nothing: ssh -o BatchMode=yes, scp -B. Where the system does not show the
// command line, it is not known.
func batchParent() bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", os.Getppid()))
	return err == nil && isBatch(strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00"))
}
