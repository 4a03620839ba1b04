package server

import (
	"context"
	"errors"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/session"
)

// nodeResource is a node as policies see it.
func (s *Server) nodeResource(n node.Node) access.Resource {
	return access.Resource{ARN: s.config.Realm.Node(n.ID), Tags: n.Tags}
}

// sessionResource is a session as policies see it: with its node's tags, and the
// system tags that AWS gives sessions (who may resume and end their own).
func (s *Server) sessionResource(ctx context.Context, v session.Session) (access.Resource, error) {
	tags := identity.Tags{
		"aws:ssmmessages:session-id": v.OwnerID,
		"aws:ssmmessages:target-id":  v.NodeID,
	}
	n, err := s.config.Nodes.Node(ctx, v.NodeID)
	if err != nil && !errors.Is(err, node.ErrNotFound) {
		return access.Resource{}, err
	}
	for key, value := range n.Tags {
		if _, system := tags[key]; !system {
			tags[key] = value
		}
	}
	return access.Resource{ARN: s.config.Realm.Session(v.ID), Tags: tags}, nil
}

// nodeByTarget finds a node by its id, or by its name where just one has it.
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
		if n.DisplayName() == target {
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
