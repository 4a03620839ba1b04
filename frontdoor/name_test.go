package frontdoor

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/identity"
)

func TestParseUser(t *testing.T) {
	for user, want := range map[string]userName{
		"frontend-1":                         {node: "frontend-1"},
		"alice@frontend-1":                   {person: "alice", node: "frontend-1"},
		"alice+deploy@frontend-1":            {person: "alice", login: "deploy", node: "frontend-1"},
		"alice@example.com@frontend-1":       {person: "alice@example.com", node: "frontend-1"},
		"a+b@example.com@frontend-1":         {person: "a+b@example.com", node: "frontend-1"},
		"a+b@example.com+root@frontend-1":    {person: "a+b@example.com", login: "root", node: "frontend-1"},
		"a+b+@frontend-1":                    {person: "a+b", node: "frontend-1"},
		"@frontend-1":                        {node: "frontend-1"},
		"+deploy@frontend-1":                 {login: "deploy", node: "frontend-1"},
		"alice+../x@frontend-1":              {person: "alice+../x", node: "frontend-1"},
		"frontend 1":                         {node: "frontend 1"},
		"alice+a-login-longer-than-32-by.@n": {person: "alice", login: "a-login-longer-than-32-by.", node: "n"},
	} {
		got, err := parseUser(user)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(userName{})); diff != "" || err != nil {
			t.Errorf("%q: %v\n%s", user, err, diff)
		}
	}
	for _, user := range []string{"", "alice@", "a\nb", "a\x00", "a\x1b[2J", "a\u202eb", "\xff", strings.Repeat("x", maxUser+1)} {
		if got, err := parseUser(user); err == nil {
			t.Errorf("%q: got %+v, want an error", user, got)
		}
	}
}

func FuzzParseUser(f *testing.F) {
	f.Add("alice+deploy@frontend-1")
	f.Add("a@b+c@@")
	f.Fuzz(func(t *testing.T, user string) {
		u, err := parseUser(user)
		if err != nil {
			return
		}
		if u.node == "" || strings.ContainsFunc(u.node+u.person, unicode.IsControl) || u.login != "" && !loginPattern.MatchString(u.login) {
			t.Errorf("%q: got %+v", user, u)
		}
	})
}

func TestInnerLogin(t *testing.T) {
	p := identity.Principal{Name: "alice"}
	for user, want := range map[string]string{"alice": "", "_": "", "-": "", "deploy": "deploy", "root": "root"} {
		if got, err := innerLogin(user, p); got != want || err != nil {
			t.Errorf("%q: got %q, %v, want %q", user, got, err, want)
		}
	}
	for _, user := range []string{"", "-x", "a b", "../x", strings.Repeat("x", 40)} {
		if got, err := innerLogin(user, p); err == nil {
			t.Errorf("%q: got %q, want an error", user, got)
		}
	}
}

func TestNodeOfHost(t *testing.T) {
	const suffix = "nodes.example.com"
	for host, want := range map[string]string{
		"frontend-1.nodes.example.com":  "frontend-1",
		"Frontend-1.Nodes.Example.Com.": "Frontend-1",
		"a.b.nodes.example.com":         "a.b",
	} {
		if got, ok := nodeOfHost(host, suffix); got != want || !ok {
			t.Errorf("%q: got %q, %v, want %q", host, got, ok, want)
		}
	}
	for _, host := range []string{"nodes.example.com", ".nodes.example.com", "xnodes.example.com", "localhost", "", "a b.nodes.example.com", "-x.nodes.example.com"} {
		if got, ok := nodeOfHost(host, suffix); ok {
			t.Errorf("%q: got %q, want none", host, got)
		}
	}
	if _, ok := nodeOfHost("x.", ""); ok {
		t.Error("a node without a suffix")
	}
}

// The environment is an open door into programs: what decides which code runs stays out
// even where the configuration would let it in.
func TestMayName(t *testing.T) {
	for _, name := range []string{"LANG", "LC_ALL", "LC_TIME", "TERM", "COLORTERM"} {
		if !mayName(defaultEnvironment, name) {
			t.Errorf("%s is kept out", name)
		}
	}
	for _, name := range []string{"PATH", "HOME", "LANGUAGE", "LC_\n", "LC_ALL=x", "", "1X", "AWS_SECRET_ACCESS_KEY", strings.Repeat("LC_", 100)} {
		if mayName(defaultEnvironment, name) {
			t.Errorf("%q is let in", name)
		}
	}
	for _, name := range []string{"LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "PATH", "BASH_ENV", "ENV", "IFS",
		"BASH_FUNC_ls", "PYTHONPATH", "PERL5OPT", "NODE_OPTIONS", "GLIBC_TUNABLES", "SSH_AUTH_SOCK", "SHELL", "HOME"} {
		if mayName([]string{"*"}, name) {
			t.Errorf("%s is let in", name)
		}
	}
	if !mayName([]string{"*"}, "DEPLOY_STAGE") {
		t.Error("DEPLOY_STAGE is kept out")
	}
}

func TestCrowd(t *testing.T) {
	c := newCrowd[netip.Prefix](5, 2)
	at := func(ip string) netip.Prefix { return networkOf(&net.TCPAddr{IP: net.ParseIP(ip), Port: 1}) }
	leave, ok := c.enter(at("192.0.2.1"))
	if !ok {
		t.Fatal("no room for the first")
	}
	for _, step := range []struct {
		ip string
		ok bool
	}{
		{"192.0.2.1", true}, {"192.0.2.1", false}, {"::ffff:192.0.2.1", false},
		{"2001:db8::1", true}, {"2001:db8::2", true}, {"2001:db8::3", false},
		{"2001:db8:0:1::1", true}, {"192.0.2.2", false},
	} {
		if _, ok := c.enter(at(step.ip)); ok != step.ok {
			t.Errorf("%s: got %v, want %v", step.ip, ok, step.ok)
		}
	}
	leave()
	leave()
	if _, ok := c.enter(at("192.0.2.1")); !ok {
		t.Error("no room after one left")
	}
}
