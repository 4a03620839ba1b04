package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// lab is where measurements are made: a temporary folder, the product's programs
// built into it, and processes that end with the run.
type lab struct {
	dir      string
	quick    bool
	profiles string // folder for profiles, empty for none

	built   sync.Once
	buildOf error
	undo    []func() // in order of making
	server  *system  // shared by sections, started on first use
	jump    *sshPair
}

func newLab(quick bool, profiles string) (*lab, error) {
	if profiles != "" {
		if err := os.MkdirAll(profiles, 0o700); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{dir: dir, quick: quick, profiles: profiles}
	l.later(func() { os.RemoveAll(dir) })
	return l, nil
}

func (l *lab) later(f func()) { l.undo = append(l.undo, f) }

func (l *lab) close() {
	for _, f := range slices.Backward(l.undo) {
		f()
	}
}

func (l *lab) path(names ...string) string {
	return filepath.Join(append([]string{l.dir}, names...)...)
}

func (l *lab) pick(full, quick time.Duration) time.Duration {
	if l.quick {
		return quick
	}
	return full
}

func (l *lab) pickInt(full, quick int) int {
	if l.quick {
		return quick
	}
	return full
}

// program returns the path of one of the product's programs, building all as they are
// released on first use.
func (l *lab) program(name string) (string, error) {
	l.built.Do(func() {
		l.buildOf = l.build()
	})
	return l.path("bin", name), l.buildOf
}

// build runs scripts/build of the module, wherever the run was started in it.
func (l *lab) build() error {
	mod, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sallyport.dev").Output()
	if err != nil {
		return fmt.Errorf("finding the module: %w", err)
	}
	script := filepath.Join(strings.TrimSpace(string(mod)), "scripts", "build")
	out, err := exec.Command(script, l.path("bin")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return nil
}

// started is a process that this run has started.
type started struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has been waited for
	log  string
}

// start starts a process whose standard error goes into a file of the lab, and that
// is ended with the lab if not before.
func (l *lab) start(cmd *exec.Cmd, name string) (*started, error) {
	s := &started{cmd: cmd, done: make(chan struct{}), log: l.path(fmt.Sprintf("%s-%d.log", name, len(l.undo)))}
	f, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if cmd.Stderr == nil {
		cmd.Stderr = f
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		cmd.Wait()
		close(s.done)
	}()
	l.later(s.stop)
	return s, nil
}

// stop ends the process politely, then firmly.
func (s *started) stop() {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		s.cmd.Process.Signal(sig)
		select {
		case <-s.done:
			return
		case <-time.After(5 * time.Second):
		}
	}
	<-s.done
}

// why adds the end of a process's log to an error.
func (s *started) why(err error) error {
	b, rerr := os.ReadFile(s.log)
	if rerr != nil || len(b) == 0 {
		return err
	}
	const most = 2000
	return fmt.Errorf("%w; it said: %s", err, b[max(0, len(b)-most):])
}

// until polls for something that happens soon.
func until(ctx context.Context, patience time.Duration, what string, holds func() bool) error {
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s", patience, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// smaps returns a field of /proc/PID/smaps_rollup in KiB: Rss or Pss.
func smaps(pid int, field string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, errors.New("smaps_rollup has no " + field)
}

// children returns the processes that pid has started, and theirs.
func children(pid int) []int {
	var all []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for _, f := range strings.Fields(string(b)) {
			if c, err := strconv.Atoi(f); err == nil {
				all = append(append(all, c), children(c)...)
			}
		}
	}
	return all
}

// openFiles counts a process's descriptors.
func openFiles(pid int) int {
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0
	}
	return len(d)
}
