package frontdoor

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/access"
	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/server"
	"sallyport.dev/session"
)

// Server is what a Door needs of the API server.
type Server interface {
	// SSHPrincipal returns who is behind a key or certificate; *identity.AuthError for
	// nobody.
	SSHPrincipal(ctx context.Context, key ssh.PublicKey, name string) (identity.Principal, error)
	SSHRefused(ctx context.Context, o access.Origin, cause error)
	HostSigner(ctx context.Context, names []string) (ssh.Signer, error)
	HostKey(ctx context.Context) (ssh.Signer, error)
	NodeNamed(ctx context.Context, p identity.Principal, o access.Origin, name string) (n node.Node, known bool, err error)
	// CheckSession authorises a session as StartSession does, and starts none.
	CheckSession(ctx context.Context, p identity.Principal, o access.Origin, in server.StartInput) error
	StartSession(ctx context.Context, p identity.Principal, o access.Origin, in server.StartInput) (server.Started, error)
}

// Gateway is what a Door needs of the gateway.
type Gateway interface {
	Attach(id string) (*session.Line, error)
	Home(ctx context.Context, id string) (url string, err error)
	Terminate(ctx context.Context, id string, cause *session.Cause) error
}

// Config says what a door works with. Durations and numbers have defaults.
type Config struct {
	Server  Server       // required
	Gateway Gateway      // required
	Access  Access       // optional: without it nobody is asked whether they want access
	Logger  *slog.Logger // required
	// Dial opens the data channel of a session whose home is another member. Required
	// where there are others.
	Dial func(ctx context.Context, url string) (client.Link, error)
	// Names are the host names and addresses by which people reach the door; its host
	// certificate is for them. At least one.
	Names []string
	// Suffix is the domain under which nodes appear to those who come through the door
	// as a jump host, such as nodes.example.com; empty for none.
	Suffix string
	// Environment are the names of environment variables that people may set; * at the
	// end stands for any rest. Nil for LANG, LC_*, TERM and COLORTERM.
	Environment []string
	Now         func() time.Time

	// HandshakeTimeout bounds the time until somebody has proven who they are; there is
	// time to touch a security key. As long may a channel be there for nothing. Default 1
	// minute.
	HandshakeTimeout time.Duration
	// Recheck is how often it is looked whether the person may still be here. Default 5 s.
	Recheck time.Duration
	// Keepalive is how often the client is asked for a sign of life; it is gone when it
	// gives none for as long again. Default 30 s.
	Keepalive time.Duration
	// Unused is how long a connection without channels is kept. Default 1 hour.
	Unused time.Duration
	// ForwardLinger is how long a forward's session outlives its last connection.
	// Default 1 minute.
	ForwardLinger time.Duration
	// AskPatience is how long a session waits for access that its person has asked for,
	// and AnswerTimeout how long for an answer to a question. Defaults 1 hour and 5
	// minutes.
	AskPatience, AnswerTimeout time.Duration
	// MaxAsking bounds the sessions that wait for access, and MaxAskingOf those of one
	// person. Defaults 1024 and 8.
	MaxAsking, MaxAskingOf int
	// MaxUnproven bounds the connections that have not proven themselves, and
	// MaxUnprovenFrom those of one address (of one /64 network for IPv6).
	// Defaults 512 and 64.
	MaxUnproven, MaxUnprovenFrom int
	// MaxConnections bounds all connections and MaxConnectionsOf those of one person, role
	// sessions counted to who took the role. Defaults 4096 and 256.
	MaxConnections, MaxConnectionsOf int
	// MaxChannels bounds the channels within one connection, those of the connections
	// through it included, and MaxForwards its forwards to different targets. Defaults
	// 256 and 64.
	MaxChannels, MaxForwards int
}

// defaultEnvironment are the variables that people may set unless configured otherwise.
var defaultEnvironment = []string{"LANG", "LC_*", "TERM", "COLORTERM"}

func (c Config) complete() (Config, error) {
	switch {
	case c.Server == nil || c.Gateway == nil || c.Logger == nil:
		return c, errors.New("front door configuration lacks Server, Gateway or Logger")
	case len(c.Names) == 0:
		return c, errors.New("front door configuration lacks Names")
	}
	if c.Environment == nil {
		c.Environment = defaultEnvironment
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	setDuration(&c.HandshakeTimeout, time.Minute)
	setDuration(&c.Recheck, 5*time.Second)
	setDuration(&c.Keepalive, 30*time.Second)
	setDuration(&c.Unused, time.Hour)
	setDuration(&c.ForwardLinger, time.Minute)
	setDuration(&c.AskPatience, time.Hour)
	setDuration(&c.AnswerTimeout, 5*time.Minute)
	setNumber(&c.MaxAsking, 1024)
	setNumber(&c.MaxAskingOf, 8)
	setNumber(&c.MaxUnproven, 512)
	setNumber(&c.MaxUnprovenFrom, 64)
	setNumber(&c.MaxConnections, 4096)
	setNumber(&c.MaxConnectionsOf, 256)
	setNumber(&c.MaxChannels, 256)
	setNumber(&c.MaxForwards, 64)
	return c, nil
}

func setDuration(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

func setNumber(n *int, v int) {
	if *n == 0 {
		*n = v
	}
}
