//go:build unix

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile waits until this program alone has the file; closing it lets the next one in.
func lockFile(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			return err
		}
	}
}
