package session

import (
	"context"
	"strconv"
	"sync"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/recording"
)

const (
	// reportWait is how long the end of the agent's program waits for the agent's
	// report, which tells how it ended and follows within milliseconds.
	reportWait = 500 * time.Millisecond
	// drainWait is how long an agent that reported the end may take to finish its
	// data channel, and ackWait how long a client may take to acknowledge what it
	// was sent last.
	drainWait = 2 * time.Second
	ackWait   = time.Second
	// stuckWait is how long a client may make no progress at all with what is left.
	stuckWait = 10 * time.Second
	// insist and insistTimes say how often an agent that does not end a session is
	// told again, on its control channel.
	insist      = 2 * time.Second
	insistTimes = 3
)

// end ends the session, once: the first cause counts, unless a later one cuts it short.
func (s *live) end(cause *Cause) {
	if !s.cause.CompareAndSwap(nil, cause) {
		if cause.cuts() {
			s.cut.CompareAndSwap(nil, cause)
			s.sever()
		}
		s.mu.Lock()
		s.settled.Broadcast()
		s.mu.Unlock()
		return
	}
	if cause.cuts() {
		s.sever()
	}
	if !s.g.start(s.finish) {
		s.drop()
	}
}

func (s *live) isDone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// finish takes the session apart: the agent is told, what is still to be shown is
// shown, the client is told, and the end is written down everywhere.
func (s *live) finish() {
	cause := s.cause.Load()
	s.endSpans(cause)
	s.save()
	s.log.Debug("session ending", "reason", cause.Reason)
	if s.bulk != nil {
		s.bulk.close()
	}
	if cause.byAgent() {
		cause = s.awaitReport(cause)
		cause = s.drain(cause)
	}
	var telling sync.WaitGroup // beside the rest: an agent may read nothing
	if final := s.cause.Load(); !final.byAgent() {
		telling.Go(s.tellAgent)
	}
	s.closeClient(cause)
	s.writeDown(cause)
	telling.Wait()
	s.closeAgent(cause)
	close(s.done)
	s.endWatches()
	s.unserve()
}

// awaitReport waits for the agent's own word on how the session ended.
func (s *live) awaitReport(cause *Cause) *Cause {
	s.await(reportWait, func() bool { return s.complete != nil })
	s.mu.Lock()
	done := s.complete
	s.mu.Unlock()
	if done == nil {
		return cause
	}
	final := &Cause{Reason: ReasonExit, Terminal: done.Output, Exit: done.ExitStatus}
	if done.FinalTaskStatus == "Failed" {
		final.Reason, final.Failed, final.Detail = ReasonFailed, true, clip(done.Output)
	}
	s.cause.Store(final)
	return final
}

// await waits until cond, which is called with mu held, is true; at most for limit, and
// not while the gateway stops.
func (s *live) await(limit time.Duration, cond func() bool) bool {
	ctx, cancel := context.WithTimeout(s.g.ctx, limit)
	defer cancel()
	wake := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settled.Broadcast()
	})
	defer wake()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !cond() && ctx.Err() == nil {
		s.settled.Wait()
	}
	return cond()
}

// drain shows the client everything that the agent sent: first the agent's data
// channel comes to its end, then the client gets and acknowledges what is left, as
// long as it makes progress. A client that is away, or goes, may come back for it. It
// returns the cause, which is another one where the session was cut short.
func (s *live) drain(cause *Cause) *Cause {
	s.await(drainWait, func() bool { return s.agentEnded || s.agent == nil || s.isCut() })
	left := s.g.cfg.DisconnectGrace
	for s.awaitClient(&left) && s.progresses() {
	}
	cut := s.cut.Load()
	if cut == nil {
		return cause
	}
	final := *cut
	final.Exit = cause.Exit
	s.cause.Store(&final)
	return &final
}

func (s *live) isCut() bool { return s.cut.Load() != nil }

// awaitClient waits for a client to show what is left to, and reports whether there
// are both. The waits of all calls together end when left is used up. A client that has
// ended the session and gone will not come back.
func (s *live) awaitClient(left *time.Duration) bool {
	began := time.Now()
	s.await(*left, func() bool {
		return s.client != nil || len(s.out.frames) == 0 || s.left.Load() || s.isCut() || s.g.closing.Load()
	})
	*left -= time.Since(began)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client != nil && len(s.out.frames) > 0 && !s.isCut()
}

// progresses waits for the client to acknowledge something, and reports whether it
// did or has gone. It need not hurry while it is being sent more.
func (s *live) progresses() bool {
	s.mu.Lock()
	before, limit := s.out.bytes, ackWait
	if s.out.unwritten() {
		limit = stuckWait
	}
	s.mu.Unlock()
	return s.await(limit, func() bool {
		return s.out.bytes != before || before == 0 || s.client == nil || s.isCut()
	})
}

// tellAgent asks the agent to end the session, on the nearest way.
func (s *live) tellAgent() {
	s.mu.Lock()
	l := s.agent
	s.mu.Unlock()
	m := channelClosed(s.row.NodeID, s.row.ID, "", nil, s.g.now())
	if l != nil {
		l.conn.SetWriteDeadline(time.Now().Add(farewell))
		if l.conn.Write(websocket.Binary, m.Encode()) == nil {
			return
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.g.ctx), farewell)
	defer cancel()
	s.g.sendClosed(ctx, s.row.NodeID, s.row.ID)
}

// closeClient tells the client that the session is over and waits for it to leave,
// so that the closing of the connection does not overtake the words. From here on
// nothing is relayed.
func (s *live) closeClient(cause *Cause) {
	s.await(s.g.cfg.CloseHold, s.handshakeColdLocked)
	s.mu.Lock()
	s.closed = true
	l := s.client
	s.inRoom.Broadcast()
	s.outRoom.Broadcast()
	s.mu.Unlock()
	if l != nil {
		s.farewell(l, cause)
	}
}

// farewell sends channel_closed to a client and waits for it to leave.
func (s *live) farewell(l *link, cause *Cause) {
	l.conn.SetWriteDeadline(time.Now().Add(farewell))
	if err := s.writeClosed(l, cause.Terminal, cause.Exit); err == nil {
		await(l.ended, farewell)
	}
	l.conn.Close()
}

func (s *live) writeClosed(l *link, text string, exit *int) error {
	return l.conn.Write(websocket.Binary, channelClosed(s.row.NodeID, s.row.ID, text, exit, s.g.now()).Encode())
}

// handshakeCold reports whether channel_closed may be sent: AWS's client hangs when
// it comes right after the end of a handshake.
func (s *live) handshakeCold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handshakeColdLocked()
}

func (s *live) handshakeColdLocked() bool {
	return s.handshakeDone.IsZero() || s.g.now().Sub(s.handshakeDone) >= s.g.cfg.CloseHold
}

// closeAgent waits for the agent to close its end, insisting where it does not.
func (s *live) closeAgent(cause *Cause) {
	for range insistTimes {
		s.mu.Lock()
		l := s.agent
		over := s.complete != nil || !s.asked && s.startedAt.IsZero()
		s.mu.Unlock()
		if l == nil && (over || cause.byAgent()) {
			return
		}
		if l != nil && await(l.ended, insist) {
			return
		}
		if l == nil && s.await(insist, func() bool { return s.complete != nil }) {
			return
		}
		if s.g.ctx.Err() != nil || s.g.control(s.row.NodeID) == nil {
			break // told when it connects again
		}
		s.g.sendClosed(s.g.ctx, s.row.NodeID, s.row.ID)
	}
	s.dropAgent()
}

func (s *live) dropAgent() {
	s.mu.Lock()
	l := s.agent
	s.mu.Unlock()
	if l != nil {
		l.conn.Close()
	}
}

// await waits for a channel to close and reports whether it did.
func await(ch <-chan struct{}, limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-ch:
		return true
	case <-t.C:
		return false
	}
}

// writeDown ends the recording, the row and the audit trail of the session.
func (s *live) writeDown(cause *Cause) {
	now := s.g.now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.g.ctx), storeTimeout)
	defer cancel()
	s.finishTransfers()
	details := s.endDetails(cause, now, s.closeRecording(cause, now))
	// Before the row: who is killed in between finds the row open and ends it once more,
	// and a row that is closed has its record.
	s.audit(ctx, audit.EventSessionEnd, cause.Error(), details)
	in, out := s.bytesIn.Load(), s.bytesOut.Load()
	_, err := s.g.cfg.Store.UpdateSession(ctx, s.row.ID, func(row *Session) error {
		row.State, row.Ended, row.EndReason, row.ExitStatus = cause.state(), now, cause.Error(), cause.Exit
		row.BytesIn, row.BytesOut = in, out
		return nil
	})
	if err != nil {
		s.log.Error("saving the end of the session", "error", err)
	}
	s.g.counters.end(End{s.kind(), cause.Reason}, in, out)
	s.log.Info("session ended", "reason", cause.Reason, "detail", cause.Detail, "error", cause.err, "bytes_in", in, "bytes_out", out)
	s.mu.Lock()
	s.endedAt = now
	s.mu.Unlock()
}

// endDetails are what the audit record of the end says beside its reason.
func (s *live) endDetails(cause *Cause, now time.Time, recorded recording.Summary) map[string]string {
	details := map[string]string{
		"bytes_in":  strconv.FormatInt(s.bytesIn.Load(), 10),
		"bytes_out": strconv.FormatInt(s.bytesOut.Load(), 10),
		"duration":  now.Sub(s.row.Started).Round(time.Millisecond).String(),
	}
	addRecording(details, recorded)
	if s.bulk != nil {
		details["bulk_connections"] = strconv.Itoa(s.bulk.close())
	}
	if cause.Grant != "" {
		details["grant"] = cause.Grant
	}
	if cause.Exit != nil {
		details["exit_status"] = strconv.Itoa(*cause.Exit)
	}
	return details
}

// addRecording adds to an audit record what a recording can be verified by.
func addRecording(details map[string]string, s recording.Summary) {
	if s.SHA256 == "" {
		return
	}
	details["recording"], details["recording_sha256"] = s.Name, s.SHA256
	details["recording_size"] = strconv.FormatInt(s.Size, 10)
	if s.Manifest != "" {
		details["recording_manifest_sha256"] = s.Manifest
	}
}

// recordWords records the last words to the client, which clients show.
func (s *live) recordWords(cause *Cause, now time.Time) {
	if cause.Terminal != "" {
		s.rec.Output(now, []byte("\r\n[sallyport] "+cause.Terminal+"\r\n")) // its error is that of closing
	}
}

func (s *live) closeRecording(cause *Cause, now time.Time) recording.Summary {
	if s.rec == nil {
		return recording.Summary{}
	}
	s.enterIn.Lock()
	defer s.enterIn.Unlock()
	s.enterOut.Lock()
	defer s.enterOut.Unlock()
	s.recordSummary(now)
	s.recordWords(cause, now)
	sum, err := s.rec.Close(recording.End{Reason: cause.Error(), ExitStatus: cause.Exit, Ended: now})
	if err != nil {
		s.log.Error("closing recording", "error", err)
	}
	return sum
}

func (c *counters) start(kind string) {
	c.started.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began[kind]++
}

func (c *counters) end(e End, in, out int64) {
	c.bytesIn.Add(in)
	c.bytesOut.Add(out)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended[e]++
}

// drop closes the session's connections without a word.
func (s *live) drop() {
	s.mu.Lock()
	s.closed = true
	links := []*link{s.client, s.agent}
	s.inRoom.Broadcast()
	s.outRoom.Broadcast()
	s.mu.Unlock()
	for _, l := range links {
		if l != nil {
			l.conn.Abort()
		}
	}
	if s.bulk != nil {
		s.bulk.close()
	}
}
