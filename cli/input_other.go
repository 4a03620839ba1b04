//go:build !unix

package cli

import "os"

// isReadable cannot be told here without taking from the pipe.
func isReadable(*os.File) bool { return false }
