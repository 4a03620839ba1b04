package shell

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// cgroups opens control groups, or skips where the machine has none to write to.
func cgroups(t *testing.T, limits SessionLimits) *Cgroups {
	t.Helper()
	c, err := OpenCgroups(limits, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Skipf("needs control groups of version 2: %v", err)
	}
	t.Cleanup(func() {
		c.Close()
		if _, err := os.Stat(c.dir); err == nil {
			t.Errorf("%s is left", c.dir)
		}
	})
	return c
}

// TestCgroupFromTheStart checks that a program is in its session's group with its first
// instruction, and that the group goes with the session.
func TestCgroupFromTheStart(t *testing.T) {
	o := Options{Cgroups: cgroups(t, SessionLimits{})}
	p, err := o.Exec(self(t), Exec{Command: "cat /proc/self/cgroup"})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(readerFunc(p.Read))
	p.Close()
	if !strings.Contains(string(out), filepath.Base(o.Cgroups.dir)+"/session.1\n") {
		t.Errorf("got groups %s, want session.1", out)
	}
	if _, err := os.Stat(filepath.Join(o.Cgroups.dir, "session.1")); !os.IsNotExist(err) {
		t.Errorf("the group is left: %v", err)
	}
}

// TestCgroupEndsAll is the attack: programs that leave the session, clear their
// environment, resist, and fork while they are being ended.
func TestCgroupEndsAll(t *testing.T) {
	o := Options{Cgroups: cgroups(t, SessionLimits{})}
	t.Run("all", func(t *testing.T) {
		for name, command := range map[string]string{
			"clears its environment": "setsid -f env -i sleep 100",
			"resists":                `setsid -f env -i sh -c 'trap "" HUP TERM INT; sleep 100; sleep 100'`,
			"forks for ever":         `setsid -f env -i sh -c 'trap "" HUP TERM; while :; do setsid -f env -i sleep 100; sleep 0.02; done'`,
			"double fork":            `(setsid env -i sh -c 'cd /; (setsid sleep 100 >/dev/null 2>&1 &) ' &)`,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p, err := o.Interactive(self(t), command+"; sleep 0.2; echo ready; sleep 100", Size{})
				if err != nil {
					t.Fatal(err)
				}
				expect(t, p, "ready")
				await(t, func() bool { return len(p.group.pids()) > 2 })
				pids := p.group.pids()
				p.Close()
				for _, pid := range pids {
					if q, ok := readProcess(pid); ok && !q.dead && q.started >= p.all.since {
						t.Errorf("process %d is left", pid)
					}
				}
				if _, err := os.Stat(p.group.dir); !os.IsNotExist(err) {
					t.Errorf("the group is left: %v", err)
				}
			})
		}
	})
}

// startLoose starts a session with a program that only a group can find, and returns
// that program's number.
func startLoose(t *testing.T, o Options, u User) (*Process, int) {
	t.Helper()
	p, err := o.Exec(u, Exec{Command: `setsid -f env -i sh -c 'echo $$; exec sleep 100'; cat`})
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(p).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return p, pid
}

func alive(pid int) bool {
	p, ok := readProcess(pid)
	return ok && !p.dead
}

// TestCgroupAfterCrash checks that the next agent ends what one that crashed has left,
// and leaves alone what belongs to one that lives.
func TestCgroupAfterCrash(t *testing.T) {
	living := cgroups(t, SessionLimits{})
	other, lives := startLoose(t, Options{Cgroups: living}, self(t))
	crashed := cgroups(t, SessionLimits{})
	p, left := startLoose(t, Options{Cgroups: crashed}, self(t))
	crashed.lock.Close()
	cgroups(t, SessionLimits{})
	await(t, func() bool { return !alive(left) })
	if !alive(lives) {
		t.Error("the sweep ended a session of an agent that lives")
	}
	p.Close()
	other.Close()
	await(t, func() bool { return !alive(lives) })
}

// TestCgroupKeepDetached leaves alone what may outlive its session.
func TestCgroupKeepDetached(t *testing.T) {
	c := cgroups(t, SessionLimits{})
	u := self(t)
	u.Detached = true
	p, pid := startLoose(t, Options{Cgroups: c}, u)
	p.Close()
	if !alive(pid) {
		t.Error("the program that left the session has ended with it")
	}
	syscall.Kill(pid, syscall.SIGKILL)
	await(t, func() bool { return !alive(pid) })
}

// TestCgroupRelease leaves alone what a program has started, and removes the group once
// that has ended.
func TestCgroupRelease(t *testing.T) {
	c := cgroups(t, SessionLimits{})
	p, pid := startLoose(t, Options{Cgroups: c}, self(t))
	p.CloseWrite()
	<-p.Exited()
	p.Release()
	if !alive(pid) {
		t.Fatal("the program has ended")
	}
	syscall.Kill(pid, syscall.SIGKILL)
	await(t, func() bool { return !alive(pid) })
	await(t, func() bool {
		c.name(false)
		return len(c.left) == 0
	})
}

// TestForkBomb has a session start as many processes as it can: no more than it may, and
// none once it has ended.
func TestForkBomb(t *testing.T) {
	const most = 40
	o := Options{Cgroups: cgroups(t, SessionLimits{PidsMax: most})}
	p, err := o.Exec(self(t), Exec{Command: `trap "" HUP TERM; i=0; while [ $i -lt 200 ]; do setsid -f env -i sleep 100; i=$((i+1)); done; echo ready; cat`})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, p, "ready")
	if n := len(p.group.pids()); n > most {
		t.Errorf("got %d processes, want at most %d", n, most)
	}
	p.Close()
	if _, err := os.Stat(p.group.dir); !os.IsNotExist(err) {
		t.Errorf("the group is left: %v", err)
	}
}

// TestCgroupFallback starts programs where the kernel takes no group for them.
func TestCgroupFallback(t *testing.T) {
	dir := t.TempDir() // no control group, so that the kernel refuses it
	c := &Cgroups{dir: dir, log: slog.New(slog.DiscardHandler), left: map[string]bool{}}
	for range 2 {
		p, err := Options{Cgroups: c}.Exec(self(t), Exec{Command: "echo fine"})
		if err != nil {
			t.Fatal(err)
		}
		out, _ := io.ReadAll(readerFunc(p.Read))
		p.Close()
		if string(out) != "fine\n" {
			t.Errorf("got %q, want fine", out)
		}
	}
	if !c.unused {
		t.Error("groups are tried again and again")
	}
}

func TestParseLimits(t *testing.T) {
	for _, tt := range []struct {
		memory string
		pids   int
		cpu    string
		want   SessionLimits
		bad    string // the key in the error
	}{
		{want: SessionLimits{}},
		{memory: "512M", pids: 100, cpu: "150%", want: SessionLimits{MemoryMax: 512 << 20, PidsMax: 100, CPUMax: 150}},
		{memory: "2G", cpu: "50", want: SessionLimits{MemoryMax: 2 << 30, CPUMax: 50}},
		{memory: "16777216", want: SessionLimits{MemoryMax: 16 << 20}},
		{memory: "1K", bad: "memory_max"},
		{memory: "lots", bad: "memory_max"},
		{memory: "-1G", bad: "memory_max"},
		{memory: "9999999999G", bad: "memory_max"},
		{pids: -1, bad: "pids_max"},
		{pids: 3, bad: "pids_max"},
		{cpu: "fast", bad: "cpu_max"},
		{cpu: "0%", bad: "cpu_max"},
	} {
		name := fmt.Sprintf("%s %d %s", tt.memory, tt.pids, tt.cpu)
		got, err := ParseLimits(tt.memory, tt.pids, tt.cpu)
		if tt.bad != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tt.bad+": ") {
				t.Errorf("%s: got %v, want an error of %s", name, err, tt.bad)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

// TestEnable has the controllers of limits switched on where there are any, with the
// agent's own processes out of the way, and names the one that is missing. A folder with
// the kernel's files stands in for a hierarchy that the test could not give back.
func TestEnable(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "sessions")
	for _, d := range []string{dir, filepath.Join(base, mainGroup)} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(base, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cgroup.controllers", "cpuset cpu io memory pids\n")
	write("cgroup.type", "domain\n")
	write("cgroup.procs", "4711\n")
	limits := SessionLimits{MemoryMax: 1 << 30, PidsMax: 100}
	for _, d := range []string{base, dir, filepath.Join(base, mainGroup)} {
		for _, name := range []string{"cgroup.subtree_control", "cgroup.procs"} {
			if path := filepath.Join(d, name); !isFile(path) {
				os.WriteFile(path, nil, 0o600)
			}
		}
	}
	if err := enable(base, dir, limits.controllers()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"cgroup.subtree_control": "+memory +pids", "sessions/cgroup.subtree_control": "+memory +pids", "main/cgroup.procs": "4711",
	} {
		if got, err := os.ReadFile(filepath.Join(base, name)); string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	write("cgroup.controllers", "cpu memory\n")
	if err := enable(base, dir, limits.controllers()); err == nil || !strings.Contains(err.Error(), "controller pids") {
		t.Errorf("got %v, want that the controller pids is missing", err)
	}
	want := map[string]string{"memory.max": "1073741824", "memory.swap.max": "0", "pids.max": "100"}
	if diff := cmp.Diff(want, limits.files()); diff != "" {
		t.Error(diff)
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func TestUnifiedMount(t *testing.T) {
	for name, tt := range map[string]struct{ text, mount, root string }{
		"unified":   {"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", "/sys/fs/cgroup", "/"},
		"hybrid":    {"31 30 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw\n", "/sys/fs/cgroup/unified", "/"},
		"container": {"33 30 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "/sys/fs/cgroup", "/docker/abc"},
		"none":      {"31 30 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n", "", ""},
	} {
		file := filepath.Join(t.TempDir(), "mountinfo")
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		mount, root, err := unifiedMount(file)
		if mount != tt.mount || root != tt.root || (err != nil) != (tt.mount == "") {
			t.Errorf("%s: got %q, %q, %v, want %q, %q", name, mount, root, err, tt.mount, tt.root)
		}
	}
}

// TestCgroupCost keeps an eye on what a group adds to starting a program.
func TestCgroupCost(t *testing.T) {
	c := cgroups(t, SessionLimits{})
	for name, o := range map[string]Options{"without": {}, "with": {Cgroups: c}} {
		began := time.Now()
		const times = 10
		for range times {
			p, err := o.Exec(self(t), Exec{Command: "exit"})
			if err != nil {
				t.Fatal(err)
			}
			<-p.Exited()
			p.Close()
		}
		t.Logf("%s a group: %v for a program", name, time.Since(began)/times)
	}
}
