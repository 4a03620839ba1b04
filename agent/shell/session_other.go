//go:build unix && !linux

package shell

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// waitExit waits for the process to end and returns its exit status, 128 and the
// number of the signal that ended it, or 255 if unknown.
func waitExit(pid int) int {
	var ws unix.WaitStatus
	err := error(unix.EINTR)
	for err == unix.EINTR {
		_, err = unix.Wait4(pid, &ws, 0, nil)
	}
	switch {
	case err != nil:
		return 255
	case ws.Signaled():
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// signalSession sends sig to the process group of the session's leader and returns 1
// if there was a process: without /proc a session's other groups are not known.
func signalSession(sid int, sig syscall.Signal) int {
	if syscall.Kill(-sid, sig) != nil {
		return 0
	}
	return 1
}
