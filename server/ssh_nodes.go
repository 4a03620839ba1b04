package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/node"
)

// Nodes as the SSH front door's user and host names name them.

// maxAlike bounds the nodes among which a name that fits several is decided.
const maxAlike = 50

// AmbiguousNodeError says that a name fits several nodes that the person may use.
type AmbiguousNodeError struct {
	Name string
	IDs  []string // in order
}

// Error implements error.
func (e *AmbiguousNodeError) Error() string {
	return fmt.Sprintf("%q fits %d nodes: give the id of one: %s", truncate(e.Name, 100), len(e.IDs), strings.Join(e.IDs, ", "))
}

// NodeNamed finds the node that a person means: by its id, its assigned name (host
// names come in lower case, so that case decides only where it must), or the beginning
// of that name. Where several fit, those that the person may not use do not count; if
// more are left, the error is an *AmbiguousNodeError. known is false where none fits.
//
// A node that is found may be one that the person may not use: starting a session
// decides that, and tells nothing of it.
func (s *Server) NodeNamed(ctx context.Context, p identity.Principal, o access.Origin, name string) (n node.Node, known bool, err error) {
	n, err = s.config.Nodes.Node(ctx, name)
	if !errors.Is(err, node.ErrNotFound) {
		return n, err == nil, err
	}
	all, err := s.config.Nodes.Nodes(ctx, node.Filter{})
	if err != nil {
		return node.Node{}, false, err
	}
	fits := nodesFitting(all, name)
	if len(fits.exact) != 1 {
		if fits.exact, err = s.usable(ctx, p, o, fits.candidates()); err != nil {
			return node.Node{}, false, err
		}
	}
	switch len(fits.exact) {
	case 0:
		return node.Node{}, false, nil
	case 1:
		return fits.exact[0], true, nil
	}
	ambiguous := &AmbiguousNodeError{Name: name}
	for _, n := range fits.exact {
		ambiguous.IDs = append(ambiguous.IDs, n.ID)
	}
	return node.Node{}, false, ambiguous
}

// fitting are the nodes that a name fits, from well to badly.
type fitting struct{ exact, folded, begun []node.Node }

func nodesFitting(all []node.Node, name string) fitting {
	var f fitting
	for _, n := range all {
		have := n.AssignedName()
		switch {
		case have == name:
			f.exact = append(f.exact, n)
		case strings.EqualFold(have, name):
			f.folded = append(f.folded, n)
		case len(have) > len(name) && strings.EqualFold(have[:len(name)], name):
			f.begun = append(f.begun, n)
		}
	}
	if len(f.exact) == 0 {
		f.exact, f.folded = f.folded, nil
	}
	return f
}

// candidates are the best fitting nodes.
func (f fitting) candidates() []node.Node {
	if len(f.exact) > 0 {
		return f.exact
	}
	return f.begun
}

// usable returns those nodes on which the person may start, or ask for, sessions at all. Too many
// candidates are none: a name must say more.
func (s *Server) usable(ctx context.Context, p identity.Principal, o access.Origin, nodes []node.Node) ([]node.Node, error) {
	if len(nodes) > maxAlike {
		return nil, nil
	}
	var usable []node.Node
	c := &Call{Server: s, Principal: p, Origin: o}
	for _, n := range nodes {
		may, err := c.mayStartOrAsk(ctx, n)
		if err != nil {
			return nil, err
		}
		if may {
			usable = append(usable, n)
		}
	}
	return usable, nil
}

// CheckSession authorises a session as StartSession does, audits the decision, and
// starts none: for what the front door then has to refuse for another reason.
func (s *Server) CheckSession(ctx context.Context, p identity.Principal, o access.Origin, in StartInput) error {
	c := &Call{Server: s, Operation: s.table.operations["ssm"]["StartSession"], Principal: p, Origin: o}
	asked, err := bindInput(c.Operation, &binder{}, in.members(), "SerializationException", "ValidationException")
	if err != nil {
		return err
	}
	c.input = asked
	_, _, err = c.checkStart(ctx, in)
	return err
}

// SSHRefused records that nobody was let in by SSH, as refused signatures are.
func (s *Server) SSHRefused(ctx context.Context, o access.Origin, cause error) {
	s.logins.refused(ctx, o, cause)
}
