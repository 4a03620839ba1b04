//go:build unix

package cli

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// isReadable reports whether a pipe holds something. Where its end cannot be told from
// that, as on macOS, a pipe that nobody writes to any more holds nothing.
func isReadable(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	readable := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 0); err != nil || n == 0 {
			return
		}
		ended := fds[0].Revents&unix.POLLHUP != 0 && runtime.GOOS != "linux"
		readable = fds[0].Revents&unix.POLLIN != 0 && !ended
	})
	return err == nil && readable
}
