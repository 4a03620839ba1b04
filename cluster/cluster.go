package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"time"
)

// ErrNoResponder is returned by Request when no member serves the subject.
var ErrNoResponder = errors.New("no member serves this subject")

// Config says how a member takes part in a cluster.
type Config struct {
	Member string // this member's id, unique in the cluster; letters, digits, - and _
	URL    string // base URL at which other members reach this one; may be empty when alone

	// URLs of NATS servers. With none, a NATS server runs inside this process,
	// without a listening port, and the member is alone.
	URLs      []string
	User      string // and Password, where the servers ask for them
	Password  string
	CredsFile string      // NATS credentials file, instead of User and Password
	TLS       *tls.Config // for tls:// URLs; nil for the system's roots

	Logger *slog.Logger // required
}

// Member is a server process of the cluster.
type Member struct {
	ID   string
	URL  string
	Seen time.Time // when its last heartbeat arrived
}

// Handler answers a request. The context ends when the cluster is closed.
type Handler func(ctx context.Context, data []byte) ([]byte, error)

// Cluster is one member's part in the cluster. It is safe for concurrent use.
type Cluster struct{}

var errStarting = errors.New("cluster cannot be started yet")

// Start joins the cluster.
func Start(ctx context.Context, cfg Config) (*Cluster, error) { return nil, errStarting }

// Member returns this member's id.
func (c *Cluster) Member() string { return "" }

// Members returns the members heard of lately, this one included, in id order.
func (c *Cluster) Members() []Member { return nil }

// Serve answers requests to a subject until stop is called.
func (c *Cluster) Serve(subject string, h Handler) (stop func(), err error) {
	return nil, errStarting
}

// Request asks the member that serves a subject.
func (c *Cluster) Request(ctx context.Context, subject string, data []byte) ([]byte, error) {
	return nil, errStarting
}

// Broadcast tells every member that listens, this one included.
func (c *Cluster) Broadcast(subject string, data []byte) error { return errStarting }

// Listen hears broadcasts to a subject until stop is called.
func (c *Cluster) Listen(subject string, hear func(data []byte)) (stop func(), err error) {
	return nil, errStarting
}

// Close leaves the cluster.
func (c *Cluster) Close() error { return nil }
