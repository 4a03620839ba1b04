package server

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/archive"
	"sallyport.dev/audit"
	"sallyport.dev/node"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

type listSessionsInput struct {
	State      string    `json:"State" check:"enum=|Active|History"`
	NodeID     string    `json:"NodeId" check:"max=64"`
	Owner      string    `json:"Owner" check:"max=2048"`
	Since      wire.Time `json:"Since"`
	Until      wire.Time `json:"Until"`
	MaxResults int       `json:"MaxResults,omitempty" check:"min=1,max=200"`
	NextToken  string    `json:"NextToken" check:"max=512"`
}

type listSessionsOutput struct {
	Sessions  []listedSession `json:"Sessions"`
	NextToken string          `json:"NextToken,omitempty"`
}

type listedSession struct {
	SessionID   string    `json:"SessionId"`
	NodeID      string    `json:"NodeId"`
	NodeName    string    `json:"NodeName,omitempty"`
	Target      string    `json:"Target,omitempty"`
	Document    string    `json:"Document,omitempty"`
	SessionType string    `json:"SessionType,omitempty"`
	Owner       string    `json:"Owner,omitempty"`
	Reason      string    `json:"Reason,omitempty"`
	SourceIP    string    `json:"SourceIp,omitempty"`
	RunAs       string    `json:"RunAs,omitempty"`
	State       string    `json:"State"`
	Started     wire.Time `json:"Started,omitzero"`
	Ended       wire.Time `json:"Ended,omitzero"`
	EndReason   string    `json:"EndReason,omitempty"`
	ExitStatus  *int      `json:"ExitStatus,omitempty"`
	Member      string    `json:"Member,omitempty"`
	Recorded    bool      `json:"Recorded,omitempty"`
	BytesIn     int64     `json:"BytesIn,omitempty"`
	BytesOut    int64     `json:"BytesOut,omitempty"`
	Encryption  string    `json:"Encryption,omitempty"` // recorded or unrecorded, of a session that its ends encrypt
}

// listSessions lists the caller's own sessions, or everyone's to who may do
// sallyport:ListSessions or ssm:DescribeSessions.
func listSessions(ctx context.Context, c *Call, in *listSessionsInput) (*listSessionsOutput, error) {
	all, err := c.maySeeAll(ctx, "sallyport:ListSessions", "ssm:DescribeSessions")
	if err != nil {
		return nil, err
	}
	filter := session.Filter{
		NodeID: in.NodeID, Owner: in.Owner, StartedAfter: in.Since.Time, StartedBefore: in.Until.Time,
	}
	if in.State != "" {
		active := in.State == "Active"
		filter.Active = &active
	}
	if !all {
		filter.RootID = c.Principal.RootID()
		if c.Principal.Root != "" {
			filter.OwnerID = c.Principal.UserID
		}
		if err := c.CheckOwn(ctx, access.Resource{ARN: "*"}); err != nil {
			return nil, err
		}
	}
	p := pages[session.Session]{
		size: 50,
		fetch: func(after string, n int) ([]session.Session, error) {
			filter.After, filter.Limit = after, n
			return c.Server.config.Sessions.Sessions(ctx, filter)
		},
		key: func(v session.Session) string { return v.ID },
	}
	sessions, next, err := p.page(c, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &listSessionsOutput{Sessions: []listedSession{}, NextToken: next}
	for _, v := range sessions {
		listed, err := c.listedSession(ctx, v)
		if err != nil {
			return nil, err
		}
		out.Sessions = append(out.Sessions, listed)
	}
	return out, nil
}

func (c *Call) listedSession(ctx context.Context, v session.Session) (listedSession, error) {
	n, err := c.Server.config.Nodes.Node(ctx, v.NodeID)
	if errors.Is(err, node.ErrNotFound) {
		n, err = node.Node{ID: v.NodeID}, nil
	}
	return listedSession{
		SessionID: v.ID, NodeID: v.NodeID, NodeName: n.DisplayName(), Target: v.Target,
		Document: v.Document, SessionType: v.SessionType, Owner: v.Owner, Reason: v.Reason,
		SourceIP: v.SourceIP, RunAs: v.RunAs, State: string(v.State),
		Started: wire.Time{Time: v.Started}, Ended: wire.Time{Time: v.Ended}, EndReason: v.EndReason,
		ExitStatus: v.ExitStatus, Member: v.Member, Recorded: v.Recording != "",
		BytesIn: v.BytesIn, BytesOut: v.BytesOut, Encryption: string(v.Encryption),
	}, err
}

type getSessionInput struct {
	SessionID string `json:"SessionId" check:"required,min=1,max=96,pattern=[ -~]*"`
}

type getSessionOutput struct {
	Session listedSession `json:"Session"`
}

func getSession(ctx context.Context, c *Call, in *getSessionInput) (*getSessionOutput, error) {
	v, err := c.checkSession(ctx, in.SessionID)
	if err != nil {
		return nil, err
	}
	listed, err := c.listedSession(ctx, v)
	return &getSessionOutput{listed}, err
}

// checkSession finds a session and checks the operation's action on it: the owner
// needs no policy. A session that does not exist is refused to who may not see all.
func (c *Call) checkSession(ctx context.Context, id string) (session.Session, error) {
	v, err := c.Server.config.Sessions.Session(ctx, id)
	if errors.Is(err, session.ErrNotFound) {
		if err := c.Check(ctx, access.Resource{ARN: c.Server.config.Realm.Session(id)}); err != nil {
			return v, err
		}
		return v, exception("DoesNotExistException", "There is no session %q.", id)
	}
	if err != nil {
		return v, err
	}
	c.Session, c.Node, c.Document = v.ID, v.NodeID, v.Document
	resource, err := c.sessionResource(ctx, v)
	if err != nil {
		return v, err
	}
	if mayRead(c.Principal, v) {
		return v, c.CheckOwn(ctx, resource)
	}
	return v, c.Check(ctx, resource)
}

type getRecordingInput struct {
	SessionID string `json:"SessionId" check:"required,min=1,max=96,pattern=[ -~]*"`
	Offset    int64  `json:"Offset" check:"min=0"`
}

type getRecordingOutput struct {
	Data       []byte `json:"Data"`
	NextOffset int64  `json:"NextOffset"`
	Done       bool   `json:"Done"`
}

// recordingPiece is how much of a recording one call answers with, in bytes.
const recordingPiece = 512 << 10

// getRecording reads a piece of a session's recording. Done says that nothing more
// will come.
func getRecording(ctx context.Context, c *Call, in *getRecordingInput) (*getRecordingOutput, error) {
	// A reading is one record, not one for each of its pieces.
	var v session.Session
	err := c.once(in.SessionID, func() (err error) {
		v, err = c.checkSession(ctx, in.SessionID)
		return err
	})
	if err != nil {
		return nil, err
	}
	if v.Recording == "" || c.Server.config.Recordings == nil {
		return nil, exception("DoesNotExistException", "The session %q was not recorded.", in.SessionID)
	}
	file, size, err := c.Server.config.Recordings.Open(ctx, v.Recording)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, c.recordingGone(ctx, in.SessionID)
	}
	if err != nil {
		return nil, recordingDamaged(in.SessionID, err)
	}
	defer file.Close()
	// At most what there was at opening: a recording may still grow.
	data := make([]byte, min(recordingPiece, max(0, size-in.Offset)))
	n, err := file.ReadAt(data, in.Offset)
	if err != nil && err != io.EOF && n == 0 { // what is good before is shown first
		return nil, recordingDamaged(in.SessionID, err)
	}
	return &getRecordingOutput{
		Data: data[:n], NextOffset: in.Offset + int64(n),
		Done: in.Offset+int64(n) >= size && !v.State.Active(),
	}, nil
}

// recordingGone says why there is no recording of a session to read. Who deleted it, and why,
// is for those who may see what is known of it.
func (c *Call) recordingGone(ctx context.Context, id string) error {
	row, ok, err := c.recordingOfSession(ctx, id)
	if err != nil {
		return err
	}
	if !ok || row.State != archive.Deleted {
		return exception("DoesNotExistException", "The recording of session %q is not on this server any more.", id)
	}
	may, err := c.maySeeRecording(ctx, row)
	if err != nil {
		return err
	}
	if !may {
		return exception("DoesNotExistException", "The recording of session %q was deleted.", id)
	}
	return exception("DoesNotExistException", "The recording of session %q was deleted at %s by %s: %s.", id,
		row.DeletedAt.UTC().Format(time.RFC3339), row.DeletedBy, strings.TrimRight(row.DeleteReason, "."))
}

// recordingDamaged names the place where a recording is not what it was.
func recordingDamaged(session string, err error) error {
	if d := (*archive.Damage)(nil); errors.As(err, &d) {
		return exception("InternalServerError", "The recording of session %q does not verify: %v.", session, d)
	}
	return err
}

type queryAuditInput struct {
	Since      wire.Time `json:"Since"`
	Until      wire.Time `json:"Until"`
	Event      string    `json:"Event" check:"max=64"`
	Principal  string    `json:"Principal" check:"max=2048"`
	Action     string    `json:"Action" check:"max=256"`
	NodeID     string    `json:"NodeId" check:"max=64"`
	SessionID  string    `json:"SessionId" check:"max=96"`
	Decision   string    `json:"Decision" check:"max=64"`
	Newest     bool      `json:"Newest"`
	MaxResults int       `json:"MaxResults,omitempty" check:"min=1,max=1000"`
	NextToken  string    `json:"NextToken" check:"max=512"`
}

type queryAuditOutput struct {
	Records   []audit.Record `json:"Records"`
	NextToken string         `json:"NextToken,omitempty"`
	More      bool           `json:"More,omitempty"`
}

const auditPage = 200

// queryAudit reads the audit log. The token of a last page asks for what comes later.
func queryAudit(ctx context.Context, c *Call, in *queryAuditInput) (*queryAuditOutput, error) {
	// Following polls; one record tells of it, or the followers would follow themselves.
	check := func() error { return c.Check(ctx, access.Resource{ARN: "*"}) }
	if err := c.once("", check); err != nil {
		return nil, err
	}
	filter, err := c.auditFilter(in)
	if err != nil {
		return nil, err
	}
	limit := filter.Limit
	if !filter.Newest {
		filter.Limit++ // one more tells whether there is another page
	}
	records, err := c.Server.config.AuditStore.Audit(ctx, filter)
	if err != nil {
		return nil, err
	}
	out := &queryAuditOutput{Records: records, NextToken: in.NextToken, More: len(records) > limit}
	if out.More {
		out.Records = records[:limit]
	}
	if n := len(out.Records); n > 0 {
		last := out.Records[n-1]
		out.NextToken = c.pageToken(strconv.FormatInt(last.Seq, 10) + " " + last.Member)
	} else {
		out.Records = []audit.Record{}
	}
	return out, nil
}

func (c *Call) auditFilter(in *queryAuditInput) (audit.Filter, error) {
	f := audit.Filter{
		Since: in.Since.Time, Until: in.Until.Time, Event: in.Event, Principal: in.Principal,
		Action: in.Action, Node: in.NodeID, Session: in.SessionID, Decision: in.Decision,
		Newest: in.Newest, Limit: in.MaxResults,
	}
	if f.Limit == 0 {
		f.Limit = auditPage
	}
	key, err := c.openPageToken(in.NextToken)
	if err != nil || key == "" {
		return f, err
	}
	seq, member, _ := strings.Cut(key, " ")
	f.Newest = false
	f.AfterMember = member
	if f.AfterSeq, err = strconv.ParseInt(seq, 10, 64); err != nil {
		return f, c.badToken()
	}
	return f, nil
}
