package cli

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

// Whose output nobody takes any more has left, and leaves no session behind.
func TestIsUntaken(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"pipe without a reader": {&os.PathError{Op: "write", Path: "stdout", Err: syscall.EPIPE}, true},
		"terminal was closed":   {fmt.Errorf("writing output: %w", &os.PathError{Op: "write", Path: "stdout", Err: syscall.EIO}), true},
		"output was closed":     {os.ErrClosed, true},
		"disk is full":          {syscall.ENOSPC, false},
		"another error":         {errors.New("input/output error"), false},
		"none":                  {nil, false},
	} {
		if got := isUntaken(test.err); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
