package session

import (
	"context"
	"slices"

	"sallyport.dev/wire"
)

// KeySyncNodes lists the nodes connected to this member whose agents keep SSH keys.
func (g *Gateway) KeySyncNodes() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var nodes []string
	for id, c := range g.controls {
		if c.keepsKeys() {
			nodes = append(nodes, id)
		}
	}
	return nodes
}

// KeysChanged hints to a node's agent, by whichever member holds its channel, that SSH
// keys may have changed that it keeps. Other agents are not told. An agent that misses
// a hint asks by itself sooner or later.
func (g *Gateway) KeysChanged(ctx context.Context, node string) error {
	if c := g.control(node); c != nil {
		return g.hintKeys(c)
	}
	return g.ask(ctx, subjectNode+node, request{Op: "keys"})
}

func (c *control) keepsKeys() bool { return slices.Contains(c.features, wire.FeatureKeys) }

// hintKeys sends the hint without waiting. One that still waits to be written stands
// for those that come meanwhile.
func (g *Gateway) hintKeys(c *control) error {
	if !c.keepsKeys() || !c.hinting.CompareAndSwap(false, true) {
		return nil
	}
	sent := g.start(func() {
		c.hinting.Store(false) // before the write: what changes from here on is told anew
		if err := c.send(wire.New(wire.TypeKeysChanged, g.now(), nil)); err != nil {
			g.log.Debug("hinting at changed keys", "node", c.node, "error", err)
		}
	})
	if !sent {
		return ErrStopped
	}
	return nil
}
