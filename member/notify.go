package member

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"

	"sallyport.dev/identity"
	"sallyport.dev/notify"
	"sallyport.dev/signin"
)

// Slack tells people of requests in a Slack workspace, and takes what they ask and decide
// there. docs/chat.md says how the app is made.
type Slack struct {
	// BotTokenFile holds the bot token, xoxb-….
	BotTokenFile string `hcl:"bot_token_file"`
	// AppTokenFile holds an app-level token, xapp-…, for Socket Mode: the server connects
	// to Slack. SigningSecretFile holds the signing secret, for calls by HTTP: Slack calls
	// the server. At least one of them is needed.
	AppTokenFile      string `hcl:"app_token_file,optional"`
	SigningSecretFile string `hcl:"signing_secret_file,optional"`
	// Team is the workspace's id, T…; that of the bot token by default.
	Team string `hcl:"team,optional"`
	// Channel is told of every request, beside what flows say; none by default.
	Channel string `hcl:"channel,optional"`
	// APIURL is Slack's Web API by default; for tests, and for GovSlack.
	APIURL string `hcl:"api_url,optional"`

	config notify.Slack
}

// Webhook tells an address of requests by signed HTTP calls, where flows name it.
type Webhook struct {
	Name string `hcl:"name,label"`
	// URL is https://…, or http:// on a loopback address. Whatever is named here is
	// reached, private addresses too.
	URL string `hcl:"url"`
	// SecretFile holds the secret that signs, at least 16 bytes.
	SecretFile string `hcl:"secret_file"`
	// Format is json (by default), teams or mattermost.
	Format string `hcl:"format,optional"`

	config notify.Webhook
}

// SMTP sends mail about requests.
type SMTP struct {
	Host string `hcl:"host"`
	// Port is 587 by default; 465 is TLS from the beginning. Off loopback addresses TLS is
	// demanded always.
	Port int `hcl:"port,optional"`
	// From is the sender's address.
	From string `hcl:"from"`
	// Username and PasswordFile log in; none by default.
	Username     string `hcl:"username,optional"`
	PasswordFile string `hcl:"password_file,optional"`
	// CAFile holds certificates that the mail server is trusted by, instead of the
	// system's.
	CAFile string `hcl:"ca_file,optional"`

	config notify.Mail
}

func (s *Slack) check() (err error) {
	if s == nil {
		return nil
	}
	s.config = notify.Slack{Team: s.Team, Channel: s.Channel, APIURL: s.APIURL}
	for _, f := range []struct {
		key, path string
		into      *string
	}{
		{"bot_token_file", s.BotTokenFile, &s.config.BotToken},
		{"app_token_file", s.AppTokenFile, &s.config.AppToken},
		{"signing_secret_file", s.SigningSecretFile, &s.config.SigningSecret},
	} {
		if f.path == "" {
			continue
		}
		if *f.into, err = readSecret(f.path); err != nil {
			return fmt.Errorf("slack.%s: %w", f.key, err)
		}
	}
	return nil
}

func (w *Webhook) check() error {
	secret, err := readSecret(w.SecretFile)
	if err != nil {
		return fmt.Errorf("webhook %q: secret_file: %w", w.Name, err)
	}
	w.config = notify.Webhook{Name: w.Name, URL: w.URL, Secret: secret, Format: w.Format}
	return nil
}

func (s *SMTP) check() (err error) {
	if s == nil {
		return nil
	}
	s.config = notify.Mail{Host: s.Host, Port: s.Port, From: s.From, Username: s.Username}
	if s.PasswordFile != "" {
		if s.config.Password, err = readSecret(s.PasswordFile); err != nil {
			return fmt.Errorf("smtp.password_file: %w", err)
		}
	}
	if s.CAFile != "" {
		pool, err := readPool(s.CAFile)
		if err != nil {
			return fmt.Errorf("smtp.ca_file: %w", err)
		}
		s.config.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	return nil
}

// checkNotify checks how people are told, and reads the secrets for it.
func (c *Config) checkNotify() error {
	if err := c.Slack.check(); err != nil {
		return err
	}
	if err := c.SMTP.check(); err != nil {
		return err
	}
	names := map[string]bool{}
	for _, w := range c.Webhooks {
		if names[w.Name] {
			return fmt.Errorf("webhook %q: there are two of that name", w.Name)
		}
		names[w.Name] = true
		if err := w.check(); err != nil {
			return err
		}
	}
	return notify.Check(c.notifications())
}

// notifications are what the configuration says of them.
func (c *Config) notifications() notify.Config {
	var n notify.Config
	if c.Slack != nil {
		n.Slack = &c.Slack.config
	}
	if c.SMTP != nil {
		n.Mail = &c.SMTP.config
	}
	for _, w := range c.Webhooks {
		n.Webhooks = append(n.Webhooks, w.config)
	}
	if c.SignIn != nil {
		n.URL = c.SignIn.URL
	}
	return n
}

// newNotify makes what tells people of requests. Its pages are for those who are signed
// in in a browser.
func (m *Member) newNotify(signIns *signin.Service) (err error) {
	c := m.cfg.notifications()
	c.Store, c.Access, c.Events, c.Audit = m.Store, m.access, m.Store, m.Audit
	c.Principal, c.Member, c.Now, c.Logger = m.person, m.cfg.Member, m.cfg.Now, m.log
	c.SourceIP = func(r *http.Request) string { return m.api.SourceIP(r) }
	if signIns != nil {
		c.Pages = signIns
	}
	m.notify, err = notify.New(c)
	return err
}

// person is a user as they are now, by their unique id.
func (m *Member) person(ctx context.Context, id string) (identity.Principal, error) {
	u, err := m.Store.UserByID(ctx, id)
	if err != nil {
		return identity.Principal{}, err
	}
	if u.Disabled {
		return identity.Principal{}, fmt.Errorf("user %s is disabled: %w", u.Name, identity.ErrNotFound)
	}
	return identity.NewResolver(m.cfg.Realm(), m.Store, nil, m.cfg.Now).UserPrincipal(u), nil
}

// notifyPages are what people and Slack call by HTTP.
func (m *Member) notifyPages() map[string]http.Handler { return m.notify.Handlers() }

// closeNotify stops telling people, and waits for what is under way.
func (m *Member) closeNotify(ctx context.Context) error {
	if m.notify == nil {
		return nil
	}
	return m.notify.Close(ctx)
}
