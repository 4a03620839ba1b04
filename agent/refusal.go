package agent

import (
	"context"
	"errors"
	"time"
)

// ErrKeyRefused is returned where the server refuses the node's own key: the node was
// deregistered, or region or clock differ from the server's.
var ErrKeyRefused = errors.New("the server refuses this node's key")

const (
	// Nothing that the agent does by itself changes such a refusal, so it asks
	// seldom. It does ask: the server's clock may be set right, its state restored.
	minRefusedWait = 30 * time.Second
	maxRefusedWait = 2 * time.Minute
)

// refusals are what is known of servers that refuse the node's key.
type refusals struct {
	wait  backoff
	count int        // in a row
	tried Activation // spent or refused: it is not offered again
}

func (a *Agent) newRefusals() refusals {
	return refusals{wait: backoff{min: a.cfg.refusedWait, max: max(maxRefusedWait, a.cfg.refusedWait)}}
}

// over forgets the refusals once the node has been let in for good.
func (r *refusals) over() {
	r.wait.reset()
	r.count, r.tried = 0, Activation{}
}

// keyRefused waits after a refusal of the node's key, until it may be tried again; it
// reports false if ctx ended first. A node that no server knows registers itself
// anew if it can.
func (a *Agent) keyRefused(ctx context.Context, r *refusals, cause error) bool {
	a.nextEndpoint()
	r.count++
	if r.count%len(a.endpoints) != 0 {
		return sleep(ctx, minBackoff) // another server may know better
	}
	if !hasCode(cause, "UnrecognizedClient") {
		a.log.Warn("this node is not let in; compare region and clock with the server's", "node", a.NodeID(), "error", cause)
		return r.wait.wait(ctx)
	}
	if a.returnAsNew(ctx, r) {
		return true
	}
	a.log.Warn("this node was deregistered; run 'sallyport-agent register', or configure an activation that is not used up",
		"node", a.NodeID(), "error", cause)
	return r.wait.wait(ctx)
}

// returnAsNew registers the machine anew, if an activation is configured that was not
// tried before. Until that has succeeded the registration stays as it is: a server
// that was restored from a copy may know it again.
func (a *Agent) returnAsNew(ctx context.Context, r *refusals) bool {
	act, err := a.activation()
	if err != nil {
		a.log.Info("looking for an activation", "error", err)
		return false
	}
	if !act.given() || act == r.tried {
		return false
	}
	before := a.NodeID()
	err = a.register(ctx, act)
	if err == nil || refused(err) && !hasCode(err, "Throttling") {
		r.tried = act
	}
	if err != nil {
		a.log.Warn("registering a deregistered node anew", "node", before, "error", err)
		return false
	}
	a.log.Warn("the node was deregistered and has registered itself anew", "before", before, "node", a.NodeID())
	notify(a.registeredAnew)
	return true
}
