package policy

// Set is the policies of one principal, indexed for evaluation. It is immutable
// and safe for concurrent use.
type Set struct {
	sources []Source
}

// NewSet indexes sources. A source without a document counts as present and
// allows nothing.
func NewSet(sources []Source) *Set { return &Set{sources: sources} }

// Evaluate decides req.
func (s *Set) Evaluate(req *Request) Decision { return Decision{} }

// Explain decides req and says of every statement why it applied or did not.
func Explain(sources []Source, req *Request) Explanation { return Explanation{} }

// EvaluateTrust decides whether a role's trust policy lets a caller do action
// (sts:AssumeRole).
func EvaluateTrust(doc *Document, callerARN, callerAccount, action string, ctx Context) Decision {
	return Decision{}
}
