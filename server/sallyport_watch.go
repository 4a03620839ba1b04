package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/session"
)

// Watching sessions. The session's home keeps what was recorded last for its watchers; the
// member that is called reads what lies before from the recording.

const (
	// watchReplay bounds how far back a watch begins, and how far behind it may fall, in
	// bytes of the recording: what lies before is skipped.
	watchReplay = 4 << 20
	// watchAgain is how long a question waits whose session's home is not to be reached.
	watchAgain = 500 * time.Millisecond
)

func watchOperations() []*Operation {
	return []*Operation{op("sallyport", "WatchSession", nil, watchSession, checksItself)}
}

type watchSessionInput struct {
	SessionID string `json:"SessionId" check:"required,min=1,max=96,pattern=[ -~]*"`
	Watch     string `json:"Watch" check:"max=64"` // of an earlier answer; without it a watch begins
	Offset    int64  `json:"Offset" check:"min=0"` // NextOffset of an earlier answer
	Leave     bool   `json:"Leave"`                // ends the watch
}

type watchSessionOutput struct {
	Watch string `json:"Watch"`
	// Data are bytes of the recording from Offset on, which is not what was asked for
	// where Skipped says that too much lies between.
	Data       []byte `json:"Data,omitempty"`
	Offset     int64  `json:"Offset"`
	NextOffset int64  `json:"NextOffset"`
	Skipped    bool   `json:"Skipped,omitempty"`
	Columns    int    `json:"Columns,omitempty"` // of the session's terminal, now
	Rows       int    `json:"Rows,omitempty"`
	Ended      bool   `json:"Ended,omitempty"` // nothing comes any more
	EndReason  string `json:"EndReason,omitempty"`
}

// watchSession answers what a session has shown since the last answer, after a wait where
// there is nothing. Each question is authorised, so that watching ends with the right to;
// the first one is audited, and the beginning and end of each watch.
func watchSession(ctx context.Context, c *Call, in *watchSessionInput) (*watchSessionOutput, error) {
	c.quiet = in.Watch != ""
	v, err := c.checkSession(ctx, in.SessionID)
	if err != nil {
		c.watchRefused(ctx, in, err)
		return nil, err
	}
	g, err := c.gateway()
	if err != nil {
		return nil, err
	}
	req := session.WatchRequest{Watch: in.Watch, Watcher: c.watcher(), Offset: in.Offset}
	if in.Leave {
		req.Leave = "the watcher left"
	}
	if in.Watch == "" {
		if req.Notice, err = c.watchNotice(ctx, v); err != nil {
			return nil, err
		}
	}
	piece, err := g.Watch(ctx, v.ID, req)
	if err != nil {
		return c.watchFailed(ctx, in, v, err)
	}
	return c.watchAnswer(ctx, in, v, piece)
}

// watcher is the caller, as the session's home and person know them.
func (c *Call) watcher() session.Watcher {
	return session.Watcher{
		ARN: c.Principal.ARN, ID: c.Principal.UserID, Root: c.Principal.RootID(), Name: watcherName(c.Principal),
		SourceIP: c.Origin.SourceIP, UserAgent: c.Origin.UserAgent,
	}
}

// watcherName is what the watched person is told. A role session's name is its maker's
// choice, so that it does not stand alone.
func watcherName(p identity.Principal) string {
	switch {
	case p.RootARN != "":
		return nameOf(p.RootARN) + " (as " + shown(p.Name) + ")"
	case p.SessionName != "":
		return "role " + shown(p.Name) + " (" + shown(p.SessionName) + ")"
	}
	return shown(p.Name)
}

// watchRefused ends the watch of somebody who may not any more.
func (c *Call) watchRefused(ctx context.Context, in *watchSessionInput, err error) {
	denied := (*access.DeniedError)(nil)
	if in.Watch == "" || !errors.As(err, &denied) || c.Server.config.Gateway == nil {
		return
	}
	req := session.WatchRequest{Watch: in.Watch, Watcher: c.watcher(), Leave: "the watcher may not watch it any more"}
	if _, err := c.Server.config.Gateway.Watch(ctx, in.SessionID, req); err != nil {
		c.Server.log.Debug("ending a watch", "session", in.SessionID, "error", err)
	}
}

// watchNotice reports whether a session's person is to be told of watchers: as the flows
// say whose grants it hangs on, if they say it, or as the server is configured.
func (c *Call) watchNotice(ctx context.Context, v session.Session) (bool, error) {
	s := c.Server
	if v.Authority == "" || s.access == nil {
		return s.config.WatchNotice, nil
	}
	a, err := decodeAuthority(v.Authority)
	if err != nil {
		return false, err
	}
	said := false
	for _, id := range a.Grants {
		r, err := s.access.Request(ctx, id)
		if errors.Is(err, grant.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		if notice := r.Frozen.Flow.WatchNotice; notice != nil {
			if said = true; *notice {
				return true, nil
			}
		}
	}
	return !said && s.config.WatchNotice, nil
}

// watchFailed answers a question that the session's home did not.
func (c *Call) watchFailed(ctx context.Context, in *watchSessionInput, v session.Session, err error) (*watchSessionOutput, error) {
	switch {
	case errors.Is(err, session.ErrNotRecorded):
		return nil, exception("ValidationException", "The session %q is not recorded, so nobody can watch it.", v.ID)
	case errors.Is(err, session.ErrWatchers):
		return nil, exception("LimitExceededException", "The session %q cannot be watched by more people now: %s.", v.ID, err)
	case errors.Is(err, session.ErrEnded), errors.Is(err, session.ErrNoWatch), errors.Is(err, session.ErrNoResponder):
		return c.watchGone(ctx, in, v)
	}
	return nil, err
}

// watchGone answers for a session that has no home, or a watch that its home does not know.
func (c *Call) watchGone(ctx context.Context, in *watchSessionInput, v session.Session) (*watchSessionOutput, error) {
	if in.Watch == "" {
		if v.State.Active() {
			return nil, exception("ServiceUnavailable", "The member that relays the session %q does not answer.", v.ID)
		}
		return nil, exception("ValidationException", "The session %q has ended; its recording can be played.", v.ID)
	}
	out := &watchSessionOutput{Watch: in.Watch, Offset: in.Offset, NextOffset: in.Offset}
	if in.Leave {
		out.Ended = true
		return out, nil
	}
	now, err := c.Server.config.Sessions.Session(ctx, v.ID)
	if err != nil {
		return nil, err
	}
	if now.State.Active() {
		if err := pause(ctx, watchAgain); err != nil {
			return nil, err
		}
		return nil, exception("DoesNotExistException", "There is no such watch of the session %q any more.", v.ID)
	}
	out.Ended, out.EndReason = true, now.EndReason
	return out, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watchAnswer makes an answer of what the session's home said, reading from the recording
// what it has no more.
func (c *Call) watchAnswer(ctx context.Context, in *watchSessionInput, v session.Session, p session.WatchPiece) (*watchSessionOutput, error) {
	out := &watchSessionOutput{
		Watch: p.Watch, Offset: in.Offset, Data: p.Data, Columns: p.Columns, Rows: p.Rows, EndReason: p.Reason,
	}
	if in.Offset < p.Begin {
		if err := c.watchPast(ctx, out, v, p); err != nil {
			return nil, err
		}
	}
	out.NextOffset = out.Offset + int64(len(out.Data))
	out.Ended = in.Leave || p.Over && out.NextOffset == p.End
	return out, nil
}

// watchPast reads a piece of the recording before what its home has.
func (c *Call) watchPast(ctx context.Context, out *watchSessionOutput, v session.Session, p session.WatchPiece) error {
	if c.Server.config.Recordings == nil {
		return errors.New("this server keeps no recordings")
	}
	out.Data = nil
	if p.End-out.Offset > watchReplay {
		out.Offset, out.Skipped = p.End-watchReplay/2, true
	}
	file, _, err := c.Server.config.Recordings.Open(ctx, v.Recording)
	if errors.Is(err, fs.ErrNotExist) {
		return c.recordingGone(ctx, v.ID)
	}
	if err != nil {
		return recordingDamaged(v.ID, err)
	}
	defer file.Close()
	data := make([]byte, min(recordingPiece, p.End-out.Offset))
	n, err := file.ReadAt(data, out.Offset)
	if err != nil && err != io.EOF {
		return recordingDamaged(v.ID, err)
	}
	out.Data = data[:n]
	if out.Skipped { // to the beginning of a line
		cut := bytes.IndexByte(out.Data, '\n') + 1
		out.Data, out.Offset = out.Data[cut:], out.Offset+int64(cut)
	}
	return nil
}
