package access

import (
	"context"
	"maps"
)

// Start is what ssm:StartSession is authorised on.
type Start struct {
	Node     Resource
	Document Resource // its own tags do not count: the node's stand for both
	// Named tells that the caller named the document. Where they did not, it is the
	// default one.
	Named bool
	// RequireDocument makes an unnamed document count as if it were named.
	RequireDocument bool
}

const documentCheck = "ssm:SessionDocumentAccessCheck"

// CheckStart is Check for starting a session.
//
// A document that the caller names must be allowed, and so must the node. The
// request's context is one: the node's tags are the resource tags of both, and
// ssm:SessionDocumentAccessCheck is true for both.
//
// An unnamed document is not checked unless a policy asks for that check, as AWS
// documents: the node is first evaluated alone with ssm:SessionDocumentAccessCheck
// false. A statement that allows without that condition key allows the session; one
// that demands the key to be true (Bool or BoolIfExists) does not hold, and a Deny
// that demands it does not hold either. If that refuses, node and document are
// evaluated with the key true, as if the document had been named, so that a user
// whose statements all demand the check may use the default document exactly if they
// allow it.
func (c *Checker) CheckStart(ctx context.Context, q Query, s Start) (Decision, error) {
	return c.check(ctx, s.queries(q)...)
}

// ExplainStart is Explain for starting a session.
func (c *Checker) ExplainStart(ctx context.Context, q Query, s Start) (Explanation, error) {
	return c.explain(ctx, s.queries(q)...)
}

// queries returns the alternatives of which one must allow.
func (s Start) queries(q Query) []Query {
	document := s.Document
	document.Tags = s.Node.Tags
	both := with(q, "true", s.Node, document)
	if s.Named || s.RequireDocument {
		return []Query{both}
	}
	return []Query{with(q, "false", s.Node), both}
}

func with(q Query, check string, resources ...Resource) Query {
	context := maps.Clone(q.Context)
	if context == nil {
		context = map[string][]string{}
	}
	context[documentCheck] = []string{check}
	q.Context, q.Resources = context, resources
	return q
}
