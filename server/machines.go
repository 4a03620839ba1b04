package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"sallyport.dev/identity"
	"sallyport.dev/node"
)

// machines shows registered nodes to authentication.
type machines struct{ nodes node.Store }

// Machine implements identity.Machines.
func (m machines) Machine(ctx context.Context, id string) (identity.Machine, error) {
	n, err := m.nodes.Node(ctx, id)
	if errors.Is(err, node.ErrNotFound) {
		return identity.Machine{}, fmt.Errorf("node %s: %w", id, identity.ErrNotFound)
	}
	if err != nil {
		return identity.Machine{}, err
	}
	machine := identity.Machine{ID: n.ID, Tags: n.Tags, Registration: registrationOf(n)}
	if n.PublicKey != "" {
		if machine.PublicKey, err = node.ParsePublicKey(n.PublicKey, n.PublicKeyType); err != nil {
			return identity.Machine{}, fmt.Errorf("node %s: %w", id, err)
		}
	}
	return machine, nil
}

// registrationOf names a node's registration in its credentials.
func registrationOf(n node.Node) string { return strconv.FormatInt(n.Registered.UnixMicro(), 36) }
