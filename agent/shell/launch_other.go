//go:build unix && !linux

package shell

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// selfPath is the agent's own executable.
func selfPath() (string, error) { return os.Executable() }

// detach keeps descriptors that the agent inherited from the program.
func detach() {
	for fd := launchFD; fd < 1024; fd++ {
		syscall.CloseOnExec(fd)
	}
}

func (l launch) takeLimits() error {
	for _, r := range l.Limits {
		rlimit := syscall.Rlimit{Cur: r.Soft, Max: r.Hard}
		if err := syscall.Setrlimit(r.Resource, &rlimit); err != nil && !errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("setting limit %d: %w", r.Resource, err)
		}
	}
	return nil
}

// dropTo makes the process the user's: groups first, as later they could not be changed.
func dropTo(uid, gid uint32, groups []uint32) error {
	ids := make([]int, len(groups))
	for i, id := range groups {
		ids[i] = int(id)
	}
	if err := syscall.Setgroups(ids); err != nil {
		return fmt.Errorf("setting groups: %w", err)
	}
	if err := syscall.Setgid(int(gid)); err != nil {
		return fmt.Errorf("setting the group: %w", err)
	}
	if err := syscall.Setuid(int(uid)); err != nil {
		return fmt.Errorf("setting the user: %w", err)
	}
	if uid != 0 && syscall.Setuid(0) == nil {
		return errors.New("dropping privileges: root came back")
	}
	return nil
}

func private() {}

// shutMemory has nothing to do where memory is no file.
func shutMemory() error { return nil }

func resetSignals() { signal.Reset() }
