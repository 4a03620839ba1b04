package forward

import (
	"net"

	"golang.org/x/sys/unix"
)

// unacknowledged is how many bytes of a connection were sent, or wait to be, that the
// other side has not acknowledged.
func unacknowledged(c *net.TCPConn) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var asked error
	err = raw.Control(func(fd uintptr) { n, asked = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	if err == nil {
		err = asked
	}
	return n, err
}
