//go:build unix && !linux

package shell

import "net"

// peerUser is the user at the other end of a connection. Here it is not asked: the
// directory's mode has let the user in.
func peerUser(*net.UnixConn) (uint32, error) { return 0, nil }
