package shell

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	group  *cgroup  // nil for none
	in     *os.File // the terminal's own side, or a pipe to standard input; nil for none
	out    *os.File // the terminal's own side, or a plain command's output
	errs   *os.File // a plain command's errors, where they are separate
	exited chan struct{}
	exit   Exit // valid once exited is closed

	closing sync.Once
	closed  chan struct{}
}

// program is what a session runs, before it has an environment and descriptors.
type program struct {
	path string // empty for the file server
	args []string
	env  []string // beyond that of a login
	tty  string   // variable that is to name the terminal; empty for none
}

// Login starts u's login shell on a terminal.
func (o Options) Login(u User, size Size) (*Process, error) {
	return o.startTTY(o.loginShell(u), u, Terminal{Size: size})
}

// loginShell is u's shell as a login starts it.
func (o Options) loginShell(u User) program {
	path := o.shell(u)
	return o.marked(program{path: path, args: []string{"-" + filepath.Base(path)}})
}

// shell is what runs as u's shell.
func (o Options) shell(u User) string {
	if o.Program != "" {
		return o.Program
	}
	return u.Shell
}

// Interactive runs a command line with sh on a terminal.
func (o Options) Interactive(u User, command string, size Size) (*Process, error) {
	return o.startTTY(program{path: "/bin/sh", args: []string{"sh", "-c", command}}, u, Terminal{Size: size})
}

func (o Options) startTTY(run program, u User, t Terminal) (*Process, error) {
	master, slave, err := openTTY()
	if err != nil {
		return nil, fmt.Errorf("opening a terminal: %w", err)
	}
	defer slave.Close()
	if err := prepareTTY(master, slave, u, t); err != nil {
		master.Close()
		return nil, err
	}
	run.env = append(run.env, "TERM="+t.name())
	if run.tty != "" {
		run.env = append(run.env, run.tty+"="+slave.Name())
	}
	attr := &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	started, err := o.start(run, u, slave, slave, slave, attr)
	if err != nil {
		master.Close()
		return nil, err
	}
	return newProcess(started, master, master, nil), nil
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

// start runs a program as u in u's home, or in / where that cannot be entered.
func (o Options) start(run program, u User, in, out, errs *os.File, attr *syscall.SysProcAttr) (started, error) {
	given := o.login(u)
	l := launch{
		Path: run.path, Args: run.args, Env: merge(given.env, run.env), Dir: u.Home, Umask: given.umask, Nice: given.nice,
		Switch: u.Switch, UID: u.UID, GID: u.GID, Groups: u.Groups, Limits: given.limits,
	}
	if run.path == "" {
		l.Limits = withoutAddressSpace(l.Limits)
	}
	s := started{mark: newMark(), group: o.Cgroups.create(u.Detached)}
	if u.Detached {
		s.mark = ""
	} else {
		l.Env = append(l.Env, s.mark)
	}
	var err error
	if s.cmd, err = s.launch(l, o.Cgroups, in, out, errs, attr); err != nil && s.group != nil {
		s.group.remove()
	}
	return s, err
}

// launch starts the program in its group if it has one, else or if the kernel refuses
// without.
func (s *started) launch(l launch, all *Cgroups, in, out, errs *os.File, attr *syscall.SysProcAttr) (*exec.Cmd, error) {
	if s.group == nil {
		return l.start(in, out, errs, attr)
	}
	defer s.group.opened()
	cmd, err := l.start(in, out, errs, s.group.in(attr))
	if !isRefusal(err) {
		return cmd, err
	}
	if cmd, rerr := l.start(in, out, errs, attr); rerr == nil {
		all.refused(err)
		s.group.remove()
		s.group = nil
		return cmd, nil
	}
	return nil, err
}

// isRefusal reports whether the kernel, or a filter of system calls, may have refused to
// start a program in a group.
func isRefusal(err error) bool {
	return slices.ContainsFunc([]error{unix.ENOSYS, unix.EPERM, unix.EACCES, unix.EINVAL, unix.EOPNOTSUPP, unix.EBUSY, unix.EBADF},
		func(e error) bool { return errors.Is(err, e) })
}

// started is a program that runs.
type started struct {
	cmd   *exec.Cmd
	mark  string  // in its environment; empty for none
	group *cgroup // nil for none
}

// newProcess watches a program, which must have been started as the leader of a session.
func newProcess(s started, in, out, errs *os.File) *Process {
	p := &Process{cmd: s.cmd, in: in, out: out, errs: errs, exited: make(chan struct{}), closed: make(chan struct{})}
	p.group = s.group
	p.all = newMembers(s.cmd.Process.Pid, s.mark, s.group)
	go p.watch()
	return p
}

// watch waits for the leader without reaping it: as long as it stays a zombie its
// number, by which Close finds the session's processes, cannot be given to another.
func (p *Process) watch() {
	p.exit = waitExit(p.cmd.Process.Pid)
	close(p.exited)
}

// Exited is closed when the program has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Exit is how a program ended.
type Exit struct {
	Status int            // 128 and the signal's number where a signal ended it
	Signal syscall.Signal // zero for none
	Core   bool           // it left its memory in a file
}

// exitBy is the exit of a program that a signal ended.
func exitBy(sig syscall.Signal, core bool) Exit {
	return Exit{Status: 128 + int(sig), Signal: sig, Core: core}
}

// Exit returns how the program ended. It is valid once Exited is closed.
func (p *Process) Exit() Exit { return p.exit }

// Status returns the exit status, 128 and the signal's number for a program that a
// signal ended. It is valid once Exited is closed.
func (p *Process) Status() int { return p.exit.Status }

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

// Write types b at the terminal, or gives it to the program's standard input; it blocks
// while the program does not read.
func (p *Process) Write(b []byte) (int, error) { return p.in.Write(b) }

// CloseWrite ends the program's standard input where that is no terminal.
func (p *Process) CloseWrite() {
	if p.in != nil && p.in != p.out {
		p.in.Close()
	}
}

// CloseRead takes no more of the program's output where that is no terminal: the program
// finds a broken pipe.
func (p *Process) CloseRead() {
	if p.in != p.out {
		p.out.Close()
	}
}

// TryWrite types as much of b as the terminal takes without waiting, and returns how
// much that was. It must not be called while a Write is under way.
func (p *Process) TryWrite(b []byte) int {
	raw, err := p.in.SyscallConn()
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
		p.leaveGroup()
		p.CloseWrite()
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

// leaveGroup removes the session's group, now or when the programs that may outlive the
// session have ended.
func (p *Process) leaveGroup() {
	if p.group != nil {
		p.group.remove()
	}
}

func (p *Process) end() {
	if p.all.signal(syscall.SIGHUP) == 0 {
		return
	}
	p.all.signal(syscall.SIGCONT) // a stopped program takes its hang-up only now
	if p.awaitEmpty(grace) {
		return
	}
	if p.group != nil && !p.group.kept {
		p.group.kill()
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
		if p.all.none() {
			return true
		}
	}
	return false
}
