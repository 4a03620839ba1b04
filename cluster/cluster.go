package cluster

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Errors of the cluster. Request wraps them.
var (
	ErrNoResponder = errors.New("no member serves this subject")
	ErrBusy        = errors.New("member has too many requests under way")
	ErrClosed      = errors.New("cluster connection is closed")
)

// Config says how a member takes part in a cluster.
type Config struct {
	Member string // this member's id, unique in the cluster: 1 to 64 letters, digits, - and _
	URL    string // base URL at which other members reach this one; may be empty when alone

	// URLs of NATS servers (nats://HOST:PORT, tls://HOST:PORT). With none, a NATS
	// server runs inside this process, without a listening port, and the member is
	// alone.
	URLs      []string
	User      string // with Password, where the servers ask for them
	Password  string
	CredsFile string      // path of a NATS credentials file, instead of User
	TLS       *tls.Config // for tls:// URLs; nil for the system's roots

	Logger *slog.Logger // required
}

var memberID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (cfg Config) check() error {
	switch {
	case !memberID.MatchString(cfg.Member):
		return fmt.Errorf("member %q: must be 1 to 64 letters, digits, - and _", cfg.Member)
	case cfg.CredsFile != "" && cfg.User != "":
		return errors.New("user and credentials file: only one may be given")
	case cfg.Logger == nil:
		return errors.New("logger: must be given")
	}
	return nil
}

// Cluster is one member's part in the cluster. It is safe for concurrent use.
type Cluster struct {
	cfg    Config
	logger *slog.Logger
	nonce  string // tells this process from another one with the same member id
	nats   *nats.Conn
	inside *insideServer // nil when connected to servers outside

	ctx    context.Context // of handlers; ended by Close
	cancel context.CancelFunc
	owned  sync.WaitGroup // every goroutine of the cluster

	requests chan *nats.Msg // for all served subjects
	slots    chan struct{}  // one for each handler under way

	mu       sync.Mutex
	closed   bool
	services map[*nats.Subscription]*service

	peers peers
}

// Start joins the cluster. The context bounds joining only; Close ends what it starts.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("joining cluster: %w", err)
	}
	c := &Cluster{
		cfg:      cfg,
		logger:   cfg.Logger.With("member", cfg.Member),
		nonce:    rand.Text(),
		requests: make(chan *nats.Msg, requestQueue),
		slots:    make(chan struct{}, handlersAtOnce),
		services: make(map[*nats.Subscription]*service),
	}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := c.join(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("joining cluster: %w", err), c.Close())
	}
	return c, nil
}

func (c *Cluster) join(ctx context.Context) (err error) {
	if len(c.cfg.URLs) == 0 {
		if c.inside, err = startInside(); err != nil {
			return err
		}
	}
	if c.nats, err = c.connect(); err != nil {
		return err
	}
	c.owned.Go(c.dispatch)
	if err := c.claimID(ctx); err != nil {
		return err
	}
	return c.startHeartbeat()
}

// claimID refuses to start beside a live member with the same id: both would write
// to the same audit chain and answer for the same sessions.
func (c *Cluster) claimID(ctx context.Context) error {
	subject := "sallyport.member." + c.cfg.Member
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := c.Request(ctx, subject, nil); err == nil {
		return fmt.Errorf("member %q: another live member has this id", c.cfg.Member)
	}
	_, err := c.Serve(subject, func(context.Context, []byte) ([]byte, error) { return []byte(c.nonce), nil })
	return err
}

// Member returns this member's id.
func (c *Cluster) Member() string { return c.cfg.Member }

// Close leaves the cluster: it ends the contexts of handlers, waits for them, and
// tells the other members. It may be called again.
func (c *Cluster) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	if again {
		return nil
	}
	if c.nats != nil {
		c.unregisterAll()
	}
	c.cancel()
	c.owned.Wait()
	if c.nats != nil {
		c.leave()
		c.disconnect()
	}
	if c.inside != nil {
		c.inside.stop()
	}
	return nil
}
