package shell

import (
	"bytes"
	"io"
	"os"
	"slices"
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

// si_code of a child.
const (
	cldExited = 1 // ended by itself
	cldDumped = 3 // ended by a signal, and left its memory in a file
)

// waitExit waits for the process to end, leaving it to be reaped, and returns how it
// ended, status 255 if unknown.
func waitExit(pid int) Exit {
	var info unix.Siginfo
	err := error(unix.EINTR)
	for err == unix.EINTR {
		err = unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
	}
	if err != nil {
		return Exit{Status: 255}
	}
	c := (*childInfo)(unsafe.Pointer(&info))
	if c.code == cldExited {
		return Exit{Status: int(c.child.status) & 0xff}
	}
	return exitBy(syscall.Signal(c.child.status), c.code == cldDumped)
}

// members are the processes of a session: those that the kernel counts to it, those in
// its control group, and those that left it (setsid, daemons) but carry its mark in their
// environment, which every child inherits. Without a group, a program that clears its
// environment or overwrites it in its memory, besides leaving the session, is not found.
type members struct {
	sid   int
	mark  []byte
	since uint64  // when the leader started, in the kernel's ticks; others are younger
	group *cgroup // nil for none, or one whose processes may outlive the session
}

// maxEnvironment bounds what is read of a process's environment.
const maxEnvironment = 256 << 10

func newMembers(sid int, mark string, group *cgroup) members {
	p, _ := readProcess(sid)
	m := members{sid: sid, mark: []byte(mark), since: p.started}
	if group != nil && !group.kept {
		m.group = group
	}
	return m
}

// signal sends sig to every living process of the session and returns how many there
// were. Programs with job control spread over many process groups, so the session's
// members are looked up rather than its groups.
func (m members) signal(sig syscall.Signal) int {
	n := 0
	for _, pid := range m.pids() {
		if m.kill(pid, sig) {
			n++
		}
	}
	return n
}

// kill sends sig to a process and reports whether it was there. The process is held by
// a descriptor while it is looked at again: its number may be another's by now.
func (m members) kill(pid int, sig syscall.Signal) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return false
	}
	if err != nil { // before Linux 5.3
		err = syscall.Kill(pid, sig)
		return err == nil || err == syscall.EPERM
	}
	defer unix.Close(fd)
	if !m.has(pid) {
		return false
	}
	err = unix.PidfdSendSignal(fd, unix.Signal(sig), nil, 0)
	return err == nil || err == unix.EPERM
}

func (m members) pids() []int {
	pids := m.scan()
	if m.group == nil {
		return pids
	}
	for _, pid := range m.group.pids() {
		if !slices.Contains(pids, pid) && m.has(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// scan looks for members among all processes of the machine.
func (m members) scan() []int {
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
		if err == nil && m.inSession(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// has reports whether pid is a living process of the session.
func (m members) has(pid int) bool {
	if m.inSession(pid) {
		return true
	}
	if m.group == nil || !m.group.has(pid) {
		return false
	}
	p, ok := readProcess(pid)
	return ok && !p.dead
}

// inSession reports whether pid is a living process that the kernel counts to the
// session, or bears its mark.
func (m members) inSession(pid int) bool {
	p, ok := readProcess(pid)
	switch {
	case !ok || p.dead:
		return false
	case p.sid == m.sid:
		return true
	}
	return len(m.mark) > 0 && p.started >= m.since && m.marks(pid)
}

// none reports whether no process of the session is left; the group, if there is one,
// knows that most cheaply.
func (m members) none() bool {
	if m.group != nil && m.group.populated() {
		return false
	}
	return m.signal(0) == 0
}

// marks reports whether the process carries the session's mark.
func (m members) marks(pid int) bool {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxEnvironment)) // an error means that it has ended
	for entry := range bytes.SplitSeq(b, []byte{0}) {
		if bytes.Equal(entry, m.mark) {
			return true
		}
	}
	return false
}

// process is what the kernel says of one.
type process struct {
	sid     int
	started uint64 // in ticks since the machine started
	dead    bool   // but not reaped
}

// readProcess reads /proc/PID/stat. The line is "pid (name) state ppid pgrp session …",
// with the time of its start as the 22nd field; the name may hold anything.
func readProcess(pid int) (process, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return process{}, false
	}
	p := process{dead: f[0][0] == 'Z' || f[0][0] == 'X'}
	if p.sid, err = strconv.Atoi(string(f[3])); err != nil {
		return p, false
	}
	p.started, err = strconv.ParseUint(string(f[19]), 10, 64)
	return p, err == nil
}
