package server

import (
	"context"
	"errors"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"sallyport.dev/access"
	"sallyport.dev/document"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/session"
	"sallyport.dev/tracing"
	"sallyport.dev/wire"
)

// Starting a session: one way for the API and for the SSH front door.

// StartInput asks for a session. Its limits are those of ssm:StartSession.
type StartInput struct {
	Target     string // id of a node
	Document   string // name or ARN; "" for the default one, which then counts as unnamed
	Reason     string
	RunAs      string // login on the node; "" for the one that principal and document give
	Parameters map[string][]string
	// Exec, for sessions of the front door, is passed on to the agent. The server puts
	// in the command, which is that of the document with its parameters.
	Exec *wire.Exec
	// Input asks for a command that takes input, which clients of the API get where the
	// document and the node's agent allow it. It adds nothing else to the session.
	Input bool
	// Context adds condition keys.
	Context map[string][]string
}

// Started is a session that was started.
type Started struct {
	SessionID   string
	Token       string // opens the client's data channel
	NodeID      string
	SessionType string // that of its document
	RunAs       string // login on the node; "" for the node's default
	Input       bool   // the command takes input: its data channel is that of an Exec
}

// UnknownNodeError is that nobody knows a target, on which policy would let the caller
// start sessions by its name alone. It is the *wire.Exception of a node that is not
// connected, which is all that AWS's API has for both.
type UnknownNodeError struct{ exception error }

// Error implements error.
func (e *UnknownNodeError) Error() string { return e.exception.Error() }

// Unwrap returns the *wire.Exception.
func (e *UnknownNodeError) Unwrap() error { return e.exception }

// StartSession authorises a session, audits the decision and starts it, as the
// operation ssm:StartSession does for callers of the API. A refusal is an
// *access.DeniedError; a target that is not connected, parameters that do not fit the
// document and the like are *wire.Exception.
func (s *Server) StartSession(ctx context.Context, p identity.Principal, o access.Origin, in StartInput) (Started, error) {
	c := &Call{Server: s, Operation: s.table.operations["ssm"]["StartSession"], Principal: p, Origin: o}
	asked, err := bindInput(c.Operation, &binder{}, in.members(), "SerializationException", "ValidationException")
	if err != nil {
		return Started{}, err
	}
	c.input = asked
	ctx, span := s.config.Tracer.Start(tracing.WithRequest(ctx, o.RequestID), "ssm:StartSession", trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	started, err := c.start(ctx, in)
	if e := (*wire.Exception)(nil); errors.As(err, &e) {
		endCall(span, e.Code)
	} else if err != nil {
		endCall(span, "InternalServerError")
	}
	return started, err
}

// members is the input as the API takes it, whose rules it must keep, too.
func (in StartInput) members() map[string]any {
	members := map[string]any{"Target": in.Target}
	for name, value := range map[string]string{"DocumentName": in.Document, "Reason": in.Reason, "RunAs": in.RunAs} {
		if value != "" {
			members[name] = value
		}
	}
	params := map[string]any{}
	for name, values := range in.Parameters {
		list := make([]any, len(values))
		for i, v := range values {
			list[i] = v
		}
		params[name] = list
	}
	if len(params) > 0 {
		members["Parameters"] = params
	}
	return members
}

// start authorises the node, the document, where it leads and whom it runs as, and
// starts the session. Who may not use a target learns nothing about it.
func (c *Call) start(ctx context.Context, in StartInput) (Started, error) {
	var p *plan
	var known bool
	err := c.traced(ctx, "authorize", func(ctx context.Context) (err error) {
		p, known, err = c.checkStart(ctx, in)
		return err
	})
	if err != nil {
		return Started{}, err
	}
	g, err := c.gateway()
	if err != nil {
		return Started{}, err
	}
	if !known {
		return Started{}, &UnknownNodeError{notConnected(in.Target)}
	}
	req, err := c.startRequest(in, p)
	if err == nil {
		err = c.encryptSession(ctx, in, p, req)
	}
	if err == nil {
		err = c.logSession(ctx, p, req)
	}
	if err != nil {
		return Started{}, err
	}
	req.Options.Trace = tracing.Parent(ctx, c.Origin.RequestID)
	token, err := g.Start(ctx, *req)
	switch {
	case errors.Is(err, session.ErrNotConnected):
		return Started{}, notConnected(in.Target)
	case errors.Is(err, session.ErrRecordingFull):
		return Started{}, exception("ServiceUnavailable", "The session was not started: %v. Try again later.", err)
	case errors.Is(err, session.ErrRecording):
		return Started{}, exception("InternalServerError", "The session cannot be recorded, so it was not started. The server's log tells the cause.")
	case err != nil:
		return Started{}, err
	}
	v := req.Session
	return Started{
		SessionID: v.ID, Token: token, NodeID: v.NodeID, SessionType: v.SessionType, RunAs: v.RunAs,
		Input: req.Options.ClientReturns,
	}, c.checkStillAllowed(ctx, g, v)
}

// checkStillAllowed ends a session that is not allowed any more once it has begun: its
// owner was disabled, or its grant has ended, while nobody knew of it yet.
func (c *Call) checkStillAllowed(ctx context.Context, g *session.Gateway, v session.Session) error {
	cause, err := c.Server.reauthorize(ctx, v)
	switch {
	case err != nil:
		cause = ended("the server could not make sure that it is still allowed")
	case cause == nil:
		return nil
	default:
		err = ssmError("AccessDeniedException", "%s", cause.Terminal)
	}
	return errors.Join(err, g.Terminate(context.WithoutCancel(ctx), v.ID, cause))
}

// reauthorize decides again about a session. A cause says why it must end.
func (s *Server) reauthorize(ctx context.Context, v session.Session) (*session.Cause, error) {
	kept := s.keep(v)
	if kept == nil {
		return nil, nil
	}
	decided, err := newRound(s).verdict(ctx, kept)
	return decided.cause, err
}

// checkStart authorises starting a session and audits the decision. A node that does
// not exist is authorised by its ARN alone. What is wrong with the request otherwise is
// said to those who may start one.
func (c *Call) checkStart(ctx context.Context, in StartInput) (p *plan, known bool, err error) {
	n, err := c.Server.config.Nodes.Node(ctx, in.Target)
	if err != nil && !errors.Is(err, node.ErrNotFound) {
		return nil, false, err
	}
	if known = err == nil; !known {
		n = node.Node{ID: in.Target}
	}
	p, wrong, err := c.plan(ctx, c.Principal, n, in)
	if err != nil {
		return nil, known, err
	}
	c.checked = true
	c.Node, c.Document = n.ID, p.name()
	c.tellPlan(p)
	for key, values := range in.Context {
		c.SetContext(key, values...)
	}
	q := c.query(c.Operation.Action, nil)
	d, err := c.Server.checker.CheckStart(ctx, q, p.start(c.Server))
	if err != nil {
		return nil, known, err
	}
	allowed := func(j *access.Judge) bool { return j.Start(q, p.start(c.Server)).Allowed }
	if p.grants, err = c.dependsOn(ctx, d, allowed); err != nil {
		return nil, known, err
	}
	if wrong != nil {
		return nil, known, wrong
	}
	if err := c.disownLogin(ctx, p); err != nil {
		return nil, known, err
	}
	return p, known, c.checkMore(ctx, in, p)
}

// tellPlan puts into the audit record where the session leads and whom it runs as. Those
// are no secrets, as other parameters may be.
func (c *Call) tellPlan(p *plan) {
	details := c.inputDetails()
	if details == nil {
		return
	}
	if p.remote != nil {
		for key, values := range p.remote.Context() {
			details[strings.TrimPrefix(key, "sallyport:")] = values[0]
		}
	}
	if login := p.loginKey(); login != "" && login != access.DefaultLogin {
		details["RunAsUser"] = login
	}
}

// Actions that a session needs beside ssm:StartSession.
const (
	actionRunAs        = "sallyport:RunAs"
	actionForwardAgent = "sallyport:ForwardAgent"
)

// checkMore authorises what needs an action of its own: a login that neither the
// principal nor the document has, and the forwarding of an SSH agent.
func (c *Call) checkMore(ctx context.Context, in StartInput, p *plan) error {
	resource := c.Server.nodeResource(p.node)
	if p.login.needsAction() {
		c.SetContext("sallyport:RunAsUser", p.login.name)
		if err := c.CheckAction(ctx, actionRunAs, resource); err != nil {
			return err
		}
	}
	if in.Exec != nil && in.Exec.ForwardAgent {
		return c.CheckAction(ctx, actionForwardAgent, resource)
	}
	return nil
}

// startRequest makes the session out of its plan.
func (c *Call) startRequest(in StartInput, p *plan) (*session.StartRequest, error) {
	transfer := in.Exec != nil && in.Exec.Subsystem != ""
	record := p.document.SessionType != document.Port && !transfer
	exec, err := p.exec(in.Exec)
	if err != nil {
		return nil, err
	}
	input := in.Input && in.Exec == nil && p.takesInput() && !p.encrypted()
	if input {
		exec = &wire.Exec{Command: p.commandLine(), Words: true}
	}
	s := c.newSession(in, p)
	c.Session = s.ID
	start := c.startMessage(s, p)
	start.Exec = exec
	return &session.StartRequest{
		Session: s,
		Start:   start,
		Options: session.Options{
			NodeName: p.node.DisplayName(), Record: record, RecordInput: c.Server.config.RecordInput,
			KeepInUse: p.document.Inputs.IdleSessionTimeout == "", Command: p.commandLine(),
			ClientReturns: input, Grants: p.grants,
		},
	}, nil
}

// newSession is the row of a session that the caller starts.
func (c *Call) newSession(in StartInput, p *plan) session.Session {
	d := p.document
	return session.Session{
		ID:          session.NewID(c.Principal.SessionIDPrefix()),
		NodeID:      p.node.ID,
		Target:      in.Target,
		Document:    d.Name,
		SessionType: d.SessionType,
		Owner:       c.Principal.ARN,
		OwnerID:     c.Principal.UserID,
		OwnerName:   c.Principal.Name,
		RootID:      c.Principal.RootID(),
		Reason:      in.Reason,
		SourceIP:    c.Origin.SourceIP,
		RunAs:       p.login.name,
		MaxDuration: d.MaxDuration(),
		IdleTimeout: d.IdleTimeout(),
		Authority:   c.authority(in, p).encode(),
	}
}

// startMessage is what the agent is told.
func (c *Call) startMessage(s session.Session, p *plan) wire.StartSession {
	d := p.document
	if p.login.name != "" {
		d = d.WithRunAs()
	}
	m := wire.StartSession{
		SessionID: s.ID, DocumentName: d.Name, DocumentContent: d.WithoutOutputs().Content(), Parameters: p.params,
		RunAsUser: p.login.name, RunAsRoot: p.login.name == root, SessionOwner: s.Owner,
	}
	if p.remote != nil {
		m.Forward = c.Server.config.Forward
	}
	return m
}
