package member

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"sallyport.dev/signin"
)

// SignIn lets people sign in.
type SignIn struct {
	// URL is where browsers find this server: https://HOST or https://HOST:PORT, or
	// http:// on a loopback address. It is never taken from requests.
	URL string `hcl:"url"`
	// Session is how long people stay signed in, 5m to 720h; 12h by default.
	Session string `hcl:"session,optional"`
	// OIDC are the OpenID providers at which people sign in.
	OIDC []OIDC `hcl:"oidc,block"`
	// Local lets people sign in with a password that is kept here.
	Local *Local `hcl:"local,block"`

	session   time.Duration
	providers []signin.Provider
}

// OIDC is an OpenID provider, and what its claims mean here.
type OIDC struct {
	Name  string `hcl:"name,label"`
	Title string `hcl:"title,optional"` // of the button; the name by default
	// Issuer is the provider's URL, below which /.well-known/openid-configuration is.
	Issuer   string `hcl:"issuer"`
	ClientID string `hcl:"client_id"`
	// ClientSecretFile holds the client secret; none for a public client.
	ClientSecretFile string `hcl:"client_secret_file,optional"`
	// Scopes are asked for beside openid; profile and email by default.
	Scopes []string `hcl:"scopes,optional"`
	// UserClaim is what new people are called by; preferred_username by default.
	UserClaim string `hcl:"user_claim,optional"`
	// GroupsClaim is the claim that lists a person's groups; without it the provider has
	// no say in groups.
	GroupsClaim string `hcl:"groups_claim,optional"`
	// Groups are claimed groups that mean the group of the same name here. GroupPrefix is
	// put before the names of all other claimed groups. Without either, and without group
	// blocks, no group is taken over.
	Groups      []string     `hcl:"groups,optional"`
	GroupPrefix string       `hcl:"group_prefix,optional"`
	GroupBlocks []OIDCGroup  `hcl:"group,block"`
	Tags        []OIDCTag    `hcl:"tag,block"`
	Require     []OIDCDemand `hcl:"require,block"`
	// TrustFactors takes the provider's word (amr, auth_time) that a second factor was
	// used.
	TrustFactors bool `hcl:"trust_factors,optional"`
	// CAFile holds certificates that the provider is trusted by besides the system's.
	CAFile string `hcl:"ca_file,optional"`
}

// OIDCGroup is a group here that goes by another name at the provider.
type OIDCGroup struct {
	Name  string `hcl:"name,label"`
	Claim string `hcl:"claimed"` // the value in the groups claim
}

// OIDCTag is a tag of people that a claim sets: a text, or a list for several values.
type OIDCTag struct {
	Key   string `hcl:"key,label"`
	Claim string `hcl:"claim"`
}

// OIDCDemand is a claim without one of whose values nobody is let in.
type OIDCDemand struct {
	Claim  string   `hcl:"claim,label"`
	Values []string `hcl:"values"`
}

// maxSecretFile bounds a file with a secret, in bytes.
const maxSecretFile = 4 << 10

func (s *SignIn) check() error {
	if s == nil {
		return nil
	}
	if s.Session != "" {
		d, err := time.ParseDuration(s.Session)
		if err != nil || d < 5*time.Minute || d > signin.MaxSession {
			return fmt.Errorf("sign_in.session: %q is not a duration between 5m and 720h", s.Session)
		}
		s.session = d
	}
	if err := signin.CheckURL(s.URL); err != nil {
		return fmt.Errorf("sign_in.url: %w", err)
	}
	s.providers = nil
	for _, o := range s.OIDC {
		p, err := o.provider()
		if err == nil {
			err = p.Check()
		}
		if err != nil {
			return fmt.Errorf("sign_in: %w", err)
		}
		s.providers = append(s.providers, p)
	}
	return nil
}

// provider is what the block says, with the secret read.
func (o OIDC) provider() (signin.Provider, error) {
	p := signin.Provider{
		Name: o.Name, Title: o.Title, Issuer: o.Issuer, ClientID: o.ClientID, Scopes: o.Scopes,
		UserClaim: o.UserClaim, GroupsClaim: o.GroupsClaim, Groups: o.Groups, GroupPrefix: o.GroupPrefix,
		GroupNames: map[string]string{}, Tags: map[string]string{}, Require: map[string][]string{},
		TrustFactors: o.TrustFactors, CAFile: o.CAFile,
	}
	if p.Scopes == nil {
		p.Scopes = []string{"profile", "email"}
	}
	for _, g := range o.GroupBlocks {
		p.GroupNames[g.Name] = g.Claim
	}
	for _, t := range o.Tags {
		p.Tags[t.Key] = t.Claim
	}
	for _, d := range o.Require {
		p.Require[d.Claim] = d.Values
	}
	if o.ClientSecretFile == "" {
		return p, nil
	}
	secret, err := readSecret(o.ClientSecretFile)
	if err != nil {
		return p, fmt.Errorf("oidc %q: client_secret_file: %w", o.Name, err)
	}
	p.ClientSecret = secret
	return p, nil
}

func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s has mode %04o, so others can reach it: it must be 0600", path, info.Mode().Perm())
	}
	if info.Size() > maxSecretFile {
		return "", fmt.Errorf("%s is larger than %d bytes", path, maxSecretFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(b))
	if secret == "" {
		return "", errors.New(path + " is empty")
	}
	return secret, nil
}

// signInPages are the pages and endpoints of a service; none without one.
func signInPages(s *signin.Service) map[string]http.Handler {
	if s == nil {
		return nil
	}
	return s.Handlers()
}

// newSignIn makes the service by which people sign in; nil where nothing is configured.
func (m *Member) newSignIn() (*signin.Service, error) {
	c := m.cfg.SignIn
	if c == nil {
		return nil, nil
	}
	return signin.New(signin.Config{
		URL: c.URL, Realm: m.cfg.Realm(), Store: m.Store, Identities: m.Store, Audit: m.Audit, Sealer: m.Key,
		Logger: m.log, Now: m.cfg.Now, Session: c.session, Providers: c.providers, TrustedProxies: m.cfg.trustedProxies,
	})
}
