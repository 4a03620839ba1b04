package files

import (
	"fmt"
	"testing"
)

// Files come from whoever may apply: names that leave their folder, and too much of
// anything, are refused before anything is read.
func TestCheck(t *testing.T) {
	many := map[string][]byte{}
	for i := range MaxFiles + 1 {
		many[fmt.Sprint(i)] = nil
	}
	for name, files := range map[string]map[string][]byte{
		"up":       {"../a": nil},
		"absolute": {"/etc/passwd": nil},
		"unclean":  {"a/../b": nil},
		"empty":    {"": nil},
		"NUL":      {"a\x00": nil},
		"large":    {"a": make([]byte, MaxAll+1)},
		"many":     many,
	} {
		if err := Check(files); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
