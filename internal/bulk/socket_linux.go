package bulk

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Stalled reports whether the peer of a socket has acknowledged nothing for deadAfter
// although it should have. A peer that merely does not read acknowledges probes, and may
// go on not reading for as long as it likes: TCP_USER_TIMEOUT would end it, too.
func Stalled(c net.Conn) bool {
	s, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	var info *unix.TCPInfo
	if raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}) != nil || err != nil {
		return false
	}
	waits := info.Unacked > 0 || info.Probes > 0
	return waits && int64(info.Last_ack_recv) > deadAfter.Milliseconds()
}
