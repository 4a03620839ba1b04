package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/slack-go/slack"

	"sallyport.dev/internal/websocket"
)

const (
	// socketSilence is how long a connection may be silent: Slack pings far more often.
	socketSilence = 90 * time.Second
	socketWrite   = 10 * time.Second
	socketWaitMax = time.Minute
)

// envelope is a message of Socket Mode, as Slack sends them.
type envelope struct {
	Type     string          `json:"type"`
	ID       string          `json:"envelope_id"`
	Payload  json.RawMessage `json:"payload"`
	Response bool            `json:"accepts_response_payload"`
}

// acknowledgement answers an envelope.
type acknowledgement struct {
	ID      string `json:"envelope_id"`
	Payload reply  `json:"payload,omitempty"`
}

// start opens Socket Mode, on every member: Slack gives each envelope to one of them.
func (a *slackApp) start(ctx context.Context) {
	a.running.Go(func() {
		// Nothing waits for this; who runs the server learns early that a token is wrong.
		if _, err := a.workspace(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("Slack cannot be used as it is configured", "error", hideURL(err))
		}
	})
	if a.socket {
		a.running.Go(func() { a.keepSocket(ctx) })
	}
}

// keepSocket keeps a connection open until the context ends.
func (a *slackApp) keepSocket(ctx context.Context) {
	wait := time.Second
	for ctx.Err() == nil {
		began := a.config.Now()
		err := a.serveSocket(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errRefresh) || a.config.Now().Sub(began) > socketWaitMax {
			wait = time.Second
		} else {
			wait = min(2*wait, socketWaitMax)
		}
		a.log.Info("connecting to Slack again", "in", wait, "error", hideURL(err))
		if errors.Is(err, errRefresh) {
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// errRefresh is returned where Slack asked to connect anew.
var errRefresh = errors.New("Slack asked to connect anew")

// serveSocket opens one connection and answers what comes by it.
func (a *slackApp) serveSocket(ctx context.Context) error {
	opening, cancel := context.WithTimeout(ctx, slackTime)
	defer cancel()
	// The URL carries a ticket: it is not logged.
	_, to, err := a.api.StartSocketModeContext(opening)
	if err != nil {
		return fmt.Errorf("opening Socket Mode: %w", err)
	}
	conn, err := websocket.Dial(opening, to, websocket.DialOptions{
		Proxy: http.ProxyFromEnvironment, ReadLimit: maxCall, ReadTimeout: socketSilence, WriteTimeout: socketWrite,
	})
	if err != nil {
		return fmt.Errorf("connecting to Socket Mode: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for {
		_, text, err := conn.Read()
		if err != nil {
			return fmt.Errorf("reading Socket Mode: %w", err)
		}
		if err := a.take(ctx, conn, text); err != nil {
			return err
		}
	}
}

// take answers one envelope. What is no envelope is left.
func (a *slackApp) take(ctx context.Context, conn *websocket.Conn, text []byte) error {
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		a.log.Warn("Slack sent what is no envelope", "error", err)
		return nil
	}
	switch e.Type {
	case "hello":
		a.log.Info("connected to Slack")
		return nil
	case "disconnect":
		return errRefresh
	}
	if e.ID == "" {
		return nil
	}
	select {
	case a.answering <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	// Each by itself: a form that is slow to answer must not make Slack wait for others.
	a.running.Go(func() {
		defer func() { <-a.answering }()
		a.acknowledge(ctx, conn, e)
	})
	return nil
}

func (a *slackApp) acknowledge(ctx context.Context, conn *websocket.Conn, e envelope) {
	ack, err := json.Marshal(acknowledgement{e.ID, a.envelope(ctx, e)})
	if err == nil {
		err = conn.Write(websocket.Text, ack)
	}
	if err != nil && ctx.Err() == nil {
		a.log.Warn("answering Slack", "error", err)
	}
}

// envelope answers what an envelope brings. One that was not acknowledged in time comes
// again, perhaps to another member, and is answered once.
func (a *slackApp) envelope(ctx context.Context, e envelope) reply {
	err := a.first(ctx, "slack-envelope:"+clip(e.ID, maxName))
	if errors.Is(err, errReplayed) {
		return nil
	}
	if err != nil {
		a.log.Warn("taking an envelope of Slack", "error", err)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	switch e.Type {
	case "slash_commands":
		var c slack.SlashCommand
		if err := json.Unmarshal(e.Payload, &c); err == nil {
			return a.command(ctx, c)
		}
	case "interactive":
		var in slack.InteractionCallback
		if err := json.Unmarshal(e.Payload, &in); err == nil {
			return a.interaction(ctx, in)
		}
	}
	return nil
}
