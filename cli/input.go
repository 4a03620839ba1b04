package cli

import (
	"io"
	"os"
)

// hasInput reports whether a file or pipe holds what has not been read yet. Nothing is
// taken from it. Terminals and devices have no input of their own.
func hasInput(f *os.File) bool {
	if f == nil {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		at, err := f.Seek(0, io.SeekCurrent)
		return err == nil && info.Size() > at
	case mode&os.ModeNamedPipe != 0:
		return isReadable(f)
	}
	return false
}
