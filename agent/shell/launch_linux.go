package shell

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// selfPath is the agent's own executable, also once an upgrade has replaced the file.
func selfPath() (string, error) { return "/proc/self/exe", nil }

// detach leaves behind what the agent has from its own start: descriptors that it
// inherited, its rank for the kernel's out-of-memory killer, and, for the kernel's audit,
// who started it.
func detach() {
	if unix.CloseRange(launchFD, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC) != nil {
		closeOnExec()
	}
	os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0) // only root may; nobody else has to
}

// closeOnExec does for kernels before 5.11 what close_range does.
func closeOnExec() {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range fds {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= launchFD {
			syscall.CloseOnExec(fd)
		}
	}
}

// takeLimits sets the user's limits and priority; one that is not root may not raise
// any, and keeps what it has.
func (l launch) takeLimits() error {
	if os.Geteuid() == 0 {
		unix.Setpriority(unix.PRIO_PROCESS, 0, l.Nice)
		os.WriteFile("/proc/self/loginuid", strconv.AppendUint(nil, uint64(l.UID), 10), 0)
	}
	for _, r := range l.Limits {
		if err := r.take(); err != nil {
			return fmt.Errorf("setting limit %d to %d:%d: %w", r.Resource, r.Soft, r.Hard, err)
		}
	}
	return nil
}

// take sets the limit, as far as one that is not root may.
func (r limit) take() error {
	err := syscall.Setrlimit(r.Resource, &syscall.Rlimit{Cur: r.Soft, Max: r.Hard})
	if !errors.Is(err, syscall.EPERM) {
		return err
	}
	var have syscall.Rlimit
	if err := syscall.Getrlimit(r.Resource, &have); err != nil {
		return err
	}
	have.Max = min(have.Max, r.Hard)
	have.Cur = min(have.Max, r.Soft)
	return syscall.Setrlimit(r.Resource, &have)
}

// dropTo makes the calling thread the user's: groups first, as later they could not be
// changed, then the group, then the user, each in all its forms, and then looks whether
// that holds. Raw system calls, as with the user's limit of processes the runtime might
// fail to start a thread for others.
func dropTo(uid, gid uint32, groups []uint32) error {
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); e != 0 {
		return fmt.Errorf("setting groups: %w", e)
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
		return fmt.Errorf("setting the group: %w", e)
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
		return fmt.Errorf("setting the user: %w", e)
	}
	if uid != 0 {
		dropCapabilities()
	}
	return checkDropped(uid, gid, groups)
}

// dropCapabilities empties the sets that becoming another user leaves: the inheritable
// one, and with it the ambient. The bounding set stays, or sudo could not work.
func dropCapabilities() {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	unix.Capset(&header, &none[0]) // what it cannot give up it has not got
}

// checkDropped looks at what the thread is now. Nothing but the user may be left, and
// root must not come back.
func checkDropped(uid, gid uint32, groups []uint32) error {
	ru, eu, su := unix.Getresuid()
	rg, eg, sg := unix.Getresgid()
	for _, id := range []int{ru, eu, su} {
		if uint32(id) != uid {
			return fmt.Errorf("dropping privileges: got user %d, want %d", id, uid)
		}
	}
	for _, id := range []int{rg, eg, sg} {
		if uint32(id) != gid {
			return fmt.Errorf("dropping privileges: got group %d, want %d", id, gid)
		}
	}
	have, err := syscall.Getgroups()
	if err != nil {
		return fmt.Errorf("dropping privileges: %w", err)
	}
	for _, id := range have {
		if !slices.Contains(groups, uint32(id)) {
			return fmt.Errorf("dropping privileges: group %d is left", id)
		}
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0)); e == 0 && uid != 0 {
		return errors.New("dropping privileges: root came back")
	}
	return nil
}

// private gives the session a keyring of its own in place of the agent's.
func private() { unix.KeyctlJoinSessionKeyring("") }

// shutMemory keeps this process's memory from its own user. Whoever may write files may
// not, by /proc/self/mem, run code: policies tell file transfers from commands. (Root can
// still.)
func shutMemory() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("shutting the memory: %w", err)
	}
	return nil
}

// kernelAction is at least the kernel's struct sigaction, on any processor: all zero is
// the default.
type kernelAction [8]uint64

// resetSignals has every signal do again what it does by default, and blocks none: what
// was ignored or blocked when the agent started would stay so in the program.
func resetSignals() {
	var action kernelAction
	for sig := uintptr(1); sig <= 64; sig++ {
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
	var none uint64
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)
}
