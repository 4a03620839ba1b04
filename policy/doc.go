// Package policy decides by IAM policies: it parses policy documents strictly and
// evaluates them for a request, giving a decision and its reasons. It is pure: no
// I/O, no clock; what a decision depends on is in its arguments.
//
// An explicit deny anywhere wins. Otherwise an identity policy or a grant must
// allow; where there are permissions boundaries one of them must allow as well, and
// where there are session policies one of those must too. Boundaries and session
// policies limit grants exactly as they limit identity policies. Whatever nothing
// allows is denied implicitly.
package policy
