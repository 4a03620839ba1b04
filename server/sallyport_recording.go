package server

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/archive"
	"sallyport.dev/archive/custody"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/policy"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// Recordings as things of their own: what there is, how long it is kept, who may delete
// it. Reading one is the session's affair (GetRecording, WatchSession).
//
// They are arn:aws:sallyport:REGION:ACCOUNT:recording/SESSION. Whose session it was may
// list, see and verify the recording; deleting and holding need a policy from everybody.

func recordingOperations() []*Operation {
	return []*Operation{
		op("sallyport", "ListRecordings", nil, listRecordings, checksItself),
		op("sallyport", "GetRecordingInfo", nil, getRecordingInfo, checksItself),
		op("sallyport", "VerifyRecording", nil, verifyRecording, checksItself),
		op("sallyport", "DeleteRecording", nil, deleteRecording, checksItself),
		op("sallyport", "HoldRecording", nil, holdRecording, checksItself),
		op("sallyport", "ReleaseRecordingHold", nil, releaseRecordingHold, checksItself),
		op("sallyport", "ListRecordingHolds", nil, listRecordingHolds, checksItself),
		op("sallyport", "RewrapRecordings", nil, rewrapRecordings, checksItself),
	}
}

type listedRecording struct {
	SessionID      string    `json:"SessionId"`
	Recording      string    `json:"Recording"`
	NodeID         string    `json:"NodeId"`
	NodeName       string    `json:"NodeName,omitempty"`
	Owner          string    `json:"Owner"`
	Document       string    `json:"Document,omitempty"`
	State          string    `json:"State"` // spooled, stored, deleted
	Started        wire.Time `json:"Started,omitzero"`
	Ended          wire.Time `json:"Ended,omitzero"`
	EndReason      string    `json:"EndReason,omitempty"`
	Size           int64     `json:"Size,omitempty"` // bytes, plain
	SHA256         string    `json:"Sha256,omitempty"`
	ManifestSHA256 string    `json:"ManifestSha256,omitempty"`
	KeyID          string    `json:"KeyId,omitempty"`
	Member         string    `json:"Member,omitempty"` // in whose spool it is, if it is spooled
	DeleteAfter    wire.Time `json:"DeleteAfter,omitzero"`
	DeletedAt      wire.Time `json:"DeletedAt,omitzero"`
	DeletedBy      string    `json:"DeletedBy,omitempty"`
	DeleteReason   string    `json:"DeleteReason,omitempty"`
	Held           bool      `json:"Held,omitempty"`
}

type listRecordingsInput struct {
	NodeID     string    `json:"NodeId" check:"max=64"`
	Owner      string    `json:"Owner" check:"max=2048"`
	State      string    `json:"State" check:"enum=|spooled|stored|deleted"`
	KeyID      string    `json:"KeyId" check:"max=2048"`
	Since      wire.Time `json:"Since"`
	Until      wire.Time `json:"Until"`
	MaxResults int       `json:"MaxResults,omitempty" check:"min=1,max=200"`
	NextToken  string    `json:"NextToken" check:"max=1024"`
}

type listRecordingsOutput struct {
	Recordings []listedRecording `json:"Recordings"`
	NextToken  string            `json:"NextToken,omitempty"`
}

const (
	recordingsPage = 50
	// recordingsScan bounds how many recordings one call looks at for a page: of those
	// whom little is shown a page may be empty, and have another behind it.
	recordingsScan = 500
)

// listRecordings lists the recordings that the caller may list: each is decided by itself,
// so that tags and owners count.
func listRecordings(ctx context.Context, c *Call, in *listRecordingsInput) (*listRecordingsOutput, error) {
	if err := c.once("", func() error { return c.CheckOwn(ctx, access.Resource{ARN: "*"}) }); err != nil {
		return nil, err
	}
	out := &listRecordingsOutput{Recordings: []listedRecording{}}
	keeper := c.Server.config.Custody
	if keeper == nil {
		return out, nil
	}
	after, err := c.openSealedToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	rows, err := keeper.Recordings(ctx, archive.RowFilter{
		Node: in.NodeID, Principal: in.Owner, State: archive.State(in.State), KeyID: in.KeyID,
		StartedAfter: in.Since.Time, StartedBefore: in.Until.Time, After: after, Limit: recordingsScan,
	})
	if err != nil {
		return nil, err
	}
	limit := in.MaxResults
	if limit == 0 {
		limit = recordingsPage
	}
	for _, row := range rows {
		if len(out.Recordings) == limit {
			break
		}
		after = row.Name
		if err := c.listRecording(ctx, row, out); err != nil {
			return nil, err
		}
	}
	if len(rows) > 0 && (after != rows[len(rows)-1].Name || len(rows) == recordingsScan) {
		out.NextToken = c.sealedToken(after)
	}
	return out, nil
}

// listRecording adds a recording to a listing if the caller may see it there.
func (c *Call) listRecording(ctx context.Context, row archive.Row, out *listRecordingsOutput) error {
	v, resource, err := c.recordingResource(ctx, row)
	if err != nil {
		return err
	}
	may, err := c.allowsOwn(ctx, mayRead(c.Principal, v), resource)
	if err != nil || !may {
		return err
	}
	holds, err := c.Server.config.Custody.HoldsOn(ctx, row)
	if err != nil {
		return err
	}
	listed := recordingOf(row)
	listed.Held = len(holds) > 0
	if listed.DeleteAfter.Time, _, err = c.Server.config.Custody.Until(ctx, row); err != nil {
		return err
	}
	out.Recordings = append(out.Recordings, listed)
	return nil
}

// allowsOwn reports whether the caller may do the operation's action: what is their own
// unless it is denied explicitly.
func (c *Call) allowsOwn(ctx context.Context, own bool, resource access.Resource) (bool, error) {
	return c.allowsAction(ctx, c.Operation.Action, own, resource)
}

// maySeeRecording reports whether the caller may see what is known of a recording.
func (c *Call) maySeeRecording(ctx context.Context, row archive.Row) (bool, error) {
	v, resource, err := c.recordingResource(ctx, row)
	if err != nil {
		return false, err
	}
	return c.allowsAction(ctx, "sallyport:GetRecordingInfo", mayRead(c.Principal, v), resource)
}

func (c *Call) allowsAction(ctx context.Context, action string, own bool, resource access.Resource) (bool, error) {
	d, err := c.Server.checker.Decide(ctx, c.query(action, []access.Resource{resource}))
	if err != nil {
		return false, err
	}
	return d.Allowed || own && d.Policy.Effect != policy.ExplicitlyDenied, nil
}

func recordingOf(row archive.Row) listedRecording {
	listed := listedRecording{
		SessionID: row.Session, Recording: row.Name, NodeID: row.Node, NodeName: row.NodeName, Owner: row.Principal,
		Document: row.Document, State: string(row.State), Started: wire.Time{Time: row.Started}, Ended: wire.Time{Time: row.Ended},
		EndReason: row.EndReason, Size: row.Size, SHA256: row.SHA256, ManifestSHA256: row.Manifest, KeyID: row.KeyID,
		DeletedAt: wire.Time{Time: row.DeletedAt}, DeletedBy: row.DeletedBy, DeleteReason: row.DeleteReason,
	}
	if row.State == archive.Spooled {
		listed.Member = row.Member
	}
	return listed
}

// sealedToken makes a token that continues after a key which the caller may not see. It is
// good for the operation alone, and for what the call is about.
func (c *Call) sealedToken(key string, about ...string) string {
	return base64.RawURLEncoding.EncodeToString(c.Server.config.Sealer.Seal(purposePage, padded(key), c.tokenContext(about)))
}

const purposePage = "page-token"

func (c *Call) tokenContext(about []string) []byte {
	return []byte(strings.Join(append([]string{c.Operation.Name}, about...), "\n"))
}

func (c *Call) openSealedToken(token string, about ...string) (string, error) {
	if token == "" {
		return "", nil
	}
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", c.badToken()
	}
	key, err := c.Server.config.Sealer.Open(purposePage, sealed, c.tokenContext(about))
	if err != nil {
		return "", c.badToken()
	}
	return unpadded(key), nil
}

// padded is what is sealed of a key which the caller may not see, unpadded the key again:
// the length of a token would tell that of the name of whose session it was.
func padded(key string) []byte {
	const step = 256
	b := make([]byte, (len(key)/step+1)*step)
	copy(b, key)
	return b
}

func unpadded(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// Condition keys of recordings, and of the sessions that they are of, beside the tags of
// the node.
const (
	keySessionOwner = "sallyport:SessionOwner" // ARN
	keyOwnerTag     = "sallyport:OwnerTag/"    // of the person who is behind the session, when it began
	keyRecordingAge = "sallyport:RecordingAge" // days since the session began
)

// recordingResource is a recording as policies see it, with its session.
func (c *Call) recordingResource(ctx context.Context, row archive.Row) (session.Session, access.Resource, error) {
	v, err := c.Server.config.Sessions.Session(ctx, row.Session)
	if errors.Is(err, session.ErrNotFound) {
		v, err = session.Session{
			ID: row.Session, NodeID: row.Node, Document: row.Document, Owner: row.Principal, Started: row.Started, Recording: row.Name,
		}, nil
	}
	if err != nil {
		return v, access.Resource{}, err
	}
	resource, err := c.sessionResource(ctx, v)
	resource.ARN = c.Server.config.Realm.Own("recording", row.Session)
	return v, resource, err
}

// evidenceKeys are the condition keys of a session and its recording, and the tags that
// its node bore then.
func (c *Call) evidenceKeys(ctx context.Context, v session.Session) (map[string][]string, identity.Tags, error) {
	keys := map[string][]string{
		access.KeyNodeID: {v.NodeID}, keySessionOwner: {v.Owner},
		keyRecordingAge: {strconv.Itoa(int(c.Server.config.Now().Sub(v.Started) / (24 * time.Hour)))},
	}
	if v.Document != "" {
		keys[access.KeyDocumentName] = []string{v.Document}
	}
	keeper := c.Server.config.Custody
	if keeper == nil || v.Recording == "" {
		return keys, nil, nil
	}
	state, err := keeper.State(ctx, v.Recording)
	for key := range state.OwnerTags {
		keys[keyOwnerTag+key] = state.OwnerTags.Values(key)
	}
	return keys, state.NodeTags, err
}

// recordingOfSession finds the recording of a session; ok is false where there is none.
func (c *Call) recordingOfSession(ctx context.Context, id string) (row archive.Row, ok bool, err error) {
	keeper := c.Server.config.Custody
	if keeper == nil {
		return row, false, nil
	}
	rows, err := keeper.Recordings(ctx, archive.RowFilter{Session: id, Limit: 1})
	if err != nil || len(rows) == 0 {
		return row, false, err
	}
	return rows[0], true, nil
}

// checkRecording finds a session's recording and checks the operation's action on it. With
// own, whose session it was needs no policy.
func (c *Call) checkRecording(ctx context.Context, id string, own bool) (archive.Row, error) {
	row, ok, err := c.recordingOfSession(ctx, id)
	if err != nil {
		return row, err
	}
	if !ok {
		if err := c.Check(ctx, access.Resource{ARN: c.Server.config.Realm.Own("recording", id)}); err != nil {
			return row, err
		}
		return row, exception("DoesNotExistException", "There is no recording of session %q.", id)
	}
	v, resource, err := c.recordingResource(ctx, row)
	if err != nil {
		return row, err
	}
	c.Session, c.Node, c.Document = row.Session, row.Node, row.Document
	if own && mayRead(c.Principal, v) {
		return row, c.CheckOwn(ctx, resource)
	}
	return row, c.Check(ctx, resource)
}

type recordingInput struct {
	SessionID string `json:"SessionId" check:"required,min=1,max=96,pattern=[ -~]*"`
}

type getRecordingInfoOutput struct {
	Recording     listedRecording `json:"Recording"`
	RetentionRule string          `json:"RetentionRule,omitempty"`
	NodeTags      identity.Tags   `json:"NodeTags,omitempty"` // when the session began
	OwnerTags     identity.Tags   `json:"OwnerTags,omitempty"`
	// Holds are for those who may list them; others see Held.
	Holds []listedHold `json:"Holds,omitempty"`
	// PurgedAt is when nothing was left of a deleted recording, and PurgeProblem why
	// something is.
	PurgedAt     wire.Time `json:"PurgedAt,omitzero"`
	PurgeProblem string    `json:"PurgeProblem,omitempty"`
}

// getRecordingInfo tells what is known of a recording, but not what it shows.
func getRecordingInfo(ctx context.Context, c *Call, in *recordingInput) (*getRecordingInfoOutput, error) {
	row, err := c.checkRecording(ctx, in.SessionID, true)
	if err != nil {
		return nil, err
	}
	keeper := c.Server.config.Custody
	state, err := keeper.State(ctx, row.Name)
	if err != nil {
		return nil, err
	}
	holds, err := keeper.HoldsOn(ctx, row)
	if err != nil {
		return nil, err
	}
	until, rule, err := keeper.Until(ctx, row)
	if err != nil {
		return nil, err
	}
	out := &getRecordingInfoOutput{
		Recording: recordingOf(row), RetentionRule: rule, NodeTags: state.NodeTags, OwnerTags: state.OwnerTags,
		PurgedAt: wire.Time{Time: state.Purged}, PurgeProblem: state.Problem,
	}
	out.Recording.Held, out.Recording.DeleteAfter.Time = len(holds) > 0, until
	may, err := c.mayListHolds(ctx)
	if err != nil || !may {
		return out, err
	}
	for _, h := range holds {
		out.Holds = append(out.Holds, holdOf(h))
	}
	return out, nil
}

// mayListHolds reports whether the caller may know who holds what and why. Whose session it
// was learns that its recording is held, and nothing of what goes on about them.
func (c *Call) mayListHolds(ctx context.Context) (bool, error) {
	d, err := c.Server.checker.Decide(ctx, c.query("sallyport:ListRecordingHolds", []access.Resource{{ARN: "*"}}))
	return d.Allowed, err
}

type deleteRecordingInput struct {
	SessionID string `json:"SessionId" check:"required,min=1,max=96,pattern=[ -~]*"`
	Reason    string `json:"Reason" check:"required,min=1,max=500"`
}

type deleteRecordingOutput struct {
	Recording string `json:"Recording"`
	// PurgeProblem says that the recording is deleted, but that the store still has
	// something of it, and why.
	PurgeProblem string `json:"PurgeProblem,omitempty"`
}

func deleteRecording(ctx context.Context, c *Call, in *deleteRecordingInput) (*deleteRecordingOutput, error) {
	if err := sensible("Reason", in.Reason); err != nil {
		return nil, err
	}
	row, err := c.checkRecording(ctx, in.SessionID, false)
	if err != nil {
		return nil, err
	}
	out := &deleteRecordingOutput{Recording: row.Name}
	err = c.Server.config.Custody.Delete(ctx, custody.Deletion{Name: row.Name, By: c.Principal.ARN, Reason: in.Reason})
	left := (*custody.PurgeError)(nil)
	if errors.As(err, &left) {
		out.PurgeProblem = left.Cause.Error()
		return out, nil
	}
	if err != nil {
		return nil, custodyException(err)
	}
	return out, nil
}

// sensible refuses reasons that say nothing.
func sensible(member, text string) error {
	if strings.TrimSpace(text) == "" {
		return exception("ValidationException", "%s must say something.", member)
	}
	return nil
}

// custodyException turns custody's refusals into what the client sees.
func custodyException(err error) error {
	held := (*custody.HeldError)(nil)
	switch {
	case errors.As(err, &held):
		return exception("ConflictException", "%s", sentence(held))
	case errors.Is(err, custody.ErrNoHold):
		return exception("DoesNotExistException", "There is no such hold.")
	case errors.Is(err, custody.ErrTooMany):
		return exception("LimitExceededException", "There are too many holds; release some first.")
	}
	for _, conflict := range []error{custody.ErrDeleted, custody.ErrUnstored, custody.ErrBusy, custody.ErrReleased} {
		if errors.Is(err, conflict) {
			return exception("ConflictException", "%s", sentence(conflict))
		}
	}
	return err
}

type listedHold struct {
	HoldID        string    `json:"HoldId"`
	Of            string    `json:"Of"` // session, person, node, request
	Value         string    `json:"Value"`
	Reason        string    `json:"Reason"`
	HeldBy        string    `json:"HeldBy"`
	HeldAt        wire.Time `json:"HeldAt"`
	ReleasedBy    string    `json:"ReleasedBy,omitempty"`
	ReleaseReason string    `json:"ReleaseReason,omitempty"`
	ReleasedAt    wire.Time `json:"ReleasedAt,omitzero"`
}

func holdOf(h custody.Hold) listedHold {
	return listedHold{
		HoldID: h.ID, Of: string(h.Subject.Kind), Value: h.Subject.Value, Reason: h.Reason, HeldBy: h.By, HeldAt: wire.Time{Time: h.At},
		ReleasedBy: h.ReleasedBy, ReleaseReason: h.ReleaseReason, ReleasedAt: wire.Time{Time: h.ReleasedAt},
	}
}

type holdRecordingInput struct {
	SessionID string `json:"SessionId" check:"max=96,pattern=[ -~]*"`
	Owner     string `json:"Owner" check:"max=2048,pattern=[ -~]*"` // a user's name, or an ARN
	NodeID    string `json:"NodeId" check:"max=64,pattern=[A-Za-z0-9_.-]*"`
	RequestID string `json:"RequestId" check:"max=96,pattern=[A-Za-z0-9_.-]*"`
	Reason    string `json:"Reason" check:"required,min=1,max=500"`
}

type holdRecordingOutput struct {
	HoldID     string `json:"HoldId"`
	Recordings int64  `json:"Recordings"` // that the hold is on now
}

func (o *holdRecordingOutput) made() string { return o.HoldID }

// holdRecording keeps a recording, or all of a person, node or request, from being
// deleted. What is to be held is authorised as itself.
func holdRecording(ctx context.Context, c *Call, in *holdRecordingInput) (*holdRecordingOutput, error) {
	if err := sensible("Reason", in.Reason); err != nil {
		return nil, err
	}
	h, err := c.toHold(ctx, in)
	if err != nil {
		return nil, err
	}
	keeper := c.Server.config.Custody
	if keeper == nil {
		return nil, exception("ValidationException", "This server keeps no recordings.")
	}
	h.Reason, h.By = in.Reason, c.Principal.ARN
	h, n, err := keeper.Hold(ctx, h)
	if err != nil {
		return nil, custodyException(err)
	}
	return &holdRecordingOutput{HoldID: h.ID, Recordings: n}, nil
}

// toHold finds and authorises what is to be held, which exactly one member names.
func (c *Call) toHold(ctx context.Context, in *holdRecordingInput) (h custody.Hold, err error) {
	given := 0
	for _, v := range []string{in.SessionID, in.Owner, in.NodeID, in.RequestID} {
		if v != "" {
			given++
		}
	}
	switch {
	case given != 1:
		if err := c.Check(ctx, access.Resource{ARN: "*"}); err != nil {
			return h, err
		}
		return h, exception("ValidationException", "Give one of SessionId, Owner, NodeId and RequestId.")
	case in.SessionID != "":
		_, err = c.checkRecording(ctx, in.SessionID, false)
		h.Subject = custody.Subject{Kind: custody.OfSession, Value: in.SessionID}
	case in.Owner != "":
		return c.personToHold(ctx, in.Owner)
	case in.NodeID != "":
		err = c.nodeToHold(ctx, in.NodeID)
		h.Subject = custody.Subject{Kind: custody.OfNode, Value: in.NodeID}
	default:
		err = c.requestToHold(ctx, in.RequestID)
		h.Subject = custody.Subject{Kind: custody.OfRequest, Value: in.RequestID}
	}
	return h, err
}

// personToHold takes a user by name or ARN, with their unique id: what they did as a role
// is theirs as well. Of ARNs that are no user's now, those of recordings are taken.
func (c *Call) personToHold(ctx context.Context, owner string) (custody.Hold, error) {
	h := custody.Hold{Subject: custody.Subject{Kind: custody.OfPerson, Value: owner}}
	name := owner
	if strings.HasPrefix(owner, "arn:") {
		name = owner[strings.LastIndexByte(owner, '/')+1:]
	}
	user, err := c.Server.config.Identities.User(ctx, name)
	resource := c.Server.userResource(name, user)
	if errors.Is(err, identity.ErrNotFound) || err == nil && name != owner && resource.ARN != owner {
		user, err = identity.User{}, nil
		if name != owner {
			resource = access.Resource{ARN: owner}
		}
	}
	if err != nil {
		return h, err
	}
	if err := c.Check(ctx, resource); err != nil {
		return h, err
	}
	h.Also, h.Subject.Value = user.ID, resource.ARN
	if user.ID == "" {
		return h, c.mustHave(ctx, archive.RowFilter{Principal: resource.ARN}, "user or recording of "+owner)
	}
	return h, nil
}

// mustHave refuses to hold what there is nothing of, which may be a mistake in a name.
func (c *Call) mustHave(ctx context.Context, f archive.RowFilter, what string) error {
	if c.Server.config.Custody == nil {
		return nil
	}
	f.Limit = 1
	rows, err := c.Server.config.Custody.Recordings(ctx, f)
	if err == nil && len(rows) == 0 {
		return exception("DoesNotExistException", "There is no %s.", truncate(what, 200))
	}
	return err
}

func (c *Call) nodeToHold(ctx context.Context, id string) error {
	n, err := c.Server.config.Nodes.Node(ctx, id)
	gone := errors.Is(err, node.ErrNotFound)
	if gone {
		n, err = node.Node{ID: id}, nil
	}
	if err != nil {
		return err
	}
	c.Node = id
	if err := c.Check(ctx, c.Server.nodeResource(n)); err != nil {
		return err
	}
	if gone {
		return c.mustHave(ctx, archive.RowFilter{Node: id}, "node or recording of "+id)
	}
	return nil
}

func (c *Call) requestToHold(ctx context.Context, id string) error {
	if err := c.Check(ctx, access.Resource{ARN: c.Server.config.Realm.Own("request", id)}); err != nil {
		return err
	}
	if c.Server.access == nil {
		return exception("DoesNotExistException", "There is no request %q.", id)
	}
	_, err := c.Server.access.Request(ctx, id)
	if errors.Is(err, grant.ErrNotFound) {
		return exception("DoesNotExistException", "There is no request %q.", id)
	}
	return err
}

type releaseRecordingHoldInput struct {
	HoldID string `json:"HoldId" check:"required,min=1,max=64,pattern=[a-z0-9-]*"`
	Reason string `json:"Reason" check:"required,min=1,max=500"`
}

type releaseRecordingHoldOutput struct {
	Hold listedHold `json:"Hold"`
}

func releaseRecordingHold(ctx context.Context, c *Call, in *releaseRecordingHoldInput) (*releaseRecordingHoldOutput, error) {
	if err := sensible("Reason", in.Reason); err != nil {
		return nil, err
	}
	if err := c.Check(ctx, access.Resource{ARN: c.Server.config.Realm.Own("recording-hold", in.HoldID)}); err != nil {
		return nil, err
	}
	keeper := c.Server.config.Custody
	if keeper == nil {
		return nil, custodyException(custody.ErrNoHold)
	}
	h, err := keeper.Release(ctx, in.HoldID, c.Principal.ARN, in.Reason)
	if err != nil {
		return nil, custodyException(err)
	}
	return &releaseRecordingHoldOutput{Hold: holdOf(h)}, nil
}

type listRecordingHoldsInput struct {
	Released   bool   `json:"Released"` // those that were released, too
	MaxResults int    `json:"MaxResults,omitempty" check:"min=1,max=200"`
	NextToken  string `json:"NextToken" check:"max=512"`
}

type listRecordingHoldsOutput struct {
	Holds     []listedHold `json:"Holds"`
	NextToken string       `json:"NextToken,omitempty"`
}

func listRecordingHolds(ctx context.Context, c *Call, in *listRecordingHoldsInput) (*listRecordingHoldsOutput, error) {
	if err := c.once("", func() error { return c.Check(ctx, access.Resource{ARN: "*"}) }); err != nil {
		return nil, err
	}
	out := &listRecordingHoldsOutput{Holds: []listedHold{}}
	if c.Server.config.Custody == nil {
		return out, nil
	}
	p := pages[custody.Hold]{
		size: recordingsPage,
		fetch: func(after string, n int) ([]custody.Hold, error) {
			return c.Server.config.Custody.Holds(ctx, custody.HoldFilter{Active: !in.Released, After: after, Limit: n})
		},
		key: func(h custody.Hold) string { return h.ID },
	}
	holds, next, err := p.page(c, in.NextToken, in.MaxResults)
	for _, h := range holds {
		out.Holds = append(out.Holds, holdOf(h))
	}
	out.NextToken = next
	return out, err
}

type rewrapRecordingsInput struct {
	FromKeyID  string `json:"FromKeyId" check:"max=2048"`
	MaxResults int    `json:"MaxResults,omitempty" check:"min=1,max=100"`
	NextToken  string `json:"NextToken" check:"max=1024"`
}

type rewrapRecordingsOutput struct {
	KeyID     string         `json:"KeyId"` // that they are wrapped with now
	Rewrapped int            `json:"Rewrapped"`
	Failed    []notRewrapped `json:"Failed,omitempty"`
	NextToken string         `json:"NextToken,omitempty"`
}

type notRewrapped struct {
	Recording string `json:"Recording"`
	Error     string `json:"Error"`
}

const rewrapPage = 25

// rewrapRecordings wraps the keys of some recordings anew with the key that is configured.
// Recordings that are not in the store yet come with a later call.
func rewrapRecordings(ctx context.Context, c *Call, in *rewrapRecordingsInput) (*rewrapRecordingsOutput, error) {
	if err := c.Check(ctx, access.Resource{ARN: "*"}); err != nil {
		return nil, err
	}
	keeper := c.Server.config.Custody
	if keeper == nil {
		return nil, exception("ValidationException", "This server keeps no recordings.")
	}
	if in.FromKeyID != "" && !keeper.Has(in.FromKeyID) {
		return nil, exception("ValidationException", "The key %q is not configured: add its URL to old_keys of the block recordings.", truncate(in.FromKeyID, 200))
	}
	after, err := c.openSealedToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	w := custody.Rewrapping{From: in.FromKeyID, After: after, Limit: in.MaxResults}
	if w.Limit == 0 {
		w.Limit = rewrapPage
	}
	done, err := keeper.Rewrap(ctx, w)
	if err != nil {
		return nil, err
	}
	out := &rewrapRecordingsOutput{KeyID: keeper.KeyID(), Rewrapped: done.Done}
	for _, name := range slices.Sorted(maps.Keys(done.Failed)) {
		out.Failed = append(out.Failed, notRewrapped{name, done.Failed[name]})
	}
	if done.Next != "" {
		out.NextToken = c.sealedToken(done.Next)
	}
	return out, nil
}
