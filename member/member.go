package member

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"sallyport.dev/audit"
	"sallyport.dev/awslog"
	"sallyport.dev/cluster"
	"sallyport.dev/command"
	"sallyport.dev/frontdoor"
	"sallyport.dev/grant"
	"sallyport.dev/index"
	"sallyport.dev/internal/build"
	"sallyport.dev/internal/ca"
	"sallyport.dev/kms"
	"sallyport.dev/notify"
	"sallyport.dev/server"
	"sallyport.dev/session"
)

const (
	defaultRoleDuration = time.Hour
	maxAccessKeys       = 2
	maxSSHKeys          = 5
	headerTimeout       = 10 * time.Second
	idleConnTimeout     = 2 * time.Minute
	readyTimeout        = 3 * time.Second
)

// Member is a running server process.
type Member struct {
	*State
	archived

	log       *slog.Logger
	cluster   *cluster.Cluster
	index     *index.Keeper  // nil where sessions are not indexed
	awsLogs   *awslog.Keeper // nil where the text of sessions is written nowhere else
	gateway   *session.Gateway
	commands  *command.Runner
	api       *server.Server
	keys      *kms.Keeper
	stopKeys  context.CancelFunc // nil until keys are tended
	access    *grant.Engine
	requests  requestMetrics
	notify    *notify.Service
	auditing  *auditing
	tracer    trace.Tracer
	spans     *sdk.TracerProvider // nil without a collector
	stopFlows context.CancelFunc  // nil unless a folder of flows is followed
	listeners []*listener
	ssh       net.Listener    // nil without a front door
	door      *frontdoor.Door // likewise
	failed    chan error
	running   sync.WaitGroup // of the listeners
	started   bool           // the audit log says so, and is to say when it stops
}

// listener is one address that the member answers on.
type listener struct {
	name   string // plain, tls or admin
	net    net.Listener
	server *http.Server
	url    string
}

// Start starts a member. On an error nothing is left running.
func Start(ctx context.Context, cfg Config) (*Member, error) {
	state, err := OpenState(ctx, cfg)
	if err != nil {
		return nil, err
	}
	m := &Member{State: state, log: cfg.Logger, requests: newRequestMetrics(), failed: make(chan error, 1)}
	if err := m.start(ctx); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
		defer cancel()
		return nil, errors.Join(err, m.Close(stop))
	}
	return m, nil
}

func (m *Member) start(ctx context.Context) (err error) {
	if err := m.startTracing(ctx); err != nil {
		return err
	}
	serverTLS, peers, err := m.tls()
	if err != nil {
		return err
	}
	if m.cluster, err = m.join(ctx); err != nil {
		return fmt.Errorf("joining the cluster: %w", err)
	}
	if err := m.openArchive(ctx); err != nil {
		return err
	}
	m.startIndex()
	if err := m.newCustody(); err != nil {
		return err
	}
	if err := m.startAWSLogs(ctx); err != nil {
		return err
	}
	m.keys = kms.New(kms.Config{Store: m.Store, Sealer: m.Key, Now: m.cfg.Now})
	m.commands = command.New(m.commandConfig())
	if m.gateway, err = session.New(ctx, m.gatewayConfig()); err != nil {
		return fmt.Errorf("starting the gateway: %w", err)
	}
	if err := m.commands.Start(ctx, m.gateway); err != nil {
		return fmt.Errorf("going on with commands: %w", err)
	}
	registry := m.newRegistry()
	if err := m.listenSSH(); err != nil {
		return err
	}
	if m.auditing, err = m.newAuditing(ctx, objects{m.store.Bucket}); err != nil {
		return err
	}
	registry.MustRegister(auditMetrics{m.auditing})
	if err := m.newAPI(m.serverConfig(registry, peers)); err != nil {
		return err
	}
	if err := m.startAccess(ctx, m.access); err != nil {
		return err
	}
	m.notify.Start(context.WithoutCancel(ctx))
	if err := m.listen(serverTLS, registry); err != nil {
		return err
	}
	if err := m.openDoor(ctx, peers); err != nil {
		return err
	}
	if m.door != nil {
		registry.MustRegister(newDoorMetrics(m.door))
	}
	// After the addresses are ours, before the first call on them.
	_, err = m.Audit.Append(ctx, audit.Record{Event: audit.EventServer, Action: "start", Reason: "version " + build.Version()})
	if err != nil {
		return err
	}
	m.started = true
	m.startCustody(ctx)
	m.auditing.start(ctx)
	for _, l := range m.listeners {
		m.running.Go(func() { m.serve(l) })
	}
	m.tendKeys(ctx)
	m.serveSSH()
	return nil
}

// newAPI makes the API, with what people ask by, sign in with and are told by.
func (m *Member) newAPI(config server.Config) (err error) {
	m.wireAccess(&config)
	if config.SignIns, err = m.newSignIn(); err != nil {
		return err
	}
	if config.Factors, err = m.newFactors(); err != nil {
		return err
	}
	people := m.newPeople(config.SignIns, config.Factors)
	pages, err := people.handlers()
	if err != nil {
		return err
	}
	config.Ties = ties{signIns: config.SignIns, access: config.Access}
	if err := m.newNotify(config.SignIns); err != nil {
		return err
	}
	if config.Web, err = merge(pages, signInPages(config.SignIns), m.notifyPages()); err != nil {
		return err
	}
	if m.api, err = server.New(config); err != nil {
		return err
	}
	people.setRoles(m.api)
	return nil
}

func (m *Member) commandConfig() command.Config {
	return command.Config{
		Store:   m.Store,
		Cluster: routing{m.cluster},
		Audit:   m.Audit,
		Logger:  m.log,
		Region:  m.cfg.Region,
		Now:     m.cfg.Now,
	}
}

func (m *Member) gatewayConfig() session.Config {
	s := m.cfg.Sessions
	return session.Config{
		Store:           m.Store,
		Nodes:           m.Store,
		Cluster:         routing{m.cluster},
		Jobs:            m.commands,
		Key:             m.Key,
		Audit:           m.Audit,
		Logger:          m.log,
		Record:          m.record,
		Unrecorded:      m.cfg.Unrecorded,
		Recorded:        m.recorded,
		Redact:          m.cfg.Sessions.redaction.Text,
		DataKey:         m.dataKey,
		Tracer:          m.tracer,
		Now:             m.cfg.Now,
		DisconnectGrace: s.disconnectGrace,
		AgentGrace:      s.agentGrace,
		StartTimeout:    s.startTimeout,
		RecordLimit:     m.cfg.SSH.recordLimit(),
	}
}

func (m *Member) serverConfig(registry prometheus.Registerer, peers *tls.Config) server.Config {
	return server.Config{
		Realm:                 m.cfg.Realm(),
		Identities:            m.Store,
		Chats:                 m.Store,
		Nodes:                 m.Store,
		Sessions:              m.Store,
		Documents:             m.Store,
		Audit:                 m.Audit,
		AuditStore:            m.Store,
		AuditChain:            m.auditing,
		Sealer:                m.Key,
		Recordings:            recordings{m.archive},
		Search:                m.finder(),
		Custody:               m.custody,
		Gateway:               m.gateway,
		Logs:                  m.sessionLogs(),
		Menu:                  m.cfg.Menu.dimensions(),
		TagRules:              m.cfg.Tags,
		Commands:              m.Store,
		Runner:                m.commands,
		PeerTLS:               peers,
		SSH:                   m.sshGateway(),
		Logger:                m.log,
		Now:                   m.cfg.Now,
		RequireDocumentAccess: m.cfg.Sessions.RequireDocumentAccess,
		RecordInput:           m.cfg.Sessions.RecordInput,
		WatchNotice:           m.cfg.Sessions.WatchNotice,
		Encrypted:             m.cfg.Sessions.encryption(),
		Keys:                  m.keys,
		Forward:               m.cfg.Sessions.forward(),
		TrustedProxies:        m.cfg.trustedProxies,
		Metrics:               registry,
		Tracer:                m.tracer,
		Ready:                 m.Ready,
		Version:               build.Version(),
	}
}

// tls returns the listeners' configuration and the one that members call each other
// with. A member with no TLS listener has no CA either.
func (m *Member) tls() (serve, peers *tls.Config, err error) {
	if m.cfg.Listen == "" {
		return nil, nil, nil
	}
	t := m.cfg.TLS
	peers = &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("tls: %w", err)
		}
		serve = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	} else {
		authority, err := ca.LoadOrCreate(m.cfg.DataDir, "Sallyport CA of account "+m.cfg.Account, m.cfg.Now())
		if err != nil {
			return nil, nil, fmt.Errorf("opening the CA: %w", err)
		}
		serve = authority.ServerConfig(m.names(), m.cfg.Now)
		peers.RootCAs = authority.Pool()
	}
	// Go begins connections with small records for the sake of web pages. What is sent
	// here is small messages, each in one record anyway, or a flood.
	serve.DynamicRecordSizingDisabled = true
	if t.ClusterCAFile != "" {
		if peers.RootCAs, err = readPool(t.ClusterCAFile); err != nil {
			return nil, nil, fmt.Errorf("tls.cluster_ca_file: %w", err)
		}
	}
	return serve, peers, nil
}

func readPool(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
}

// names returns what the own CA's certificate is for: the configured names, the
// address listened on, and this machine by its usual names.
func (m *Member) names() []string {
	names := append([]string{}, m.cfg.TLS.Names...)
	if host, _, err := net.SplitHostPort(m.cfg.Listen); err == nil && host != "" && host != "0.0.0.0" && host != "::" {
		names = append(names, host)
	}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	return append(names, "localhost", "127.0.0.1", "::1")
}

func (m *Member) join(ctx context.Context) (*cluster.Cluster, error) {
	c := cluster.Config{Member: m.cfg.Member, URL: m.cfg.AdvertiseURL, Logger: m.log}
	if n := m.cfg.NATS; n != nil {
		c.URLs, c.CredsFile = n.URLs, n.CredentialsFile
		if n.CAFile != "" {
			pool, err := readPool(n.CAFile)
			if err != nil {
				return nil, fmt.Errorf("nats.ca_file: %w", err)
			}
			c.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
		}
	}
	return cluster.Start(ctx, c)
}

// listen opens every address; none is served yet.
func (m *Member) listen(serverTLS *tls.Config, registry *prometheus.Registry) error {
	admin := http.NewServeMux()
	admin.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	admin.Handle("/healthz", m.api)
	admin.HandleFunc("/readyz", m.serveReady)
	for _, l := range []struct {
		name, addr string
		handler    http.Handler
		tls        *tls.Config
	}{
		{"plain", m.cfg.ListenPlain, m.api, nil},
		{"tls", m.cfg.Listen, m.api, serverTLS},
		{"admin", m.cfg.ListenAdmin, admin, nil},
	} {
		if l.addr == "" {
			continue
		}
		if err := m.open(l.name, l.addr, l.handler, l.tls); err != nil {
			return err
		}
	}
	return nil
}

func (m *Member) open(name, addr string, handler http.Handler, config *tls.Config) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", addr, err)
	}
	scheme := "http"
	if config != nil {
		ln, scheme = tls.NewListener(ln, config), "https"
	}
	m.listeners = append(m.listeners, &listener{
		name: name,
		net:  ln,
		url:  scheme + "://" + ln.Addr().String(),
		server: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleConnTimeout,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
		},
	})
	return nil
}

func (m *Member) serve(l *listener) {
	err := l.server.Serve(l.net)
	if errors.Is(err, http.ErrServerClosed) {
		return
	}
	select {
	case m.failed <- fmt.Errorf("serving %s: %w", l.url, err):
	default:
	}
}

// Failed delivers the error that made the member unable to go on.
func (m *Member) Failed() <-chan error { return m.failed }

func (m *Member) url(name string) string {
	for _, l := range m.listeners {
		if l.name == name {
			return l.url
		}
	}
	return ""
}

// PlainURL is the URL of the plain HTTP listener, empty if there is none.
func (m *Member) PlainURL() string { return m.url("plain") }

// TLSURL is the URL of the TLS listener, empty if there is none.
func (m *Member) TLSURL() string { return m.url("tls") }

// AdminURL is the URL of the listener for metrics and health, empty if there is none.
func (m *Member) AdminURL() string { return m.url("admin") }

// Recordings says where recordings are kept.
func (m *Member) Recordings() Recordings { return *m.cfg.Recordings }

// CAFile is the certificate of the member's own CA.
func (m *Member) CAFile() string { return filepath.Join(m.cfg.DataDir, "ca.crt") }

// Ready reports what keeps the member from serving, if anything.
func (m *Member) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := m.Store.Ping(ctx); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if m.archive == nil {
		return nil
	}
	// A member that can begin no recorded session should not be asked for any.
	if err := m.archive.Ready(); err != nil {
		return fmt.Errorf("recordings: %w", err)
	}
	return nil
}

// serveReady answers operators at the loopback address with what the server tells nobody
// else.
func (m *Member) serveReady(w http.ResponseWriter, r *http.Request) {
	if err := m.Ready(r.Context()); err != nil {
		http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	m.api.ServeHTTP(w, r)
}

// Connected reports whether the node's control channel is up, on any member.
func (m *Member) Connected(ctx context.Context, id string) bool {
	return m.gateway.Connected(ctx, id)
}

// Close takes the member down: no new calls, sessions ended with a word to their
// people, recordings and audit written out, store closed.
func (m *Member) Close(ctx context.Context) error {
	m.endCustody()
	errs := []error{m.closeSSH()}
	if m.stopKeys != nil {
		m.stopKeys()
	}
	for _, l := range m.listeners {
		// Stop accepting; calls under way go on while sessions are told.
		errs = append(errs, ignoreClosed(l.net.Close()))
	}
	if m.commands != nil {
		errs = append(errs, m.commands.Close(ctx))
	}
	if m.gateway != nil {
		errs = append(errs, m.gateway.Close(ctx))
	}
	errs = append(errs, m.closeDoor(ctx))
	errs = append(errs, m.closeNotify(ctx))
	m.closeAccess()
	if m.api != nil {
		m.api.EndPolls() // or Shutdown would wait for them, up to 18 seconds
	}
	for _, l := range m.listeners {
		if err := l.server.Shutdown(ctx); err != nil {
			errs = append(errs, ignoreClosed(l.server.Close()))
		}
	}
	m.running.Wait()
	if m.api != nil {
		m.api.Close()
	}
	errs = append(errs, m.closeAWSLogs(ctx)) // it audits what fails
	if m.started {
		_, err := m.Audit.Append(context.WithoutCancel(ctx), audit.Record{Event: audit.EventServer, Action: "stop"})
		errs = append(errs, err)
	}
	errs = append(errs, m.auditing.close(ctx))
	if m.index != nil {
		errs = append(errs, m.index.Close()) // it reads recordings
	}
	errs = append(errs, m.closeArchive(ctx))
	if m.cluster != nil {
		errs = append(errs, m.cluster.Close())
	}
	m.closeTracing(ctx)
	return errors.Join(append(errs, m.State.Close())...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
