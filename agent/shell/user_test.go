package shell

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/internal/needs"
)

// passwd writes a user database with the user that runs the tests and others.
func passwd(t *testing.T, more ...string) Options {
	t.Helper()
	path := filepath.Join(t.TempDir(), "passwd")
	lines := []string{
		"root:x:0:0:root:/root:/bin/bash",
		fmt.Sprintf("me:x:%d:%d::/home/me:/bin/sh", os.Geteuid(), os.Getegid()),
		"alice:x:54321:54321:Alice:/home/alice:/bin/zsh",
		"wheel:x:54322:0::/home/wheel:/bin/sh",
		"toor:x:0:54323::/root:/bin/sh",
		"bare:x:54324:54324:::",
	}
	if err := os.WriteFile(path, []byte(strings.Join(append(lines, more...), "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Options{passwd: path}
}

// TestRunAs walks the rules for run-as users; a case of a root agent needs root.
func TestRunAs(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  RunAs
		root bool
		want string
		err  error
	}{
		{name: "elevated", run: RunAs{Elevated: true, Enabled: true, User: "alice"}, root: true, want: "root"},
		{name: "no user named", run: RunAs{Enabled: true}, err: ErrNoRunAsUser},
		{name: "unknown user", run: RunAs{Enabled: true, User: "nobody-here"}, err: ErrNoUser},
		{name: "root by name", run: RunAs{Enabled: true, User: "root"}, err: ErrRunAsRoot},
		{name: "root by number", run: RunAs{Enabled: true, User: "0"}, err: ErrNoUser},
		{name: "by number", run: RunAs{Enabled: true, User: "54321"}, err: ErrNoUser},
		{name: "by number as policy lets root", run: RunAs{Enabled: true, User: "0", Root: true}, err: ErrNoUser},
		{name: "root by leave of policy", run: RunAs{Enabled: true, User: "root", Root: true}, root: true, want: "root"},
		{name: "leave for root is none for nobody", run: RunAs{Enabled: true, User: "nobody-here", Root: true}, err: ErrNoUser},
		{name: "other capitals", run: RunAs{Enabled: true, User: "Alice"}, err: ErrNoUser},
		{name: "a line", run: RunAs{Enabled: true, User: "alice\nroot"}, err: ErrNoUser},
		{name: "a nul", run: RunAs{Enabled: true, User: "alice\x00"}, err: ErrNoUser},
		{name: "a pattern", run: RunAs{Enabled: true, User: "a*"}, err: ErrNoUser},
		{name: "too long", run: RunAs{Enabled: true, User: strings.Repeat("a", 300)}, err: ErrNoUser},
		{name: "uid of root", run: RunAs{Enabled: true, User: "toor"}, err: ErrRunAsRoot},
		{name: "group of root", run: RunAs{Enabled: true, User: "wheel"}, err: ErrRunAsRoot},
		{name: "an option", run: RunAs{Enabled: true, User: "-G"}, err: ErrNoUser},
		{name: "two fields", run: RunAs{Enabled: true, User: "alice:x"}, err: ErrNoUser},
		{name: "a path", run: RunAs{Enabled: true, User: "../alice"}, err: ErrNoUser},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root {
				needs.Root(t)
			}
			u, err := passwd(t).Resolve(context.Background(), tt.run)
			if u.Name == "root" && (u.UID != 0 || u.Home != "/root") {
				t.Errorf("got %+v, want root", u)
			}
			if !errors.Is(err, tt.err) || u.Name != tt.want {
				t.Errorf("got user %q, error %v, want %q, %v", u.Name, err, tt.want, tt.err)
			}
		})
	}
}

func TestRunAsOther(t *testing.T) {
	u, err := passwd(t).Resolve(context.Background(), RunAs{Enabled: true, User: "alice"})
	if os.Geteuid() != 0 {
		if !errors.Is(err, ErrRunAsNotRoot) {
			t.Errorf("got %v, want %v", err, ErrRunAsNotRoot)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	u.Groups = nil
	want := User{Name: "alice", UID: 54321, GID: 54321, Home: "/home/alice", Shell: "/bin/zsh", Switch: true}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Error(diff)
	}
}

func TestRunAsSelf(t *testing.T) {
	o := passwd(t)
	o.RunAsSelf = true
	u, err := o.Resolve(context.Background(), RunAs{})
	if err != nil || u.Switch || u.UID != uint32(os.Geteuid()) {
		t.Errorf("got %+v, %v, want the tests' user, no switch", u, err)
	}
}

func TestParsePasswd(t *testing.T) {
	u, ok := parsePasswd("bare:x:54324:54324:::")
	if !ok || u.Home != "/" || u.Shell != "/bin/sh" {
		t.Errorf("got %+v, %v, want home / and shell /bin/sh", u, ok)
	}
	for _, line := range []string{"", "x", "a:b:c:d:e:f:g", "::0:0:::", "a:x:-1:0:::", "a:x:4294967296:0:::"} {
		if u, ok := parsePasswd(line); ok {
			t.Errorf("%q: got %+v, want none", line, u)
		}
	}
}

// TestDefaultUser makes ssm-user on demand, once, with sudo only if asked for.
func TestDefaultUser(t *testing.T) {
	needs.Root(t)
	for _, sudo := range []bool{false, true} {
		o := passwd(t)
		o.SSMUserSudo, o.sudoers = sudo, t.TempDir()
		o.useradd = []string{"sh", "-c", "echo $0:x:54999:54999::/home/$0:/bin/sh >>" + o.passwd}
		for range 2 {
			u, err := o.Resolve(context.Background(), RunAs{})
			if err != nil || u.Name != DefaultUser || u.UID != 54999 || !u.Switch {
				t.Fatalf("got %+v, %v, want a switch to %s", u, err, DefaultUser)
			}
		}
		db, err := os.ReadFile(o.passwd)
		if err != nil || strings.Count(string(db), DefaultUser+":x") != 1 {
			t.Errorf("user made %d times, want once", strings.Count(string(db), DefaultUser+":x"))
		}
		checkSudoers(t, o.sudoers, sudo)
	}
}

// TestDefaultUserFails leaves nothing of a user that could not be made, and makes it
// without sudo where there is none.
func TestDefaultUserFails(t *testing.T) {
	needs.Root(t)
	o := passwd(t)
	o.SSMUserSudo, o.sudoers, o.useradd = true, t.TempDir(), []string{"false"}
	if _, err := o.Resolve(context.Background(), RunAs{}); err == nil {
		t.Error("a user was found that could not be made")
	}
	checkSudoers(t, o.sudoers, false)
	o.sudoers += "/absent"
	o.useradd = []string{"sh", "-c", "echo $0:x:54999:54999::/home/$0:/bin/sh >>" + o.passwd}
	if _, err := o.Resolve(context.Background(), RunAs{}); err != nil {
		t.Errorf("without sudo: %v", err)
	}
}

func checkSudoers(t *testing.T, dir string, want bool) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !want {
		if len(files) > 0 {
			t.Errorf("got %v, want no sudoers file", files)
		}
		return
	}
	if len(files) != 1 || files[0].Name() != "sallyport-ssm-user" {
		t.Fatalf("got %v, want one sudoers file", files)
	}
	info, err := files[0].Info()
	if err != nil || info.Mode() != 0o440 {
		t.Errorf("got mode %v, want 0440", info.Mode())
	}
	b, _ := os.ReadFile(filepath.Join(dir, files[0].Name()))
	if !strings.HasSuffix(string(b), "\nssm-user ALL=(ALL) NOPASSWD:ALL\n") {
		t.Errorf("got sudoers file %q", b)
	}
}
