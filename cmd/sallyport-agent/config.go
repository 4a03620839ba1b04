package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/agent"
	"sallyport.dev/agent/forward"
	"sallyport.dev/agent/keysync"
	"sallyport.dev/agent/shell"
)

// defaultConfig is read if it exists; a file named with --config must.
const defaultConfig = "/etc/sallyport/agent.hcl"

// settings are the configuration file; flags go before it. Every key is optional but
// servers.
type settings struct {
	// Servers are the URLs of the deployment, https://HOST[:PORT], tried in turn.
	Servers []string
	// Region is the deployment's region (us-east-1).
	Region string
	// CAFile holds the certificate authorities to trust in place of the system's.
	CAFile string
	// CASHA256 pins the authority: the SHA-256 of its certificate.
	CASHA256 string
	// StateDir holds the registration and the key (/var/lib/sallyport-agent).
	StateDir string
	// ActivationFile holds the activation to register with.
	ActivationFile string
	// Name is reported in place of the host name.
	Name string
	// RunAsSelf runs sessions as the agent's own user where a document asks for none.
	RunAsSelf bool
	// SSMUserSudo lets ssm-user, when the agent makes it, use sudo without a password.
	SSMUserSudo bool
	// KeepDetached lets programs that leave their session (tmux, daemons) outlive it.
	KeepDetached bool
	// ShellIntegration has bash mark its commands, so that those of a session can be listed.
	ShellIntegration bool
	// MemoryMax ("2G"), PidsMax and CPUMax ("150%"), of the block session_limits, bound
	// what one session may use.
	MemoryMax string
	PidsMax   int
	CPUMax    string
	// Shell is run in place of users' login shells.
	Shell string
	// MaxSessions is how many sessions may run at once (1000).
	MaxSessions int
	// CommandWorkers is how many commands (Run Command) may run at once (5); NoCommands
	// refuses them.
	CommandWorkers int
	NoCommands     bool
	// NoKeyReport keeps the fingerprints in authorized_keys files from the server.
	NoKeyReport bool
	// FactsEvery is how often the machine's facts are reported ("5m").
	FactsEvery string
	// Reattach is how long a session waits for a broken link ("10m").
	Reattach string
	// Forward, the block forward, has deny and allow, lists of prefixes that port
	// sessions may not or may only reach, and sockets, the patterns of unix sockets that
	// they may.
	Forward forward.Config
	// KeySync, the blocks key_sync "LOGIN", are the authorized_keys files that are kept.
	KeySync []keysync.Config
	// LogLevel is debug, info, warn or error (info); LogFormat is text or json (text).
	LogLevel  string
	LogFormat string

	named bool // ActivationFile is of the command line
}

// keys are where the file's keys go.
func (s *settings) keys() map[string]any {
	return map[string]any{
		"servers": &s.Servers, "region": &s.Region, "ca_file": &s.CAFile, "ca_sha256": &s.CASHA256,
		"state_dir": &s.StateDir, "activation_file": &s.ActivationFile, "name": &s.Name,
		"run_as_self": &s.RunAsSelf, "ssm_user_sudo": &s.SSMUserSudo, "keep_detached": &s.KeepDetached, "shell_integration": &s.ShellIntegration, "shell": &s.Shell,
		"max_sessions": &s.MaxSessions, "command_workers": &s.CommandWorkers, "no_commands": &s.NoCommands, "no_key_report": &s.NoKeyReport, "facts_every": &s.FactsEvery, "reattach": &s.Reattach,
		"log_level": &s.LogLevel, "log_format": &s.LogFormat,
	}
}

// blocks are where the keys of the file's blocks go.
func (s *settings) blocks() map[string]map[string]any {
	return map[string]map[string]any{
		"session_limits": {"memory_max": &s.MemoryMax, "pids_max": &s.PidsMax, "cpu_max": &s.CPUMax},
		"forward":        {"deny": &s.Forward.Deny, "allow": &s.Forward.Allow, "sockets": &s.Forward.Sockets},
	}
}

// flags are the command line.
type flags struct {
	config string
	over   settings
}

func (f *flags) register(root *cobra.Command) {
	fs := root.PersistentFlags()
	fs.StringVar(&f.config, "config", "", "configuration `file` (default "+defaultConfig+", if it exists)")
	fs.StringArrayVar(&f.over.Servers, "server", nil, "`URL` of a server; may be repeated")
	fs.StringVar(&f.over.Region, "region", "", "`region` of the deployment")
	fs.StringVar(&f.over.CAFile, "ca-file", "", "PEM `file` of the authorities to trust")
	fs.StringVar(&f.over.CASHA256, "ca-sha256", "", "SHA-256 of the authority's certificate, in `hex`")
	fs.StringVar(&f.over.StateDir, "state-dir", "", "`directory` of the registration and the key")
	fs.StringVar(&f.over.ActivationFile, "activation-file", "", "`file` with the activation's id and code; - is standard input")
	fs.StringVar(&f.over.LogLevel, "log-level", "", "debug, info, warn or error")
}

// load reads the configuration file and puts the flags over it.
func (f flags) load() (settings, error) {
	var s settings
	path := f.config
	if path == "" {
		path = defaultConfig
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			path = ""
		}
	}
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return s, fmt.Errorf("reading configuration: %w", err)
		}
		if err := s.decode(path, b); err != nil {
			return s, fmt.Errorf("reading configuration: %w", err)
		}
	}
	return s.with(f.over), nil
}

func (s settings) with(o settings) settings {
	if len(o.Servers) > 0 {
		s.Servers = o.Servers
	}
	for _, v := range []struct{ to, from *string }{
		{&s.Region, &o.Region}, {&s.CAFile, &o.CAFile}, {&s.CASHA256, &o.CASHA256}, {&s.StateDir, &o.StateDir},
		{&s.ActivationFile, &o.ActivationFile}, {&s.LogLevel, &o.LogLevel},
	} {
		if *v.from != "" {
			*v.to = *v.from
		}
	}
	if o.ActivationFile != "" {
		s.named = true
	}
	return s
}

// config makes the agent's configuration of the settings.
func (p program) config(s settings) (agent.Config, error) {
	level, format := s.LogLevel, s.LogFormat
	if level == "" {
		level = "info"
	}
	if format == "" {
		format = "text"
	}
	log, err := p.logger(level, format)
	if err != nil {
		return agent.Config{}, err
	}
	activation, find, err := p.activations(s)
	if err != nil {
		return agent.Config{}, err
	}
	facts, err := duration("facts_every", s.FactsEvery)
	if err != nil {
		return agent.Config{}, err
	}
	reattach, err := duration("reattach", s.Reattach)
	if err != nil {
		return agent.Config{}, err
	}
	limits, err := shell.ParseLimits(s.MemoryMax, s.PidsMax, s.CPUMax)
	if err != nil {
		return agent.Config{}, fmt.Errorf("session_limits: %w", err)
	}
	return agent.Config{
		SessionLimits: limits,
		Servers:       s.Servers, Region: s.Region, StateDir: s.StateDir, CAFile: s.CAFile, CASHA256: s.CASHA256,
		Activation: activation, FindActivation: find, Name: s.Name, MaxSessions: s.MaxSessions,
		CommandWorkers: s.CommandWorkers, NoCommands: s.NoCommands, ReportKeys: !s.NoKeyReport, FactsEvery: facts, Reattach: reattach,
		Shell:   shell.Options{RunAsSelf: s.RunAsSelf, SSMUserSudo: s.SSMUserSudo, KeepDetached: s.KeepDetached, Integration: s.ShellIntegration, Program: s.Shell},
		Forward: s.Forward,
		KeySync: s.KeySync,
		Logger:  log,
	}, nil
}

func duration(key, s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s: %q is not a duration like 5m", key, s)
	}
	return d, nil
}

// activations returns the activation there is now, and what looks for it again, which
// standard input does not allow. The file of the configuration may be gone once the
// machine is registered, so that its absence matters only to who looks again.
func (p program) activations(s settings) (agent.Activation, func() (agent.Activation, error), error) {
	a, err := p.activation(s)
	if s.ActivationFile == "-" {
		return a, nil, err
	}
	if errors.Is(err, fs.ErrNotExist) && !s.named {
		err = nil
	}
	return a, func() (agent.Activation, error) { return p.activation(s) }, err
}

// activation reads the activation: from the file of the command line, else the
// environment, else the file of the configuration.
func (p program) activation(s settings) (agent.Activation, error) {
	a := agent.Activation{ID: p.env("SALLYPORT_ACTIVATION_ID"), Code: p.env("SALLYPORT_ACTIVATION_CODE")}
	switch {
	case s.ActivationFile == "" || !s.named && a != (agent.Activation{}):
		return a, nil
	case s.ActivationFile == "-":
		return readActivation(p.in)
	}
	f, err := os.Open(s.ActivationFile)
	if err != nil {
		return agent.Activation{}, fmt.Errorf("reading activation_file: %w", err)
	}
	defer f.Close()
	if err := private(f); err != nil {
		return agent.Activation{}, fmt.Errorf("reading activation_file: %w", err)
	}
	a, err = readActivation(f)
	if err != nil {
		return a, fmt.Errorf("%s: %w", s.ActivationFile, err)
	}
	return a, nil
}

// private refuses a file that others may read: whoever has an activation's code makes
// nodes that bear its tags. What is no file, such as a pipe, is its giver's affair.
func private(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("%s holds a secret that others may read (mode %04o): chmod 600 %[1]s, and make a new activation if they may have", f.Name(), mode.Perm())
	}
	return nil
}

const maxActivation = 4 << 10

// readActivation reads JSON as create-activation or "sallyport activation create --json"
// prints it, or two lines. Errors do
// not show what was read.
func readActivation(r io.Reader) (agent.Activation, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxActivation))
	if err != nil {
		return agent.Activation{}, fmt.Errorf("reading activation: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if strings.HasPrefix(text, "{") {
		var v struct{ ID, Code, ActivationID, ActivationCode string }
		err := json.Unmarshal(b, &v)
		a := agent.Activation{ID: cmp.Or(v.ActivationID, v.ID), Code: cmp.Or(v.ActivationCode, v.Code)}
		if err != nil || a.ID == "" || a.Code == "" {
			return agent.Activation{}, errors.New("reading activation: want JSON with ActivationId and ActivationCode")
		}
		return a, nil
	}
	words := strings.Fields(text)
	if len(words) != 2 {
		return agent.Activation{}, errors.New("reading activation: want JSON, or two lines with id and code")
	}
	return agent.Activation{ID: words[0], Code: words[1]}, nil
}
