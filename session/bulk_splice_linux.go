package session

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is what one splice moves at most. A user may have 64 MiB of pipes larger
	// than the default; beyond that they are smaller and nothing else changes.
	pipeSize = 512 << 10
	// keptPipes are pipes kept for the next connection that has something to carry.
	keptPipes = 32
)

// pipe is what splice(2) moves bytes through.
type pipe struct{ r, w int }

func (p *pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

// pipes lends empty pipes.
type pipes chan *pipe

func newPipes() pipes { return make(pipes, keptPipes) }

func (s pipes) get() (*pipe, error) {
	select {
	case p := <-s:
		return p, nil
	default:
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{fds[0], fds[1]}, nil
}

// put takes an empty pipe back.
func (s pipes) put(p *pipe) {
	select {
	case s <- p:
	default:
		p.close()
	}
}

// close closes the pipes that are kept, when nobody borrows any more.
func (s pipes) close() {
	for {
		select {
		case p := <-s:
			p.close()
		default:
			return
		}
	}
}

// splice moves bytes from src to dst inside the kernel until one of them is gone. It
// reports false where that cannot be done at all and nothing was moved.
func splice(dst, src *net.TCPConn, from pipes, moved func(int)) bool {
	in, err := src.SyscallConn()
	if err != nil {
		return false
	}
	out, err := dst.SyscallConn()
	if err != nil {
		return false
	}
	for first := true; ; first = false {
		p, n, err := fill(in, from)
		if errors.Is(err, errNoSplice) && first {
			return false
		}
		if err != nil {
			return true
		}
		if empty(out, p, n, moved) != nil {
			p.close()
			return true
		}
		from.put(p)
	}
}

var (
	errNoSplice = errors.New("splicing is not possible")
	errGone     = errors.New("connection has ended")
)

// rawConn is syscall.RawConn's part that is used here.
type rawConn interface {
	Read(f func(fd uintptr) bool) error
	Write(f func(fd uintptr) bool) error
}

// fill waits for bytes from a socket and moves them into a pipe: one that is borrowed
// only when they are there, since most connections are silent most of the time.
func fill(in rawConn, from pipes) (p *pipe, n int, err error) {
	rerr := in.Read(func(fd uintptr) bool {
		if p, err = from.get(); err != nil {
			err = errNoSplice
			return true
		}
		n, err = move(int(fd), p.w, pipeSize)
		if err == unix.EAGAIN {
			from.put(p)
			return false
		}
		return true
	})
	switch {
	case err == nil && rerr == nil && n > 0:
		return p, n, nil
	case err == errNoSplice:
		return nil, 0, err
	case rerr == nil:
		from.put(p) // nothing went in
		if err == unix.EINVAL {
			return nil, 0, errNoSplice
		}
	}
	return nil, 0, errGone
}

// empty moves the n bytes of a pipe to a socket.
func empty(out rawConn, p *pipe, n int, moved func(int)) error {
	for n > 0 {
		var k int
		var err error
		werr := out.Write(func(fd uintptr) bool {
			k, err = move(p.r, int(fd), n)
			return err != unix.EAGAIN
		})
		if err == nil {
			err = werr
		}
		if err != nil {
			return err
		}
		moved(k)
		n -= k
	}
	return nil
}

func move(from, to, n int) (int, error) {
	for {
		k, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(k), err
		}
	}
}
