package shell

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// childInfo is the part of the kernel's siginfo that waitid fills.
type childInfo struct {
	signo, errno, code int32
	child              struct {
		_        [0]uintptr // the kernel aligns this part as a pointer
		pid, uid int32
		status   int32
	}
}

const cldExited = 1 // si_code of a child that ended by itself

// waitExit waits for the process to end, leaving it to be reaped, and returns its
// exit status, 128 and the number of the signal that ended it, or 255 if unknown.
func waitExit(pid int) int {
	var info unix.Siginfo
	err := error(unix.EINTR)
	for err == unix.EINTR {
		err = unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
	}
	if err != nil {
		return 255
	}
	c := (*childInfo)(unsafe.Pointer(&info))
	if c.code == cldExited {
		return int(c.child.status) & 0xff
	}
	return 128 + int(c.child.status)
}

// signalSession sends sig to every living process of the session and returns how
// many there were. Programs with job control spread over many process groups, so the
// session's members are looked up rather than its groups.
func signalSession(sid int, sig syscall.Signal) int {
	n := 0
	for _, pid := range sessionMembers(sid) {
		if err := syscall.Kill(pid, sig); err == nil || err == syscall.EPERM {
			n++
		}
	}
	return n
}

func sessionMembers(sid int) []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err == nil && inSession(pid, sid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// inSession reports whether pid is a living process of the session. The line is
// "pid (name) state ppid pgrp session …"; the name may hold anything.
func inSession(pid, sid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 4 || f[0][0] == 'Z' || f[0][0] == 'X' {
		return false
	}
	return string(f[3]) == strconv.Itoa(sid)
}
