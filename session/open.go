package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/recording"
	"sallyport.dev/tracing"
	"sallyport.dev/wire"
)

// open starts a session on a node connected here, on behalf of any member. store
// makes its row tell that it is here.
func (g *Gateway) open(ctx context.Context, c *control, req request, store func(context.Context, Session) error) error {
	if req.Session == nil || req.Start == nil {
		return fmt.Errorf("opening session: session or start is missing")
	}
	ctx, _ = tracing.Continue(ctx, req.Options.Trace)
	ctx, opening := g.cfg.Tracer.Start(ctx, "open session")
	defer opening.End()
	s := newLive(g, *req.Session, *req.Start, req.Options)
	s.task.DataChannelToken = g.newToken(roleAgent, s.row.ID)
	s.task.Reattach = int(g.cfg.AgentGrace / time.Second)
	s.offerBulk()
	if err := s.openRecording(ctx); err != nil {
		return err
	}
	err := s.writeUp(ctx, store)
	if err == nil {
		err = s.enterGateway()
	}
	if err != nil {
		s.abandon(err)
		return err
	}
	g.counters.start(s.kind())
	s.log.Info("session opened", "principal", s.row.Owner, "document", s.row.Document)
	s.traceEnds(ctx)
	s.sendStart(c)
	return nil
}

func (s *live) openRecording(ctx context.Context) error {
	if !s.opts.Record || s.exec.isSFTP() || s.g.cfg.Unrecorded {
		return nil
	}
	if s.g.cfg.Record == nil || s.opts.Encrypted && s.g.cfg.DataKey == nil {
		return fmt.Errorf("%w: recordings have no place, or its ends encrypt it with keys that are not here", ErrRecording)
	}
	rec, name, err := s.g.cfg.Record(ctx, s.row, s.opts)
	if errors.Is(err, recording.ErrFull) {
		s.log.Warn("opening recording", "error", err)
		return fmt.Errorf("%w: %s", ErrRecordingFull, whyNotRecorded(err))
	}
	if err != nil {
		s.log.Error("opening recording", "error", err)
		return fmt.Errorf("%w: %w", ErrRecording, err)
	}
	s.rec, s.row.Recording = rec, name
	if s.exec != nil && s.exec.Terminal != nil && s.exec.Terminal.Cols > 0 && s.exec.Terminal.Rows > 0 {
		s.size.set(int(s.exec.Terminal.Cols), int(s.exec.Terminal.Rows))
		return rec.Resize(s.g.now(), int(s.exec.Terminal.Cols), int(s.exec.Terminal.Rows))
	}
	return nil
}

// adopt notes in the row of a session that another member was asked for that it is
// here.
func (g *Gateway) adopt(ctx context.Context, s Session) error {
	changed, err := g.cfg.Store.UpdateSession(ctx, s.ID, func(row *Session) error {
		row.Member, row.Recording = g.cfg.Cluster.Member(), s.Recording
		return nil
	})
	if err != nil {
		return fmt.Errorf("saving session: %w", err)
	}
	if !changed {
		return ErrEnded
	}
	return nil
}

// writeUp writes that the session begins, into its row and the audit log: both at once,
// so that they share a flush of the disk. Nobody is told of the session before.
func (s *live) writeUp(ctx context.Context, store func(context.Context, Session) error) error {
	var stored error
	var wg sync.WaitGroup
	wg.Go(func() { stored = store(ctx, s.row) })
	audited := s.audit(ctx, audit.EventSessionStart, s.row.Reason, s.details())
	wg.Wait()
	if stored != nil && audited == nil { // the log must not leave it open
		s.audit(context.WithoutCancel(ctx), audit.EventSessionEnd, clip(stored.Error()), nil)
	}
	return errors.Join(stored, audited)
}

// enterGateway makes the session known, on its subject and here.
func (s *live) enterGateway() error {
	g := s.g
	stop, err := g.cfg.Cluster.Serve(subjectOf(s.row.ID), func(ctx context.Context, data []byte) ([]byte, error) {
		return s.serve(ctx, data), nil
	})
	if err != nil {
		return fmt.Errorf("serving session: %w", err)
	}
	s.unserve = stop
	g.mu.Lock()
	g.sessions[s.row.ID] = s
	g.mu.Unlock()
	return nil
}

// abandon undoes openRecording when the session does not begin.
func (s *live) abandon(err error) {
	close(s.done)
	s.g.mu.Lock()
	delete(s.g.sessions, s.row.ID)
	s.g.mu.Unlock()
	if s.rec != nil {
		s.rec.Close(recording.End{Reason: err.Error(), Ended: s.g.now()})
	}
}

// serve answers members that want something of this session.
func (s *live) serve(ctx context.Context, data []byte) []byte {
	var req request
	if err := json.Unmarshal(data, &req); err != nil {
		return replyFor(fmt.Errorf("decoding request: %w", err))
	}
	switch {
	case req.Op == "end" && req.Cause != nil:
		s.end(req.Cause)
		return replyFor(nil)
	case req.Op == "complete" && req.Complete != nil:
		s.taskComplete(*req.Complete)
		return replyFor(nil)
	case req.Op == "watch" && req.Watch != nil:
		return s.serveWatch(ctx, *req.Watch)
	}
	return replyFor(fmt.Errorf("unknown request %q", req.Op))
}

// sendStart asks the agent to start the session.
func (s *live) sendStart(c *control) {
	s.mu.Lock()
	s.startedAt = s.g.now()
	s.mu.Unlock()
	if err := c.send(s.startMessage()); err != nil {
		s.log.Info("starting session", "error", err)
	}
}

func (s *live) startMessage() *wire.Message {
	content, _ := json.Marshal(s.task) // of strings and JSON that was checked
	return wire.NewJSON(wire.TypeInteractiveShell, s.g.now(), wire.ControlTask{
		Content: string(content), TaskID: s.row.ID, Topic: wire.TypeInteractiveShell, SchemaVersion: 1,
	})
}

// repeatStart sends the start again while the agent has not answered it: agents drop
// what comes in the first seconds of a control channel.
func (s *live) repeatStart() {
	s.mu.Lock()
	needed := !s.asked && s.cause.Load() == nil
	if needed {
		s.startedAt = s.g.now()
	}
	s.mu.Unlock()
	if !needed {
		return
	}
	ctx, cancel := context.WithTimeout(s.g.ctx, storeTimeout)
	defer cancel()
	if err := s.g.sendControl(ctx, s.row.NodeID, s.startMessage()); err != nil {
		s.log.Info("repeating the start", "error", err)
	}
}
