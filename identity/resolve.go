package identity

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"sallyport.dev/internal/arn"
)

// People is the part of Store that makes principals.
type People interface {
	User(ctx context.Context, name string) (User, error)
	UserByID(ctx context.Context, id string) (User, error)
	Role(ctx context.Context, name string) (Role, error)
	AccessKey(ctx context.Context, id string) (AccessKey, error)
	TouchAccessKey(ctx context.Context, id string, at time.Time) error
}

// Machine is what a registered node is to authentication.
type Machine struct {
	ID        string
	Tags      Tags
	PublicKey *rsa.PublicKey
	// Registration tells one registration of an id from another: a node that was
	// deregistered and registered again does not honour its old credentials.
	Registration string
}

// Machines finds registered nodes. Machine returns ErrNotFound, wrapped, for a node
// that is not registered.
type Machines interface {
	Machine(ctx context.Context, id string) (Machine, error)
}

// Resolver makes live principals of what signatures proved: users, roles and nodes
// must still exist, users must not be disabled, and the answer carries their tags and
// boundary as they are now.
type Resolver struct {
	realm    arn.Realm
	people   People
	machines Machines
	now      func() time.Time
	ties     Ties

	mu      sync.Mutex
	touched map[string]time.Time // last TouchAccessKey by key id
}

// NewResolver returns a Resolver.
func NewResolver(realm arn.Realm, people People, machines Machines, now func() time.Time) *Resolver {
	return &Resolver{realm: realm, people: people, machines: machines, now: now, ties: NoTies{}, touched: map[string]time.Time{}}
}

// Resolve returns the principal behind a proof. Errors are *AuthError where the
// principal is gone or disabled.
func (r *Resolver) Resolve(ctx context.Context, p Proof) (Principal, error) {
	principal, err := r.resolve(ctx, p)
	if errors.Is(err, ErrNotFound) {
		e := authError(UnknownKey, "%s", messageUnknownKey)
		e.AccessKeyID = p.AccessKeyID
		return Principal{}, e
	}
	if err != nil {
		return Principal{}, err
	}
	principal.AccessKeyID = p.AccessKeyID
	return principal, nil
}

func (r *Resolver) resolve(ctx context.Context, p Proof) (Principal, error) {
	switch {
	case p.Machine != nil:
		return r.node(*p.Machine), nil
	case p.Claims != nil:
		return r.temporary(ctx, *p.Claims)
	}
	user, err := r.people.User(ctx, p.Key.User)
	if err != nil {
		return Principal{}, err
	}
	principal, err := r.user(user)
	if err == nil {
		r.touch(ctx, p.Key.ID)
	}
	return principal, err
}

func (r *Resolver) temporary(ctx context.Context, c Claims) (Principal, error) {
	principal, err := r.untied(ctx, c)
	if err != nil {
		return Principal{}, err
	}
	return principal, r.tied(ctx, principal)
}

// Restore returns the principal of claims as it is now, expired or not, and whether or
// not that holds which they come from (see Ties): for what was begun with credentials
// and goes on without them. Errors are as Resolve's.
func (r *Resolver) Restore(ctx context.Context, c Claims) (Principal, error) {
	p, err := r.untied(ctx, c)
	if errors.Is(err, ErrNotFound) {
		return Principal{}, authError(UnknownKey, "%s", messageUnknownKey)
	}
	return p, err
}

func (r *Resolver) untied(ctx context.Context, c Claims) (Principal, error) {
	principal, err := r.holder(ctx, c)
	if err != nil {
		return Principal{}, err
	}
	if c.Root != "" {
		// A role outlives nobody: who is disabled or deleted loses the roles, too.
		root, err := r.people.UserByID(ctx, c.Root)
		if err != nil {
			return Principal{}, err
		}
		behind, err := r.user(root)
		if err != nil {
			return Principal{}, err
		}
		principal.RootARN = behind.ARN
	}
	principal.SessionName, principal.Root = c.SessionName, c.Root
	principal.SessionTags, principal.Transitive = c.Tags, c.Transitive
	principal.Tags = overlay(principal.Tags, c.Tags)
	principal.SessionPolicies, principal.SessionPolicyARNs = c.Policies, c.PolicyARNs
	principal.MFA, principal.MFAAt = c.MFA, c.MFAAt
	principal.IssuedAt, principal.ExpiresAt = c.IssuedAt, c.ExpiresAt
	principal.Source, principal.SourceIdentity = c.Source, c.SourceIdentity
	principal.SignIn, principal.Granted, principal.Factor = c.SignIn, c.Granted, c.Factor
	return principal, nil
}

// Ties tell whether that still holds from which temporary credentials come. An empty
// because says that it does.
type Ties interface {
	// SignIn tells of a sign-in of a user.
	SignIn(ctx context.Context, id, user string) (because string, err error)
	// Granted tells whether a user still has a grant that gives a role: one of those that
	// held when it was assumed, or another.
	Granted(ctx context.Context, user string, g GrantedRole) (because string, err error)
}

// NoTies are those of a server that has neither sign-ins nor grants: credentials that
// come from any do not work.
type NoTies struct{}

// SignIn implements Ties.
func (NoTies) SignIn(context.Context, string, string) (string, error) {
	return "this server has no sign-ins", nil
}

// Granted implements Ties.
func (NoTies) Granted(context.Context, string, GrantedRole) (string, error) {
	return "this server has no grants", nil
}

// Tie makes the resolver ask ties. It must be called before any other method.
func (r *Resolver) Tie(t Ties) { r.ties = t }

// tied refuses credentials that come from what holds no more.
func (r *Resolver) tied(ctx context.Context, p Principal) error {
	if p.SignIn != "" {
		if err := r.holds(r.ties.SignIn(ctx, p.SignIn, p.RootID())); err != nil {
			return err
		}
	}
	for _, g := range p.Granted {
		if err := r.holds(r.ties.Granted(ctx, p.RootID(), g)); err != nil {
			return err
		}
	}
	return nil
}

// holds words why credentials do not work any more.
func (r *Resolver) holds(because string, err error) error {
	if err != nil {
		return fmt.Errorf("asking what credentials come from: %w", err)
	}
	if because != "" {
		return authError(ExpiredToken, "The security token included in the request is expired: %s", because)
	}
	return nil
}

// Check reports whether a principal that was resolved before is still there: the user
// or role, and the user behind a role. Errors are *AuthError where one is not.
func (r *Resolver) Check(ctx context.Context, p Principal) error {
	err := r.check(ctx, p)
	if errors.Is(err, ErrNotFound) {
		e := authError(UnknownKey, "%s", messageUnknownKey)
		e.AccessKeyID = p.AccessKeyID
		return e
	}
	return err
}

func (r *Resolver) check(ctx context.Context, p Principal) error {
	if err := r.tied(ctx, p); err != nil {
		return err
	}
	switch p.Kind {
	case KindNode:
		_, err := r.machines.Machine(ctx, p.Name)
		return err
	case KindRole:
		id, _, _ := strings.Cut(p.UserID, ":")
		if _, err := r.holder(ctx, Claims{Kind: KindRole, Name: p.Name, ID: id}); err != nil || p.Root == "" {
			return err
		}
	}
	_, err := r.holder(ctx, Claims{Kind: KindUser, ID: p.RootID()})
	return err
}

// holder finds whom temporary credentials were issued to.
func (r *Resolver) holder(ctx context.Context, c Claims) (Principal, error) {
	switch c.Kind {
	case KindUser:
		user, err := r.people.UserByID(ctx, c.ID)
		if err != nil {
			return Principal{}, err
		}
		return r.user(user)
	case KindRole:
		role, err := r.people.Role(ctx, c.Name)
		if err != nil {
			return Principal{}, err
		}
		if role.ID != c.ID {
			return Principal{}, fmt.Errorf("role %s was made anew: %w", c.Name, ErrNotFound)
		}
		return r.RolePrincipal(role, c.SessionName), nil
	case KindNode:
		m, err := r.machines.Machine(ctx, c.Name)
		if err != nil {
			return Principal{}, err
		}
		if m.Registration != c.ID {
			return Principal{}, fmt.Errorf("node %s was registered anew: %w", c.Name, ErrNotFound)
		}
		return r.node(m), nil
	}
	return Principal{}, fmt.Errorf("session token of unknown kind %q", c.Kind)
}

func (r *Resolver) user(u User) (Principal, error) {
	if u.Disabled {
		return Principal{}, fmt.Errorf("user %s is disabled: %w", u.Name, ErrNotFound)
	}
	return r.UserPrincipal(u), nil
}

// UserPrincipal returns the principal that a user is with long-lived keys.
func (r *Resolver) UserPrincipal(u User) Principal {
	name := r.realm.IAM("user", u.Path, u.Name)
	return Principal{
		Kind: KindUser, ARN: name, PolicyARN: name, UserID: u.ID, Name: u.Name,
		Tags: u.Tags, Boundary: u.Boundary,
	}
}

// RolePrincipal returns the principal that a session of a role is, without session
// tags and policies.
func (r *Resolver) RolePrincipal(role Role, session string) Principal {
	return Principal{
		Kind: KindRole, ARN: r.realm.AssumedRole(role.Name, session),
		PolicyARN: r.realm.IAM("role", role.Path, role.Name),
		UserID:    role.ID + ":" + session, Name: role.Name, SessionName: session,
		Tags: role.Tags, Boundary: role.Boundary,
	}
}

func (r *Resolver) node(m Machine) Principal {
	name := r.realm.Node(m.ID)
	return Principal{Kind: KindNode, ARN: name, PolicyARN: name, UserID: m.ID, Name: m.ID, Tags: m.Tags}
}

// overlay returns under with the tags of over in the place of those of the same key.
// Condition keys ignore case, so that keys that differ only in case are the same.
func overlay(under, over Tags) Tags {
	if len(over) == 0 {
		return under
	}
	replaced := make(map[string]bool, len(over))
	for key := range over {
		replaced[strings.ToLower(key)] = true
	}
	tags := make(Tags, len(under)+len(over))
	for key, value := range under {
		if !replaced[strings.ToLower(key)] {
			tags[key] = value
		}
	}
	maps.Copy(tags, over)
	return tags
}

// Keys' last use is noted at most this often, and for so many keys at a time.
const (
	touchEvery = time.Minute
	maxTouched = 4096
)

// touch notes that a key was used. What it cannot note is lost: the last use is
// information for people and no part of a decision.
func (r *Resolver) touch(ctx context.Context, id string) {
	now := r.now()
	r.mu.Lock()
	due := now.Sub(r.touched[id]) >= touchEvery
	if due {
		if len(r.touched) >= maxTouched {
			clear(r.touched)
		}
		r.touched[id] = now
	}
	r.mu.Unlock()
	if due {
		_ = r.people.TouchAccessKey(ctx, id, now)
	}
}
