package forward

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links are followed, as the system does.
const maxLinks = 40

// heldSocket is a socket that was found by its path and is held on to: what the path
// leads to later does not matter.
type heldSocket struct {
	fd   int
	real string // its own path, without links
}

// holdSocket finds a socket. The error is the system's.
func holdSocket(path string) (*heldSocket, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	h := &heldSocket{fd: fd}
	if h.real, err = os.Readlink(h.address()); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// address is what to connect to.
func (h *heldSocket) address() string { return fmt.Sprintf("/proc/self/fd/%d", h.fd) }

func (h *heldSocket) close() { unix.Close(h.fd) }

var errForeignLink = errors.New("a symbolic link on the way is another user's")

// follow returns where a path leads by links of root's and of the agent's own alone:
// others would lead the agent to what only it may reach.
func follow(path string) (string, error) {
	at, rest := "/", parts(path)
	for links := 0; len(rest) > 0; {
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(next)
		if err != nil {
			return "", err
		}
		if info.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", syscall.ELOOP
		}
		to, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
			return "", errForeignLink
		}
		if filepath.IsAbs(to) {
			at = "/"
		}
		rest = append(parts(to), rest...)
	}
	return at, nil
}

func parts(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}
