//go:build unix

package cli

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sallyport.dev/client"
)

// newTestProgram is a program whose files are in a folder of the test.
func newTestProgram(t *testing.T) (p *program, folder string) {
	t.Helper()
	folder = t.TempDir()
	env := map[string]string{"XDG_STATE_HOME": filepath.Join(folder, "state"), "XDG_CONFIG_HOME": filepath.Join(folder, "config")}
	p = &program{stdout: io.Discard, stderr: io.Discard, getenv: func(k string) string { return env[k] }}
	p.flags.endpoint, p.flags.region = "https://one.example.com", "us-east-1"
	return p, folder
}

const someNode = "i-0123456789abcdef0"

func TestRemember(t *testing.T) {
	p, folder := newTestProgram(t)
	if c, ok := p.last(); ok {
		t.Errorf("got %+v before anything was chosen", c)
	}
	p.remember(client.Node{NodeID: someNode, Name: "frontend-1"}, []string{"shop", "Production"})
	if c, ok := p.last(); !ok || c.NodeID != someNode || c.Name != "frontend-1" || len(c.Path) != 2 {
		t.Errorf("got %+v, %v, want what was chosen", c, ok)
	}
	p.remember(client.Node{NodeID: someNode, Name: someNode}, nil)
	if c, _ := p.last(); len(c.Path) != 2 {
		t.Errorf("got %+v, want the path kept: the node is the same", c)
	}
	info, err := os.Stat(filepath.Join(folder, "state", "sallyport", "last.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
	p.flags.endpoint = "https://two.example.com"
	if c, ok := p.last(); ok {
		t.Errorf("got %+v, want nothing: that was another deployment", c)
	}
}

// Who can write to the folder may put a link where the file is: it is neither followed
// nor believed.
func TestRememberFollowsNoLink(t *testing.T) {
	p, folder := newTestProgram(t)
	victim := filepath.Join(folder, "victim")
	if err := os.WriteFile(victim, []byte(`{"last":{}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "state", "sallyport", "last.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, file); err != nil {
		t.Fatal(err)
	}
	if _, err := p.readState(); err == nil {
		t.Error("a link was read")
	}
	p.remember(client.Node{NodeID: someNode}, nil)
	if text, _ := os.ReadFile(victim); string(text) != `{"last":{}}` {
		t.Errorf("what the link led to is now %q", text)
	}
	if c, ok := p.last(); !ok || c.NodeID != someNode {
		t.Errorf("got %+v, %v, want the link replaced", c, ok)
	}
}

func TestReadStateDistrusts(t *testing.T) {
	for name, prepare := range map[string]func(file string) error{
		"pipe":      func(file string) error { return syscall.Mkfifo(file, 0o600) },
		"folder":    func(file string) error { return os.Mkdir(file, 0o700) },
		"too large": func(file string) error { return os.WriteFile(file, []byte(strings.Repeat(" ", maxState+1)), 0o600) },
		"no JSON":   func(file string) error { return os.WriteFile(file, []byte("{"), 0o600) },
		"no id": func(file string) error {
			return os.WriteFile(file, []byte(`{"last":{"https://one.example.com us-east-1 ":{"node":"-oProxyCommand=x"}}}`), 0o600)
		},
		"escape as id": func(file string) error {
			return os.WriteFile(file, []byte(`{"last":{"https://one.example.com us-east-1 ":{"node":"\u001b[2J"}}}`), 0o600)
		},
		"other's entry": func(file string) error {
			return os.WriteFile(file, []byte(`{"last":{"x":{"node":"`+someNode+`"}}}`), 0o600)
		},
	} {
		p, folder := newTestProgram(t)
		file := filepath.Join(folder, "state", "sallyport", "last.json")
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := prepare(file); err != nil {
			t.Fatal(err)
		}
		if c, ok := p.last(); ok {
			t.Errorf("%s: got %+v, want nothing", name, c)
		}
	}
}

func TestSettings(t *testing.T) {
	s, err := parseSettings("config.hcl", []byte(`
menu {
  dimension "Platform" {}
  dimension "Stage" {
    title   = "Environment"
    missing = "not sorted"
    order   = ["prod"]
  }
}
tag "Stage" {
  required = true
  values   = ["prod", "test"]
}
tag "Owner" { pattern = "[a-z]+" }
`))
	if err != nil {
		t.Fatal(err)
	}
	d := s.dimensions()
	if len(d) != 2 || d[0].title() != "Platform" || d[0].missing() != "no Platform" || d[1].title() != "Environment" || d[1].missing() != "not sorted" {
		t.Errorf("got %+v", d)
	}
	for tags, want := range map[string]string{
		"Stage=prod Owner=ann": "", "Stage=prod,test": "", "Owner=ann": "no tag Stage", "Stage=dev": "Stage=dev: allowed are prod, test", "Stage=prod Owner=Ann1": "Owner=Ann1: want [a-z]+",
	} {
		has := map[string]string{}
		for t := range strings.FieldsSeq(tags) {
			k, v, _ := strings.Cut(t, "=")
			has[k] = v
		}
		got := ""
		for _, r := range s.Tags {
			got += r.broken(has)
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", tags, got, want)
		}
	}
}

func TestSettingsRefuse(t *testing.T) {
	for text, want := range map[string]string{
		`menu {`:                                "config.hcl:1",
		`menus {}`:                              `menus`,
		"menu {\n dimension \"A\" { x = 1 }\n}": `"x"`,
		`menu { 
  dimension "A" {}
  dimension "A" {}
}`: `dimension "A"`,
		`tag "A" { pattern = "(" }`:   `tag "A": pattern`,
		`tag "" {}`:                   `tag ""`,
		`tag "A" { required = "no" }`: `bool`,
	} {
		if _, err := parseSettings("config.hcl", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error about %s", text, err, want)
		}
	}
}

func TestSettingsOfANamedFileMustBeThere(t *testing.T) {
	p, folder := newTestProgram(t)
	if s, err := p.settings(); err != nil || s.Menu != nil {
		t.Errorf("got %+v, %v, want the defaults: there is no file", s, err)
	}
	p.getenv = func(k string) string {
		return map[string]string{settingsVariable: filepath.Join(folder, "none.hcl")}[k]
	}
	if _, err := p.settings(); err == nil {
		t.Error("got no error, want one: the file that was named is not there")
	}
}
