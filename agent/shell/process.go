package shell

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// Size is a terminal's size in characters.
type Size struct{ Cols, Rows uint16 }

// defaultSize is what a terminal has until its person's size is known.
var defaultSize = Size{Cols: 80, Rows: 24}

// How a session is ended: first a hang-up, as when a terminal goes away, then, after
// grace, a kill.
const (
	grace     = 2 * time.Second
	killFor   = 2 * time.Second
	pollEvery = 10 * time.Millisecond
)

// Process is a program of a session together with all that it starts: what stays in
// its session, and on Linux what leaves it but keeps its environment. Close must be
// called.
type Process struct {
	cmd    *exec.Cmd
	all    members
	out    *os.File // the terminal's own side, or a plain command's output
	errs   *os.File // a plain command's errors, where they are separate
	exited chan struct{}
	status int // valid once exited is closed

	closing sync.Once
	closed  chan struct{}
}

// Login starts u's login shell on a terminal.
func (o Options) Login(u User, size Size) (*Process, error) {
	program := u.Shell
	if o.Program != "" {
		program = o.Program
	}
	cmd := &exec.Cmd{Path: program, Args: []string{"-" + filepath.Base(program)}}
	return startTTY(cmd, u, size)
}

// Interactive runs a command line with sh on a terminal.
func (o Options) Interactive(u User, command string, size Size) (*Process, error) {
	return startTTY(&exec.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", command}}, u, size)
}

func startTTY(cmd *exec.Cmd, u User, size Size) (*Process, error) {
	master, slave, err := openTTY()
	if err != nil {
		return nil, fmt.Errorf("opening a terminal: %w", err)
	}
	defer slave.Close()
	if err := prepareTTY(master, slave, u, size); err != nil {
		master.Close()
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	attr := &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	started, err := start(cmd, u, attr)
	if err != nil {
		master.Close()
		return nil, err
	}
	return newProcess(started, master, nil), nil
}

// openTTY opens a terminal whose master side does not hold a thread per Read and
// whose Close ends a Read or Write that waits: pty.Open leaves it in blocking mode.
func openTTY() (master, slave *os.File, err error) {
	m, slave, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	fd, err := unix.FcntlInt(m.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		slave.Close()
		return nil, nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		slave.Close()
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), m.Name()), slave, nil
}

// setSize sizes a terminal without taking its descriptor out of non-blocking mode, as
// File.Fd would.
func setSize(tty *os.File, s Size) error {
	raw, err := tty.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: s.Cols, Row: s.Rows})
	})
	return errors.Join(cerr, err)
}

// prepareTTY sizes the terminal and gives it to the user, whose programs may open it
// again by name.
func prepareTTY(master, slave *os.File, u User, size Size) error {
	if size == (Size{}) {
		size = defaultSize
	}
	if err := setSize(master, size); err != nil {
		return fmt.Errorf("sizing the terminal: %w", err)
	}
	if !u.Switch {
		return nil
	}
	if err := os.Chown(slave.Name(), int(u.UID), -1); err != nil {
		return fmt.Errorf("handing over the terminal: %w", err)
	}
	return nil
}

// start runs cmd as u in u's home, or in / where that cannot be entered, and returns
// the command that runs.
func start(cmd *exec.Cmd, u User, attr *syscall.SysProcAttr) (*exec.Cmd, error) {
	if u.Switch {
		attr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
	}
	env := environ(u)
	if !u.Detached {
		env = append(env, newMark())
	}
	var err error
	for _, dir := range []string{u.Home, "/"} {
		c := &exec.Cmd{Path: cmd.Path, Args: cmd.Args, Env: env, Dir: dir, SysProcAttr: attr,
			Stdin: cmd.Stdin, Stdout: cmd.Stdout, Stderr: cmd.Stderr}
		if err = c.Start(); err == nil {
			return c, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			break
		}
	}
	return nil, err
}

// newProcess watches cmd, which must have been started as the leader of a session.
func newProcess(cmd *exec.Cmd, out, errs *os.File) *Process {
	p := &Process{cmd: cmd, out: out, errs: errs, exited: make(chan struct{}), closed: make(chan struct{})}
	p.all = newMembers(cmd.Process.Pid, markOf(cmd.Env))
	go p.watch()
	return p
}

// watch waits for the leader without reaping it: as long as it stays a zombie its
// number, by which Close finds the session's processes, cannot be given to another.
func (p *Process) watch() {
	p.status = waitExit(p.cmd.Process.Pid)
	close(p.exited)
}

// Exited is closed when the program has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Status returns the exit status, 128 and the signal's number for a program that a
// signal ended. It is valid once Exited is closed.
func (p *Process) Status() int { return p.status }

// Read reads what the program wrote to its terminal or output. It returns io.EOF when
// nobody has it open any more.
func (p *Process) Read(b []byte) (int, error) { return read(p.out, b) }

// ReadError reads a command's separate errors like Read.
func (p *Process) ReadError(b []byte) (int, error) { return read(p.errs, b) }

func read(f *os.File, b []byte) (int, error) {
	n, err := f.Read(b)
	// Linux answers EIO once the last process has closed its side.
	if err != nil && (errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrClosed)) {
		err = io.EOF
	}
	return n, err
}

// Write types b at the terminal; it blocks while the program does not read.
func (p *Process) Write(b []byte) (int, error) { return p.out.Write(b) }

// TryWrite types as much of b as the terminal takes without waiting, and returns how
// much that was. It must not be called while a Write is under way.
func (p *Process) TryWrite(b []byte) int {
	raw, err := p.out.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	err = raw.Write(func(fd uintptr) bool {
		n, err = unix.Write(int(fd), b)
		return true // whatever came of it: it is tried once
	})
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// Resize tells the program its terminal's new size.
func (p *Process) Resize(s Size) error {
	return setSize(p.out, s)
}

// Signal sends sig to the program and what it runs in its own process group.
func (p *Process) Signal(sig syscall.Signal) {
	select {
	case <-p.exited:
	default:
		syscall.Kill(-p.cmd.Process.Pid, sig)
	}
}

// Close ends every process of the session, as Process says: a hang-up, and a kill of what is left
// after two seconds. It returns when they are gone and pending Reads and Writes have
// returned.
func (p *Process) Close() {
	p.closing.Do(func() {
		p.end()
		p.out.Close()
		if p.errs != nil {
			p.errs.Close()
		}
		<-p.exited
		p.cmd.Wait() // reaps; the status is known already
		close(p.closed)
	})
	<-p.closed
}

func (p *Process) end() {
	if p.all.signal(syscall.SIGHUP) == 0 {
		return
	}
	p.all.signal(syscall.SIGCONT) // a stopped program takes its hang-up only now
	if p.awaitEmpty(grace) {
		return
	}
	// Only when none was found twice is there none: one that forks or executes just
	// then is overlooked once.
	empty := 0
	for deadline := time.Now().Add(killFor); empty < 2 && time.Now().Before(deadline); time.Sleep(pollEvery) {
		if empty++; p.all.signal(syscall.SIGKILL) > 0 {
			empty = 0
		}
	}
}

// awaitEmpty reports whether the session emptied within d.
func (p *Process) awaitEmpty(d time.Duration) bool {
	for deadline := time.Now().Add(d); time.Now().Before(deadline); time.Sleep(pollEvery) {
		if p.all.signal(0) == 0 {
			return true
		}
	}
	return false
}
