package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"sallyport.dev/access"
	"sallyport.dev/approval"
	"sallyport.dev/archive/custody"
	"sallyport.dev/audit"
	"sallyport.dev/command"
	"sallyport.dev/document"
	"sallyport.dev/factor"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/index"
	"sallyport.dev/internal/arn"
	"sallyport.dev/kms"
	"sallyport.dev/node"
	"sallyport.dev/session"
	"sallyport.dev/signin"
	"sallyport.dev/wire"
)

// Config is what a Server is made of. All but the fields marked optional are needed.
type Config struct {
	Realm      arn.Realm
	Identities identity.Store
	Nodes      node.Store
	Sessions   session.Store
	Documents  document.Store
	Audit      access.Auditor
	AuditStore AuditReader
	AuditChain AuditChain       // optional: without it the log cannot be verified
	Sealer     identity.Sealer  // *seal.Key
	Recordings Recordings       // optional: without it there are none to read
	Custody    *custody.Keeper  // optional: without it recordings are only read
	Search     index.Finder     // optional: without it nothing that sessions showed can be searched
	Access     *grant.Engine    // optional: without it nobody can ask for access
	Approval   *approval.Rules  // optional, with Access: AWS's approval documents
	engine     accessEngine     // in the place of Access, for tests
	SignIns    *signin.Service  // optional: without it people have access keys only
	Ties       identity.Ties    // optional: what temporary credentials come from
	Factors    *factor.Keeper   // optional: without it there are no passwords and second factors
	Chats      ChatStore        // optional: who is who in chats
	Keys       *kms.Keeper      // optional: without it there are no keys to encrypt with
	Gateway    *session.Gateway // optional: without it there are no sessions
	Logs       SessionLogs      // optional: without it the text of sessions goes nowhere else
	Commands   command.Store    // optional, with Runner: without them nothing is run
	Runner     *command.Runner
	PeerTLS    *tls.Config // optional: how to trust other members' URLs
	Logger     *slog.Logger
	Now        func() time.Time // optional: time.Now

	// SSH says where people find the SSH front door; optional.
	SSH SSHGateway
	// RecordInput records what people type as well as what they see.
	RecordInput bool
	// Encrypted is what becomes of sessions whose document has client and node encrypt
	// what they send each other. Empty refuses them.
	Encrypted session.Encryption
	// WatchNotice tells people that somebody watches their session, where no flow says
	// whether to.
	WatchNotice bool
	// RequireDocumentAccess checks the default session document even where the
	// caller did not name it.
	RequireDocumentAccess bool
	// Menu and TagRules are told to clients, which show nodes by them; optional.
	Menu     []MenuDimension
	TagRules []TagRule
	// TrustedProxies are networks whose X-Forwarded-For and X-Forwarded-Proto count;
	// none by default.
	TrustedProxies []netip.Prefix
	// Forward are rules for the addresses that Port sessions may reach; optional. Nodes
	// are told of them.
	Forward *wire.ForwardRules
	// ClockSkew is the greatest difference between a signature's clock and ours;
	// 0 is 5 minutes.
	ClockSkew time.Duration
	// BodyTimeout bounds the time a request's body takes to arrive; 0 is 30 seconds.
	BodyTimeout time.Duration
	// Tracer gets spans of calls; optional.
	Tracer trace.Tracer
	// Metrics gets the server's metrics; optional.
	Metrics prometheus.Registerer
	// Ready tells whether the server can serve, for /readyz; optional.
	Ready func(context.Context) error
	// Web are the handlers of pages and of what others call by HTTP (chat services, OIDC
	// providers, AWS's sign-in portal), by patterns of http.ServeMux; optional.
	Web map[string]http.Handler
	// Version and Member (this process's id) are what GetStatus reports, and Members,
	// which is optional.
	Version, Member string
	Members         func() []Member
}

// AuditReader reads the audit log.
type AuditReader interface {
	Audit(ctx context.Context, f audit.Filter) ([]audit.Record, error)
}

// Recordings opens recordings by the name in their session's row.
type Recordings interface {
	// Open returns a recording and its size in bytes. It returns an error that wraps
	// fs.ErrNotExist where there is none.
	Open(ctx context.Context, name string) (Recording, int64, error)
	// Digest returns what a finished recording is known by.
	Digest(ctx context.Context, name string) (Digest, error)
}

// Digest is what a finished recording is known by.
type Digest struct {
	SHA256   string // of the plain text, hex
	Size     int64  // of the plain text, in bytes
	Manifest string // hex SHA-256 of its manifest.json
}

// Recording is one open recording.
type Recording interface {
	io.ReaderAt
	io.Closer
}

// Member is a server process of the cluster, for GetStatus.
type Member struct {
	ID, URL string
	Seen    time.Time
}

// complete checks the configuration and fills its defaults.
func (c *Config) complete() error {
	for _, needed := range []struct {
		name  string
		given bool
	}{
		{"Realm.Account", c.Realm.Account != ""},
		{"Realm.Region", c.Realm.Region != ""},
		{"Identities", c.Identities != nil},
		{"Nodes", c.Nodes != nil},
		{"Sessions", c.Sessions != nil},
		{"Documents", c.Documents != nil},
		{"Audit", c.Audit != nil},
		{"AuditStore", c.AuditStore != nil},
		{"Sealer", c.Sealer != nil},
		{"Logger", c.Logger != nil},
	} {
		if !needed.given {
			return errors.New("server configuration lacks " + needed.name)
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Tracer == nil {
		c.Tracer = noop.Tracer{}
	}
	if c.BodyTimeout == 0 {
		c.BodyTimeout = 30 * time.Second
	}
	return nil
}
