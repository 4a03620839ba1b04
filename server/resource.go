package server

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/session"
)

// nodeResource is a node as policies see it. Its name is the one that administrators gave
// it: what an agent reports could be made up.
func (s *Server) nodeResource(n node.Node) access.Resource {
	keys := map[string][]string{access.KeyNodeID: {n.ID}}
	if name := n.AssignedName(); name != "" {
		keys[access.KeyNodeName] = []string{name}
	}
	return access.Resource{ARN: s.config.Realm.Node(n.ID), Tags: n.Tags, Context: keys}
}

// owns reports whether a session is the principal's own. The name of a role session is
// the caller's choice, so that the same person must be behind it as well.
func owns(p identity.Principal, v session.Session) bool {
	return v.OwnerID == p.UserID && rootOf(v) == p.RootID()
}

// mayRead reports whether a session is the principal's to read: their own, and for a user
// with no role between also what they did in one. The other way round a role would give
// more than its policies.
func mayRead(p identity.Principal, v session.Session) bool {
	return owns(p, v) || p.Root == "" && rootOf(v) == p.UserID
}

// rootOf is who is behind a session. Rows from before that was noted know their owner
// alone, who is enough where it is a user.
func rootOf(v session.Session) string { return cmp.Or(v.RootID, v.OwnerID) }

// sessionResource is a session as policies see it: with its node's tags, and the
// system tags that AWS gives sessions (who may resume and end their own).
func (c *Call) sessionResource(ctx context.Context, v session.Session) (access.Resource, error) {
	return c.sessionTo(ctx, c.Principal, v)
}

// sessionTo is sessionResource for a principal who need not be the caller.
func (c *Call) sessionTo(ctx context.Context, p identity.Principal, v session.Session) (access.Resource, error) {
	n, err := c.Server.config.Nodes.Node(ctx, v.NodeID)
	if err != nil && !errors.Is(err, node.ErrNotFound) {
		return access.Resource{}, err
	}
	keys, then, keysErr := c.evidenceKeys(ctx, v)
	if keysErr != nil {
		return access.Resource{}, keysErr
	}
	tags := identity.Tags{}
	if err != nil { // the node is gone: what it was counts
		n.Tags = then
	}
	for key, value := range n.Tags {
		if !strings.HasPrefix(strings.ToLower(key), "aws:") {
			tags[key] = value
		}
	}
	// Not among the tags, whose values commas separate: names of role sessions may
	// have commas.
	system := keys
	for _, prefix := range []string{"aws:ResourceTag/", "ssm:resourceTag/"} {
		system[prefix+"aws:ssmmessages:session-id"] = []string{ownerTag(p, v)}
		system[prefix+"aws:ssmmessages:target-id"] = []string{v.NodeID}
	}
	return access.Resource{ARN: c.Server.config.Realm.Session(v.ID), Tags: tags, Context: system}, nil
}

// ownerTag is the value of a session's tag aws:ssmmessages:session-id: its owner's
// aws:userid, which policies compare with the caller's. To a caller who is somebody
// else under the same name of a role session it is a value that is not theirs, rather
// than none: conditions with IfExists would hold without one.
func ownerTag(p identity.Principal, v session.Session) string {
	sameName := len(v.OwnerID) >= len(p.UserID) && strings.EqualFold(v.OwnerID[:len(p.UserID)], p.UserID)
	if sameName && rootOf(v) != p.RootID() {
		return rootOf(v) + "/" + v.OwnerID
	}
	return v.OwnerID
}

// nodeByTarget finds a node by its id, or by its assigned name where just one has it.
func (s *Server) nodeByTarget(ctx context.Context, target string) (node.Node, error) {
	n, err := s.config.Nodes.Node(ctx, target)
	if !errors.Is(err, node.ErrNotFound) {
		return n, err
	}
	all, err := s.config.Nodes.Nodes(ctx, node.Filter{})
	if err != nil {
		return node.Node{}, err
	}
	var found []node.Node
	for _, n := range all {
		if n.AssignedName() == target {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return node.Node{}, exception("InvalidInstanceId", "There is no node %q.", truncate(target, 100))
	case 1:
		return found[0], nil
	}
	return node.Node{}, exception("InvalidInstanceId", "%d nodes are named %q; give the id of one.", len(found), truncate(target, 100))
}
