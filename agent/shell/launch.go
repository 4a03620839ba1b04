package shell

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"syscall"
)

// Every session's program is started by a launcher: the agent's own executable, which
// becomes the person's user (groups first), leaves behind what the agent was started
// with, takes on the user's limits, and then executes the program in its place. What it
// is to do comes over a pipe, not in its arguments, which every user of the machine can
// read.
//
// A program is a launcher by its argument 0, and looks at that before main: whatever
// links this package (the agent, sallyportd dev, tests) can be executed as one. Were it
// for each main to ask, one that forgot would start itself for ever.
const (
	launcherName = "sallyport-launch"
	sftpName     = "sallyport-sftp"
)

func init() {
	if len(os.Args) != 1 {
		return
	}
	switch os.Args[0] {
	case launcherName:
		launcher()
	case sftpName:
		os.Exit(serveFiles())
	}
}

// Descriptors of a launcher besides the program's three.
const (
	launchFD = 3 // its launch, as JSON, to the end of file
	reportFD = 4 // what went wrong; nothing if the program runs
)

// maxReport bounds what a launcher may say.
const maxReport = 4 << 10

// launch is what a launcher does.
type launch struct {
	Path  string // empty for the file server
	Args  []string
	Env   []string
	Dir   string // else /
	Umask int
	Nice  int

	// Switch has the program take on the user's credentials.
	Switch bool
	UID    uint32
	GID    uint32
	Groups []uint32

	Limits []limit
}

// limit is one of setrlimit(2)'s.
type limit struct {
	Resource   int
	Soft, Hard uint64
}

// start runs the launcher of l with the three files and attr, and returns once the
// program runs in its place.
func (l launch) start(in, out, errs *os.File, attr *syscall.SysProcAttr) (*exec.Cmd, error) {
	self, err := selfPath()
	if err != nil {
		return nil, err
	}
	task, give, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer give.Close()
	report, tell, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, task.Close())
	}
	defer report.Close()
	c := &exec.Cmd{Path: self, Args: []string{launcherName}, Env: []string{}, Dir: "/", SysProcAttr: attr,
		Stdout: out, Stderr: errs, ExtraFiles: []*os.File{task, tell}}
	if in != nil {
		c.Stdin = in
	}
	err = c.Start()
	task.Close()
	tell.Close()
	if err != nil {
		return nil, err
	}
	if err := l.hand(give, report); err != nil {
		c.Process.Kill()
		c.Wait()
		return nil, err
	}
	return c, nil
}

// hand gives the launcher its task and waits for what it has to report.
func (l launch) hand(give io.WriteCloser, report io.Reader) error {
	werr := json.NewEncoder(give).Encode(l)
	if err := give.Close(); werr == nil {
		werr = err
	}
	text, err := io.ReadAll(io.LimitReader(report, maxReport))
	switch {
	case len(text) > 0:
		return errors.New(string(text))
	case werr != nil:
		return fmt.Errorf("handing over to the launcher: %w", werr)
	}
	return err
}

// launcher is the launcher's main: it returns only to say what failed.
func launcher() {
	// The thread that executes the program is the one whose credentials count.
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	report := os.NewFile(reportFD, "report")
	syscall.CloseOnExec(reportFD)
	var l launch
	task := os.NewFile(launchFD, "launch")
	err := json.NewDecoder(task).Decode(&l)
	task.Close()
	if err == nil {
		err = l.become()
	}
	fmt.Fprint(report, err)
	os.Exit(127)
}

// become turns this process into the program.
func (l launch) become() error {
	self, err := selfPath()
	if err != nil {
		return err
	}
	detach()
	syscall.Umask(l.Umask)
	if err := l.takeLimits(); err != nil {
		return err
	}
	if l.Switch {
		if err := dropTo(l.UID, l.GID, l.Groups); err != nil {
			return err
		}
	}
	private()
	if err := enter(l.Dir); err != nil {
		return err
	}
	if l.Path == "" {
		l.Path, l.Args = self, []string{sftpName}
	}
	resetSignals()
	if err := syscall.Exec(l.Path, l.Args, l.Env); err != nil {
		return fmt.Errorf("executing %s: %w", l.Path, err)
	}
	panic("unreachable")
}

// enter makes dir the working directory, or / where it cannot be entered: a person
// without a home can still work.
func enter(dir string) error {
	err := syscall.Chdir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) {
		return syscall.Chdir("/")
	}
	return err
}
