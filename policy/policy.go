package policy

import "fmt"

// MaxSize is the largest policy document accepted, in bytes: what the IAM API
// takes at most.
const MaxSize = 131072

// Document is a parsed policy. It is immutable and safe for concurrent use.
type Document struct {
	Version    string // "2012-10-17" or "2008-10-17"; the latter where absent
	Id         string
	Statements []Statement

	trust bool
}

// Position is a place in a policy's text; both count from 1, columns in characters.
type Position struct {
	Line, Column int
}

// ParseError says where a policy is wrong, and what is allowed there.
type ParseError struct {
	Line, Column int // from 1; columns count characters
	Message      string
}

// Error implements error: "line 3, column 7: …".
func (e *ParseError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// Kind says what sort of policy a source is, and so what it can do.
type Kind int

// Kinds of sources. Identity policies and grants allow; boundaries and session
// policies only limit. All of them can deny.
const (
	Identity Kind = iota
	Boundary
	Session
	Grant
)

// String names the kind as refusals do: "identity-based policy".
func (k Kind) String() string {
	switch k {
	case Boundary:
		return "permissions boundary"
	case Session:
		return "session policy"
	case Grant:
		return "grant"
	}
	return "identity-based policy"
}

// MarshalText writes the kind as String does.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Source is a policy that applies to a principal, with the name that people know
// it by: "inline policy access of group frontend".
type Source struct {
	Kind     Kind
	Name     string
	Document *Document
}

// Request is what is to be decided: may Principal do Action (service:Operation)
// on Resource (an ARN, or "*" for actions that have none).
type Request struct {
	Principal, Action, Resource string
	Context                     Context
}

// Context holds the values of condition keys. Keys ignore case (ASCII letters
// only, tag keys included); a key without values is absent. Evaluation is fastest
// if keys are in lower case, as Add stores them; other spellings work as well, and
// values under several spellings of a key are taken together.
type Context map[string][]string

// Add appends values under a key.
func (c Context) Add(key string, values ...string) {
	key = lower(key)
	if old, ok := c[key]; ok {
		values = append(old[:len(old):len(old)], values...)
	}
	c[key] = values
}

// Effect is the outcome of an evaluation. Its zero value denies.
type Effect int

// Outcomes.
const (
	ImplicitlyDenied Effect = iota
	ExplicitlyDenied
	Allowed
)

// String is "Allowed", "ExplicitlyDenied" or "ImplicitlyDenied".
func (e Effect) String() string {
	switch e {
	case Allowed:
		return "Allowed"
	case ExplicitlyDenied:
		return "ExplicitlyDenied"
	}
	return "ImplicitlyDenied"
}

// MarshalText writes the effect as String does.
func (e Effect) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// Decision is the outcome of an evaluation and why.
type Decision struct {
	Effect Effect
	// Kind is the kind of source that refused: the one that denied explicitly, or
	// the one that was needed and did not allow. Of no meaning when allowed.
	Kind Kind
	// Delegated is set by EvaluateTrust where the trust policy only named the
	// caller's account: the caller's own policies must then allow the action too.
	Delegated bool
	// Reasons are the statements that decided: for Allowed one of each kind that
	// was needed, for ExplicitlyDenied the denying one. Evaluate gives none for
	// ImplicitlyDenied; Explain gives every statement that could have allowed.
	// Shared with later decisions: not to be written to.
	Reasons []Reason
}

// Allowed reports whether the request may proceed.
func (d Decision) Allowed() bool { return d.Effect == Allowed }

// Reason is how one statement came out.
type Reason struct {
	Source    string   `json:"source"` // Source.Name
	Kind      Kind     `json:"kind"`
	Sid       string   `json:"sid,omitempty"`
	Statement int      `json:"statement"` // counted from 1
	Start     Position `json:"-"`         // of the statement in its document
	End       Position `json:"-"`
	Effect    string   `json:"effect"` // "Allow" or "Deny"
	Matched   bool     `json:"matched"`
	// Checks are the statement's elements in order and whether each held. Only
	// Explain fills them.
	Checks []Check `json:"checks,omitempty"`
}

// Check is how one element of a statement came out.
type Check struct {
	Element  string `json:"element"`            // "Action", "NotResource", "Condition", …
	Operator string `json:"operator,omitempty"` // of a condition, as the policy writes it
	Key      string `json:"key,omitempty"`      // of a condition, as the policy writes it
	// Policy is what the policy says, variables replaced by their values.
	Policy []string `json:"policy"`
	// Unresolved names the variables in Policy that have no value.
	Unresolved []string `json:"unresolved,omitempty"`
	// Request is what the request has; empty with Absent set where it has nothing.
	Request []string `json:"request,omitempty"`
	Absent  bool     `json:"absent,omitempty"`
	Held    bool     `json:"held"`
}

// Explanation is a decision with the outcome of every statement.
type Explanation struct {
	Decision
	Statements []Reason // all, in the order of the sources
}
