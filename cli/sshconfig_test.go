//go:build unix

package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/internal/needs"
)

// The person's own text stays, whatever it is, and the line comes once.
func TestIncludeInSSHConfig(t *testing.T) {
	const include = `Include "/home/x/.sallyport/ssh/default/config"` + "\n"
	for _, tt := range []struct {
		name, before, after string
		link                bool
		mode                os.FileMode
	}{
		{name: "no file", after: include, mode: 0o600},
		{name: "a file", before: "Host *\n  User me", after: include + "Host *\n  User me", mode: 0o600},
		{name: "a link to where people keep it", before: "Host a\r\n", after: include + "Host a\r\n", link: true, mode: 0o600},
		{name: "there already", before: "Host a\n\n  " + include, after: "Host a\n\n  " + include, mode: 0o644},
		{name: "rights that ssh refuses", before: "Host a\n", after: include + "Host a\n", mode: 0o666},
	} {
		home := t.TempDir()
		t.Setenv("HOME", home)
		config := filepath.Join(home, ".ssh", "config")
		file := config
		must(t, os.Mkdir(filepath.Dir(config), 0o700))
		if tt.link {
			file = filepath.Join(home, "dotfiles")
			must(t, os.Symlink(file, config))
		}
		if tt.before != "" {
			must(t, os.WriteFile(file, []byte(tt.before), 0o600))
			must(t, os.Chmod(file, tt.mode))
		}
		for range 2 {
			_, _, err := includeInSSHConfig("/home/x/.sallyport/ssh/default/config")
			must(t, err)
		}
		got, err := os.ReadFile(config)
		must(t, err)
		info, err := os.Stat(config)
		must(t, err)
		if want := tt.mode &^ 0o022; string(got) != tt.after || info.Mode() != want {
			if tt.name != "there already" || string(got) != tt.after {
				t.Errorf("%s: got %q, mode %v, want %q, %v", tt.name, got, info.Mode(), tt.after, want)
			}
		}
		if l, _ := os.Lstat(config); tt.link != (l.Mode()&os.ModeSymlink != 0) {
			t.Errorf("%s: link %v became %v", tt.name, tt.link, l.Mode())
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a server says does not become a line of ssh_config, nor an option of ssh's.
func TestSSHConfigTakesNoLines(t *testing.T) {
	for _, tt := range []struct{ gateway, suffix, user, login string }{
		{gateway: "host:22\n  ProxyCommand id"},
		{gateway: "host\n  ProxyCommand id:22"},
		{gateway: "-oProxyCommand=id:22"},
		{gateway: "%h:22"},
		{gateway: "host:0"},
		{gateway: "host:65536"},
		{gateway: "host:22 -oProxyCommand=id"},
		{gateway: "a b:22"},
		{gateway: "*:22"},
		{gateway: "host:22", suffix: "x\nProxyCommand id"},
		{gateway: "host:22", suffix: "*"},
		{gateway: "host:22", suffix: "x,!y"},
		{gateway: "host:22", suffix: "-x"},
		{gateway: "host:22", user: "x\"\n  ProxyCommand id"},
		{gateway: "host:22", user: "-oProxyCommand=id"},
		{gateway: "host:22", user: "%r"},
		{gateway: "host:22", login: "x\ny"},
		{gateway: "host:22", login: "-x"},
	} {
		c := sshConfigLines{name: "sallyport", user: tt.user, login: tt.login}
		if c.user == "" {
			c.user = "alice"
		}
		err := c.setGateway(tt.gateway, tt.suffix)
		if err == nil {
			err = c.check()
		}
		if err == nil {
			t.Errorf("%q was taken", tt)
		}
	}
}

// OpenSSH reads the lines as they are meant.
func TestSSHConfigAsOpenSSHReadsIt(t *testing.T) {
	needs.Program(t, "ssh")
	dir := filepath.Join(t.TempDir(), "with space and %h")
	must(t, os.Mkdir(dir, 0o700))
	c := sshConfigLines{files: sshFiles{dir}, name: "sallyport", user: "alice@example.com", renew: "true", proxy: "sallyport proxy %h %p"}
	must(t, c.setGateway("[2001:db8::1]:2222", "nodes.example.com"))
	must(t, c.check())
	text, err := c.text()
	must(t, err)
	must(t, os.WriteFile(c.files.config(), []byte(text+"User everybody\n"), 0o600))
	for _, tt := range []struct {
		host string
		want []string
	}{
		{"sallyport", []string{"hostname 2001:db8::1", "port 2222", "user alice@example.com", "identitiesonly yes",
			"userknownhostsfile " + c.files.knownHosts(), "stricthostkeychecking true"}},
		{"frontend-1.nodes.example.com", []string{"hostname frontend-1.nodes.example.com", "port 22", "proxyjump sallyport", "user alice@example.com"}},
		{"deploy@frontend-1.nodes.example.com", []string{"user deploy", "proxyjump sallyport"}},
		{"i-0123456789abcdef0", []string{"proxycommand sallyport proxy %h %p", "user everybody", "identitiesonly no"}},
		{"elsewhere.example.com", []string{"user everybody", "identitiesonly no", "stricthostkeychecking ask"}},
	} {
		out, err := exec.Command("ssh", "-F", c.files.config(), "-G", tt.host).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s\n%s", tt.host, err, out, text)
		}
		for _, line := range tt.want {
			if !strings.Contains("\n"+string(out), "\n"+line+"\n") {
				t.Errorf("%s: no line %q in\n%s", tt.host, line, out)
			}
		}
	}
}

// A name for ssh_config that could not be written is refused rather than bent.
func TestSSHQuote(t *testing.T) {
	for path, want := range map[string]string{
		"/home/a b/c": `"/home/a b/c"`, "/x/%h": `"/x/%%h"`, `/a"b`: "", "/a\nb": "", `/a\b`: "", "/${HOME}": "",
	} {
		if got, err := sshQuote(path); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: got %q, %v, want %q", path, got, err, want)
		}
	}
}

// The key is made once, with rights for its owner alone, by many programs at a time.
func TestMakeSSHKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "id_ed25519")
	done := make(chan error)
	for range 8 {
		go func() { done <- makeSSHKey(path) }()
	}
	for range 8 {
		must(t, <-done)
	}
	b, err := os.ReadFile(path)
	must(t, err)
	signer, err := ssh.ParsePrivateKey(b)
	must(t, err)
	public, err := readPublicKey(path)
	must(t, err)
	if string(public.Marshal()) != string(signer.PublicKey().Marshal()) {
		t.Error("the public key is another's")
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v", info.Mode())
	}
	entries, _ := os.ReadDir(filepath.Dir(path))
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestKeyCopy(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o700))
	c := keyCopy{dir: dir, login: "deploy", of: []string{"group ops"}}
	if _, err := c.read(); err == nil {
		t.Error("there is no copy, and it was read")
	}
	must(t, c.write([]byte("key\n")))
	if b, err := c.read(); err != nil || string(b) != "key\n" {
		t.Errorf("got %q, %v", b, err)
	}
	for _, tt := range []struct {
		name   string
		change func(c *keyCopy)
	}{
		{"another login", func(c *keyCopy) {
			c.login = "root"
			must(t, os.Rename(filepath.Join(dir, "keys-deploy.json"), c.path()))
		}},
		{"other groups", func(c *keyCopy) { c.of = []string{"group ops", "user x"} }},
		{"too old", func(c *keyCopy) { c.maxAge = time.Nanosecond }},
		{"a link", func(c *keyCopy) {
			must(t, os.Rename(c.path(), filepath.Join(dir, "other")))
			must(t, os.Symlink("other", c.path()))
		}},
		{"written by others", func(c *keyCopy) { must(t, os.Chmod(c.path(), 0o622)) }},
		{"a folder that others write", func(c *keyCopy) { must(t, os.Chmod(dir, 0o777)) }},
	} {
		must(t, os.Chmod(dir, 0o700))
		os.Remove(c.path())
		must(t, c.write([]byte("key\n")))
		changed := c
		tt.change(&changed)
		if b, err := changed.read(); err == nil {
			t.Errorf("%s: got %q", tt.name, b)
		}
	}
}
