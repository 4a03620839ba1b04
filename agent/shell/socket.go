package shell

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// Socket is a unix socket that only one user's programs can reach.
type Socket struct {
	listener *net.UnixListener
	dir      string
	uid      uint32

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

const socketName = "agent.sock"

// ListenAuth makes a socket for u in a new directory of mode 0700 that belongs to u.
//
// The directory is made and the socket bound while both are the agent's own, in a parent
// where u can neither rename nor replace them; only then are they given away, the socket
// first. Later the agent only unlinks: it follows nothing that u may have put there.
func (o Options) ListenAuth(u User) (*Socket, error) {
	parent, err := o.socketParent()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "sallyport-")
	if err != nil {
		return nil, err
	}
	s := &Socket{dir: dir, uid: u.UID, conns: make(map[net.Conn]struct{})}
	if err := s.listen(u); err != nil {
		s.remove()
		return nil, fmt.Errorf("making the SSH agent's socket: %w", err)
	}
	return s, nil
}

// socketParent is a directory that only root may write to, or, as /tmp, lets nobody
// rename what is another's.
func (o Options) socketParent() (string, error) {
	if os.Geteuid() != 0 || o.runDir == "" && !isDir("/run") {
		return os.TempDir(), nil
	}
	dir := o.runDir
	if dir == "" {
		dir = "/run/sallyport-agent"
	}
	err := os.Mkdir(dir, 0o711)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, checkParent(dir)
}

// checkParent refuses a directory that is not root's alone: what is made in it could be
// exchanged before it is given away.
func checkParent(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || st.Uid != uint32(os.Geteuid()) || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not a directory that only the agent's user can write to", dir)
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (s *Socket) listen(u User) error {
	path := s.Path()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false) // remove does
	s.listener = l
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	if !u.Switch {
		return nil
	}
	if err := os.Lchown(path, int(u.UID), int(u.GID)); err != nil {
		return err
	}
	return os.Lchown(s.dir, int(u.UID), int(u.GID))
}

// Path is where the socket is.
func (s *Socket) Path() string { return filepath.Join(s.dir, socketName) }

// Accept waits for a program of the user; others, though they should not get this far,
// are turned away.
func (s *Socket) Accept() (net.Conn, error) {
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUser(conn); err != nil || uid != s.uid && uid != 0 {
			conn.Close()
			continue
		}
		if !s.add(conn) {
			conn.Close()
			return nil, net.ErrClosed
		}
		return &socketConn{conn, s}, nil
	}
}

func (s *Socket) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

// socketConn is a connection that the socket closes when it is closed.
type socketConn struct {
	net.Conn
	socket *Socket
}

func (c *socketConn) Close() error {
	c.socket.mu.Lock()
	delete(c.socket.conns, c.Conn)
	c.socket.mu.Unlock()
	return c.Conn.Close()
}

// Close removes the socket and closes its connections.
func (s *Socket) Close() error {
	s.mu.Lock()
	s.closed = true
	open := s.conns
	s.conns = make(map[net.Conn]struct{})
	s.mu.Unlock()
	err := s.listener.Close()
	for conn := range open {
		conn.Close()
	}
	s.remove()
	return err
}

// remove takes the socket and its directory away. Anything else that the user has put
// there stays, with the directory: it is the user's to delete, not the agent's.
func (s *Socket) remove() {
	if s.listener != nil {
		s.listener.Close()
	}
	os.Remove(s.Path())
	os.Remove(s.dir)
}
