package member

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsimple"

	"sallyport.dev/internal/arn"
	"sallyport.dev/internal/loopback"
	"sallyport.dev/recording"
	"sallyport.dev/server"
	"sallyport.dev/wire"
)

// Config is a member's configuration: the file sallyportd.hcl, or what a program
// puts together. Check fills in defaults and finds mistakes.
type Config struct {
	// Account and Region are the AWS account id (twelve digits) and region that
	// resource names carry and that clients sign for.
	Account string `hcl:"account"`
	Region  string `hcl:"region"`

	// DataDir holds everything the member keeps: database, keys, recordings.
	DataDir string `hcl:"data_dir"`

	// Member names this member within its cluster; the host name by default.
	Member string `hcl:"member,optional"`

	// Listen is the address of the TLS listener for API, channels and health.
	Listen string `hcl:"listen,optional"`

	// ListenAdmin is the loopback address for /metrics, /healthz and /readyz;
	// empty for none.
	ListenAdmin string `hcl:"listen_admin,optional"`

	// ListenPlain is a loopback address for plain HTTP; empty for none.
	ListenPlain string `hcl:"listen_plain,optional"`

	// AdvertiseURL is where other members reach this one, https://HOST:PORT.
	AdvertiseURL string `hcl:"advertise_url,optional"`

	// Store is where state lives: a path or sqlite:PATH, or postgres://….
	Store string `hcl:"store,optional"`

	// StoreFile names a file that holds the store URL, for URLs with a password.
	StoreFile string `hcl:"store_file,optional"`

	// MasterKeyFile holds the key that seals secrets and tokens; members of one
	// cluster share it. DataDir/master.key by default.
	MasterKeyFile string `hcl:"master_key_file,optional"`

	// TrustedProxies are networks of load balancers whose X-Forwarded-For and
	// X-Forwarded-Proto tell who calls; none by default.
	TrustedProxies []string `hcl:"trusted_proxies,optional"`

	// LogFormat is text or json; LogLevel is debug, info, warn or error.
	LogFormat string `hcl:"log_format,optional"`
	LogLevel  string `hcl:"log_level,optional"`

	TLS      *TLS      `hcl:"tls,block"`
	NATS     *NATS     `hcl:"nats,block"`
	Sessions *Sessions `hcl:"sessions,block"`
	Search   *Search   `hcl:"search,block"`
	SSH      *SSH      `hcl:"ssh,block"`

	// Recordings says where recordings are kept.
	Recordings *Recordings `hcl:"recordings,block"`

	// Access is access just in time; flows are what was applied without the block.
	Access *Access `hcl:"access,block"`

	// OnCall says how sources of on-call schedules are asked.
	OnCall []OnCall `hcl:"on_call,block"`

	// Audit secures the audit log and sends it on; checkpoints are made without the block.
	Audit *Audit `hcl:"audit,block"`

	// AWSLogs lets documents have the text of sessions written to S3 and CloudWatch Logs.
	AWSLogs *AWSLogs `hcl:"aws_logs,block"`

	// SignIn lets people sign in by browser; without the block they have access keys only.
	SignIn *SignIn `hcl:"sign_in,block"`

	// Slack, Webhooks and SMTP tell people of requests for access; see docs/chat.md.
	Slack    *Slack     `hcl:"slack,block"`
	Webhooks []*Webhook `hcl:"webhook,block"`
	SMTP     *SMTP      `hcl:"smtp,block"`

	// Tracing sends spans of what the member does to an OpenTelemetry collector.
	Tracing *Tracing `hcl:"tracing,block"`

	// Menu is how people find nodes with "sallyport menu", and Tags what "sallyport
	// doctor" wants of them; people's own config.hcl goes before both.
	Menu *Menu            `hcl:"menu,block"`
	Tags []server.TagRule `hcl:"tag,block"`

	Logger *slog.Logger
	Now    func() time.Time
	// Unrecorded has no session recorded. Only a program can ask for it, as the benchmark
	// does, which measures what recording costs; no configuration file can.
	Unrecorded bool

	trustedProxies []netip.Prefix
}

// Menu are the tags by which "sallyport menu" drills down, in order.
type Menu struct {
	Dimensions []server.MenuDimension `hcl:"dimension,block"`
}

// dimensions returns what clients are told.
func (m *Menu) dimensions() []server.MenuDimension {
	if m == nil {
		return nil
	}
	return m.Dimensions
}

// checkTags names what is wrong with menu and tags.
func (c *Config) checkTags() error {
	for _, d := range c.Menu.dimensions() {
		if d.Key == "" {
			return errors.New(`menu: dimension "": want a tag key`)
		}
	}
	for _, r := range c.Tags {
		if _, err := regexp.Compile(r.Pattern); err != nil {
			return fmt.Errorf("tag %q: pattern: %w", r.Key, err)
		}
	}
	return nil
}

// TLS says which certificate the listeners show. With no files the member's own CA
// (DataDir/ca.crt) issues one for Names.
type TLS struct {
	CertFile string   `hcl:"cert_file,optional"`
	KeyFile  string   `hcl:"key_file,optional"`
	Names    []string `hcl:"names,optional"`

	// ClusterCAFile is what members trust each other's certificates by; the
	// member's own CA, or the system's roots when files are given.
	ClusterCAFile string `hcl:"cluster_ca_file,optional"`
}

// NATS joins the member to a NATS cluster; without the block routing stays in process.
type NATS struct {
	URLs            []string `hcl:"urls"`
	CredentialsFile string   `hcl:"credentials_file,optional"`
	CAFile          string   `hcl:"ca_file,optional"`
}

// Sessions bounds sessions. Durations are written like 90s, 5m or 1h.
type Sessions struct {
	// RequireDocumentAccess checks access to the shell document even where the
	// caller did not name it.
	RequireDocumentAccess bool `hcl:"require_document_access,optional"`
	// RecordInput records what people type on terminals as well as what they see, except
	// for what is not echoed, such as passwords.
	RecordInput bool `hcl:"record_input,optional"`
	// RecordProgramInput records what programs without a terminal read, too, as it is:
	// nothing is echoed there.
	RecordProgramInput bool `hcl:"record_program_input,optional"`
	// Redact are regular expressions in RE2 syntax that recordings never hold, Redactions
	// those with a name, and RedactKnown the names of those that ship with the program.
	Redact      []string    `hcl:"redact,optional"`
	RedactKnown []string    `hcl:"redact_known,optional"`
	Redactions  []Redaction `hcl:"redaction,block"`
	// WatchNotice tells people that somebody watches their session, where no flow says
	// whether to.
	WatchNotice bool `hcl:"watch_notice,optional"`
	// Encrypted is what becomes of sessions whose document has client and node encrypt what
	// they send each other (kmsKeyId): "refuse" (the default); "record", by the server's own
	// keys, whose data key it takes to record them; or "unrecorded".
	Encrypted string `hcl:"encrypted,optional"`
	// DisconnectGrace is how long a session waits for a client that is away.
	DisconnectGrace string `hcl:"disconnect_grace,optional"`
	// AgentGrace is how long a session waits for an agent that is away.
	AgentGrace string `hcl:"agent_grace,optional"`
	// StartTimeout is how long an agent may take to open a session.
	StartTimeout string `hcl:"start_timeout,optional"`
	// DenyForward and AllowForward are networks that forwards may not reach, and the
	// only ones that they may, if there are any.
	DenyForward  []string `hcl:"deny_forward,optional"`
	AllowForward []string `hcl:"allow_forward,optional"`

	disconnectGrace, agentGrace, startTimeout time.Duration
	redaction                                 *recording.Redaction // nil without patterns
}

// LoadConfig reads and checks an HCL file.
func LoadConfig(path string) (Config, error) {
	var c Config
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration: %w", err)
	}
	if err := hclsimple.Decode(path, text, nil, &c); err != nil {
		return Config{}, fmt.Errorf("reading %s: %w", path, err)
	}
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

var (
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
	regionPattern  = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	memberPattern  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// Check fills in defaults and reports the first mistake, naming the key.
func (c *Config) Check() error {
	c.fill()
	switch {
	case !accountPattern.MatchString(c.Account):
		return fmt.Errorf("account: %q is not twelve digits", c.Account)
	case !regionPattern.MatchString(c.Region):
		return fmt.Errorf("region: %q is not a region: lower-case letters, digits and dashes", c.Region)
	case !memberPattern.MatchString(c.Member):
		return fmt.Errorf("member: %q: letters, digits, dashes and underscores only", c.Member)
	case c.DataDir == "":
		return errors.New("data_dir: missing")
	case c.Listen == "" && c.ListenPlain == "":
		return errors.New("listen: missing")
	}
	if err := c.checkAddresses(); err != nil {
		return err
	}
	if err := c.readStoreFile(); err != nil {
		return err
	}
	if c.NATS != nil && len(c.NATS.URLs) > 0 && strings.HasPrefix(c.Store, "sqlite:") {
		return errors.New("store: members of a cluster share a PostgreSQL database (postgres://…); SQLite serves one member alone")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		return errors.New("tls: cert_file and key_file go together")
	}
	if err := c.checkProxies(); err != nil {
		return err
	}
	if err := c.SSH.check(); err != nil {
		return err
	}
	if err := c.Recordings.check(); err != nil {
		return err
	}
	if err := c.SignIn.check(); err != nil {
		return err
	}
	if err := c.checkNotify(); err != nil {
		return err
	}
	if err := c.checkTags(); err != nil {
		return err
	}
	if err := c.Tracing.check(); err != nil {
		return err
	}
	if err := checkOnCall(c.OnCall); err != nil {
		return err
	}
	if err := c.Access.check(); err != nil {
		return err
	}
	if err := c.Audit.check(); err != nil {
		return err
	}
	if err := c.AWSLogs.check(); err != nil {
		return err
	}
	return c.Sessions.check()
}

func (c *Config) checkProxies() (err error) {
	if c.trustedProxies, err = networks("trusted_proxies", c.TrustedProxies); err != nil {
		return err
	}
	for i, p := range c.trustedProxies {
		if p.Bits() == 0 {
			return fmt.Errorf("trusted_proxies: %q trusts everyone to say where they come from", c.TrustedProxies[i])
		}
	}
	return nil
}

// networks reads CIDR prefixes, or addresses, which stand for themselves alone.
func networks(key string, texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil && addr.Zone() == "" {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%s: %q is not a network such as 10.0.0.0/8 or fd00::/8", key, text)
		}
		out = append(out, p)
	}
	return out, nil
}

func (c *Config) fill() {
	if c.Member == "" {
		host, _ := os.Hostname()
		c.Member = regexp.MustCompile(`[^A-Za-z0-9_-]+`).ReplaceAllString(host, "-")
	}
	if c.TLS == nil {
		c.TLS = &TLS{}
	}
	if c.Sessions == nil {
		c.Sessions = &Sessions{}
	}
	if c.Recordings == nil {
		c.Recordings = &Recordings{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	setDefault(&c.LogFormat, "text")
	setDefault(&c.LogLevel, "info")
	if c.DataDir != "" {
		setDefault(&c.MasterKeyFile, filepath.Join(c.DataDir, "master.key"))
		c.Recordings.fill(c.DataDir)
		if c.StoreFile == "" {
			setDefault(&c.Store, "sqlite:"+filepath.Join(c.DataDir, "sallyport.db"))
		}
	}
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

func (c *Config) checkAddresses() error {
	for key, addr := range map[string]string{"listen_plain": c.ListenPlain, "listen_admin": c.ListenAdmin} {
		if addr == "" {
			continue
		}
		if err := loopbackOnly(addr); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			return fmt.Errorf("listen: %q is not HOST:PORT", c.Listen)
		}
	}
	if c.AdvertiseURL != "" {
		u, err := url.Parse(c.AdvertiseURL)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("advertise_url: %q is not https://HOST:PORT", c.AdvertiseURL)
		}
	}
	return nil
}

// loopbackOnly reports an error unless addr is HOST:PORT on the loopback interface:
// plain HTTP goes nowhere else.
func loopbackOnly(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT", addr)
	}
	if loopback.Is(host) {
		return nil
	}
	return fmt.Errorf("%q is not a loopback address (127.0.0.1, [::1] or localhost): plain HTTP is for this machine only", addr)
}

func (c *Config) readStoreFile() error {
	if c.StoreFile == "" {
		return nil
	}
	if c.Store != "" {
		return errors.New("store and store_file: give one of them")
	}
	b, err := os.ReadFile(c.StoreFile)
	if err != nil {
		return fmt.Errorf("store_file: %w", err)
	}
	c.Store, c.StoreFile = strings.TrimSpace(string(b)), ""
	return nil
}

// forward returns the rules for forwards, nil if there are none.
func (s *Sessions) forward() *wire.ForwardRules {
	if len(s.DenyForward)+len(s.AllowForward) == 0 {
		return nil
	}
	return &wire.ForwardRules{Deny: s.DenyForward, Allow: s.AllowForward}
}

func (s *Sessions) checkForward() error {
	for key, texts := range map[string][]string{"sessions.deny_forward": s.DenyForward, "sessions.allow_forward": s.AllowForward} {
		prefixes, err := networks(key, texts)
		if err != nil {
			return err
		}
		for i, p := range prefixes {
			texts[i] = p.String()
		}
	}
	return nil
}

func (s *Sessions) check() error {
	if err := s.checkForward(); err != nil {
		return err
	}
	if err := s.checkRedaction(); err != nil {
		return err
	}
	if err := s.checkEncrypted(); err != nil {
		return err
	}
	for _, d := range []struct {
		key   string
		text  string
		into  *time.Duration
		value time.Duration
	}{
		{"disconnect_grace", s.DisconnectGrace, &s.disconnectGrace, time.Minute},
		{"agent_grace", s.AgentGrace, &s.agentGrace, time.Minute},
		{"start_timeout", s.StartTimeout, &s.startTimeout, 30 * time.Second},
	} {
		*d.into = d.value
		if d.text == "" {
			continue
		}
		v, err := time.ParseDuration(d.text)
		if err != nil || v < time.Second || v > 24*time.Hour {
			return fmt.Errorf("sessions.%s: %q is not a duration from 1s to 24h", d.key, d.text)
		}
		*d.into = v
	}
	return nil
}

// Realm returns the account and region of the member's resource names.
func (c *Config) Realm() arn.Realm { return arn.Realm{Account: c.Account, Region: c.Region} }
