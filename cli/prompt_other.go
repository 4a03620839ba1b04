//go:build !unix

package cli

import "os"

// controllingTerminal is the console that the process belongs to.
const controllingTerminal = "CONIN$"

// inForeground reports whether the process may read from its terminal.
func inForeground(*os.File) bool { return true }

// batchParent reports whether the program that started this one asks nothing, which this
// system does not tell.
func batchParent() bool { return false }
