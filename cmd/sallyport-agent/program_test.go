package main

import (
	"bytes"
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport.dev/agent"
)

// start runs the command line with an input and an environment.
func start(t *testing.T, env map[string]string, in string, args ...string) (status int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	p := program{in: strings.NewReader(in), out: &o, err: &e, env: func(k string) string { return env[k] }}
	status = p.run(context.Background(), args)
	return status, o.String(), e.String()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestNoSecretFlag is the promise of the help: no flag takes the code.
func TestNoSecretFlag(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if strings.Contains(f.Name, "code") {
				t.Errorf("%s has --%s", c.Name(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(program{}.command())
}

func TestActivation(t *testing.T) {
	want := agent.Activation{ID: "the-id", Code: "the-code"}
	env := map[string]string{"SALLYPORT_ACTIVATION_ID": "env-id", "SALLYPORT_ACTIVATION_CODE": "env-code"}
	file := write(t, "a", `{"ActivationId": "the-id", "ActivationCode": "the-code"}`)
	lines := write(t, "b", "the-id\nthe-code\n")
	for _, tt := range []struct {
		name string
		s    settings
		env  map[string]string
		in   string
		want agent.Activation
	}{
		{name: "json", s: settings{ActivationFile: file}, want: want},
		{name: "lines", s: settings{ActivationFile: lines}, want: want},
		{name: "json of our own client", s: settings{ActivationFile: "-", named: true}, in: `{"code": "the-code", "id": "the-id"}`, want: want},
		{name: "standard input", s: settings{ActivationFile: "-", named: true}, in: "the-id\r\nthe-code\r\n", want: want},
		{name: "environment before configuration", s: settings{ActivationFile: file}, env: env, want: agent.Activation{ID: "env-id", Code: "env-code"}},
		{name: "command line before environment", s: settings{ActivationFile: file, named: true}, env: env, want: want},
		{name: "none"},
	} {
		p := program{in: strings.NewReader(tt.in), env: func(k string) string { return tt.env[k] }}
		got, err := p.activation(tt.s)
		if err != nil || got != tt.want {
			t.Errorf("%s: got %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

// An activation that others on the machine may have read is not used.
func TestActivationIsPrivate(t *testing.T) {
	p := program{env: func(string) string { return "" }}
	for mode, ok := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o620: false} {
		file := write(t, "a", "the-id the-code")
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, err := p.activation(settings{ActivationFile: file})
		if ok != (err == nil) || !ok && !strings.Contains(err.Error(), "chmod 600 "+file) {
			t.Errorf("mode %o: got %v", mode, err)
		}
	}
}

// TestActivationGone lets a node that is registered start without the file that it
// registered with.
func TestActivationGone(t *testing.T) {
	s := settings{Servers: []string{"https://localhost"}, ActivationFile: filepath.Join(t.TempDir(), "a")}
	cfg, err := program{env: func(string) string { return "" }}.config(s)
	if err != nil || cfg.Activation != (agent.Activation{}) {
		t.Fatalf("got %v, %v, want no activation", cfg.Activation, err)
	}
	if err := os.WriteFile(s.ActivationFile, []byte("the-id the-code"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := cfg.FindActivation(); err != nil || got.ID != "the-id" {
		t.Errorf("got %v, %v, want the activation that came later", got, err)
	}
}

func TestBadActivation(t *testing.T) {
	for _, text := range []string{"", "one", "SECRET two three", `{"ActivationId":"x"}`, `{SECRET`, strings.Repeat("SECRET", 10_000)} {
		_, err := readActivation(strings.NewReader(text))
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%.20q: got %v, want an error that does not show the input", text, err)
		}
	}
}

func TestConfigFile(t *testing.T) {
	path := write(t, "agent.hcl", `
servers       = ["https://a.example.com", "https://b.example.com:8443"]
region        = "eu-central-1"
state_dir     = "/var/lib/x"
run_as_self   = true
ssm_user_sudo = true
max_sessions  = 5
facts_every   = "1m"
command_workers = 3
no_commands   = true
`)
	s, err := flags{config: path, over: settings{Region: "us-west-2", Servers: nil}}.load()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := program{env: func(string) string { return "" }}.config(s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"https://a.example.com", "https://b.example.com:8443"}, cfg.Servers); diff != "" {
		t.Error(diff)
	}
	if cfg.Region != "us-west-2" || cfg.StateDir != "/var/lib/x" || !cfg.Shell.RunAsSelf || !cfg.Shell.SSMUserSudo ||
		cfg.MaxSessions != 5 || cfg.CommandWorkers != 3 || !cfg.NoCommands || cfg.FactsEvery.Seconds() != 60 {
		t.Errorf("got %+v", cfg)
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	gone := write(t, "gone.hcl", `activation_file = "/nonexistent"`)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--state-dir", dir, "status"}, "not registered"},
		{[]string{"register"}, "no activation is given"},
		{[]string{"register", "--server", "https://localhost", "--state-dir", dir, "--config", gone}, "activation_file: open /nonexistent"},
		{[]string{"run", "--server", "https://localhost", "--state-dir", dir, "--config", gone}, "not registered: reading activation_file: open /nonexistent"},
		{[]string{"run", "--activation-file", "/nonexistent"}, "activation_file: open /nonexistent"},
		{[]string{"run", "--activation-file", "-"}, "two lines"},
		{[]string{"run"}, "servers: at least one URL"},
		{[]string{"run", "--server", "http://example.com"}, "https:// is required"},
		{[]string{"run", "--config", "/nonexistent"}, "reading configuration"},
		{[]string{"run", "--config", write(t, "bad.hcl", "server = 1\n")}, `unknown key "server": allowed are activation_file,`},
		{[]string{"run", "--config", write(t, "bad.hcl", "forwards {}\n")}, `unknown block "forwards": allowed are forward`},
		{[]string{"run", "--config", write(t, "bad.hcl", "forward { denied = [] }\n")}, `unknown key "denied": allowed are allow, deny, sockets`},
		{[]string{"run", "--config", write(t, "bad.hcl", "servers = [\"https://example.com\"]\nforward {\n  deny = [\"10.0.0.0/33\"]\n}\n")}, `forward: deny: "10.0.0.0/33" is not`},
		{[]string{"run", "--config", write(t, "bad.hcl", "servers = \"x\"\n")}, "servers: want a list of strings"},
		{[]string{"run", "--config", write(t, "bad.hcl", "max_sessions = 1.5\n")}, "max_sessions: want a whole number"},
		{[]string{"run", "--config", write(t, "bad.hcl", "run_as_self = 1\n")}, "run_as_self: want true or false"},
		{[]string{"run", "--config", write(t, "bad.hcl", "region = [\n")}, "bad.hcl:"},
		{[]string{"run", "--config", write(t, "bad.hcl", "region = x\n")}, "Variables not allowed"},
		{[]string{"run", "--config", write(t, "bad.hcl", "facts_every = \"soon\"\n")}, "facts_every"},
		{[]string{"run", "--log-level", "loud"}, "log_level"},
		{[]string{"dance"}, "unknown command"},
		{[]string{"--state-dir", dir, "--server", "https://localhost", "run"}, "hint: make an activation"},
	} {
		status, out, errs := start(t, nil, "", tt.args...)
		if status != 1 || out != "" || !strings.Contains(errs, tt.want) || !strings.HasPrefix(errs, "sallyport-agent: ") {
			t.Errorf("%v: got status %d, %q, %q, want 1, nothing, %q", tt.args, status, out, errs, tt.want)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		status, out, _ := start(t, nil, "", arg)
		if status != 0 || !strings.HasPrefix(out, "sallyport-agent ") || !strings.Contains(out, "(protocol ") {
			t.Errorf("%s: got status %d, %q", arg, status, out)
		}
	}
}

func TestNotify(t *testing.T) {
	if err := notify("", "READY=1"); err != nil {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := notify(path, "READY=1"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := l.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("got %q, %v, want READY=1", b[:n], err)
	}
}
