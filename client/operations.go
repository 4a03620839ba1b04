package client

import (
	"context"

	"sallyport.dev/audit"
	"sallyport.dev/wire"
)

// Time is a moment as JSON 1.1 carries it.
type Time = wire.Time

// Node is a machine as ListNodes tells of it.
type Node struct {
	NodeID string `json:"NodeId"`
	Name   string `json:"Name,omitempty"`
	// NameReported tells that Name is only what the node calls itself.
	NameReported    bool              `json:"NameReported,omitempty"`
	State           string            `json:"State"` // connected or notconnected
	Tags            map[string]string `json:"Tags,omitempty"`
	PlatformType    string            `json:"PlatformType,omitempty"`
	PlatformName    string            `json:"PlatformName,omitempty"`
	PlatformVersion string            `json:"PlatformVersion,omitempty"`
	AgentName       string            `json:"AgentName,omitempty"`
	AgentVersion    string            `json:"AgentVersion,omitempty"`
	ComputerName    string            `json:"ComputerName,omitempty"`
	IPAddress       string            `json:"IPAddress,omitempty"`
	Member          string            `json:"Member,omitempty"`
	LastPing        Time              `json:"LastPing,omitzero"`
	// MayConnect tells whether the caller may start a shell session; Reason says
	// why not. MayConnect is nil where the server does not tell (AWS).
	MayConnect *bool  `json:"MayConnect,omitempty"`
	Reason     string `json:"Reason,omitempty"`
	// MayStart tells whether the caller's policies may allow some session: where
	// MayConnect is false, a forward or another document.
	MayStart bool `json:"MayStart,omitempty"`
	// MayAsk tells that a flow which the caller may ask would give some session there.
	MayAsk bool `json:"MayAsk,omitempty"`
}

// StateConnected is the State of a node that sessions can be started on.
const StateConnected = "connected"

// Connected reports whether the node's agent is connected.
func (n Node) Connected() bool { return n.State == StateConnected }

// Filter selects by a key any of whose values may match. Keys of ListNodes: NodeId,
// Name, State, tag:KEY and Text (a substring of id, name or a tag value).
type Filter struct {
	Key    string   `json:"Key"`
	Values []string `json:"Values"`
}

// ListNodesInput asks for the nodes that the caller may see, in the order of their ids.
type ListNodesInput struct {
	Filters    []Filter `json:"Filters,omitempty"`
	MaxResults int      `json:"MaxResults,omitempty"`
	NextToken  string   `json:"NextToken,omitempty"`
}

// ListNodesOutput is one page of nodes.
type ListNodesOutput struct {
	Nodes     []Node `json:"Nodes"`
	NextToken string `json:"NextToken,omitempty"`
}

// Session is one session as ListSessions and GetSession tell of it.
type Session struct {
	SessionID   string `json:"SessionId"`
	NodeID      string `json:"NodeId"`
	NodeName    string `json:"NodeName,omitempty"`
	Target      string `json:"Target,omitempty"`
	Document    string `json:"Document,omitempty"`
	SessionType string `json:"SessionType,omitempty"`
	Owner       string `json:"Owner,omitempty"` // ARN
	Reason      string `json:"Reason,omitempty"`
	SourceIP    string `json:"SourceIp,omitempty"`
	RunAs       string `json:"RunAs,omitempty"`
	State       string `json:"State"`
	Started     Time   `json:"Started,omitzero"`
	Ended       Time   `json:"Ended,omitzero"`
	EndReason   string `json:"EndReason,omitempty"`
	ExitStatus  *int   `json:"ExitStatus,omitempty"`
	Member      string `json:"Member,omitempty"`
	Recorded    bool   `json:"Recorded,omitempty"`
	BytesIn     int64  `json:"BytesIn,omitempty"`
	BytesOut    int64  `json:"BytesOut,omitempty"`
	// Encryption is recorded or unrecorded for a session that client and node encrypted
	// between them, else empty.
	Encryption string `json:"Encryption,omitempty"`
}

// ListSessionsInput asks for sessions, newest first. State is Active, History or
// empty for both.
type ListSessionsInput struct {
	State      string `json:"State,omitempty"`
	NodeID     string `json:"NodeId,omitempty"`
	Owner      string `json:"Owner,omitempty"` // ARN
	Since      Time   `json:"Since,omitzero"`  // started at or after
	Until      Time   `json:"Until,omitzero"`  // started before
	MaxResults int    `json:"MaxResults,omitempty"`
	NextToken  string `json:"NextToken,omitempty"`
}

// ListSessionsOutput is one page of sessions.
type ListSessionsOutput struct {
	Sessions  []Session `json:"Sessions"`
	NextToken string    `json:"NextToken,omitempty"`
}

// GetSessionInput names one session.
type GetSessionInput struct {
	SessionID string `json:"SessionId"`
}

// GetSessionOutput tells of it.
type GetSessionOutput struct {
	Session Session `json:"Session"`
}

// GetRecordingInput asks for a piece of a recording from a byte offset.
type GetRecordingInput struct {
	SessionID string `json:"SessionId"`
	Offset    int64  `json:"Offset"`
}

// GetRecordingOutput is that piece. Done says that the recording is complete and
// NextOffset its length; until then more may come.
type GetRecordingOutput struct {
	Data       []byte `json:"Data"`
	NextOffset int64  `json:"NextOffset"`
	Done       bool   `json:"Done"`
}

// QueryAuditInput selects audit records, in order of time. Empty members do not
// select. Principal is part of an ARN, Action may hold * and ?. Newest asks for the
// newest MaxResults records instead of the oldest.
type QueryAuditInput struct {
	Since      Time   `json:"Since,omitzero"`
	Until      Time   `json:"Until,omitzero"`
	Event      string `json:"Event,omitempty"`
	Principal  string `json:"Principal,omitempty"`
	Action     string `json:"Action,omitempty"`
	NodeID     string `json:"NodeId,omitempty"`
	SessionID  string `json:"SessionId,omitempty"`
	Decision   string `json:"Decision,omitempty"`
	Newest     bool   `json:"Newest,omitempty"`
	MaxResults int    `json:"MaxResults,omitempty"`
	NextToken  string `json:"NextToken,omitempty"`
}

// QueryAuditOutput is one page of records. NextToken is also set on the last page
// when following: asking again with it answers what came since.
type QueryAuditOutput struct {
	Records   []audit.Record `json:"Records"`
	NextToken string         `json:"NextToken,omitempty"`
	More      bool           `json:"More,omitempty"` // there is another page already
}

// ExplainAccessInput asks why Principal may or may not do Action on Node, with Document
// where the action takes one, or on Resource, an ARN. Principal is an ARN or what of it
// follows the account (user/alice, role/NAME, assumed-role/NAME/SESSION), a user's or a
// role's name, or empty for the caller. Without a resource it is *.
type ExplainAccessInput struct {
	Principal string `json:"Principal,omitempty"`
	Action    string `json:"Action"`
	NodeID    string `json:"NodeId,omitempty"`
	Document  string `json:"Document,omitempty"`
	Resource  string `json:"Resource,omitempty"`
	// Parameters of the document and RunAs, a login, for ssm:StartSession.
	Parameters map[string][]string `json:"Parameters,omitempty"`
	RunAs      string              `json:"RunAs,omitempty"`
}

// ExplainAccessOutput is the answer, one part per resource that is checked.
type ExplainAccessOutput struct {
	Principal string              `json:"Principal"` // ARN
	Action    string              `json:"Action"`
	NodeID    string              `json:"NodeId"`
	Document  string              `json:"Document,omitempty"`
	Decision  string              `json:"Decision"` // Allowed, ExplicitlyDenied, ImplicitlyDenied
	Message   string              `json:"Message,omitempty"`
	Resources []ExplainedResource `json:"Resources"`
	// Start is what the session would be; nil unless one may be started.
	Start *ExplainedStart `json:"Start,omitempty"`
	// Requests are what the principal holds and has asked for, and what ended lately;
	// Flows what they may ask for that would allow it, where it is not allowed.
	Requests []AccessRequest `json:"Requests,omitempty"`
	Flows    []AccessFlow    `json:"Flows,omitempty"`
}

// ExplainedStart is what a session would be that policies allow to start.
type ExplainedStart struct {
	SessionType string `json:"SessionType,omitempty"`
	RunAs       string `json:"RunAs,omitempty"` // empty for the node's default
	Recorded    bool   `json:"Recorded"`
	Obstacle    string `json:"Obstacle,omitempty"` // what keeps it from starting all the same
}

// ExplainedResource is the decision on one resource, with every policy that applies
// to the principal and every statement in them (policy.Reason).
type ExplainedResource struct {
	Resource   string               `json:"Resource"` // ARN
	Decision   string               `json:"Decision"`
	Message    string               `json:"Message,omitempty"` // as a refusal would be worded
	Sources    []string             `json:"Sources,omitempty"` // names of all policies that apply
	Statements []ExplainedStatement `json:"Statements,omitempty"`
}

// ExplainedStatement tells what one statement did, or why it does not apply.
type ExplainedStatement struct {
	Source    string           `json:"Source"` // inline policy access of group frontend
	Kind      string           `json:"Kind"`   // identity-based policy, permissions boundary, session policy, grant
	Sid       string           `json:"Sid,omitempty"`
	Statement int              `json:"Statement"` // from 1
	Effect    string           `json:"Effect"`    // Allow or Deny
	Matched   bool             `json:"Matched"`
	Hint      string           `json:"Hint,omitempty"` // what would make it apply
	Checks    []ExplainedCheck `json:"Checks,omitempty"`
}

// ExplainedCheck is one element of a statement with both its values.
type ExplainedCheck struct {
	Element  string   `json:"Element"` // Action, Resource, Condition, …
	Operator string   `json:"Operator,omitempty"`
	Key      string   `json:"Key,omitempty"`
	Policy   []string `json:"Policy,omitempty"`  // as the policy says, variables filled in
	Request  []string `json:"Request,omitempty"` // as the request has it
	Absent   bool     `json:"Absent,omitempty"`  // the request has no such key
	Held     bool     `json:"Held"`
}

// GetStatusOutput tells of the server and of the caller.
type GetStatusOutput struct {
	Version   string         `json:"Version"`
	Member    string         `json:"Member"`
	Members   []StatusMember `json:"Members,omitempty"`
	Account   string         `json:"Account"`
	Region    string         `json:"Region"`
	Principal string         `json:"Principal"` // ARN
	UserID    string         `json:"UserId"`
	// Tags are the caller's, of the user or of the role and its session.
	Tags map[string]string `json:"Tags,omitempty"`
	// Menu and TagRules are how the organisation finds and tags its nodes.
	Menu           []MenuDimension `json:"Menu,omitempty"`
	TagRules       []TagRule       `json:"TagRules,omitempty"`
	Nodes          int             `json:"Nodes"`
	NodesConnected int             `json:"NodesConnected"`
	ActiveSessions int             `json:"ActiveSessions"`
	Started        Time            `json:"Started,omitzero"`
}

// MenuDimension is one step of the menu by which people find nodes: a tag key, what the
// step is called, what nodes without the tag are found under, and values that come first.
type MenuDimension struct {
	Key     string   `json:"Key"`
	Title   string   `json:"Title,omitempty"`
	Missing string   `json:"Missing,omitempty"`
	Order   []string `json:"Order,omitempty"`
}

// TagRule says what a tag of nodes has to be like: whether it must be there, which values
// are allowed, and a regular expression for them.
type TagRule struct {
	Key      string   `json:"Key"`
	Required bool     `json:"Required,omitempty"`
	Values   []string `json:"Values,omitempty"`
	Pattern  string   `json:"Pattern,omitempty"`
}

// StatusMember is one member of the cluster.
type StatusMember struct {
	ID   string `json:"Id"`
	URL  string `json:"Url,omitempty"`
	Seen Time   `json:"Seen,omitzero"`
}

// UserInput names a user.
type UserInput struct {
	UserName string `json:"UserName"`
}

type empty struct{}

// ListNodes answers one page of nodes.
func (a *API) ListNodes(ctx context.Context, in ListNodesInput) (*ListNodesOutput, error) {
	return call[ListNodesOutput](ctx, a, "ListNodes", in)
}

// ListSessions answers one page of sessions.
func (a *API) ListSessions(ctx context.Context, in ListSessionsInput) (*ListSessionsOutput, error) {
	return call[ListSessionsOutput](ctx, a, "ListSessions", in)
}

// GetSession answers one session.
func (a *API) GetSession(ctx context.Context, id string) (*Session, error) {
	out, err := call[GetSessionOutput](ctx, a, "GetSession", GetSessionInput{SessionID: id})
	if err != nil {
		return nil, err
	}
	return &out.Session, nil
}

// GetRecording answers a piece of a recording.
func (a *API) GetRecording(ctx context.Context, in GetRecordingInput) (*GetRecordingOutput, error) {
	return call[GetRecordingOutput](ctx, a, "GetRecording", in)
}

// QueryAudit answers one page of audit records.
func (a *API) QueryAudit(ctx context.Context, in QueryAuditInput) (*QueryAuditOutput, error) {
	return call[QueryAuditOutput](ctx, a, "QueryAudit", in)
}

// ExplainAccess answers why something is allowed or not.
func (a *API) ExplainAccess(ctx context.Context, in ExplainAccessInput) (*ExplainAccessOutput, error) {
	return call[ExplainAccessOutput](ctx, a, "ExplainAccess", in)
}

// GetStatus answers how the server is and who the caller is.
func (a *API) GetStatus(ctx context.Context) (*GetStatusOutput, error) {
	return call[GetStatusOutput](ctx, a, "GetStatus", empty{})
}

// DisableUser stops a user from doing anything and ends the user's sessions.
func (a *API) DisableUser(ctx context.Context, name string) error {
	_, err := call[empty](ctx, a, "DisableUser", UserInput{UserName: name})
	return err
}

// EnableUser undoes DisableUser.
func (a *API) EnableUser(ctx context.Context, name string) error {
	_, err := call[empty](ctx, a, "EnableUser", UserInput{UserName: name})
	return err
}
