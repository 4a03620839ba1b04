package store

import (
	"context"
	"encoding/json"

	"sallyport.dev/node"
)

func scanNodeKeys(r row) (k node.Keys, err error) {
	err = r.Scan(&k.NodeID, stored{&k.Reported}, encoded{&k.Keys}, &k.More)
	return k, err
}

// SetKeys implements node.Store.
func (s *Store) SetKeys(ctx context.Context, k node.Keys) error {
	return s.write(ctx, "noting a node's keys", func(t tx) error {
		if _, err := nodeByID(t, k.NodeID); err != nil {
			return err
		}
		text, err := json.Marshal(k.Keys)
		if err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO node_keys (node_id, reported, keys, more) VALUES ($1, $2, $3, $4)
			ON CONFLICT (node_id) DO UPDATE SET reported = excluded.reported, keys = excluded.keys, more = excluded.more`,
			k.NodeID, micros(k.Reported), string(text), k.More)
		return err
	})
}

// Keys implements node.Store.
func (s *Store) Keys(ctx context.Context) ([]node.Keys, error) {
	all, err := list(s.read(ctx), scanNodeKeys, "SELECT node_id, reported, keys, more FROM node_keys ORDER BY node_id")
	return all, wrap("reading nodes' keys", err)
}
