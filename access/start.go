package access

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"sallyport.dev/policy"
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
	// Remote is where a Port session leads; nil for others.
	Remote *Remote
	// Login is the OS user that the session runs as, DefaultLogin for the node's
	// default, and empty where it runs as none (Port sessions).
	Login string
	// Because refuses what policies allow: "because …".
	Because string
}

// DefaultLogin stands for the login that a node gives sessions that ask for none. It
// is no login itself.
const DefaultLogin = "-"

const keyRunAsUser = "sallyport:RunAsUser"

// Condition keys that name what a session is started on, and a command is sent to. They
// hold for node and document alike, so that one statement can bind the two together.
const (
	KeyNodeID       = "sallyport:NodeId"
	KeyNodeName     = "sallyport:NodeName" // as administrators gave it; absent without one
	KeyDocumentName = "sallyport:DocumentName"
)

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
//
// A Port session to a host by its name is refused to who has a policy with the key
// sallyport:RemoteAddress: what the name stands for is known on the node only.
func (c *Checker) CheckStart(ctx context.Context, q Query, s Start) (Decision, error) {
	alternatives := s.queries(q)
	d, q, err := c.first(ctx, nil, alternatives...)
	if err == nil {
		d, err = c.used(ctx, q, d, func(more []policy.Source) (d Decision, err error) {
			d, q, err = c.first(ctx, more, alternatives...)
			return d, err
		})
	}
	if err != nil {
		return Decision{}, err
	}
	if d.Allowed {
		because, err := c.refusal(ctx, q, s)
		if err != nil {
			return Decision{}, err
		}
		if because != "" {
			d = Decision{Resource: firstARN(q), Because: because}
		}
	}
	return c.settle(ctx, q, d, nil)
}

// PossibleStart reports whether policies let a principal start any session on a node at
// all: with some document, to some host, as some login. It records nothing.
func (c *Checker) PossibleStart(ctx context.Context, q Query, node Resource) (bool, error) {
	var waiting []policy.Source
	if grants, ok := c.config.Grants.(Activator); ok {
		var err error
		if waiting, err = grants.Waiting(ctx, q.Principal); err != nil {
			return false, fmt.Errorf("deciding %s: %w", q.Action, err)
		}
	}
	set, err := c.policies(ctx, q.Principal, waiting)
	if err != nil {
		return false, fmt.Errorf("deciding %s: %w", q.Action, err)
	}
	return c.possible(set, q, node), nil
}

// possible reports whether some session could start on a node under a set of policies.
func (c *Checker) possible(set ruling, q Query, node Resource) bool {
	node = known(node)
	req := c.request(with(q, "true", node), node)
	return set.Possible(req, keyRemoteHost, keyRemotePort, keyRemoteAddress, keyRemoteSocket, keyRunAsUser, KeyDocumentName)
}

// ExplainStart is Explain for starting a session.
func (c *Checker) ExplainStart(ctx context.Context, q Query, s Start) (Explanation, error) {
	e, err := c.explain(ctx, s.queries(q)...)
	if err != nil || !e.Allowed {
		return e, err
	}
	because, err := c.refusal(ctx, q, s)
	if err != nil || because == "" {
		return e, err
	}
	e.Decision = Decision{Resource: e.Resource, Because: because}
	e.Denied = &DeniedError{Principal: q.Principal.ARN, Action: q.Action, Resource: e.Resource, Because: because}
	return e, nil
}

// refusal says why a session may not start although policies allow it; empty if there
// is no such reason.
func (c *Checker) refusal(ctx context.Context, q Query, s Start) (because string, err error) {
	if s.Because != "" || s.Remote == nil || !s.Remote.named() {
		return s.Because, nil
	}
	set, err := c.policies(ctx, q.Principal, nil)
	if err != nil {
		return "", fmt.Errorf("deciding %s: %w", q.Action, err)
	}
	return s.unresolved(set), nil
}

// unresolved says why a set of policies lets nobody go where s leads by its name alone;
// empty if it does.
func (s Start) unresolved(set ruling) (because string) {
	if s.Because != "" || s.Remote == nil || !s.Remote.named() || !set.Uses(keyRemoteAddress) {
		return s.Because
	}
	return "because a policy asks for " + keyRemoteAddress + ", which " + s.Remote.Host + " has only once it is resolved: give its address instead"
}

// queries returns the alternatives of which one must allow.
func (s Start) queries(q Query) []Query {
	q.Context = s.context(q.Context)
	s.Node = known(s.Node)
	document := s.Document
	document.Tags, document.Context = s.Node.Tags, s.Node.Context
	both := with(q, "true", s.Node, document)
	if s.Named || s.RequireDocument {
		return []Query{both}
	}
	return []Query{with(q, "false", s.Node), both}
}

// context adds the keys of where the session leads and whom it runs as.
func (s Start) context(given map[string][]string) map[string][]string {
	keys := maps.Clone(given)
	if keys == nil {
		keys = map[string][]string{}
	}
	if s.Remote != nil {
		maps.Copy(keys, s.Remote.Context())
	}
	if _, name, ok := strings.Cut(s.Document.ARN, ":document/"); ok {
		keys[KeyDocumentName] = []string{name}
	}
	if s.Login != "" {
		keys[keyRunAsUser] = []string{s.Login}
	}
	return keys
}

// known is a node with the key of its id, which is in its ARN.
func known(node Resource) Resource {
	if len(node.Context[KeyNodeID]) > 0 {
		return node
	}
	context := maps.Clone(node.Context)
	if context == nil {
		context = map[string][]string{}
	}
	context[KeyNodeID] = []string{node.ARN[strings.LastIndexByte(node.ARN, '/')+1:]}
	node.Context = context
	return node
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
