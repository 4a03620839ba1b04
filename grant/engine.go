package grant

import (
	"context"
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

// Giver gives and takes targets that are not here, in AWS. All of it is idempotent and is
// tried again until it succeeds.
type Giver interface {
	// Prepare works out the handle that Give and Take need, and changes nothing outside:
	// it is stored first, so that what was given is taken back whatever happens.
	Prepare(ctx context.Context, t flow.Target, p flow.Person) (handle string, err error)
	Give(ctx context.Context, t flow.Target, handle string) error
	Take(ctx context.Context, t flow.Target, handle string) error
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
	// Policies are asked about every step; nil for none.
	Policies Policies
	// Folder is where flows are read from, in words; PutFlows by people is then refused.
	Folder string
	Realm  arn.Realm
	Now    func() time.Time
	Logger *slog.Logger
	// Observe is told of each step that this engine took, for metrics; nil for nobody.
	Observe func(r Request, ev Event)
}

// Policies say what policies have to do with requests.
type Policies interface {
	// Permit records a step that an actor may take and takes. An explicit deny of the
	// action, and a boundary or a session policy that leaves it out, refuse it.
	Permit(ctx context.Context, a Actor, action, resource string, details map[string]string) error
	// Refuse records a step that an actor may not take; because begins with "because".
	Refuse(ctx context.Context, a Actor, action, resource, because string, details map[string]string)
	// Would reports whether a principal could start a session if they had more policies.
	Would(ctx context.Context, p identity.Principal, n node.Node, document, login string, more []policy.Source) (bool, error)
}

// Engine carries requests through their lives. It is safe for concurrent use, and so are
// several on one store.
type Engine struct {
	config Config
	draft  bool // nothing is stored, and code asks nobody on the net
	flows  flowCache
	open   grantCache
	waits  waits
	work   background

	explained explained
}

// New returns an Engine; Start makes its clocks run.
func New(c Config) *Engine {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Engine{config: c}
}

func (e *Engine) now() time.Time { return e.config.Now().UTC().Truncate(time.Microsecond) }

// Actor is who takes a step.
type Actor struct {
	Principal identity.Principal
	Channel   string // cli, api, ssh, slack, web, email
	SourceIP  string
	UserAgent string
	RequestID string
	PlainHTTP bool // the call came without TLS
}

// Ask is what somebody asks for.
type Ask struct {
	Flow    string
	Targets []string    // names of the flow's targets; all, unless given
	Nodes   []string    // ids; none for the targets as a whole
	Values  flow.Values // "reason" and "duration" included
	Explain bool        // only says what would become of it: nothing is stored, and flow code asks nobody on the net
}
