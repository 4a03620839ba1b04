package notify

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
)

// Access is the engine of requests, as far as it is needed here. *grant.Engine is one.
type Access interface {
	Ask(ctx context.Context, a grant.Actor, in grant.Ask) (grant.Request, error)
	Decide(ctx context.Context, a grant.Actor, id, hash string, approve bool, comment string) (grant.Request, error)
	Request(ctx context.Context, id string) (grant.Request, error)
	MayDecide(ctx context.Context, p identity.Principal, r grant.Request) (because string, err error)
	Concerns(ctx context.Context, p identity.Principal, r grant.Request) (bool, error)
	Deciders(ctx context.Context, r grant.Request, limit int) ([]flow.Person, error)
	Offers(ctx context.Context, p identity.Principal, channel string) ([]grant.Offer, error)
	Notifications(ctx context.Context, r grant.Request) ([]flow.Notification, error)
	Persons(ctx context.Context, p flow.People, limit int) ([]flow.Person, error)
}

// Events are the steps of requests, in order. grant.Store has them.
type Events interface {
	EventsAfter(ctx context.Context, seq int64, limit int) ([]grant.Event, error)
	Events(ctx context.Context, request string) ([]grant.Event, error)
}

// Auditor appends audit records durably.
type Auditor interface {
	Append(ctx context.Context, r audit.Record) (audit.Record, error)
}

// Config is what a Service is made of.
type Config struct {
	Store  Store
	Access Access
	Events Events
	// Principal is a user by unique id, as they are now. It returns an error that wraps
	// identity.ErrNotFound for one who is gone or disabled.
	Principal func(ctx context.Context, id string) (identity.Principal, error)
	Audit     Auditor
	Pages     Pages // optional: without it there is no page to decide on
	// Member names this process.
	Member string
	// URL is where people reach the pages, https://HOST; empty where there are none.
	URL string

	// SourceIP is where a request by HTTP came from, by way of trusted proxies; optional.
	SourceIP func(r *http.Request) string

	Slack    *Slack
	Webhooks []Webhook
	Mail     *Mail

	Now    func() time.Time
	Logger *slog.Logger

	// every is how often events and deliveries are looked for, and backoff how long a
	// delivery waits after so many tries; for tests.
	every   time.Duration
	backoff func(tries int) time.Duration
}

// Service tells people of requests and takes their answers. It is safe for concurrent
// use, and so are several on one store.
type Service struct {
	config Config
	log    *slog.Logger
	holder string
	slack  *slackApp // nil without Slack
	mail   *mailer   // nil without mail
	lanes  map[string]sender
	wakes  map[string]chan struct{} // of the lanes, and of the outbox
	jobs   chan struct{}            // room for answers to Slack that are worked on
	strays *strays
	leads  atomic.Bool // this member holds the lease, as far as it knows
	lease  lease       // readOutbox's alone

	stop    context.CancelFunc
	running sync.WaitGroup

	closing sync.Mutex
	closed  bool // nothing is begun any more
}

// sender delivers in one lane.
type sender interface {
	send(ctx context.Context, d Delivery) error
}

// Errors of senders. Others are worth another try.
var (
	errNothing = errors.New("there is nothing to say any more")
	errNever   = errors.New("it will not succeed")
)

// laterError asks for another try after so long.
type laterError struct {
	after time.Duration
	cause error
}

func (e *laterError) Error() string { return e.cause.Error() }
func (e *laterError) Unwrap() error { return e.cause }

const (
	pollEvery = time.Second
	// maxJobs bounds the answers to Slack that are worked on at a time.
	maxJobs = 32
)

// Check finds mistakes in what a configuration says of Slack, webhooks and mail.
func Check(c Config) error {
	s := &Service{config: c, lanes: map[string]sender{}, wakes: map[string]chan struct{}{}}
	return s.addSenders()
}

// New returns a Service; Start makes it deliver.
func New(c Config) (*Service, error) {
	if c.Store == nil || c.Access == nil || c.Events == nil || c.Principal == nil || c.Audit == nil || c.Logger == nil {
		return nil, errors.New("configuration of notifications is incomplete")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.SourceIP == nil {
		c.SourceIP = remoteHost
	}
	if c.backoff == nil {
		c.backoff = backoff
	}
	c.every = cmp.Or(c.every, pollEvery)
	s := &Service{
		config: c, log: c.Logger, holder: c.Member + "-" + rand.Text()[:8],
		lanes: map[string]sender{}, wakes: map[string]chan struct{}{wakeOutbox: make(chan struct{}, 1)},
		jobs: make(chan struct{}, maxJobs), strays: newStrays(c.Audit, c.Now, c.Logger),
	}
	s.lane(laneStep, steps{s})
	if err := s.addSenders(); err != nil {
		return nil, err
	}
	return s, nil
}

// remoteHost is the address at the other end of a request's connection.
func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func (s *Service) addSenders() (err error) {
	c := s.config
	if c.Slack != nil {
		if s.slack, err = newSlackApp(s, *c.Slack); err != nil {
			return err
		}
		s.lane(laneSlack, s.slack)
	}
	if c.Mail != nil {
		if s.mail, err = newMailer(s, *c.Mail); err != nil {
			return err
		}
		s.lane(laneMail, s.mail)
	}
	for _, w := range c.Webhooks {
		hook, err := newWebhook(s, w)
		if err != nil {
			return err
		}
		s.lane(laneWebhook+w.Name, hook)
	}
	return nil
}

func (s *Service) lane(name string, to sender) {
	s.lanes[name] = to
	s.wakes[name] = make(chan struct{}, 1)
}

// Start reads events and delivers until Close.
func (s *Service) Start(ctx context.Context) {
	if len(s.lanes) == 1 {
		return // there is nobody to deliver to: only pages
	}
	ctx, s.stop = context.WithCancel(ctx)
	s.running.Go(func() { s.readOutbox(ctx) })
	for name, to := range s.lanes {
		s.running.Go(func() { s.deliver(ctx, name, to) })
	}
	if s.slack != nil {
		s.slack.start(ctx)
		s.running.Go(func() { s.strays.watch(ctx, s.config.every) })
	}
}

// Close stops delivering, waits for what is under way, and gives up the lease.
func (s *Service) Close(ctx context.Context) error {
	s.closing.Lock()
	s.closed = true
	s.closing.Unlock()
	if s.stop != nil {
		s.stop()
	}
	s.running.Wait()
	s.strays.flush(ctx)
	if s.stop == nil {
		return nil
	}
	return s.config.Store.DropLease(context.WithoutCancel(ctx), s.holder)
}

// Handlers are what is served by HTTP, by patterns of http.ServeMux.
func (s *Service) Handlers() map[string]http.Handler {
	handlers := map[string]http.Handler{}
	if s.slack != nil && s.slack.signing != nil {
		handlers["POST "+pathSlack+"{what}"] = http.HandlerFunc(s.slack.serveHTTP)
	}
	if s.config.Pages != nil {
		handlers["GET "+pathRequests+"{id}"] = s.config.Pages.Page(http.HandlerFunc(s.showRequest))
		handlers["POST "+pathRequests+"{id}"] = s.config.Pages.Page(http.HandlerFunc(s.decideRequest))
	}
	return handlers
}

// begin does work that Close waits for. It reports false once the service is closed.
func (s *Service) begin(work func()) bool {
	s.closing.Lock()
	defer s.closing.Unlock()
	if !s.closed {
		s.running.Go(work)
	}
	return !s.closed
}

// wake makes a loop look again at once.
func (s *Service) wake(name string) {
	select {
	case s.wakes[name] <- struct{}{}:
	default:
	}
}

// pause waits for the next look, and reports false when the service is to stop.
func (s *Service) pause(ctx context.Context, name string) bool {
	t := time.NewTimer(s.config.every)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-s.wakes[name]:
	}
	return ctx.Err() == nil
}
