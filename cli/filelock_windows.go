package cli

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockFile waits until this program alone has the file; closing it lets the next one in.
func lockFile(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, new(windows.Overlapped))
}
