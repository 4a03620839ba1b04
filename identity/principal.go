package identity

import (
	"errors"
	"strings"
	"time"

	"sallyport.dev/internal/tags"
)

// Kind says what sort of caller a principal is.
type Kind string

// Kinds of principals.
const (
	KindUser Kind = "user" // a user with long-lived keys
	KindRole Kind = "role" // a role session, from AssumeRole
	KindNode Kind = "node" // a node's agent, with its role token or RSA key
)

// Principal is an authenticated caller.
type Principal struct {
	Kind Kind
	// ARN is what refusals name and what sts:GetCallerIdentity answers: the user's
	// ARN, the assumed-role ARN of a role session, the node's ARN.
	ARN string
	// PolicyARN is aws:PrincipalArn: the role's own ARN for a role session, ARN otherwise.
	PolicyARN string
	// UserID is aws:userid: AIDA…, AROA…:SESSION, or the node id.
	UserID string
	// Name is the user's or the role's name, or the node id.
	Name string
	// SessionName names a role session; empty otherwise.
	SessionName string
	// Tags are aws:PrincipalTag/…: the user's or role's tags overlaid by session tags.
	Tags Tags
	// AccessKeyID signed the request.
	AccessKeyID string
	// SessionPolicies are the inline session policies given to AssumeRole, as JSON;
	// SessionPolicyARNs name managed ones. Both only ever narrow.
	SessionPolicies   []string
	SessionPolicyARNs []string
	// MFA tells whether temporary credentials were issued with a second factor, and when.
	MFA   bool
	MFAAt time.Time
	// Factor is that second factor: totp or webauthn; empty for none.
	Factor string
	// SignIn and Granted are what the credentials come from, and end with (see Claims).
	SignIn  string
	Granted []GrantedRole
	// IssuedAt and ExpiresAt bound temporary credentials; zero for long-lived keys.
	IssuedAt  time.Time
	ExpiresAt time.Time
	// Source is the ARN of the principal that assumed the role; empty otherwise.
	Source string
	// Root is the unique id of the user who began the chain of roles; empty for users
	// themselves and nodes.
	Root string
	// RootARN is the ARN of that user, for the audit log.
	RootARN string
	// SourceIdentity was set when the first role of a chain was assumed; empty for none.
	SourceIdentity string
	// SessionTags are the session tags alone; those whose keys are in Transitive pass
	// on to the next role in a chain.
	SessionTags Tags
	Transitive  []string
	// Boundary is the ARN of the permissions boundary, empty for none.
	Boundary string
}

// Temporary reports whether the principal signed with temporary credentials.
func (p Principal) Temporary() bool { return !p.IssuedAt.IsZero() }

// IsNode reports whether the principal is a node's agent.
func (p Principal) IsNode() bool { return p.Kind == KindNode }

// RootID is the unique id of who is behind the principal: the user themselves, or the
// user who began the chain of roles. The name of a role session is for its caller to
// choose, so that UserID alone does not tell two people with the same role apart.
func (p Principal) RootID() string {
	if p.Root != "" {
		return p.Root
	}
	return p.UserID
}

// Claims are what temporary credentials of the principal say, or would say, of it. Those
// of a user with a long-lived key have no times.
func (p Principal) Claims() Claims {
	id, _, _ := strings.Cut(p.UserID, ":")
	return Claims{
		Kind: p.Kind, Name: p.Name, ID: id, SessionName: p.SessionName,
		Tags: p.SessionTags, Transitive: p.Transitive,
		Policies: p.SessionPolicies, PolicyARNs: p.SessionPolicyARNs,
		MFA: p.MFA, MFAAt: p.MFAAt, IssuedAt: p.IssuedAt, ExpiresAt: p.ExpiresAt,
		Source: p.Source, SourceIdentity: p.SourceIdentity, Root: p.Root,
		SignIn: p.SignIn, Granted: p.Granted, Factor: p.Factor,
	}
}

// SessionIDPrefix is what the ids of the principal's sessions start with: the
// user's name, or the role session's name.
func (p Principal) SessionIDPrefix() string {
	if p.SessionName != "" {
		return p.SessionName
	}
	return p.Name
}

// Tags are the tags of a principal, node or document.
type Tags = tags.Tags

// Errors of the domain. Store methods return them wrapped.
var (
	ErrNotFound = errors.New("no such entity")
	ErrExists   = errors.New("entity already exists")
	ErrConflict = errors.New("entity is in use")
	ErrLimit    = errors.New("limit exceeded")
)
