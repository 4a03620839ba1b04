package server

import (
	"context"
	"errors"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/node"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// Sessions: started, resumed, terminated and listed.

func ssmSessionOperations() []*Operation {
	return []*Operation{
		op("ssm", "StartSession", nil, startSession, checksItself),
		op("ssm", "ResumeSession", nil, resumeSession, checksItself),
		op("ssm", "TerminateSession", nil, terminateSession, checksItself, toEnd),
		op("ssm", "DescribeSessions", nil, describeSessions, quietly),
		op("ssm", "GetConnectionStatus", onConnectionTarget, getConnectionStatus, quietly),
	}
}

type startSessionInput struct {
	Target       string              `json:"Target" check:"required,min=1,max=400,pattern=[ -~]*"`
	DocumentName string              `json:"DocumentName" check:"pattern=[a-zA-Z0-9_\\-.:/]{3,128}"`
	Reason       string              `json:"Reason" check:"min=1,max=256,pattern=.{1,256}"`
	Parameters   map[string][]string `json:"Parameters" keys:"min=1,max=255" each:"min=1,max=65535"`
	Input        bool                `json:"Input"`                                                              // ours: see StartInput
	RunAs        string              `json:"RunAs" check:"min=1,max=32,pattern=[A-Za-z0-9_][A-Za-z0-9_.-]*[$]?"` // ours: a login of the node
}

// sessionOutput is what a client needs to open the data channel. All members are
// always there: AWS's CLI indexes them, and its plugin takes an empty token for the
// end of a session.
type sessionOutput struct {
	SessionID  string `json:"SessionId"`
	TokenValue string `json:"TokenValue"`
	StreamURL  string `json:"StreamUrl"`
	Input      bool   `json:"Input,omitempty"` // ours: the command takes input
}

func (c *Call) sessionOutput(id, token string) *sessionOutput {
	return &sessionOutput{
		SessionID: id, TokenValue: token,
		StreamURL: c.URL("ws", "/v1/data-channel/"+id+"?role=publish_subscribe"),
	}
}

// gateway returns what relays sessions.
func (c *Call) gateway() (*session.Gateway, error) {
	if c.Server.config.Gateway == nil {
		return nil, errors.New("this server has no gateway for sessions")
	}
	return c.Server.config.Gateway, nil
}

func startSession(ctx context.Context, c *Call, in *startSessionInput) (*sessionOutput, error) {
	started, err := c.start(ctx, StartInput{
		Target: in.Target, Document: in.DocumentName, Reason: in.Reason, RunAs: in.RunAs, Parameters: in.Parameters,
		Input: in.Input,
	})
	if err != nil {
		return nil, err
	}
	out := c.sessionOutput(started.SessionID, started.Token)
	out.Input = started.Input
	return out, nil
}

func notConnected(target string) error {
	return ssmError("TargetNotConnected", "%s is not connected.", target)
}

type sessionInput struct {
	SessionID string `json:"SessionId" check:"required,min=1,max=96,pattern=[ -~]*"`
}

// resumeSession gives a client that lost its connection a token for another, which for
// a session that ended lately tells why. For one that ended before, it is empty.
func resumeSession(ctx context.Context, c *Call, in *sessionInput) (*sessionOutput, error) {
	v, found, err := c.checkOwnedSession(ctx, in.SessionID)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, ssmError("DoesNotExistException", "There is no session %q.", in.SessionID)
	}
	g, err := c.gateway()
	if err != nil {
		return nil, err
	}
	token, err := g.Resume(ctx, v.ID)
	return c.sessionOutput(v.ID, token), err
}

type terminateSessionOutput struct {
	SessionID string `json:"SessionId"`
}

// terminateSession ends a session. One that has ended or never was is no error.
func terminateSession(ctx context.Context, c *Call, in *sessionInput) (*terminateSessionOutput, error) {
	return c.terminate(ctx, in.SessionID, "")
}

type terminateForReasonInput struct {
	SessionID string `json:"SessionId" check:"required,min=1,max=96,pattern=[ -~]*"`
	Reason    string `json:"Reason" check:"required,min=1,max=256,pattern=\\P{C}{1,256}"`
}

// terminateForReason is terminateSession with a reason, which the person and the log are
// told.
func terminateForReason(ctx context.Context, c *Call, in *terminateForReasonInput) (*terminateSessionOutput, error) {
	return c.terminate(ctx, in.SessionID, in.Reason)
}

func (c *Call) terminate(ctx context.Context, id, reason string) (*terminateSessionOutput, error) {
	v, found, err := c.checkOwnedSession(ctx, id)
	if err != nil {
		return nil, err
	}
	out := &terminateSessionOutput{SessionID: id}
	if !found || !v.State.Active() {
		return out, nil
	}
	g, err := c.gateway()
	if err != nil {
		return nil, err
	}
	return out, g.Terminate(ctx, v.ID, session.Terminated(c.Principal.ARN, reason))
}

// checkOwnedSession authorises the operation on a session with its system tags, by
// which policies let people resume and end their own. One that does not exist is
// authorised by its ARN alone.
func (c *Call) checkOwnedSession(ctx context.Context, id string) (v session.Session, found bool, err error) {
	v, err = c.Server.config.Sessions.Session(ctx, id)
	if errors.Is(err, session.ErrNotFound) {
		c.Session = id
		return v, false, c.Check(ctx, access.Resource{ARN: c.Server.config.Realm.Session(id)})
	}
	if err != nil {
		return v, false, err
	}
	c.Session, c.Node, c.Document = v.ID, v.NodeID, v.Document
	r, err := c.sessionResource(ctx, v)
	if err != nil {
		return v, false, err
	}
	return v, true, c.Check(ctx, r)
}

type sessionFilter struct {
	Key   string `json:"key" check:"required,enum=InvokedAfter|InvokedBefore|Target|Owner|Status|SessionId|AccessType"`
	Value string `json:"value" check:"required,min=1,max=400"`
}

type describeSessionsInput struct {
	State      string          `json:"State" check:"required,enum=Active|History"`
	MaxResults int             `json:"MaxResults" check:"min=1,max=200"`
	NextToken  string          `json:"NextToken" check:"max=1024"`
	Filters    []sessionFilter `json:"Filters" check:"min=1,max=6"`
}

type describedSession struct {
	SessionID          string    `json:"SessionId"`
	Target             string    `json:"Target"`
	Status             string    `json:"Status"`
	StartDate          wire.Time `json:"StartDate,omitzero"`
	EndDate            wire.Time `json:"EndDate,omitzero"`
	DocumentName       string    `json:"DocumentName"`
	Owner              string    `json:"Owner"`
	Reason             string    `json:"Reason,omitempty"`
	Details            string    `json:"Details,omitempty"`
	MaxSessionDuration string    `json:"MaxSessionDuration,omitempty"`
	AccessType         string    `json:"AccessType"`

	OutputURL *sessionOutputURL `json:"OutputUrl,omitempty"`
}

type describeSessionsOutput struct {
	Sessions  []describedSession `json:"Sessions"`
	NextToken string             `json:"NextToken,omitempty"`
}

// standardAccess is the AccessType of sessions that policies allow.
const standardAccess = "Standard"

func describeSessions(ctx context.Context, c *Call, in *describeSessionsInput) (*describeSessionsOutput, error) {
	active := in.State == "Active"
	filter, none, err := describeFilter(in.Filters)
	if err != nil {
		return nil, err
	}
	out := &describeSessionsOutput{Sessions: []describedSession{}}
	if none {
		return out, nil
	}
	filter.Active = &active
	p := pages[session.Session]{
		size: 200,
		fetch: func(after string, n int) ([]session.Session, error) {
			filter.After, filter.Limit = after, n
			return c.Server.config.Sessions.Sessions(ctx, filter)
		},
		key: func(v session.Session) string { return v.ID },
	}
	found, next, err := p.page(c, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	for _, v := range found {
		out.Sessions = append(out.Sessions, described(v))
	}
	out.NextToken = next
	return out, c.showLogs(ctx, out.Sessions)
}

// describeFilter turns AWS's filters into ours; none reports that nothing can match.
func describeFilter(filters []sessionFilter) (f session.Filter, none bool, err error) {
	for _, given := range filters {
		switch given.Key {
		case "InvokedAfter":
			f.StartedAfter, err = filterTime(given)
		case "InvokedBefore":
			f.StartedBefore, err = filterTime(given)
		case "Target":
			none = none || differs(&f.NodeID, given.Value)
		case "Owner":
			none = none || differs(&f.Owner, given.Value)
		case "Status":
			none = none || differs((*string)(&f.State), given.Value)
		case "SessionId":
			none = none || len(f.IDs) > 0 && f.IDs[0] != given.Value
			f.IDs = []string{given.Value}
		case "AccessType":
			none = none || given.Value != standardAccess
		}
		if err != nil {
			return f, false, err
		}
	}
	return f, none, nil
}

// differs sets a condition and reports whether it contradicts an earlier one.
func differs(have *string, want string) bool {
	if *have != "" && *have != want {
		return true
	}
	*have = want
	return false
}

func filterTime(f sessionFilter) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, f.Value)
	if err != nil {
		return t, ssmError("ValidationException", "The value %q of filter %s is not valid: it must be a time such as 2018-08-29T00:00:00Z.", truncate(f.Value, 100), f.Key)
	}
	return t, nil
}

func described(v session.Session) describedSession {
	d := describedSession{
		SessionID: v.ID, Target: v.NodeID, Status: string(v.State),
		StartDate: wire.Time{Time: v.Started}, EndDate: wire.Time{Time: v.Ended},
		DocumentName: v.Document, Owner: v.Owner, Reason: v.Reason, Details: v.EndReason,
		AccessType: standardAccess,
	}
	if v.MaxDuration > 0 {
		d.MaxSessionDuration = v.MaxDuration.String()
	}
	return d
}

type connectionInput struct {
	Target string `json:"Target" check:"required,min=1,max=400,pattern=[ -~]*"`
}

func onConnectionTarget(ctx context.Context, c *Call, in *connectionInput) ([]access.Resource, error) {
	return one(c.nodeResource(ctx, in.Target))
}

type connectionOutput struct {
	Target string `json:"Target"`
	Status string `json:"Status"`
}

// getConnectionStatus tells whether the control channel of a node is up. A target
// that nobody knows is not connected.
func getConnectionStatus(ctx context.Context, c *Call, in *connectionInput) (*connectionOutput, error) {
	g, err := c.gateway()
	if err != nil {
		return nil, err
	}
	status := "notconnected"
	if node.ValidID(in.Target) && g.Connected(ctx, in.Target) {
		status = "connected"
	}
	return &connectionOutput{Target: in.Target, Status: status}, nil
}

// anySession selects every session of a filter.
func anySession(session.Session) bool { return true }

// endSessions ends the active sessions that a filter and match select. It is called
// when their owner can start no more: startSession looks again after it stored one.
func (c *Call) endSessions(ctx context.Context, f session.Filter, match func(session.Session) bool, reason string) error {
	g := c.Server.config.Gateway
	if g == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	active := true
	f.Active = &active
	found, err := c.Server.config.Sessions.Sessions(ctx, f)
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range found {
		if match(v) {
			errs = append(errs, g.Terminate(ctx, v.ID, ended(reason)))
		}
	}
	return errors.Join(errs...)
}

func ended(reason string) *session.Cause {
	return &session.Cause{
		Reason: session.ReasonTerminated, Detail: reason, Terminal: "Session ended: " + reason + ".",
	}
}
