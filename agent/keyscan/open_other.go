//go:build !linux

package keyscan

import (
	"os"
	"syscall"
)

// open opens a regular file for reading, and waits for nobody.
func open(path string, _ uint32) (*os.File, error) {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return nil, errOdd
	}
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}
