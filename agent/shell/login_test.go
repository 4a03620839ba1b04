package shell

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// machine writes files of a machine and returns the options to read them.
func machine(t *testing.T, files map[string]string) Options {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Options{root: root}
}

func TestLoginEnvironment(t *testing.T) {
	alice := User{Name: "alice", UID: 1000, GID: 1000, Home: "/home/alice", Shell: "/bin/bash"}
	who := []string{"HOME=/home/alice", "USER=alice", "LOGNAME=alice", "SHELL=/bin/bash"}
	for name, tt := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"bare machine": {nil, []string{"PATH=" + userPath, "MAIL=/var/mail/alice", "LANG=C.UTF-8"}},
		"login.defs": {
			map[string]string{"etc/login.defs": "ENV_PATH\tPATH=/bin:/games\nENV_SUPATH PATH=/sbin\n"},
			[]string{"PATH=/bin:/games", "MAIL=/var/mail/alice", "LANG=C.UTF-8"},
		},
		"environment": {
			map[string]string{"etc/environment": "# all\nPATH=\"/usr/bin:/snap/bin\"\nexport EDITOR='vi'\nHOME=/tmp\nUSER=root\nbad name=x\n"},
			[]string{"PATH=/usr/bin:/snap/bin", "MAIL=/var/mail/alice", "EDITOR=vi", "LANG=C.UTF-8"},
		},
		"locale.conf": {
			map[string]string{"etc/locale.conf": "LANG=pl_PL.UTF-8\nFONT=evil\n", "etc/default/locale": "LANG=de_DE\n"},
			[]string{"PATH=" + userPath, "MAIL=/var/mail/alice", "LANG=pl_PL.UTF-8"},
		},
		"default locale": {
			map[string]string{"etc/default/locale": "LANG=\"en_GB.UTF-8\"\n"},
			[]string{"PATH=" + userPath, "MAIL=/var/mail/alice", "LANG=en_GB.UTF-8"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(append(slices.Clone(who), tt.want...), machine(t, tt.files).login(alice).env); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUmask(t *testing.T) {
	for name, tt := range map[string]struct {
		defs string
		user User
		want int
	}{
		"none":          {"", User{Name: "alice", UID: 1000, GID: 1000}, 0o022},
		"given":         {"UMASK 077\n", User{Name: "alice", UID: 1000, GID: 1000}, 0o077},
		"nonsense":      {"UMASK 999\n", User{Name: "alice", UID: 1000, GID: 1000}, 0o022},
		"own group":     {"UMASK 022\nUSERGROUPS_ENAB yes\n", User{Name: "alice", UID: 1000, GID: 1000}, 0o002},
		"shared group":  {"UMASK 022\nUSERGROUPS_ENAB yes\n", User{Name: "bob", UID: 1001, GID: 1000}, 0o022},
		"root's group":  {"UMASK 022\nUSERGROUPS_ENAB yes\n", User{Name: "root", UID: 0, GID: 0}, 0o022},
		"strict own":    {"UMASK 077\nUSERGROUPS_ENAB yes\n", User{Name: "alice", UID: 1000, GID: 1000}, 0o007},
		"commented out": {"# UMASK 077\n", User{Name: "alice", UID: 1000, GID: 1000}, 0o022},
	} {
		o := machine(t, map[string]string{"etc/login.defs": tt.defs, "etc/group": "root:x:0:\nalice:x:1000:\n"})
		if got := o.login(tt.user).umask; got != tt.want {
			t.Errorf("%s: got umask %04o, want %04o", name, got, tt.want)
		}
	}
}

func TestLimitRules(t *testing.T) {
	alice := User{Name: "alice", UID: 1000, GID: 1000, Groups: []uint32{1000, 2000}}
	groups := map[string]string{"etc/group": "alice:x:1000:\ndevs:x:2000:alice\n"}
	for name, tt := range map[string]struct {
		conf, more string
		user       User
		nofile     limit
		nice       int
	}{
		"both":                {conf: "* - nofile 500", nofile: limit{Soft: 500, Hard: 500}},
		"soft and hard":       {conf: "alice soft nofile 100\nalice hard nofile 200", nofile: limit{Soft: 100, Hard: 200}},
		"soft above hard":     {conf: "* soft nofile 900\n* hard nofile 200", nofile: limit{Soft: 200, Hard: 200}},
		"user over group":     {conf: "alice - nofile 7\n@devs - nofile 8\n* - nofile 9", nofile: limit{Soft: 7, Hard: 7}},
		"group over all":      {conf: "@devs - nofile 8\n* - nofile 9", nofile: limit{Soft: 8, Hard: 8}},
		"last of equals":      {conf: "alice - nofile 7\nalice - nofile 6", nofile: limit{Soft: 6, Hard: 6}},
		"file after file":     {conf: "alice - nofile 7", more: "alice - nofile 5", nofile: limit{Soft: 5, Hard: 5}},
		"ids of users":        {conf: "1000:1005 - nofile 4\n1001: - nofile 3", nofile: limit{Soft: 4, Hard: 4}},
		"ids of groups":       {conf: "@:2000 - nofile 4", nofile: limit{Soft: 4, Hard: 4}},
		"another's":           {conf: "bob - nofile 1\n@ops - nofile 2\n* - nofile 3", nofile: limit{Soft: 3, Hard: 3}},
		"root is not all":     {conf: "* - nofile 1\n@root - nofile 2\n0: - nofile 3\nroot - nofile 4", user: User{Name: "root"}, nofile: limit{Soft: 4, Hard: 4}},
		"nonsense":            {conf: "alice - nofile many\nalice - nofile 18446744073709551616\nalice - nofile 5 # kept\nalice nofile", nofile: limit{Soft: 5, Hard: 5}},
		"priority":            {conf: "alice - nofile 5\nalice - priority 7\n* - priority 3", nofile: limit{Soft: 5, Hard: 5}, nice: 7},
		"priority within -20": {conf: "alice - nofile 5\n@devs - priority -100", nofile: limit{Soft: 5, Hard: 5}, nice: -20},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"etc/security/limits.conf": "# comment\n" + tt.conf, "etc/security/limits.d/90-more.conf": tt.more}
			for k, v := range groups {
				files[k] = v
			}
			u := tt.user
			if u.Name == "" {
				u = alice
			}
			tt.nofile.Resource = unix.RLIMIT_NOFILE
			got := machine(t, files).login(u)
			if diff := cmp.Diff([]limit{tt.nofile}, got.limits); diff != "" || got.nice != tt.nice {
				t.Errorf("got nice %d, want %d; limits: %s", got.nice, tt.nice, diff)
			}
		})
	}
}

func TestLimitUnits(t *testing.T) {
	for _, tt := range []struct {
		item, value string
		want        uint64
		ok          bool
	}{
		{"nofile", "1024", 1024, true},
		{"memlock", "64", 64 << 10, true},
		{"core", "unlimited", unlimited, true},
		{"nproc", "-1", unlimited, true},
		{"cpu", "2", 120, true},
		{"memlock", "18446744073709551615", 0, false},
		{"nofile", "-5", 0, false},
		{"nofile", "", 0, false},
	} {
		if got, ok := limitItems[tt.item].value(tt.value); ok != tt.ok || ok && got != tt.want {
			t.Errorf("%s %s: got %d, %t, want %d, %t", tt.item, tt.value, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzLimitRules(f *testing.F) {
	f.Add("alice - nofile 5")
	f.Add("@1:2 hard nice -7")
	f.Fuzz(func(t *testing.T, text string) {
		o := machine(t, map[string]string{"etc/security/limits.conf": text})
		for _, l := range o.login(User{Name: "alice", UID: 1000, GID: 1000}).limits {
			if l.Soft > l.Hard {
				t.Errorf("got soft limit %d above the hard one, %d", l.Soft, l.Hard)
			}
		}
	})
}

func TestExpired(t *testing.T) {
	o := machine(t, map[string]string{"etc/shadow": "alice:!:19000:0:99999:7:::\nbob:*:19000:0:99999:7::20000:\neve:*:19000:0:99999:7::1:\n"})
	day := func(n int64) time.Time { return time.Unix(n*24*60*60, 0) }
	for _, tt := range []struct {
		name string
		now  time.Time
		want bool
	}{
		{"alice", day(20000), false}, {"bob", day(19999), false}, {"bob", day(20000), true}, {"eve", day(20000), true}, {"nobody", day(1), false},
	} {
		if got := o.expired(tt.name, tt.now); got != tt.want {
			t.Errorf("%s at %v: got %t, want %t", tt.name, tt.now, got, tt.want)
		}
	}
}

// TestClientEnvironment is the attack: variables with which a loader, a shell or an
// interpreter runs code of the client's choice.
func TestClientEnvironment(t *testing.T) {
	got := clientEnviron(map[string]string{
		"LC_TIME": "C", "MY_VAR": "a=b\nc", "TZ": "UTC",
		"LD_PRELOAD": "x", "LD_AUDIT": "x", "DYLD_INSERT_LIBRARIES": "x", "ld_preload": "x", "PATH": "x", "IFS": "x", "BASH_ENV": "x", "ENV": "x",
		"SHELLOPTS": "x", "PYTHONPATH": "x", "PYTHONSTARTUP": "x", "PERL5LIB": "x", "PERL5OPT": "x", "RUBYOPT": "x", "NODE_OPTIONS": "x",
		"BASH_FUNC_ls%%": "() { id; }", "PS4": "$(id)", "PROMPT_COMMAND": "id", "GCONV_PATH": "x", "GIT_SSH_COMMAND": "id",
		"HOME": "x", "USER": "root", "SSH_AUTH_SOCK": "x", "SALLYPORT_SESSION": "x", "TERMINFO_DIRS": "x",
		"": "x", "A B": "x", "A=B": "x", "1A": "x", "NUL": "a\x00b", "NAME\n": "x",
	})
	if diff := cmp.Diff([]string{"LC_TIME=C", "MY_VAR=a=b\nc", "TZ=UTC"}, got); diff != "" {
		t.Error(diff)
	}
	many := map[string]string{}
	for i := range 1000 {
		many["V"+string(rune('A'+i%26))+string(rune('A'+i/26))] = "x"
	}
	if got := len(clientEnviron(many)); got != maxVariables {
		t.Errorf("got %d variables, want %d", got, maxVariables)
	}
}
