package access

import (
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// Resource is one resource that an action is authorised on.
type Resource struct {
	ARN string
	// Tags fill aws:ResourceTag/…, and ssm:resourceTag/…, ec2:ResourceTag/… or
	// iam:ResourceTag/… .
	Tags identity.Tags
	// Context adds keys that are true of this resource only.
	Context map[string][]string
}

// Origin is where a request came from; it fills the global condition keys.
type Origin struct {
	RequestID string
	SourceIP  string
	UserAgent string
	TLS       bool
	Time      time.Time
}

// Query asks whether Principal may do Action on every one of Resources.
type Query struct {
	Principal identity.Principal
	Action    string // service:Operation
	Resources []Resource
	// Context adds condition keys common to all resources (aws:RequestTag/…,
	// aws:TagKeys, ssm:SessionDocumentAccessCheck, …).
	Context map[string][]string
	// Each holds condition keys of which every value must be allowed alone: those of
	// tags that the caller sets (aws:RequestTag/…), whose values commas may separate.
	Each   map[string][]string
	Origin Origin
	// Node, Document and Session go into the audit record.
	Node, Document, Session string
	// Details go into the audit record as well: short facts, no secrets.
	Details map[string]string
	// Quiet leaves an allowed decision out of the audit log: for high-volume reads of
	// agents and for the filtering of listings. Refusals are always recorded.
	Quiet bool
	// Ending marks an action that only ends access: where the audit log cannot take
	// that it was allowed, it goes ahead and the server's log tells.
	Ending bool
	// NoAudit is for questions that are not attempts (why, simulate, may-I columns).
	NoAudit bool
}

// Decision is the answer to a Query: the decision on the first resource that
// refuses, or on the last one.
type Decision struct {
	Allowed  bool
	Resource string // ARN that the decision is about
	Policy   policy.Decision
	// Because is why it was refused without asking policies: "because …".
	Because string
}

// DeniedError is a refusal, worded as AWS words it.
type DeniedError struct {
	Principal, Action, Resource string
	Decision                    policy.Decision
	// Because replaces the reason where no policy was asked: "because …".
	Because string
}

// Error implements error: "User: ARN is not authorized to perform: ACTION on
// resource: ARN because no identity-based policy allows the ACTION action", or
// "… with an explicit deny in an identity-based policy" (or permissions boundary,
// session policy).
func (e *DeniedError) Error() string {
	return "User: " + e.Principal + " is not authorized to perform: " + e.Action +
		" on resource: " + e.Resource + " " + e.reason()
}

func (e *DeniedError) reason() string {
	switch {
	case e.Because != "":
		return e.Because
	case e.Decision.Effect == policy.ExplicitlyDenied:
		return "with an explicit deny in " + article(e.Decision.Kind)
	}
	return "because no " + e.Decision.Kind.String() + " allows the " + e.Action + " action"
}

func article(k policy.Kind) string {
	if k == policy.Identity {
		return "an " + k.String()
	}
	return "a " + k.String()
}
