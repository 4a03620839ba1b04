package server

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/tracing"
)

// request is an API request on its way to its operation.
type request struct {
	http     *http.Request
	scope    string // the service that its signature is for, not verified
	unsigned error  // why it counts as unsigned, if it does
	body     []byte
	origin   access.Origin
	service  service
	name     string // of the operation, as the caller gave it
	text     string // Query services only: the body, or the query of a presigned GET
	form     *form  // which text spells, once the caller is known
	release  func() // gives back what was reserved for the body
}

// serveOperation is the one way into every operation: read, route, authenticate,
// decode, authorise and audit, run, answer.
func (s *Server) serveOperation(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	req := &request{http: r, origin: s.origin(r), release: func() {}}
	// Until it is answered or known to be somebody's, it takes room that is scarce.
	defer func() { req.release() }()
	req.scope, req.unsigned = identity.Service(r)
	req.service = guessService(r, req.scope)
	w.Header().Set("X-Amzn-Requestid", req.origin.RequestID)
	ctx, span := s.config.Tracer.Start(tracing.WithRequest(r.Context(), req.origin.RequestID), "call", trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	req.http = r.WithContext(ctx)
	o, code := s.answer(w, req)
	name := ""
	if o != nil {
		name = o.Service + ":" + o.Name
		span.SetName(name)
	}
	endCall(span, code)
	s.metrics.observe(name, code, time.Since(start))
}

// endCall notes how a call ended. A refusal is an answer, not a failure of the server.
func endCall(span trace.Span, code string) {
	if code == "" {
		return
	}
	span.SetAttributes(attribute.String("error.type", code))
	if statusOf(code) >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, code)
	}
}

// answer handles a request and returns the error code it answered with, if any.
func (s *Server) answer(w http.ResponseWriter, req *request) (*Operation, string) {
	o, out, err := s.handle(w, req)
	if err != nil {
		return o, s.fail(w, req.origin, req.service, req.name, err)
	}
	if err := encode(w, req, o, out); err != nil {
		// Either the shape cannot be encoded, and nothing was written, or the
		// client has gone.
		return o, s.fail(w, req.origin, req.service, req.name, fmt.Errorf("answering: %w", err))
	}
	return o, ""
}

func encode(w http.ResponseWriter, req *request, o *Operation, out any) error {
	switch req.service.protocol {
	case protocolQuery:
		return encodeQuery(w, o, req.service, req.origin.RequestID, out)
	case protocolEC2:
		return encodeEC2(w, o, req.service, req.origin.RequestID, out)
	}
	return encodeJSON(w, out)
}

func (s *Server) handle(w http.ResponseWriter, req *request) (o *Operation, out any, err error) {
	defer func() {
		// recover works only in the deferred function itself.
		if v := recover(); v != nil {
			out, err = nil, s.panicked(req, v)
		}
	}()
	if err := s.read(w, req); err != nil {
		return nil, nil, err
	}
	o = s.table.operations[req.service.name][req.name]
	call := &Call{Server: s, Operation: o, Origin: req.origin, Host: req.http.Host, Presigned: identity.Presigned(req.http)}
	if o == nil || o.Caller != CallerAnonymous {
		if call.Principal, err = s.identify(req.http, req.body, req.origin, req.service.name); err != nil {
			return o, nil, err
		}
	}
	if call.Principal.ARN != "" {
		req.release()
	}
	if err := req.parseForm(); err != nil {
		return o, nil, err
	}
	if o == nil {
		return nil, nil, s.unknown(req)
	}
	out, err = s.call(req, call)
	return o, out, err
}

// call decodes, authorises and runs.
func (s *Server) call(req *request, c *Call) (any, error) {
	ctx := req.http.Context()
	in, err := decode(req, c.Operation)
	if err != nil {
		return nil, err
	}
	if err := c.traced(ctx, "authorize", func(ctx context.Context) error { return c.authorize(ctx, in) }); err != nil {
		return nil, err
	}
	out, err := c.Operation.run(ctx, c, in)
	if err == nil && c.Operation.selfCheck && !c.checked {
		// Our own bug: an answer that nobody authorised does not leave.
		return nil, fmt.Errorf("%s:%s answered without checking access", c.Operation.Service, c.Operation.Name)
	}
	return out, err
}

// traced runs a step of a call under a span of its own.
func (c *Call) traced(ctx context.Context, name string, step func(context.Context) error) error {
	ctx, span := c.Server.config.Tracer.Start(ctx, name)
	defer span.End()
	return step(ctx)
}

func decode(req *request, o *Operation) (any, error) {
	if req.service.protocol == protocolJSON {
		return decodeJSON(o, req.body)
	}
	return decodeQuery(o, req.service, req.form)
}

// authorize decides by the operation's kind of caller.
func (c *Call) authorize(ctx context.Context, in any) error {
	if c.Presigned && !c.Operation.quiet && c.Operation.Caller != CallerAnonymous {
		return c.Server.checker.Refuse(ctx, c.query(c.Operation.Action, []access.Resource{{ARN: "*"}}),
			"because a presigned request may only read")
	}
	switch c.Operation.Caller {
	case CallerAnonymous:
		return nil
	case CallerIdentity:
		return c.Server.checker.Admit(ctx, c.query(c.Operation.Action, []access.Resource{{ARN: "*"}}))
	case CallerAgent, CallerNodeKey:
		return c.authorizeAgent(ctx, in)
	}
	if c.Operation.selfCheck {
		return nil
	}
	resources, err := c.Operation.resources(ctx, c, in)
	if err != nil {
		return err
	}
	return c.Check(ctx, resources...)
}

// authorizeAgent admits nodes, and those to themselves only.
func (c *Call) authorizeAgent(ctx context.Context, in any) error {
	self := access.Resource{ARN: c.Principal.ARN, Tags: c.Principal.Tags}
	checker := c.Server.checker
	if !c.Principal.IsNode() {
		return checker.Refuse(ctx, c.query(c.Operation.Action, []access.Resource{{ARN: "*"}}),
			"because only the agents of nodes may do that")
	}
	if ownKey := c.Principal.AccessKeyID == c.Principal.Name; c.Operation.Caller == CallerNodeKey && !ownKey {
		return checker.Refuse(ctx, c.query(c.Operation.Action, []access.Resource{self}),
			"because the request must be signed with the node's own key")
	}
	resources, err := c.Operation.resources(ctx, c, in)
	if err != nil {
		return err
	}
	for _, r := range resources {
		if r.ARN != "*" && r.ARN != self.ARN {
			return checker.Refuse(ctx, c.query(c.Operation.Action, []access.Resource{r}),
				"because a node may act for itself only")
		}
	}
	c.Node = c.Principal.Name
	return checker.Admit(ctx, c.query(c.Operation.Action, []access.Resource{self}))
}

// unknown says which operations there are.
func (s *Server) unknown(req *request) error {
	if req.name == "" {
		return exception(req.service.code(unknownOperation), "The request names no operation. Those of %s are: %s.",
			req.service.name, s.table.names(req.service.name))
	}
	return exception(req.service.code(unknownOperation), "%s has no operation %q. It has: %s.",
		req.service.name, truncate(req.name, 100), s.table.names(req.service.name))
}

// read reads a request and finds out what it asks for.
func (s *Server) read(w http.ResponseWriter, req *request) error {
	switch {
	case req.http.Method == http.MethodPost:
	case req.http.Method == http.MethodGet && identity.Presigned(req.http):
	default:
		w.Header().Set("Allow", "POST")
		return exception("MethodNotAllowed", "Send API requests with POST, or presigned with GET.")
	}
	o, err := s.route(req)
	if err != nil {
		return err // the head says enough
	}
	limit := req.bodyLimit(o)
	req.body, req.release, err = s.receive(w, req.http, req.origin.SourceIP, limit)
	if err != nil {
		return intakeError(req.service, err, limit)
	}
	switch {
	case req.service.protocol == protocolJSON:
		return nil
	case req.http.Method == http.MethodGet:
		req.text = req.http.URL.RawQuery
	default:
		req.text = string(req.body)
	}
	req.name = actionOf(req.text)
	return nil
}

// parseForm builds the form of a Query request. It costs many times the request's
// length and is therefore done for known callers only.
func (req *request) parseForm() (err error) {
	if req.service.protocol == protocolJSON {
		return nil
	}
	if req.form, err = parseForm(req.text); err != nil {
		return exception("MalformedQueryString", "%v", err)
	}
	return nil
}

// route finds the service by the request's head, before anything of its body is read:
// by X-Amz-Target for JSON services, whose operation that names, too; else by the
// scope of the signature.
func (s *Server) route(req *request) (*Operation, error) {
	if targets := req.http.Header.Values("X-Amz-Target"); len(targets) > 0 {
		err := s.routeTarget(req, targets)
		return s.table.operations[req.service.name][req.name], err
	}
	if req.http.Method == http.MethodPost {
		if err := wantContent(req, contentForm); err != nil {
			return nil, err
		}
	}
	if req.unsigned != nil {
		s.logins.refused(req.http.Context(), req.origin, req.unsigned)
		return nil, req.unsigned
	}
	sv, ok := s.table.services[req.scope]
	if !ok {
		return nil, exception(req.service.code(unknownOperation), "There is no service %q here; there are: %s.",
			truncate(req.scope, 100), s.table.serviceNames())
	}
	if req.service = sv; sv.protocol == protocolJSON {
		return nil, exception(req.service.code(unknownOperation), "Requests to %s name their operation in X-Amz-Target. It has: %s.",
			req.service.name, s.table.names(req.service.name))
	}
	return nil, nil
}

func (s *Server) routeTarget(req *request, targets []string) error {
	req.service = service{}
	if len(targets) > 1 {
		return exception("UnknownOperationException", "X-Amz-Target is given %d times.", len(targets))
	}
	prefix, name, _ := strings.Cut(targets[0], ".")
	sv, ok := s.table.byTarget(prefix)
	if !ok {
		return exception("UnknownOperationException", "X-Amz-Target %q names no service; there are: %s.",
			truncate(targets[0], 100), s.table.targets())
	}
	req.service, req.name = sv, name
	return wantContent(req, contentJSON, "application/x-amz-json-1.0")
}

// wantContent refuses a body of another type.
func wantContent(req *request, types ...string) error {
	have, _, err := mime.ParseMediaType(req.http.Header.Get("Content-Type"))
	for _, t := range types {
		if err == nil && have == t {
			return nil
		}
	}
	return exception("SerializationException", "The Content-Type must be %s.", types[0])
}

// guessService tells in whose dialect to answer before the request is understood.
func guessService(r *http.Request, scope string) service {
	for _, s := range services() {
		if s.name == scope {
			return s
		}
	}
	form := r.Method == http.MethodGet || strings.HasPrefix(r.Header.Get("Content-Type"), contentForm)
	if form && r.Header.Get("X-Amz-Target") == "" {
		return service{name: "sts", protocol: protocolQuery, namespace: "https://sts.amazonaws.com/doc/2011-06-15/"}
	}
	return service{}
}
