package client

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Listen listens for the local end of a forward: on a TCP address as net.Listen takes
// it, or, for "unix:PATH", on a socket that only its owner may use. A socket there that
// nobody listens on is replaced; anything else there is an error.
func Listen(address string) (net.Listener, error) {
	path, unix := strings.CutPrefix(address, "unix:")
	if !unix {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, fmt.Errorf("listening on %s: %w", address, err)
		}
		return l, nil
	}
	if err := clearSocket(path); err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	l, err := listenPrivately(path)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	return l, nil
}

// clearSocket removes a socket that nobody listens on.
func clearSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file that is no socket")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return errors.New("another program listens there")
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("there is a socket that may be in use: %w", err)
	}
	return os.Remove(path)
}

// socketListener removes its socket when it is closed.
type socketListener struct {
	*net.UnixListener
	path string
	once sync.Once
}

// listenPrivately makes a socket that nobody but its owner could ever connect to. Made
// in place it would have the mode that the umask leaves for a moment; so it is made in a
// private folder, and appears where it is wanted once its mode is right. It appears by a
// link, which replaces nothing.
func listenPrivately(path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".sallyport-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(made, 0o600); err == nil {
		err = os.Link(made, path)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return &socketListener{UnixListener: l, path: path}, nil
}

// Close implements net.Listener.
func (l *socketListener) Close() error {
	err := l.UnixListener.Close()
	l.once.Do(func() { os.Remove(l.path) })
	return err
}
