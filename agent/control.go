package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// Timing of channels. A dead link is noticed pongWait after the first thing that is
// sent over it, at most pingEvery later than it died.
const (
	pingEvery = 20 * time.Second
	pongWait  = 10 * time.Second
	writeWait = 10 * time.Second

	minBackoff = 100 * time.Millisecond
	maxBackoff = 30 * time.Second
	settled    = 5 * time.Second // a channel that lived this long was a good one
)

// keepalive is the payload of pings, as the official programs send it.
var keepalive = []byte("keepalive")

// runControl keeps a control channel open until ctx ends. It returns an error only
// for what no further attempt can mend.
func (a *Agent) runControl(ctx context.Context) error {
	wait := backoff{min: minBackoff, max: maxBackoff}
	banned := a.newRefusals()
	for {
		e := a.endpoint()
		began := time.Now()
		err := a.control(ctx, e)
		// A server that opens channels only to close them is not to be hammered.
		if time.Since(began) > settled {
			wait.reset()
			banned.over()
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case hasCode(err, "MachineFingerprintDoesNotMatch"):
			a.log.Warn("the server knows this node by another machine", "node", a.NodeID())
			if err := a.reregister(ctx); err != nil {
				return err
			}
			notify(a.registeredAnew)
		case errors.Is(err, ErrKeyRefused):
			if !a.keyRefused(ctx, &banned, err) {
				return nil
			}
			continue
		case refused(err):
			a.forget()
		}
		a.log.Warn("control channel is down", "server", e.base.Host, "error", err)
		a.nextEndpoint()
		if !wait.wait(ctx) {
			return nil
		}
	}
}

func (a *Agent) endpoint() *endpoint {
	return a.endpoints[int(a.current.Load())%len(a.endpoints)]
}

func (a *Agent) nextEndpoint() {
	a.current.Store((a.current.Load() + 1) % int32(len(a.endpoints)))
}

// control opens one control channel and serves it to its end.
func (a *Agent) control(ctx context.Context, e *endpoint) error {
	conn, err := a.openControl(ctx, e)
	if err != nil {
		return err
	}
	a.log.Info("control channel is open", "node", a.NodeID(), "server", e.base.Host)
	a.cfg.Connected()
	a.askForKeys()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	written := make(chan error, 1)
	a.outbox.relink()
	go func() { written <- a.writeControl(ctx, conn) }()
	err = a.readControl(ctx, conn)
	cancel()
	stop()
	conn.Abort()
	if werr := <-written; werr != nil && !errors.Is(werr, context.Canceled) && !errors.Is(werr, websocket.ErrClosed) {
		err = werr
	}
	return err
}

func (a *Agent) openControl(ctx context.Context, e *endpoint) (*websocket.Conn, error) {
	sign, err := a.signWith(ctx, e)
	if err != nil {
		return nil, err
	}
	token, err := e.channelToken(ctx, "control-channel", a.NodeID(), sign)
	if err != nil {
		return nil, err
	}
	return e.dial(ctx, "/v1/control-channel/"+a.NodeID(), "role=subscribe&stream=input", sign, wire.Opening{
		MessageSchemaVersion: "1.0", RequestID: uuid.NewString(), TokenValue: token,
		AgentVersion: ProtocolVersion, PlatformType: "linux", Features: a.features(),
	})
}

// writeControl sends pings and what the outbox holds.
func (a *Agent) writeControl(ctx context.Context, conn *websocket.Conn) error {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		m, wait := a.outbox.next()
		if m != nil {
			if err := conn.Write(websocket.Binary, m.Encode()); err != nil {
				conn.Abort()
				return err
			}
			continue
		}
		if wait >= 0 {
			retry.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.outbox.wake:
		case <-retry.C:
		case <-ping.C:
			if err := conn.Ping(keepalive); err != nil {
				conn.Abort()
				return err
			}
		}
	}
}

func (a *Agent) readControl(ctx context.Context, conn *websocket.Conn) error {
	for {
		_, b, err := conn.Read()
		if err != nil {
			return fmt.Errorf("reading control channel: %w", err)
		}
		m, err := wire.Decode(b)
		if err != nil {
			a.log.Warn("dropping a control message", "error", err)
			continue
		}
		a.dispatch(ctx, m)
	}
}

// dispatch acts on one control message; it never waits.
func (a *Agent) dispatch(ctx context.Context, m *wire.Message) {
	switch m.Type {
	case wire.TypeInteractiveShell:
		a.startSession(m)
	case wire.TypeChannelClosed:
		var c wire.ChannelClosed
		if json.Unmarshal(m.Payload, &c) == nil {
			a.sessions.cancel(c.SessionID)
		}
	case wire.TypeAgentTaskAcknowledge:
		var ack wire.TaskAcknowledge
		if json.Unmarshal(m.Payload, &ack) == nil {
			a.outbox.acknowledged(ack.MessageID)
		}
	case wire.TypeKeysChanged:
		a.askForKeys()
	case wire.TypeAgentJob:
		a.job(m)
	case wire.TypeAgentJobReplyAck:
		var ack wire.JobReplyAck
		if json.Unmarshal(m.Payload, &ack) == nil {
			a.outbox.acknowledged(ack.AcknowledgedMessageID)
		}
	default:
		a.log.Debug("dropping a control message of unknown type", "type", m.Type)
	}
}
