//go:build unix

package cli

import (
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"
)

// A socket that a program left behind is replaced; one of a program that is too busy to
// answer is not.
func TestBusySocketStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	t.Cleanup(func() {
		if !closed {
			syscall.Close(fd)
		}
	})
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 10 { // until nobody else is let wait
		c, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		defer c.Close()
	}
	if l, err := listenAt(forwardSpec{network: "unix", local: path}); !errors.Is(err, syscall.EADDRINUSE) {
		if l != nil {
			l.Close()
		}
		t.Fatalf("a busy program's socket: got %v, want %v", err, syscall.EADDRINUSE)
	}
	closed = true
	syscall.Close(fd)
	l, err := listenAt(forwardSpec{network: "unix", local: path})
	if err != nil {
		t.Fatalf("a socket left behind: %v", err)
	}
	l.Close()
}
