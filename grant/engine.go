package grant

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/flow"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/node"
	"sallyport.dev/policy"
)

// Directory is what the engine needs to know of people.
type Directory interface {
	User(ctx context.Context, name string) (identity.User, error)
	UserByID(ctx context.Context, id string) (identity.User, error)
	Users(ctx context.Context, p identity.Page) ([]identity.User, error)
	Members(ctx context.Context, group string, p identity.Page) ([]identity.User, error)
	GroupsOf(ctx context.Context, user string, p identity.Page) ([]identity.Group, error)
	Role(ctx context.Context, name string) (identity.Role, error)
	Revision(ctx context.Context) (int64, error)
}

// Nodes finds nodes.
type Nodes interface {
	Node(ctx context.Context, id string) (node.Node, error)
	Nodes(ctx context.Context, f node.Filter) ([]node.Node, error)
}

// Auditor appends audit records durably.
type Auditor interface {
	Append(ctx context.Context, r audit.Record) (audit.Record, error)
}

// OnCall says who is on duty.
type OnCall interface {
	// OnCall returns the names of users on duty by a schedule at a time.
	OnCall(ctx context.Context, s *flow.Schedule, at time.Time) ([]string, error)
}

// Rules decide by themselves, before people are asked: AWS's approval documents and the
// flows' Cedar.
type Rules interface {
	// Flows returns flows that documents make, beside those of the files.
	Flows(ctx context.Context) ([]*flow.Flow, error)
	// Decide says what rules think of a request: forbid and permit name the rule that did.
	Decide(ctx context.Context, f *flow.Flow, facts flow.Facts) (Verdict, error)
}

// Verdict is what rules think of a request. A forbidden request is denied, whatever
// permits it.
type Verdict struct {
	Forbid, Permit string // names of the rules; empty for none
}

// Giver gives and takes targets that are not here, in AWS. Both are idempotent and are
// tried again until they succeed.
type Giver interface {
	Give(ctx context.Context, t flow.Target, p flow.Person) (handle string, err error)
	Take(ctx context.Context, t flow.Target, p flow.Person, handle string) error
}

// Config is what an Engine is made of.
type Config struct {
	Store     Store
	Directory Directory
	Nodes     Nodes
	Audit     Auditor
	Rules     Rules  // nil for none
	OnCall    OnCall // nil for none
	Giver     Giver  // nil for none: then requests for targets in AWS are refused
	// Sources gives the policies of a role or a group, for grants of those.
	Sources func(ctx context.Context, o identity.Owner) ([]policy.Source, error)
	Realm   arn.Realm
	Now     func() time.Time
	Logger  *slog.Logger
}

// Engine carries requests through their lives. It is safe for concurrent use, and so are
// several on one store.
type Engine struct{ config Config }

// New returns an Engine; Start makes its clocks run.
func New(c Config) *Engine { return &Engine{c} }

// Start runs the clocks until Close.
func (e *Engine) Start(ctx context.Context) error { return nil }

// Close stops the clocks and waits for them.
func (e *Engine) Close() {}

// Actor is who takes a step.
type Actor struct {
	Principal identity.Principal
	Channel   string // cli, api, ssh, slack, web, email
	SourceIP  string
	UserAgent string
	RequestID string
}

// Ask is what somebody asks for.
type Ask struct {
	Flow    string
	Targets []string    // names of the flow's targets; all, unless given
	Nodes   []string    // ids; none for the targets as a whole
	Values  flow.Values // "reason" and "duration" included
	Explain bool        // only says what would become of it: nothing is stored
}

// Ask makes a request. Errors are *flow.FieldError, *RefusedError, or of the store.
func (e *Engine) Ask(ctx context.Context, a Actor, in Ask) (Request, error) {
	return Request{}, errors.ErrUnsupported
}

// Decide takes one person's decision. hash is that of the request which they saw.
func (e *Engine) Decide(ctx context.Context, a Actor, id, hash string, approve bool, comment string) (Request, error) {
	return Request{}, errors.ErrUnsupported
}

// Delegate lets another decide in the actor's place.
func (e *Engine) Delegate(ctx context.Context, a Actor, id, to string) (Request, error) {
	return Request{}, errors.ErrUnsupported
}

// Activate begins the grant of an approved request.
func (e *Engine) Activate(ctx context.Context, a Actor, id string) (Request, error) {
	return Request{}, errors.ErrUnsupported
}

// Cancel ends a request that waits, by who asked; Release gives back what was granted.
func (e *Engine) Cancel(ctx context.Context, a Actor, id string) (Request, error) {
	return Request{}, errors.ErrUnsupported
}

// Release gives back what was granted.
func (e *Engine) Release(ctx context.Context, a Actor, id string) (Request, error) {
	return Request{}, errors.ErrUnsupported
}

// Revoke takes back what was granted, or what waits. allowed tells that policy lets the
// actor; without it those may who decide in one of its stages.
func (e *Engine) Revoke(ctx context.Context, a Actor, id, because string, allowed bool) (Request, error) {
	return Request{}, errors.ErrUnsupported
}

// Extend asks for more time; by is 0 for the flow's own measure.
func (e *Engine) Extend(ctx context.Context, a Actor, id string, by time.Duration, reason string) (Request, error) {
	return Request{}, errors.ErrUnsupported
}

// CloseReview closes the review of a break-glass grant.
func (e *Engine) CloseReview(ctx context.Context, a Actor, id, outcome, comment string) (Request, error) {
	return Request{}, errors.ErrUnsupported
}

// EndPerson revokes everything of a user who was disabled or deleted.
func (e *Engine) EndPerson(ctx context.Context, person, because string) error {
	return errors.ErrUnsupported
}

// Request returns a request; Wait returns once its revision is above after, or the
// context ends.
func (e *Engine) Request(ctx context.Context, id string) (Request, error) {
	return e.config.Store.Request(ctx, id)
}

// Wait returns a request once its revision is above after, or as it is when the context
// ends.
func (e *Engine) Wait(ctx context.Context, id string, after int64) (Request, error) {
	return Request{}, errors.ErrUnsupported
}

// MayDecide reports whether a person may decide on a request now, and why not.
func (e *Engine) MayDecide(ctx context.Context, p identity.Principal, r Request) (because string, err error) {
	return "", errors.ErrUnsupported
}

// Deciders are the people who may decide on a request now, at most limit.
func (e *Engine) Deciders(ctx context.Context, r Request, limit int) ([]flow.Person, error) {
	return nil, errors.ErrUnsupported
}

// Offer is a flow that a person may ask, with its form made for them.
type Offer struct {
	Flow    *flow.Flow
	Fields  []flow.Field // allowed values filled in
	Problem string       // of the flow's code, if it has any
}

// Offers returns the flows that a person may ask.
func (e *Engine) Offers(ctx context.Context, p identity.Principal, channel string) ([]Offer, error) {
	return nil, errors.ErrUnsupported
}

// Help is a flow whose target would allow what was refused.
type Help struct {
	Offer  Offer
	Target flow.Target
}

// Helps returns the offers that would let a person start sessions on a node; the most
// fitting first.
func (e *Engine) Helps(ctx context.Context, p identity.Principal, n node.Node, document, login, channel string) ([]Help, error) {
	return nil, errors.ErrUnsupported
}

// Grants implements access.GrantSource: the policies of the active grants of who is
// behind a principal, whatever role they act in. One whose time is up counts no more,
// whatever its row says.
func (e *Engine) Grants(ctx context.Context, p identity.Principal) ([]policy.Source, error) {
	return nil, errors.ErrUnsupported
}

// GrantsAt are those of Grants that still hold at a time, were nothing to change.
func (e *Engine) GrantsAt(ctx context.Context, p identity.Principal, at time.Time) ([]policy.Source, error) {
	return nil, errors.ErrUnsupported
}

// Held are the active grants of who is behind a principal.
func (e *Engine) Held(ctx context.Context, p identity.Principal) ([]Request, error) {
	return nil, errors.ErrUnsupported
}

// Granted implements that part of identity.Ties: credentials of a role that were issued
// under grants still hold while one of these is active, or another grant of the person
// gives the role. If not, because says why.
func (e *Engine) Granted(ctx context.Context, person string, g identity.GrantedRole) (because string, err error) {
	return "", errors.ErrUnsupported
}

// Flows returns the flows in force: of the files and of the rules.
func (e *Engine) Flows(ctx context.Context) (*flow.Set, error) {
	return nil, errors.ErrUnsupported
}

// PutFlows checks flow files and puts them in force if those in force are still the ones
// of digest old. It returns the new digest.
func (e *Engine) PutFlows(ctx context.Context, a Actor, files map[string][]byte, old string) (string, error) {
	return "", errors.ErrUnsupported
}
