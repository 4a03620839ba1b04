//go:build unix

package cli

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// listenAt opens a listener. A socket in the file system is its owner's alone from the
// first moment; one that a program left behind is replaced.
func listenAt(s forwardSpec) (net.Listener, error) {
	if s.network == "unix" {
		removeStale(s.local)
		defer syscall.Umask(syscall.Umask(0o177))
	}
	return net.Listen(s.network, s.address())
}

// removeStale removes a socket of ours that nobody serves any more: one that is refused,
// which a program that is merely busy, or another user's, is not. A link is left alone,
// whatever it leads to.
func removeStale(path string) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(path)
	}
}
