package server

import (
	"context"
	"errors"

	"sallyport.dev/access"
	"sallyport.dev/kms"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// admitNode lets a node decrypt the data key of a session on it, and nothing else: the
// encryption context names the node and a session that lives on it, whose document named
// the key. No policy is asked, and none could let a node do more. What the node asks for
// beyond that is refused without telling which part of it was wrong.
func (c *Call) admitNode(ctx context.Context, k kms.Key, r access.Resource, e map[string]string) error {
	ok, err := c.decryptsOwnSession(ctx, k, e)
	if err != nil {
		return err
	}
	c.checked = true
	q := c.query(c.Operation.Action, []access.Resource{r})
	if !ok {
		return c.Server.checker.Refuse(ctx, q,
			"because a node may only decrypt the data key of a session that lives on it, with the key that the session's document names")
	}
	return c.Server.checker.Admit(ctx, q)
}

func (c *Call) decryptsOwnSession(ctx context.Context, k kms.Key, e map[string]string) (bool, error) {
	node, id := c.Principal.Name, e[wire.ContextSessionID]
	if k.ID == "" || id == "" || e[wire.ContextTargetID] != node || len(e) != len(wire.DataKeyContext(id, node, e[wire.ContextChallenge])) {
		return false, nil
	}
	v, err := c.Server.config.Sessions.Session(ctx, id)
	if errors.Is(err, session.ErrNotFound) {
		return false, nil
	}
	return err == nil && v.NodeID == node && v.State.Active() && v.KMSKey == k.ID, err
}
