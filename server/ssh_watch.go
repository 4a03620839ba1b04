package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/session"
)

// keyWatch tells the agents that keep SSH keys when those of their groups have changed,
// however and through whichever member that happened: it compares the store with what
// it has seen. Each member tells the nodes that are connected to it.
type keyWatch struct {
	server   *Server
	nodes    keyNodes
	every    time.Duration
	revision int64
	groups   map[string]groupKeys // by group
	cancel   context.CancelFunc
	ended    chan struct{}
}

// keyNodes is the part of session.Gateway that reaches the agents.
type keyNodes interface {
	KeySyncNodes() []string
	KeysChanged(ctx context.Context, node string) error
}

// groupKeys is a hash over the keys of a group.
type groupKeys [sha256.Size]byte

const (
	// keyWatchEvery is how often a member looks for changes: one read of one row.
	keyWatchEvery = time.Second
	keyWatchRead  = 10 * time.Second
)

func watchKeys(s *Server, nodes keyNodes, every time.Duration) *keyWatch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &keyWatch{server: s, nodes: nodes, every: every, cancel: cancel, ended: make(chan struct{})}
	go w.run(ctx)
	return w
}

// close stops watching and waits for the end of it.
func (w *keyWatch) close() {
	if w != nil {
		w.cancel()
		<-w.ended
	}
}

func (w *keyWatch) run(ctx context.Context) {
	defer close(w.ended)
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		if err := w.look(ctx); err != nil && ctx.Err() == nil {
			w.server.log.Warn("looking for changed SSH keys", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look compares the keys of all groups with those seen before, if anything at all of
// identities has changed since.
func (w *keyWatch) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keyWatchRead)
	defer cancel()
	store := w.server.config.Identities
	revision, err := store.Revision(ctx)
	if err != nil || revision == w.revision {
		return err
	}
	// Read after the revision: a change in between is looked at once more.
	rows, err := store.GroupsWithSSHKeys(ctx)
	if err != nil {
		return err
	}
	groups := hashGroups(rows)
	if w.groups != nil {
		w.tell(ctx, changedGroups(w.groups, groups))
	}
	w.revision, w.groups = revision, groups
	return nil
}

func hashGroups(rows []identity.GroupSSHKey) map[string]groupKeys {
	groups := map[string]groupKeys{}
	for _, r := range rows {
		sum := groups[r.Group]
		groups[r.Group] = sha256.Sum256(fmt.Appendf(sum[:], "%s\n%s", r.User, r.KeyID))
	}
	return groups
}

// changedGroups lists the groups whose keys are not the same in both.
func changedGroups(before, after map[string]groupKeys) []string {
	changed := map[string]bool{}
	for group, sum := range after {
		if before[group] != sum {
			changed[group] = true
		}
	}
	for group := range before {
		if _, still := after[group]; !still {
			changed[group] = true
		}
	}
	return slices.Sorted(maps.Keys(changed))
}

// tell hints to the nodes that may read the keys of one of the groups. A node that it
// cannot reach asks by itself sooner or later.
func (w *keyWatch) tell(ctx context.Context, groups []string) {
	if len(groups) == 0 {
		return
	}
	for _, id := range w.nodes.KeySyncNodes() {
		n, err := w.server.config.Nodes.Node(ctx, id)
		concerned := slices.ContainsFunc(groups, func(group string) bool { return mayReadKeys(n.Tags, group) })
		if err == nil && concerned {
			err = w.nodes.KeysChanged(ctx, id)
		}
		if err != nil {
			w.server.log.Debug("hinting at changed keys", "node", id, "error", err)
		}
	}
}

// nodeTagged hints to a node whose tags have changed, and with them perhaps which keys
// it may read. It waits for nobody: the agent asks by itself sooner or later.
func (s *Server) nodeTagged(ctx context.Context, id string) {
	if s.config.Gateway == nil {
		return
	}
	err := s.config.Gateway.KeysChanged(ctx, id)
	if err != nil && !errors.Is(err, session.ErrNoResponder) && !errors.Is(err, session.ErrNotConnected) {
		s.log.Debug("hinting at changed keys", "node", id, "error", err)
	}
}
