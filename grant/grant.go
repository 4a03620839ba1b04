package grant

import (
	"errors"
	"time"

	"sallyport.dev/flow"
)

// State is where a request stands.
type State string

// States of requests. Pending, Approved and Active may change, the others are ends.
const (
	Pending   State = "Pending"   // waits for decisions
	Approved  State = "Approved"  // waits for its first use
	Active    State = "Active"    // its grant holds
	Denied    State = "Denied"    // by a person, a rule or the flow's code
	Cancelled State = "Cancelled" // by who asked, before it was decided
	Expired   State = "Expired"   // nobody decided in time
	Lapsed    State = "Lapsed"    // approved, but not used in time
	Released  State = "Released"  // given back by who asked
	Revoked   State = "Revoked"   // taken back
	Ended     State = "Ended"     // its time was up
)

// Over reports whether a request in this state has come to its end.
func (s State) Over() bool { return s != Pending && s != Approved && s != Active }

// Request is a request, with what became of it.
type Request struct {
	ID       string // oi- and twelve hexadecimal digits, as AWS has it
	Revision int64  // grows with every change; 0 for one that is not stored
	State    State

	Frozen Frozen
	Hash   string // hex SHA-256 of the canonical JSON of Frozen; decisions name it

	Stage      int          // index of the stage that decides
	StageSince time.Time    // when it began
	Of         *flow.People // who decides in this stage instead of its own people: flow code said so
	Delegates  []Delegate
	Decisions  []Decision

	PendingUntil time.Time
	ApprovedAt   time.Time
	ActivateBy   time.Time // of Approved
	ActivatedAt  time.Time
	EndsAt       time.Time // of Active: the grant's end, extensions included
	EndedAt      time.Time
	EndedBy      string // ARN, "time", "policy", or the name of the rule
	Because      string // why it was denied, revoked, …

	Extensions []Extension
	Review     *Review     // of break-glass
	Provisions []Provision // targets outside, in AWS
	Warnings   []string    // errors of flow code and on-call sources, for deciders to see

	// What the clocks have done already.
	Fallen   bool      `json:",omitempty"` // the stage's fallback has begun
	Reminded time.Time `json:",omitzero"`  // the last reminder in the stage
	Warned   bool      `json:",omitempty"` // of the grant's end
	Overdue  bool      `json:",omitempty"` // the review was announced as such
}

// Frozen is what was asked for. It does not change any more.
type Frozen struct {
	ID        string
	Flow      flow.Flow // as it was; its code by digest, see FlowDigest
	SetDigest string    // digest of the flow files that it was made under
	Person    flow.Person
	Principal string // ARN of who asked, a role session perhaps
	// SourceIdentity of the credentials that it was asked with; empty for none.
	SourceIdentity string `json:",omitempty"`
	Values         flow.Values
	Reason         string
	Duration       time.Duration
	Targets        []flow.Target // of the flow, those asked for
	Nodes          []flow.Node   // that were named; none where targets are asked for as a whole
	Channel        string
	SourceIP       string
	Created        time.Time
}

// Delegate is somebody whom a decider named in their place.
type Delegate struct {
	Stage    int
	From, To string // names of users
	At       time.Time
}

// Decision is one person's, a rule's or the code's word on a request.
type Decision struct {
	Stage     int
	Approve   bool
	By        flow.Person // the zero Person for a rule
	Principal string      // ARN
	Rule      string      // "cedar …", "code", "break-glass", document name; empty for a person
	Hash      string      // of the request that it was about
	Comment   string
	Channel   string // cli, api, ssh, slack, web, email
	Factor    string // second factor that was shown: totp, webauthn; empty for none
	SourceIP  string
	At        time.Time
	Of        *flow.People `json:",omitempty"` // those to whom it was forwarded, where they decided among these
	For       string       `json:",omitempty"` // name of who named them in their place
	Struck    string       // why it does not count any more; empty while it does
}

// Extension is more time for a grant.
type Extension struct {
	By      time.Duration
	Reason  string
	Asked   time.Time
	Request string    // id of the request that decides on it; empty where nobody is asked
	Until   time.Time // the grant's end with it; zero while it is not decided
}

// Review is the review of a break-glass grant.
type Review struct {
	Due     time.Time
	By      flow.Person
	At      time.Time // zero while it is open
	Outcome string    // justified or unjustified
	Comment string
}

// Provision is a target outside, and how far giving and taking it has come.
type Provision struct {
	Target  string // name
	State   string // wanted, given, unwanted, taken
	Handle  string // what the giver needs to take it back
	Tries   int
	Next    time.Time // of the next try
	Lease   time.Time `json:",omitzero"` // until when a try that runs has it for itself
	Problem string    // of the last one
}

// Event is a step in a request's life, stored with it.
type Event struct {
	Seq     int64 // among all events, growing
	Request string
	Kind    string // see the Kind constants
	At      time.Time
	Actor   string // ARN, or "time", "policy", "rule …"
	Channel string
	Stage   int
	Comment string
	Hash    string
	State   State // after it
}

// Kinds of events.
const (
	KindRequested = "requested"
	KindApproved  = "approved" // one approval
	KindStage     = "stage"    // a stage is done, the next begins
	KindFallback  = "fallback" // more people may decide
	KindReminder  = "reminder"
	KindDelegated = "delegated"
	KindGranted   = "granted" // the last approval; the grant is to be had
	KindActivated = "activated"
	KindDenied    = "denied"
	KindCancelled = "cancelled"
	KindExpired   = "expired"
	KindLapsed    = "lapsed"
	KindWarning   = "warning"   // five minutes before the end
	KindExtension = "extension" // was asked for
	KindExtended  = "extended"
	KindReleased  = "released"
	KindRevoked   = "revoked"
	KindEnded     = "ended"
	KindStruck    = "struck"    // an approval does not count any more
	KindReviewDue = "reviewDue" // overdue
	KindReviewed  = "reviewed"
	KindAlarm     = "alarm" // a target outside cannot be taken back
)

// Errors of requests.
var (
	ErrNotFound = errors.New("no such request")
	// ErrState is returned for a step that the request's state does not allow.
	ErrState = errors.New("the request is not in a state for that")
	// ErrHash is returned for a decision on something else than what was asked.
	ErrHash = errors.New("the request is not the one that was decided on")
)

// RefusedError is a step that who asked for it may not take: "because …".
type RefusedError struct {
	Because string
	TooMany bool // waits already; it is a matter of a limit
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Because }
