package store

import (
	"context"
	"maps"
	"time"

	"sallyport.dev/node"
)

const nodeColumns = `id, name, tags, activation_id, iam_role, fingerprint, public_key, public_key_type, registered,
	agent_name, agent_version, agent_status, platform_type, platform_name, platform_version,
	computer_name, ip_address, availability_zone, last_ping, member, connected_at`

func scanNode(r row) (n node.Node, err error) {
	err = r.Scan(&n.ID, &n.Name, encoded{&n.Tags}, &n.ActivationID, &n.IAMRole, &n.Fingerprint,
		&n.PublicKey, &n.PublicKeyType, stored{&n.Registered},
		&n.AgentName, &n.AgentVersion, &n.AgentStatus, &n.PlatformType, &n.PlatformName, &n.PlatformVersion,
		&n.ComputerName, &n.IPAddress, &n.AvailabilityZone, stored{&n.LastPing}, &n.Member, stored{&n.ConnectedAt})
	return n, err
}

// nodeValues are what nodeColumns hold, but for the id.
func nodeValues(n node.Node) []any {
	return []any{n.Name, encode(n.Tags), n.ActivationID, n.IAMRole, n.Fingerprint,
		n.PublicKey, n.PublicKeyType, micros(n.Registered),
		n.AgentName, n.AgentVersion, n.AgentStatus, n.PlatformType, n.PlatformName, n.PlatformVersion,
		n.ComputerName, n.IPAddress, n.AvailabilityZone, micros(n.LastPing), n.Member, micros(n.ConnectedAt)}
}

func nodeByID(t tx, id string) (node.Node, error) {
	return one(t, about("node", id, node.ErrNotFound), scanNode,
		"SELECT "+nodeColumns+" FROM nodes WHERE id = $1"+t.forUpdate, id)
}

// Node implements node.Store.
func (s *Store) Node(ctx context.Context, id string) (node.Node, error) {
	n, err := nodeByID(s.read(ctx), id)
	return n, wrap("reading node", err)
}

// Nodes implements node.Store.
func (s *Store) Nodes(ctx context.Context, f node.Filter) ([]node.Node, error) {
	w := where{}
	w.in("id", f.IDs)
	if f.After != "" {
		w.add("id > ?", f.After)
	}
	all, err := list(s.read(ctx), scanNode,
		"SELECT "+nodeColumns+" FROM nodes"+w.String()+" ORDER BY id"+limit(f.Limit), w.args...)
	return all, wrap("listing nodes", err)
}

// UpdateNode implements node.Store. The id stays what it is.
func (s *Store) UpdateNode(ctx context.Context, id string, change func(*node.Node) error) error {
	return s.write(ctx, "changing node", func(t tx) error {
		n, err := nodeByID(t, id)
		if err != nil {
			return err
		}
		before := n
		before.Tags = maps.Clone(n.Tags)
		if err := change(&n); err != nil {
			return err
		}
		if n.DisplayName() != before.DisplayName() || !maps.Equal(n.Tags, before.Tags) {
			if err := nodesChanged(t); err != nil {
				return err
			}
		}
		_, err = t.exec(`UPDATE nodes SET name = $2, tags = $3, activation_id = $4, iam_role = $5, fingerprint = $6,
			public_key = $7, public_key_type = $8, registered = $9,
			agent_name = $10, agent_version = $11, agent_status = $12,
			platform_type = $13, platform_name = $14, platform_version = $15,
			computer_name = $16, ip_address = $17, availability_zone = $18,
			last_ping = $19, member = $20, connected_at = $21 WHERE id = $1`,
			append([]any{id}, nodeValues(n)...)...)
		return err
	})
}

// DeleteNode implements node.Store.
func (s *Store) DeleteNode(ctx context.Context, id string) error {
	return s.write(ctx, "deleting node", func(t tx) error { return deleteNode(t, id) })
}

func deleteNode(t tx, id string) error {
	if err := t.must(about("node", id, node.ErrNotFound), "DELETE FROM nodes WHERE id = $1", id); err != nil {
		return err
	}
	if _, err := t.exec("DELETE FROM node_keys WHERE node_id = $1", id); err != nil {
		return err
	}
	return nodesChanged(t)
}

// SetConnected implements node.Store. The last to call wins: an agent whose link
// broke comes back through another member before the first has noticed.
func (s *Store) SetConnected(ctx context.Context, id, member string, at time.Time) error {
	return s.write(ctx, "noting connected node", func(t tx) error {
		return t.must(about("node", id, node.ErrNotFound),
			"UPDATE nodes SET member = $1, connected_at = $2 WHERE id = $3", member, micros(at), id)
	})
}

// ClearConnected implements node.Store.
func (s *Store) ClearConnected(ctx context.Context, id, member string) error {
	return s.write(ctx, "noting disconnected node", func(t tx) error {
		_, err := t.exec("UPDATE nodes SET member = '', connected_at = 0 WHERE id = $1 AND member = $2", id, member)
		return err
	})
}
