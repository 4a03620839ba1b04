package identity

import (
	"context"
	"time"
)

// User is a person or program with long-lived keys.
type User struct {
	Name     string
	ID       string // AIDA…
	Path     string // begins and ends with a slash
	Created  time.Time
	Tags     Tags
	Boundary string // ARN of the permissions boundary, or empty
	Disabled bool   // a disabled user's keys do not work
}

// Group is a set of users that share policies.
type Group struct {
	Name    string
	ID      string // AGPA…
	Path    string
	Created time.Time
}

// Role is an identity that others assume.
type Role struct {
	Name        string
	ID          string // AROA…
	Path        string
	Created     time.Time
	Description string
	Trust       string        // trust policy, JSON
	MaxDuration time.Duration // longest session, 1 to 12 hours
	Tags        Tags
	Boundary    string
}

// AccessKey is a long-lived key of a user. The secret is sealed with the master
// key (purpose "access-key", context the key id); it leaves the server only in
// the answer that creates it.
type AccessKey struct {
	ID       string // AKIA…
	User     string
	Sealed   []byte
	Active   bool
	Created  time.Time
	LastUsed time.Time
}

// SSHPublicKey is a public key that a user registered.
type SSHPublicKey struct {
	ID          string // APKA…
	User        string
	Body        string // authorized_keys form: type, base64, comment
	Fingerprint string // MD5 with colons, as IAM gives it
	Active      bool
	Uploaded    time.Time
}

// ManagedPolicy is a named policy with versions.
type ManagedPolicy struct {
	ARN            string
	Name           string
	ID             string // ANPA…
	Path           string
	Description    string
	DefaultVersion string // v1, v2, …
	Created        time.Time
	Updated        time.Time
	Tags           Tags
	Attachments    int // number of users, groups and roles that it is attached to
}

// PolicyVersion is one version of a managed policy; at most five are kept.
type PolicyVersion struct {
	PolicyARN string
	ID        string // v1, v2, …
	Document  string // JSON, as given
	Created   time.Time
	Default   bool
}

// OwnerKind says what a policy belongs to.
type OwnerKind string

// Kinds of policy owners.
const (
	OwnerUser  OwnerKind = "user"
	OwnerGroup OwnerKind = "group"
	OwnerRole  OwnerKind = "role"
)

// Owner is a user, group or role as the owner of policies.
type Owner struct {
	Kind OwnerKind
	Name string
}

// InlinePolicy is a policy embedded in its owner.
type InlinePolicy struct {
	Owner    Owner
	Name     string
	Document string
}

// Page asks for a page of a listing in name order: names after After, at most
// Limit of them (0 for all), whose path starts with PathPrefix.
type Page struct {
	After      string
	Limit      int
	PathPrefix string
}

// Store keeps identities and policies. Names are unique regardless of case, as in
// IAM. Every change is atomic, bumps Revision, and returns ErrNotFound, ErrExists,
// ErrConflict (deleting what is still in use: members, keys, policies,
// attachments, versions) or ErrLimit, wrapped with what was being done.
type Store interface {
	SSHStore

	CreateUser(ctx context.Context, u User) error
	User(ctx context.Context, name string) (User, error)
	UserByID(ctx context.Context, id string) (User, error)
	Users(ctx context.Context, p Page) ([]User, error)
	UpdateUser(ctx context.Context, name string, change func(*User) error) error // may rename
	DeleteUser(ctx context.Context, name string) error

	CreateGroup(ctx context.Context, g Group) error
	Group(ctx context.Context, name string) (Group, error)
	Groups(ctx context.Context, p Page) ([]Group, error)
	UpdateGroup(ctx context.Context, name string, change func(*Group) error) error
	DeleteGroup(ctx context.Context, name string) error
	AddMember(ctx context.Context, group, user string) error    // idempotent
	RemoveMember(ctx context.Context, group, user string) error // ErrNotFound if none
	Members(ctx context.Context, group string, p Page) ([]User, error)
	GroupsOf(ctx context.Context, user string, p Page) ([]Group, error)

	CreateRole(ctx context.Context, r Role) error
	Role(ctx context.Context, name string) (Role, error)
	Roles(ctx context.Context, p Page) ([]Role, error)
	UpdateRole(ctx context.Context, name string, change func(*Role) error) error
	DeleteRole(ctx context.Context, name string) error

	CreateAccessKey(ctx context.Context, k AccessKey, limit int) error // ErrLimit at limit keys
	AccessKey(ctx context.Context, id string) (AccessKey, error)
	AccessKeys(ctx context.Context, user string) ([]AccessKey, error)
	UpdateAccessKey(ctx context.Context, user, id string, active bool) error
	TouchAccessKey(ctx context.Context, id string, at time.Time) error // does not bump Revision
	DeleteAccessKey(ctx context.Context, user, id string) error

	CreateSSHKey(ctx context.Context, k SSHPublicKey, limit int) error // ErrExists for a duplicate body
	SSHKey(ctx context.Context, user, id string) (SSHPublicKey, error)
	SSHKeys(ctx context.Context, user string) ([]SSHPublicKey, error)
	SSHKeysByFingerprint(ctx context.Context, fingerprint string) ([]SSHPublicKey, error)
	UpdateSSHKey(ctx context.Context, user, id string, active bool) error
	DeleteSSHKey(ctx context.Context, user, id string) error

	PutInlinePolicy(ctx context.Context, p InlinePolicy) error
	InlinePolicy(ctx context.Context, o Owner, name string) (InlinePolicy, error)
	InlinePolicies(ctx context.Context, o Owner) ([]InlinePolicy, error) // in name order
	DeleteInlinePolicy(ctx context.Context, o Owner, name string) error

	CreatePolicy(ctx context.Context, p ManagedPolicy, document string) error // as version v1
	Policy(ctx context.Context, arn string) (ManagedPolicy, error)
	Policies(ctx context.Context, p Page) ([]ManagedPolicy, error)
	DeletePolicy(ctx context.Context, arn string) error
	TagPolicy(ctx context.Context, arn string, change func(Tags) (Tags, error)) error
	CreatePolicyVersion(ctx context.Context, arn, document string, at time.Time, makeDefault bool) (PolicyVersion, error)
	PolicyVersions(ctx context.Context, arn string) ([]PolicyVersion, error) // newest first
	PolicyVersion(ctx context.Context, arn, id string) (PolicyVersion, error)
	SetDefaultPolicyVersion(ctx context.Context, arn, id string) error
	DeletePolicyVersion(ctx context.Context, arn, id string) error // ErrConflict for the default

	AttachPolicy(ctx context.Context, o Owner, arn string, limit int) error // idempotent
	DetachPolicy(ctx context.Context, o Owner, arn string) error
	AttachedPolicies(ctx context.Context, o Owner) ([]ManagedPolicy, error)
	PolicyOwners(ctx context.Context, arn string) ([]Owner, error)

	// Revision grows with every change of an identity, a policy or a membership;
	// caches of compiled policies compare it.
	Revision(ctx context.Context) (int64, error)
}
