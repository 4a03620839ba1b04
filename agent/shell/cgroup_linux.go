package shell

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroups gives each session a control group of its own, into which its first program is
// born: whatever it starts is in it, whether it leaves the session, clears its
// environment or forks faster than it can be looked for, and one write ends all of it.
// Only who may write to the hierarchy, root, gets out.
//
// The groups lie in one of the agent's own, below the one that it was started in; it is
// held by a lock, so that another agent can tell what a crash has left behind.
type Cgroups struct {
	dir    string
	lock   *os.File
	limits SessionLimits
	log    *slog.Logger

	mu     sync.Mutex
	next   int
	unused bool            // the kernel does not start programs in groups
	left   map[string]bool // groups of sessions that ended and whose programs go on
}

const (
	groupPrefix = "sallyport-agent."
	// mainGroup is the agent's own place where the kernel wants it out of the groups
	// above its sessions; packaging's unit names it (DelegateSubgroup).
	mainGroup = "main"
	// keptPrefix begins the names of groups whose programs may outlive the session.
	keptPrefix = "kept."
	unified    = "cgroup2"
)

// OpenCgroups prepares the agent's part of the hierarchy and ends what agents that
// crashed have left in it. An error says why sessions do without.
func OpenCgroups(limits SessionLimits, log *slog.Logger) (*Cgroups, error) {
	base, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	return openCgroups(base, limits, log)
}

func openCgroups(base string, limits SessionLimits, log *slog.Logger) (*Cgroups, error) {
	sweep(base)
	c := &Cgroups{limits: limits, log: log, left: make(map[string]bool)}
	if err := c.makeDir(base); err != nil {
		return nil, fmt.Errorf("making a control group: %w", err)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "cgroup.kill")); err != nil {
		c.Close()
		return nil, errors.New("control groups cannot be killed: that takes Linux 5.14")
	}
	if err := enable(base, c.dir, limits.controllers()); err != nil {
		c.Close()
		return nil, fmt.Errorf("limiting sessions: %w", err)
	}
	return c, nil
}

// makeDir makes and locks the agent's group. Another agent's sweep may take it for one
// left behind before it is locked; then there is another name.
func (c *Cgroups) makeDir(base string) error {
	var err error
	for try := range 5 {
		c.dir = filepath.Join(base, fmt.Sprintf("%s%d-%d-%d", groupPrefix, os.Getpid(), time.Now().UnixNano(), try))
		if err = os.Mkdir(c.dir, 0o755); err != nil {
			return err
		}
		if c.lock, err = lockDir(c.dir); err == nil {
			return nil
		}
	}
	return err
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sweep ends the sessions that agents left behind: those whose lock nobody holds.
func sweep(base string) {
	dirs, err := filepath.Glob(filepath.Join(base, groupPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		lock, err := lockDir(dir)
		if err != nil {
			continue
		}
		groups, err := os.ReadDir(dir)
		for _, g := range groups {
			if err == nil && g.IsDir() && !strings.HasPrefix(g.Name(), keptPrefix) {
				group := &cgroup{dir: filepath.Join(dir, g.Name())}
				group.kill()
				group.awaitEmpty(killFor)
				removeGroups(group.dir)
			}
		}
		removeGroups(dir)
		lock.Close()
	}
}

// ownCgroup is the directory of the group that the agent was started in, if it may make
// others below it.
func ownCgroup() (string, error) {
	mount, root, err := unifiedMount("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	path, err := ownPath("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	path, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
	if !ok || strings.Contains(path, "..") {
		return "", errors.New("the agent's control group is outside what it can see")
	}
	dir := filepath.Join(mount, path)
	if filepath.Base(dir) == mainGroup {
		dir = filepath.Dir(dir)
	}
	if dir != mount && isDir("/run/systemd/system") && !delegated(dir) {
		return "", fmt.Errorf("systemd has not delegated the control group %s to the agent: its unit needs Delegate=yes", path)
	}
	return dir, nil
}

// unifiedMount finds where the hierarchy of version 2 is mounted, and which part of it.
func unifiedMount(mountinfo string) (mount, root string, err error) {
	for _, line := range readLines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if ok && len(f) >= 5 && strings.HasPrefix(after, unified+" ") {
			return f[4], f[3], nil
		}
	}
	return "", "", errors.New("control groups of version 2 are not mounted")
}

// ownPath reads the line "0::PATH".
func ownPath(file string) (string, error) {
	for _, line := range readLines(file) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("the agent is in no control group of version 2")
}

// delegated reports whether systemd leaves what is below dir to the agent.
func delegated(dir string) bool {
	for _, attr := range []string{"trusted.delegate", "user.delegate"} {
		var v [8]byte
		if n, err := unix.Getxattr(dir, attr, v[:]); err == nil && string(v[:n]) == "1" {
			return true
		}
	}
	return false
}

// enable has the kernel control what limits need, in dir's children. It does so only in
// groups without processes, so that the agent itself moves aside.
func enable(base, dir string, controllers []string) error {
	if len(controllers) == 0 {
		return nil
	}
	have, err := os.ReadFile(filepath.Join(base, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, name := range controllers {
		if !slices.Contains(strings.Fields(string(have)), name) {
			return fmt.Errorf("the controller %s is not available: there is %q", name, strings.TrimSpace(string(have)))
		}
	}
	if err := moveAside(base); err != nil {
		return err
	}
	on := "+" + strings.Join(controllers, " +")
	for _, d := range []string{base, dir} {
		if err := os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), []byte(on), 0); err != nil {
			return err
		}
	}
	return nil
}

// moveAside moves the processes of a group, of which only the root may keep its own, to
// one below it.
func moveAside(base string) error {
	if _, err := os.Stat(filepath.Join(base, "cgroup.type")); err != nil {
		return nil // the root has no such file
	}
	pids := groupPIDs(base)
	if len(pids) == 0 {
		return nil
	}
	aside := filepath.Join(base, mainGroup)
	if err := os.Mkdir(aside, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, pid := range pids {
		err := os.WriteFile(filepath.Join(aside, "cgroup.procs"), strconv.AppendInt(nil, int64(pid), 10), 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// Close removes what is empty of the agent's groups. Sessions must have ended; the
// programs that outlive them stay where they are.
func (c *Cgroups) Close() {
	if c == nil {
		return
	}
	removeGroups(c.dir)
	c.lock.Close()
}

// create makes the group of a session, with a descriptor to start a program in it. It
// returns nil where sessions do without.
func (c *Cgroups) create(kept bool) *cgroup {
	if c == nil || kept && c.limits == (SessionLimits{}) {
		return nil
	}
	name, ok := c.name(kept)
	if !ok {
		return nil
	}
	g := &cgroup{dir: filepath.Join(c.dir, name), kept: kept, all: c}
	err := g.make(c.limits)
	if err != nil {
		g.remove()
		c.log.Warn("a session goes without a control group", "error", err)
		return nil
	}
	return g
}

// name is that of the next session; it also tries once more to remove the groups that
// ended sessions have left.
func (c *Cgroups) name(kept bool) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for dir := range c.left {
		if removeGroups(dir) {
			delete(c.left, dir)
		}
	}
	c.next++
	prefix := "session."
	if kept {
		prefix = keptPrefix
	}
	return prefix + strconv.Itoa(c.next), !c.unused
}

// refused notes that the kernel does not start programs in groups, as some sandboxes
// do not let it.
func (c *Cgroups) refused(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.unused {
		c.log.Warn("sessions go without control groups", "error", err)
	}
	c.unused = true
}

// cgroup is the group of one session.
type cgroup struct {
	dir  string
	kept bool
	fd   int // of dir; while the program is started
	all  *Cgroups
}

func (g *cgroup) make(limits SessionLimits) error {
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return err
	}
	for name, value := range limits.files() {
		err := os.WriteFile(filepath.Join(g.dir, name), []byte(value), 0)
		if err != nil && !(name == "memory.swap.max" && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	var err error
	g.fd, err = unix.Open(g.dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return err
}

// in returns attr for a program to be born in the group.
func (g *cgroup) in(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	inside := *attr
	inside.UseCgroupFD, inside.CgroupFD = true, g.fd
	return &inside
}

// opened closes the descriptor once it has been used.
func (g *cgroup) opened() { unix.Close(g.fd) }

// kill ends everything in the group and below at once, what is just being forked
// included.
func (g *cgroup) kill() {
	os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0)
}

// populated reports whether a process is left in the group or below.
func (g *cgroup) populated() bool {
	b, err := os.ReadFile(filepath.Join(g.dir, "cgroup.events"))
	return err == nil && bytes.Contains(b, []byte("populated 1"))
}

func (g *cgroup) awaitEmpty(d time.Duration) {
	for deadline := time.Now().Add(d); g.populated() && time.Now().Before(deadline); time.Sleep(pollEvery) {
	}
}

// pids are the processes in the group and below.
func (g *cgroup) pids() []int {
	var pids []int
	filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			pids = append(pids, groupPIDs(path)...)
		}
		return nil
	})
	return pids
}

// has reports whether a process is in the group or below.
func (g *cgroup) has(pid int) bool {
	path, err := ownPath("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false
	}
	own := filepath.Join(filepath.Base(filepath.Dir(g.dir)), filepath.Base(g.dir))
	return strings.Contains(path+"/", "/"+own+"/")
}

// remove removes the group, or has that tried again later where programs outlive the
// session.
func (g *cgroup) remove() {
	if removeGroups(g.dir) {
		return
	}
	g.all.mu.Lock()
	g.all.left[g.dir] = true
	g.all.mu.Unlock()
}

// release moves what still runs in the group to one whose programs are left alone, also
// by the sweep after a crash.
func (g *cgroup) release() {
	defer g.remove()
	if g.kept || !g.populated() {
		return
	}
	to := filepath.Join(filepath.Dir(g.dir), keptPrefix+filepath.Base(g.dir))
	if os.Mkdir(to, 0o755) != nil {
		return
	}
	for range 10 { // one that forks meanwhile is found the next time
		for _, pid := range g.pids() {
			os.WriteFile(filepath.Join(to, "cgroup.procs"), strconv.AppendInt(nil, int64(pid), 10), 0)
		}
		if !g.populated() {
			break
		}
	}
	kept := &cgroup{dir: to, kept: true, all: g.all}
	kept.remove()
}

func groupPIDs(dir string) []int {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, word := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// removeGroups removes a group with those below it, as far as they are empty, and
// reports whether it is gone. (The files in a group cannot be, and need not be, removed.)
func removeGroups(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	for _, e := range entries {
		if e.IsDir() {
			removeGroups(filepath.Join(dir, e.Name()))
		}
	}
	err = unix.Rmdir(dir)
	return err == nil || err == unix.ENOENT
}
