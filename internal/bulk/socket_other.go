//go:build !linux

package bulk

import "net"

// Stalled is left to the kernel's own patience.
func Stalled(net.Conn) bool { return false }
