//go:build !unix

package archive

import "os"

// lockFile does nothing: members run on Unix.
func lockFile(*os.File) error { return nil }
