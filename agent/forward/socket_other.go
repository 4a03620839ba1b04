//go:build !linux

package forward

import "path/filepath"

// heldSocket is a socket that was found by its path.
type heldSocket struct{ real string }

// holdSocket finds a socket.
func holdSocket(path string) (*heldSocket, error) {
	real, err := filepath.EvalSymlinks(path)
	return &heldSocket{real}, err
}

func (h *heldSocket) address() string { return h.real }

func (h *heldSocket) close() {}

// follow returns where a path leads.
func follow(path string) (string, error) { return filepath.EvalSymlinks(path) }
