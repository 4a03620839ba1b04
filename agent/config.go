package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"sallyport.dev/agent/forward"
	"sallyport.dev/agent/keyscan"
	"sallyport.dev/agent/keysync"
	"sallyport.dev/agent/shell"
	"sallyport.dev/internal/loopback"
)

// Defaults of Config.
const (
	DefaultRegion         = "us-east-1"
	DefaultStateDir       = "/var/lib/sallyport-agent"
	DefaultMaxSessions    = 1000
	DefaultFactsEvery     = 5 * time.Minute
	DefaultReattach       = 10 * time.Minute
	DefaultCommandWorkers = 5
)

// Config says what an agent connects to and how it behaves. Zero fields have the
// defaults named.
type Config struct {
	// Servers are the URLs of the deployment's members or of its load balancer,
	// https://HOST[:PORT], tried in turn. http:// is accepted for loopback
	// addresses only. Required.
	Servers []string
	// Region is the region that requests are signed for; DefaultRegion if empty.
	Region string
	// StateDir holds the node's registration and key, readable by the agent's user
	// alone. One agent uses it at a time. DefaultStateDir if empty.
	StateDir string
	// CAFile is a PEM file with the certificate authorities to trust in place of
	// the system's.
	CAFile string
	// CASHA256 pins the certificate authority: the SHA-256, in hexadecimal, of the
	// DER of its certificate (or of its public key). The server must then send that
	// certificate in its chain, unless CAFile holds it.
	CASHA256 string
	// Activation registers the machine where it is not registered yet, where the
	// registration was copied from another machine, and where the node was
	// deregistered. Not kept on disk.
	Activation Activation
	// FindActivation, if set, is asked in place of Activation each time that the
	// machine is to be registered: what is configured may have changed.
	FindActivation func() (Activation, error)
	// Name is reported as the computer's name; the host name if empty.
	Name string
	// Shell are the node's rules for the users that sessions run as.
	Shell shell.Options
	// Forward are the node's rules for the addresses that sessions forward to.
	Forward forward.Config
	// KeySync are the authorized_keys files that the agent keeps; none if empty.
	KeySync []keysync.Config
	// ReportKeys makes the agent tell the server the fingerprints of the keys in the node's
	// authorized_keys files.
	ReportKeys bool
	// SessionLimits bound what the programs of one session may use together, where the
	// node has control groups of version 2.
	SessionLimits shell.SessionLimits
	// MaxSessions is how many sessions may run at once; further ones are refused.
	// DefaultMaxSessions if zero.
	MaxSessions int
	// CommandWorkers is how many commands (Run Command) may run at once; further ones
	// wait. DefaultCommandWorkers if zero.
	CommandWorkers int
	// NoCommands makes every command fail: whoever may send one is otherwise the agent's
	// own user, root as a rule.
	NoCommands bool
	// FactsEvery is how often the node's facts are reported; DefaultFactsEvery if zero.
	FactsEvery time.Duration
	// Reattach is how long a session waits for its link to come back before it
	// ends; DefaultReattach if zero.
	Reattach time.Duration
	// Proxy chooses the proxy of a request; http.ProxyFromEnvironment if nil.
	Proxy func(*http.Request) (*url.URL, error)
	// Connected is called each time a control channel has opened; it must not block.
	Connected func()
	// Logger gets what the agent has to say; discarded if nil.
	Logger *slog.Logger

	rules       forward.Rules // of Forward
	now         func() time.Time
	keyPlaces   keyscan.Places
	machine     func() machine
	refusedWait time.Duration // shortest wait after a refusal of the node's key
}

// Activation is the right to register a machine.
type Activation struct {
	ID   string // UUID
	Code string // secret
}

func (a Activation) given() bool { return a.ID != "" && a.Code != "" }

var regionForm = regexp.MustCompile(`^[A-Za-z0-9-]{1,100}$`)

// withDefaults fills in and checks the configuration; errors name the field.
func (c Config) withDefaults() (Config, error) {
	c.Region = orDefault(c.Region, DefaultRegion)
	c.StateDir = orDefault(c.StateDir, DefaultStateDir)
	c.MaxSessions = orDefault(c.MaxSessions, DefaultMaxSessions)
	c.CommandWorkers = orDefault(c.CommandWorkers, DefaultCommandWorkers)
	c.FactsEvery = orDefault(c.FactsEvery, DefaultFactsEvery)
	c.Reattach = orDefault(c.Reattach, DefaultReattach)
	if c.Proxy == nil {
		c.Proxy = http.ProxyFromEnvironment
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Connected == nil {
		c.Connected = func() {}
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.machine == nil {
		c.machine = readMachine
	}
	c.refusedWait = orDefault(c.refusedWait, minRefusedWait)
	var err error
	if c.rules, err = forward.NewRules(c.Forward); err != nil {
		return c, fmt.Errorf("forward: %w", err)
	}
	return c, c.check()
}

func (c Config) check() error {
	if len(c.Servers) == 0 {
		return errors.New("servers: at least one URL is required")
	}
	for _, s := range c.Servers {
		if _, err := parseServer(s); err != nil {
			return fmt.Errorf("servers: %w", err)
		}
	}
	if !regionForm.MatchString(c.Region) {
		return fmt.Errorf("region: %q is not letters, digits and dashes", c.Region)
	}
	if c.MaxSessions < 1 {
		return fmt.Errorf("max_sessions: %d is not positive", c.MaxSessions)
	}
	if c.CommandWorkers < 1 || c.CommandWorkers > 1000 {
		return fmt.Errorf("command_workers: %d is not from 1 to 1000", c.CommandWorkers)
	}
	if (c.Activation.ID == "") != (c.Activation.Code == "") {
		return errors.New("activation: id and code are needed together")
	}
	return nil
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// parseServer reads a server's URL. Without TLS anybody on the way could take over
// the node, so plain HTTP goes no further than the machine itself.
func parseServer(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if u.Hostname() == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%q is not of the form https://HOST[:PORT]", s)
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && loopback.Is(u.Hostname()):
	default:
		return nil, fmt.Errorf("%q: https:// is required except for loopback addresses", s)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}
