package session

import (
	"context"
	"fmt"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/node"
)

// sweepInterval is how often a member looks for what members that died have left.
const sweepInterval = 10 * time.Second

// closeLeftovers ends what this member left open when it last ran.
func (g *Gateway) closeLeftovers(ctx context.Context) error {
	own := func(member string) bool { return member == g.cfg.Cluster.Member() }
	if err := g.failRows(ctx, ReasonRestart, own); err != nil {
		return err
	}
	return g.clearNodes(ctx, own)
}

// sweeper ends the sessions of members that are gone, and lets go of their nodes.
func (g *Gateway) sweeper() {
	t := time.NewTicker(sweepInterval)
	defer t.Stop()
	s := sweep{alive: map[string]int{}}
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-t.C:
		}
		if err := s.run(g); err != nil {
			g.log.Warn("looking for what lost members have left", "error", err)
		}
	}
}

// sweep is what a sweeper remembers.
type sweep struct {
	round int
	alive map[string]int // member to the round in which it was last heard of
}

// grace is how many rounds a member may be silent. One that has never been heard of
// is given as many: it may be starting, or this one be.
const grace = 2

// run does one round. Sessions are few and looked at every time; nodes are many, and
// looked at once members have had time to be heard, and after one fell silent.
func (s *sweep) run(g *Gateway) error {
	s.round++
	for _, m := range g.cfg.Cluster.Members() {
		s.alive[m.ID] = s.round
	}
	if s.round < grace {
		return nil
	}
	silent := s.round == grace
	for id, last := range s.alive {
		if s.round-last >= grace {
			silent = true
			delete(s.alive, id)
		}
	}
	if err := g.failRows(g.ctx, ReasonMemberLost, s.lost); err != nil || !silent {
		return err
	}
	return g.clearNodes(g.ctx, s.lost)
}

// lost reports whether a member has been silent for too long.
func (s *sweep) lost(member string) bool {
	_, known := s.alive[member]
	return !known
}

// failRows marks the active sessions of the members that match as failed, and tells
// their nodes where they are connected here.
func (g *Gateway) failRows(ctx context.Context, reason string, match func(member string) bool) error {
	active := true
	rows, err := g.cfg.Store.Sessions(ctx, Filter{Active: &active})
	if err != nil {
		return fmt.Errorf("listing active sessions: %w", err)
	}
	for _, row := range rows {
		if !match(row.Member) {
			continue
		}
		if err := g.failRow(ctx, row, reason); err != nil {
			return err
		}
	}
	return nil
}

func (g *Gateway) failRow(ctx context.Context, row Session, reason string) error {
	changed, err := g.cfg.Store.UpdateSession(ctx, row.ID, func(s *Session) error {
		s.State, s.Ended, s.EndReason = StateFailed, g.now(), reason
		return nil
	})
	if err != nil {
		return fmt.Errorf("ending session %s: %w", row.ID, err)
	}
	if !changed {
		return nil
	}
	g.log.Info("session ended", "session", row.ID, "node", row.NodeID, "reason", reason)
	if g.control(row.NodeID) != nil {
		g.sendClosed(ctx, row.NodeID, row.ID)
	}
	// Over it is, whether or not that can be audited; the log has the error.
	_ = g.audit(ctx, audit.EventSessionEnd, row, "", reason, g.leftRecording(ctx, row))
	return nil
}

// leftRecording tells of the recording that a member left behind, if it is finished: the
// member that has it does so when it starts, before this. One that is finished later has an
// audit record of its own.
func (g *Gateway) leftRecording(ctx context.Context, row Session) map[string]string {
	if row.Recording == "" || g.cfg.Recorded == nil {
		return nil
	}
	sum, err := g.cfg.Recorded(ctx, row.Recording)
	if err != nil {
		g.log.Info("the recording of a lost session is not finished", "session", row.ID, "error", err)
		return nil
	}
	details := map[string]string{}
	addRecording(details, sum)
	return details
}

// clearNodes notes that the nodes of the members that match are not connected.
func (g *Gateway) clearNodes(ctx context.Context, match func(member string) bool) error {
	nodes, err := g.cfg.Nodes.Nodes(ctx, node.Filter{})
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	for _, n := range nodes {
		if n.Member == "" || !match(n.Member) {
			continue
		}
		if err := g.cfg.Nodes.ClearConnected(ctx, n.ID, n.Member); err != nil {
			return fmt.Errorf("letting go of %s: %w", n.ID, err)
		}
		g.log.Info("node disconnected", "node", n.ID, "member", n.Member)
	}
	return nil
}
