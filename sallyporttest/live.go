package sallyporttest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport.dev/client"
	"sallyport.dev/wire"
)

// Terminal is a session with a terminal, for a test to type into.
type Terminal struct {
	SessionID string
	t         testing.TB
	screen    *screen
	channel   *client.DataChannel
	over      chan struct{}
	end       client.End
	err       error
}

// Terminal opens a shell on a node and leaves it open.
func (s *System) Terminal(k Key, node string) *Terminal {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t, err := OpenTerminal(ctx, s.t, s.API(k), node)
	if err != nil {
		cancel()
		s.t.Fatalf("starting a session on %s: %v", node, err)
	}
	s.t.Cleanup(func() { cancel(); <-t.over })
	return t
}

// OpenTerminal is Terminal at whichever server; the terminal goes when ctx ends.
func OpenTerminal(ctx context.Context, tb testing.TB, api *client.API, node string) (*Terminal, error) {
	stream, err := api.Start(ctx, client.StartInput{Target: node})
	if err != nil {
		return nil, err
	}
	t := &Terminal{SessionID: stream.SessionID, t: tb, screen: &screen{}, over: make(chan struct{})}
	t.channel = client.NewDataChannel(client.ChannelConfig{
		Stream: stream, Dial: client.Dialer(api.TLS(), "sallyporttest"), Resume: api.ResumeSession,
		Handlers: map[string]client.Handler{client.StandardStream: t.screen}, Logger: Logger(tb),
	})
	go func() {
		defer close(t.over)
		t.end, t.err = t.channel.Run(ctx)
	}()
	select {
	case <-t.channel.Started():
		return t, nil
	case <-t.over:
		return nil, fmt.Errorf("the session ended at once: %q, %v", t.end.Output, t.err)
	case <-time.After(patience):
		return nil, fmt.Errorf("session %s did not begin", t.SessionID)
	}
}

// Shown returns what the terminal was shown.
func (t *Terminal) Shown() string { return t.screen.String() }

// Type sends keys, unless the session has ended.
func (t *Terminal) Type(keys string) {
	t.t.Helper()
	ctx, cancel := context.WithTimeout(t.t.Context(), patience)
	defer cancel()
	if err := t.channel.Send(ctx, wire.PayloadOutput, []byte(keys)); err != nil {
		select {
		case <-t.over:
		case <-time.After(time.Second):
			t.t.Errorf("typing %q: %v", keys, err)
		}
	}
}

// WantShown waits until the terminal shows a text.
func (t *Terminal) WantShown(text string) {
	t.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(t.screen.String(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) || t.IsOver() {
			t.t.Fatalf("the terminal shows %q, want %q (over: %v, %q, %v)", t.screen.String(), text, t.IsOver(), t.end.Output, t.err)
		}
	}
}

// IsOver reports whether the session has ended.
func (t *Terminal) IsOver() bool {
	select {
	case <-t.over:
		return true
	default:
		return false
	}
}

// Over is closed when the session has ended.
func (t *Terminal) Over() <-chan struct{} { return t.over }

// End waits for the end of the session, and returns what the person was told.
func (t *Terminal) End() string {
	t.t.Helper()
	select {
	case <-t.over:
	case <-time.After(patience):
		t.t.Fatalf("the session does not end; it shows %q", t.screen.String())
	}
	if t.err != nil {
		t.t.Errorf("the session ended with %v", t.err)
	}
	return t.end.Output
}
