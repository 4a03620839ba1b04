// Package files says which files a configuration is made of, and how much they may be.
package files

import (
	"fmt"
	"path"
	"strings"
)

// Suffix is how the names of configuration files end; others are there to be named by
// them.
const Suffix = ".sallyport.hcl"

// Bounds on configuration files. They go into one request, which has a megabyte at most.
const (
	MaxFiles = 1000
	MaxAll   = 700 << 10 // bytes of all together
)

// Check refuses files that are too many, too large, or named outside of their folder.
func Check(files map[string][]byte) error {
	if len(files) > MaxFiles {
		return fmt.Errorf("there are %d files; at most %d are allowed", len(files), MaxFiles)
	}
	all := 0
	for name, text := range files {
		if name == "" || path.Clean(name) != name || path.IsAbs(name) || strings.HasPrefix(name, "..") || strings.ContainsAny(name, "\\\x00") {
			return fmt.Errorf("%q: a file's name is a path inside of the folder", name)
		}
		all += len(text)
	}
	if all > MaxAll {
		return fmt.Errorf("the files have %d bytes together; at most %d are allowed", all, MaxAll)
	}
	return nil
}
