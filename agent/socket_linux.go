package agent

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// deadSocket makes the kernel give up a connection whose peer has not acknowledged
// what was sent for pongWait; its own patience is a quarter of an hour.
func deadSocket(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// A kernel without the option leaves it to pings, which take longer.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(pongWait.Milliseconds()))
	})
}
