package server

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/evidence"
	"sallyport.dev/grant"
	"sallyport.dev/session"
)

type exportRequestInput struct {
	RequestID string `json:"RequestId" check:"required,pattern=oi-[0-9a-f]{12}"`
}

type exportRequestOutput struct {
	File evidence.File `json:"File"`
}

// Bounds of one export. What is longer is refused rather than cut.
const (
	maxExportSessions = 10000
	maxExportRecords  = 50000
)

// exportRequest puts a request, what was decided on it and what it opened into one file.
func exportRequest(ctx context.Context, c *Call, in *exportRequestInput) (*exportRequestOutput, error) {
	if err := c.Check(ctx, access.Resource{ARN: c.Server.config.Realm.Own("request", in.RequestID)}); err != nil {
		return nil, err
	}
	engine := c.Server.config.Access
	if engine == nil {
		return nil, noSuchRequest(in.RequestID)
	}
	r, err := engine.Request(ctx, in.RequestID)
	if errors.Is(err, grant.ErrNotFound) {
		return nil, noSuchRequest(in.RequestID)
	}
	if err != nil {
		return nil, err
	}
	e := exported{evidence.Export{
		Made: c.Origin.Time.UTC(), By: c.Principal.ARN,
		Account: c.Server.config.Realm.Account, Region: c.Server.config.Realm.Region,
	}}
	steps, err := engine.History(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if err := e.put(r, steps); err != nil {
		return nil, err
	}
	if err := c.exportSessions(ctx, &e.Export, r); err != nil {
		return nil, err
	}
	if err := c.exportAudit(ctx, &e.Export, r); err != nil {
		return nil, err
	}
	signer, err := c.Server.ssh.EvidenceSigner(ctx)
	if err != nil {
		return nil, err
	}
	file, err := evidence.Sign(e.Export, signer)
	return &exportRequestOutput{file}, err
}

// exported is an export that is being put together.
type exported struct{ evidence.Export }

// put puts the request and its steps in, as JSON.
func (e *exported) put(r grant.Request, steps []grant.Event) (err error) {
	if e.Request, err = json.Marshal(r); err != nil {
		return err
	}
	for _, step := range steps {
		text, err := json.Marshal(step)
		if err != nil {
			return err
		}
		e.Events = append(e.Events, text)
	}
	return nil
}

func noSuchRequest(id string) error {
	return exception("ResourceNotFoundException", "There is no request %s.", id)
}

// lasted is when a request's grant held; begun is false where it never did.
func lasted(r grant.Request, now time.Time) (from, to time.Time, begun bool) {
	if r.ActivatedAt.IsZero() {
		return from, to, false
	}
	if to = r.EndedAt; to.IsZero() {
		to = now
	}
	return r.ActivatedAt, to, true
}

// exportSessions adds the sessions that the person began while the grant held.
func (c *Call) exportSessions(ctx context.Context, e *evidence.Export, asked grant.Request) error {
	from, to, begun := lasted(asked, c.Origin.Time)
	if !begun {
		return nil
	}
	rows, err := c.Server.config.Sessions.Sessions(ctx, session.Filter{
		RootID: asked.Frozen.Person.ID, StartedAfter: from.Add(-time.Second), StartedBefore: to.Add(time.Second),
		Limit: maxExportSessions + 1,
	})
	if err != nil {
		return err
	}
	if len(rows) > maxExportSessions {
		return exception("ValidationException", "The grant has more than %d sessions, too many for one file.", maxExportSessions)
	}
	slices.Reverse(rows) // oldest first
	for _, row := range rows {
		e.Session = append(e.Session, c.exportSession(ctx, row, asked.ID))
	}
	return nil
}

func (c *Call) exportSession(ctx context.Context, row session.Session, request string) evidence.Session {
	s := evidence.Session{
		ID: row.ID, NodeID: row.NodeID, Document: row.Document, SessionType: row.SessionType, Owner: row.Owner,
		RunAs: row.RunAs, SourceIP: row.SourceIP, Started: row.Started.UTC(), EndReason: row.EndReason,
		Granted: strings.Contains(row.Authority, request),
	}
	if !row.Ended.IsZero() {
		s.Ended = row.Ended.UTC()
	}
	if row.Recording != "" {
		s.Recording = c.exportRecording(ctx, row.Recording)
	}
	return s
}

// exportRecording tells of a recording; of one that is not finished, or not here, the name
// alone.
func (c *Call) exportRecording(ctx context.Context, name string) *evidence.Recording {
	r := &evidence.Recording{Name: name}
	if c.Server.config.Recordings == nil {
		return r
	}
	if d, err := c.Server.config.Recordings.Digest(ctx, name); err == nil {
		r.SHA256, r.Size, r.Manifest = d.SHA256, d.Size, d.Manifest
	}
	return r
}

// exportAudit adds the audit records of the request and of its sessions, and marks the
// sessions whose decision names the grant.
func (c *Call) exportAudit(ctx context.Context, e *evidence.Export, asked grant.Request) error {
	sessions := map[string]int{}
	for i, s := range e.Session {
		sessions[s.ID] = i
	}
	f := audit.Filter{Since: asked.Frozen.Created.Add(-time.Second), Until: c.exportEnd(e, asked), Limit: auditPage}
	for {
		page, err := c.Server.config.AuditStore.Audit(ctx, f)
		if err != nil {
			return err
		}
		for _, r := range page {
			i, ours := sessions[r.Session]
			if ours && r.Event == audit.EventDecision && strings.Contains(r.Reason, asked.ID) {
				e.Session[i].Granted = true
			}
			if ours || concerns(r, asked.ID) {
				e.Audit = append(e.Audit, r)
			}
		}
		if len(e.Audit) > maxExportRecords {
			return exception("ValidationException", "The request has more than %d audit records, too many for one file.", maxExportRecords)
		}
		if len(page) < f.Limit {
			break
		}
		last := page[len(page)-1]
		f.AfterMember, f.AfterSeq = last.Member, last.Seq
	}
	slices.SortStableFunc(e.Audit, func(a, b audit.Record) int {
		if order := strings.Compare(a.Member, b.Member); order != 0 {
			return order
		}
		return int(a.Seq - b.Seq)
	})
	return nil
}

// exportEnd is when nothing about the request happens any more: a while after its end, or
// after that of its last session.
func (c *Call) exportEnd(e *evidence.Export, asked grant.Request) time.Time {
	end := asked.EndedAt
	for _, s := range e.Session {
		if s.Ended.IsZero() {
			return c.Origin.Time
		}
		if s.Ended.After(end) {
			end = s.Ended
		}
	}
	if end.IsZero() || asked.Review != nil {
		return c.Origin.Time
	}
	return end.Add(time.Minute)
}

// concerns reports whether an audit record is about a request.
func concerns(r audit.Record, request string) bool {
	if r.Details["request"] == request || r.Details["grant"] == request || strings.Contains(r.Reason, "(grant "+request+")") {
		return true
	}
	return slices.ContainsFunc(r.Resources, func(arn string) bool { return strings.HasSuffix(arn, ":request/"+request) })
}
