package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport.dev/node"
)

const activationColumns = `id, code_hash, description, default_name, iam_role, max_count, used_count,
	expires, created, tags, node_ids`

func scanActivation(r row) (a node.Activation, err error) {
	err = r.Scan(&a.ID, &a.CodeHash, &a.Description, &a.DefaultName, &a.IAMRole, &a.Limit, &a.Count,
		stored{&a.Expires}, stored{&a.Created}, encoded{&a.Tags}, encoded{&a.NodeIDs})
	return a, err
}

func activationByID(t tx, id string) (node.Activation, error) {
	return one(t, about("activation", id, node.ErrInvalidActivation), scanActivation,
		"SELECT "+activationColumns+" FROM activations WHERE id = $1"+t.forUpdate, id)
}

// CreateActivation implements node.Store.
func (s *Store) CreateActivation(ctx context.Context, a node.Activation) error {
	return s.write(ctx, "creating activation", func(t tx) error {
		_, err := t.exec("INSERT INTO activations ("+activationColumns+`)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
			a.ID, a.CodeHash, a.Description, a.DefaultName, a.IAMRole, a.Limit, a.Count,
			micros(a.Expires), micros(a.Created), encode(a.Tags), encode(a.NodeIDs))
		return err
	})
}

// Activation implements node.Store.
func (s *Store) Activation(ctx context.Context, id string) (node.Activation, error) {
	a, err := activationByID(s.read(ctx), id)
	return a, wrap("reading activation", err)
}

// Activations implements node.Store, in id order.
func (s *Store) Activations(ctx context.Context, after string, most int) ([]node.Activation, error) {
	all, err := list(s.read(ctx), scanActivation,
		"SELECT "+activationColumns+" FROM activations WHERE id > $1 ORDER BY id"+limit(most), after)
	return all, wrap("listing activations", err)
}

// DeleteActivation implements node.Store. Nodes that registered by it stay.
func (s *Store) DeleteActivation(ctx context.Context, id string) error {
	return s.write(ctx, "deleting activation", func(t tx) error {
		return t.must(about("activation", id, node.ErrInvalidActivation), "DELETE FROM activations WHERE id = $1", id)
	})
}

// errNoID is what comes of an id generator that repeats itself.
var errNoID = errors.New("no free node id was found")

// Register implements node.Store. It returns node.ErrExists where the activation
// fixes the id of a node that is still registered: nobody takes a node's place
// before it has been deregistered.
func (s *Store) Register(ctx context.Context, n node.Node, at time.Time, newID func() string) (node.Node, error) {
	err := s.write(ctx, "registering node", func(t tx) error {
		a, err := useActivation(t, n.ActivationID, at)
		if err != nil {
			return err
		}
		n.ID, err = chooseID(t, a, newID)
		if err != nil {
			return err
		}
		return insertNode(t, n)
	})
	if err != nil {
		return node.Node{}, err
	}
	return s.Node(ctx, n.ID)
}

// Unregister implements node.Store.
func (s *Store) Unregister(ctx context.Context, n node.Node) error {
	return s.write(ctx, "undoing registration", func(t tx) error {
		if err := deleteNode(t, n.ID); err != nil {
			return err
		}
		a, err := activationByID(t, n.ActivationID)
		if errors.Is(err, node.ErrInvalidActivation) || err == nil && !isLast(a, n.ID) {
			return nil
		}
		if err == nil {
			_, err = t.exec("UPDATE activations SET used_count = used_count - 1 WHERE id = $1", a.ID)
		}
		return err
	})
}

// useActivation takes one registration off an activation and returns it as it was.
func useActivation(t tx, id string, at time.Time) (node.Activation, error) {
	a, err := activationByID(t, id)
	switch {
	case err != nil:
		return a, err
	case !at.Before(a.Expires):
		return a, about("activation", id, node.ErrActivationExpired)
	case a.Count >= a.Limit:
		return a, about("activation", id, node.ErrRegistrationLimit)
	}
	_, err = t.exec("UPDATE activations SET used_count = used_count + 1 WHERE id = $1", id)
	return a, err
}

// chooseID returns the id that the activation fixes for its next node, or a new one.
func chooseID(t tx, a node.Activation, newID func() string) (string, error) {
	if len(a.NodeIDs) > 0 {
		if a.Count >= len(a.NodeIDs) {
			return "", about("activation", a.ID, node.ErrRegistrationLimit)
		}
		return a.NodeIDs[a.Count], nil
	}
	for range 5 {
		id := newID()
		n, err := t.count("SELECT COUNT(*) FROM nodes WHERE id = $1", id)
		if err != nil || n == 0 {
			return id, err
		}
	}
	return "", errNoID
}

// isLast reports whether the last registration of an activation was that of the id, or
// one like any other.
func isLast(a node.Activation, id string) bool {
	if len(a.NodeIDs) == 0 {
		return a.Count > 0
	}
	return a.Count > 0 && a.Count <= len(a.NodeIDs) && a.NodeIDs[a.Count-1] == id
}

func insertNode(t tx, n node.Node) error {
	_, err := t.exec("INSERT INTO nodes ("+nodeColumns+`) VALUES
		($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)`,
		append([]any{n.ID}, nodeValues(n)...)...)
	return orExists(err, fmt.Errorf("node %s: %w", n.ID, node.ErrExists))
}
