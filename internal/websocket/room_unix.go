//go:build unix

package websocket

import "golang.org/x/sys/unix"

// writable reports whether the kernel has a good part of the socket's send buffer
// free: Linux says so with at least a third.
func writable(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents == unix.POLLOUT
}
