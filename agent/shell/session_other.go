//go:build unix && !linux

package shell

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// waitExit waits for the process to end and returns how it ended, status 255 if unknown.
func waitExit(pid int) Exit {
	var ws unix.WaitStatus
	err := error(unix.EINTR)
	for err == unix.EINTR {
		_, err = unix.Wait4(pid, &ws, 0, nil)
	}
	switch {
	case err != nil:
		return Exit{Status: 255}
	case ws.Signaled():
		return exitBy(ws.Signal(), ws.CoreDump())
	}
	return Exit{Status: ws.ExitStatus()}
}

// members are the processes of a session: without /proc, those of its leader's group.
type members struct{ sid int }

func newMembers(sid int, _ string, _ *cgroup) members { return members{sid} }

// signal sends sig to the processes and returns 1 if there was one.
func (m members) signal(sig syscall.Signal) int {
	if syscall.Kill(-m.sid, sig) != nil {
		return 0
	}
	return 1
}

// none reports whether no process of the session is left.
func (m members) none() bool { return m.signal(0) == 0 }
