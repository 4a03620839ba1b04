package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

// Server is the API. It implements http.Handler: POST / for operations (GET / if
// presigned), /v1/ for the channels of agents and clients, /healthz and /readyz.
type Server struct {
	config        Config
	log           *slog.Logger
	table         table
	checker       *access.Checker
	verifier      *identity.Verifier
	resolver      *identity.Resolver
	issuer        *identity.Issuer
	ssh           *identity.SSH
	keyWatch      *keyWatch    // nil without a gateway
	keeper        *keeper      // likewise
	access        accessEngine // nil without access just in time
	logins        *logins
	metrics       *metrics
	agents        *agents
	recent        recently
	searches      *searches
	verifications *searches // of whole recordings
	intake        intake
	started       time.Time
	channels      http.Handler // of /v1/
	web           *http.ServeMux
	// nodeRemoved ends the sessions and the channel of a node that was deregistered.
	// Nil while there is nothing that could hold them.
	nodeRemoved func(ctx context.Context, node string) error
}

// New returns a Server.
func New(c Config) (*Server, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	m, err := newMetrics(c.Metrics)
	if err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	nodes := machines{c.Nodes}
	s := &Server{
		config: c, log: c.Logger, metrics: m,
		table: newTable(services(), operations()),
		checker: access.New(access.Config{
			Store: c.Identities, Audit: c.Audit, Grants: grants(c),
			Realm: c.Realm, Now: c.Now, Logger: c.Logger, Observe: m.decided,
		}),
		verifier: identity.NewVerifier(identity.VerifierConfig{
			Keys: c.Identities, Machines: nodes, Sealer: c.Sealer,
			Now: c.Now, Skew: c.ClockSkew, Regions: regions(c.Realm.Region),
		}),
		resolver:      identity.NewResolver(c.Realm, c.Identities, nodes, c.Now),
		issuer:        identity.NewIssuer(c.Sealer),
		logins:        newLogins(c.Audit, c.Now, c.Logger),
		agents:        newAgents(c.Now),
		recent:        newRecently(c.Now, 10*time.Minute, 1024),
		searches:      newSearches(searchesAtOnce),
		verifications: newSearches(verificationsAtOnce),
		started:       c.Now(),
		channels:      http.NotFoundHandler(),
		web:           http.NewServeMux(),
	}
	s.access = c.engineOf()
	if c.Ties != nil {
		s.resolver.Tie(c.Ties)
	}
	for pattern, h := range c.Web {
		s.web.Handle(pattern, h)
	}
	s.ssh = identity.NewSSH(identity.SSHConfig{Store: c.Identities, Resolver: s.resolver, Sealer: c.Sealer, Now: c.Now})
	if c.Gateway != nil {
		s.channels = newChannels(s, c.PeerTLS)
		s.nodeRemoved = s.removeNode
		s.keyWatch = watchKeys(s, c.Gateway, keyWatchEvery)
		s.keeper = watchSessions(s, c.Gateway, keepEvery)
	}
	return s, nil
}

// engineOf is what access just in time is enforced by; nil for none.
func (c Config) engineOf() accessEngine {
	if c.Access == nil {
		return c.engine
	}
	return c.Access
}

// grants is the source of grants that an engine is; nil without one.
func grants(c Config) access.GrantSource {
	if e := c.engineOf(); e != nil {
		return e
	}
	return nil
}

// removeNode ends the sessions, the channel and the commands of a node.
func (s *Server) removeNode(ctx context.Context, node string) error {
	err := s.config.Gateway.RemoveNode(ctx, node)
	if s.config.Runner != nil {
		err = errors.Join(err, s.config.Runner.NodeRemoved(ctx, node))
	}
	return err
}

// regions lists the regions that scopes may name. IAM's and STS's global endpoints
// sign for us-east-1 wherever the caller is.
func regions(home string) []string {
	return slices.Compact([]string{home, "us-east-1"})
}

// Close records what is still only counted. The Server must not be used afterwards.
func (s *Server) Close() {
	s.keyWatch.close()
	s.keeper.close()
	s.agents.close()
	s.logins.flush(context.Background())
	s.checker.Flush(context.Background())
}

// Checker returns the server's checker, for what decides outside of operations.
func (s *Server) Checker() *access.Checker { return s.checker }

// Issuer returns the server's issuer of temporary credentials.
func (s *Server) Issuer() *identity.Issuer { return s.issuer }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		// For a body that a handler does not read, too: net/http does before it
		// answers. Not every ResponseWriter has deadlines; those of net/http do.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.config.BodyTimeout))
	}
	switch {
	case r.URL.Path == "/" || r.URL.Path == "":
		s.serveOperation(w, r)
	case strings.HasPrefix(r.URL.Path, "/v1/"):
		s.channels.ServeHTTP(w, r)
	case r.URL.Path == "/healthz":
		s.serveHealth(w, r, nil)
	case r.URL.Path == "/readyz":
		s.serveHealth(w, r, s.config.Ready)
	default:
		s.web.ServeHTTP(w, r)
	}
}

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request, check func(context.Context) error) {
	if check != nil {
		if err := check(r.Context()); err != nil {
			s.log.Warn("not ready", "error", err)
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
	}
	_ = reply(w, http.StatusOK, "text/plain; charset=utf-8", []byte("ok\n"))
}

// reply writes an answer whose length is known.
func reply(w http.ResponseWriter, status int, contentType string, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", fmt.Sprint(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, err := w.Write(body)
	return err
}

// authenticate identifies the caller of a request whose body was body: the way in for
// the channels, whose signatures are scoped to ssmmessages. Failures are recorded and
// returned as *identity.AuthError; other errors are ours.
func (s *Server) authenticate(r *http.Request, body []byte) (identity.Principal, error) {
	return s.identify(r, body, s.origin(r), "ssmmessages")
}

// identify checks the signature, its scope, and that the caller still exists.
func (s *Server) identify(r *http.Request, body []byte, o access.Origin, service string) (identity.Principal, error) {
	proof, err := s.verifier.Verify(r.Context(), r, body)
	if err == nil {
		err = s.checkScope(proof, service)
	}
	if err == nil {
		var p identity.Principal
		if p, err = s.resolver.Resolve(r.Context(), proof); err == nil {
			return p, nil
		}
	}
	s.logins.refused(r.Context(), o, err)
	return identity.Principal{}, err
}

// checkScope refuses signatures made for another service, or for another region than
// the server's or that of the global services.
func (s *Server) checkScope(p identity.Proof, service string) error {
	global := service == "iam" || service == "sts"
	e := &identity.AuthError{Failure: identity.WrongScope, AccessKeyID: p.AccessKeyID}
	switch {
	case p.Service != service:
		e.Message = fmt.Sprintf("Credential should be scoped to correct service: '%s'.", service)
	case p.Region != s.config.Realm.Region && !global:
		e.Message = fmt.Sprintf("Credential should be scoped to a valid region, not '%s'. The region is '%s'.", p.Region, s.config.Realm.Region)
	default:
		return nil
	}
	return e
}

// panicked logs a panic and turns it into an error.
func (s *Server) panicked(req *request, v any) error {
	if v == http.ErrAbortHandler {
		panic(v)
	}
	s.log.Error("panic in an operation", "service", req.service.name, "operation", req.name,
		"request", req.origin.RequestID, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	return errPanic
}

var errPanic = errors.New("panic")

// fail writes an error and logs it if it is ours.
func (s *Server) fail(w http.ResponseWriter, o access.Origin, sv service, operation string, err error) string {
	e, known := sv.exception(err)
	switch {
	case known:
	case errors.Is(err, context.Canceled):
		s.log.Debug("caller left", "service", sv.name, "operation", operation, "request", o.RequestID)
	default:
		s.log.Error("call failed", "service", sv.name, "operation", operation, "request", o.RequestID, "error", err)
	}
	if err := s.writeError(w, o, sv, e); err != nil {
		s.log.Debug("answering", "request", o.RequestID, "error", err)
	}
	return e.Code
}

func (s *Server) writeError(w http.ResponseWriter, o access.Origin, sv service, e *wire.Exception) error {
	if sv.protocol == protocolJSON {
		return encodeErrorJSON(w, e)
	}
	return encodeErrorQuery(w, sv, o.RequestID, e)
}
