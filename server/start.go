package server

import (
	"context"
	"encoding/json"
	"errors"

	"sallyport.dev/access"
	"sallyport.dev/document"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/session"
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
}

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
	return c.start(ctx, in)
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

// start authorises the node and the document, in that order of refusals: who may not
// use a target learns nothing about it.
func (c *Call) start(ctx context.Context, in StartInput) (Started, error) {
	n, known, err := c.checkStart(ctx, in)
	if err != nil {
		return Started{}, err
	}
	g, err := c.gateway()
	if err != nil {
		return Started{}, err
	}
	req, err := c.startRequest(ctx, in)
	if err != nil {
		return Started{}, err
	}
	if !known {
		return Started{}, notConnected(in.Target)
	}
	req.Session.NodeID, req.Options.NodeName = n.ID, n.DisplayName()
	token, err := g.Start(ctx, *req)
	switch {
	case errors.Is(err, session.ErrNotConnected):
		return Started{}, notConnected(in.Target)
	case errors.Is(err, session.ErrRecording):
		return Started{}, exception("InternalServerError", "The session cannot be recorded, so it was not started. The server's log tells the cause.")
	case err != nil:
		return Started{}, err
	}
	v := req.Session
	return Started{SessionID: v.ID, Token: token, NodeID: v.NodeID, SessionType: v.SessionType, RunAs: v.RunAs},
		c.checkStillThere(ctx, g, v.ID)
}

// checkStillThere ends a session whose owner was disabled or deleted while it began:
// who did that may have looked for sessions before this one was stored.
func (c *Call) checkStillThere(ctx context.Context, g *session.Gateway, id string) error {
	err := c.Server.resolver.Check(ctx, c.Principal)
	if err == nil {
		return nil
	}
	return errors.Join(err, g.Terminate(context.WithoutCancel(ctx), id, ended("its owner is not there any more")))
}

// checkStart authorises starting a session and audits the decision. A node that does
// not exist is authorised by its ARN alone.
func (c *Call) checkStart(ctx context.Context, in StartInput) (n node.Node, known bool, err error) {
	name, err := c.Server.documentName(in.Document)
	if err != nil {
		return n, false, err
	}
	n, err = c.Server.config.Nodes.Node(ctx, in.Target)
	if err != nil && !errors.Is(err, node.ErrNotFound) {
		return n, false, err
	}
	if known = err == nil; !known {
		n = node.Node{ID: in.Target}
	}
	c.checked = true
	c.Node, c.Document = n.ID, orElse(name, defaultDocument)
	for key, values := range in.Context {
		c.SetContext(key, values...)
	}
	_, err = c.Server.checker.CheckStart(ctx, c.query(c.Operation.Action, nil), c.Server.startOf(n, name))
	return n, known, err
}

// startRequest makes the session out of its document, parameters and caller.
func (c *Call) startRequest(ctx context.Context, in StartInput) (*session.StartRequest, error) {
	d, err := c.sessionDocument(ctx, in.Document)
	if err != nil {
		return nil, err
	}
	params, err := d.Fill(in.Parameters)
	if bad := (*document.ParameterError)(nil); errors.As(err, &bad) {
		return nil, ssmError("InvalidParameters", "%s", sentence(bad))
	}
	if err != nil {
		return nil, err
	}
	record := d.SessionType != document.Port
	if record && d.Inputs.KMSKeyID != "" {
		return nil, ssmError("InvalidDocument", "Sessions with document %s are encrypted between client and node (kmsKeyId), so they cannot be recorded.", d.Name)
	}
	s := c.newSession(in, d)
	c.Session = s.ID
	start := c.startMessage(s, d, params)
	start.Exec = in.Exec
	return &session.StartRequest{
		Session: s,
		Start:   start,
		Options: session.Options{Record: record, RecordInput: c.Server.config.RecordInput},
	}, nil
}

// sessionDocument finds the document of a session, with the preferences of the
// deployment where it has none of its own.
func (c *Call) sessionDocument(ctx context.Context, name string) (*document.Document, error) {
	d, err := c.findDocument(ctx, orElse(name, defaultDocument), "")
	if err != nil {
		return nil, err
	}
	if d.parsed.Type != document.TypeSession {
		return nil, ssmError("InvalidDocument", "Document %s is of type %s; sessions need one of type Session.", d.stored.Name, d.parsed.Type)
	}
	if d.parsed.SessionType == document.StandardStream {
		return d.parsed, nil
	}
	prefs, err := c.findDocument(ctx, defaultDocument, "")
	if err != nil {
		return nil, err
	}
	return d.parsed.WithPreferences(prefs.parsed), nil
}

// newSession is the row of a session that the caller starts.
func (c *Call) newSession(in StartInput, d *document.Document) session.Session {
	return session.Session{
		ID:          session.NewID(c.Principal.SessionIDPrefix()),
		Target:      in.Target,
		Document:    d.Name,
		SessionType: d.SessionType,
		Owner:       c.Principal.ARN,
		OwnerID:     c.Principal.UserID,
		OwnerName:   c.Principal.Name,
		RootID:      c.Principal.RootID(),
		Reason:      in.Reason,
		SourceIP:    c.Origin.SourceIP,
		RunAs:       runAs(c.Principal, d),
		MaxDuration: d.MaxDuration(),
		IdleTimeout: d.IdleTimeout(),
	}
}

// runAsTag is the principal tag that names the OS user of the principal's sessions.
const runAsTag = "SSMSessionRunAs"

// runAs is the OS user that a session asks for: empty for the node's default.
func runAs(p identity.Principal, d *document.Document) string {
	if !d.Inputs.RunAsEnabled {
		return ""
	}
	if values := p.Tags.Values(runAsTag); len(values) > 0 && values[0] != "" {
		return values[0]
	}
	return d.Inputs.RunAsDefaultUser
}

// startMessage is what the agent is told.
func (c *Call) startMessage(s session.Session, d *document.Document, params map[string]json.RawMessage) wire.StartSession {
	return wire.StartSession{
		SessionID: s.ID, DocumentName: d.Name, DocumentContent: d.Content(),
		Parameters: params, RunAsUser: s.RunAs, SessionOwner: s.Owner,
	}
}
