//go:build unix

package cli

import (
	"fmt"
	"os"
	"syscall"
)

// ownFile accepts a file or folder that belongs to the user who runs this, that others
// cannot write, and that is no link: what it says lets people log in.
func ownFile(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode()&os.ModeSymlink != 0:
		return fmt.Errorf("%s is a link", path)
	case !ok || int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s does not belong to the user who runs this (uid %d)", path, os.Geteuid())
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s can be written by others (mode %04o)", path, info.Mode().Perm())
	}
	return nil
}
