package sallyporttest

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"sallyport.dev/client"
	"sallyport.dev/wire"
)

// API returns a client of this member that acts with the key.
func (s *System) API(k Key) *client.API {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.apis[k] == nil {
		s.apis[k] = s.connect(k)
	}
	return s.apis[k]
}

func (s *System) connect(k Key) *client.API {
	s.t.Helper()
	t, ok := s.t.(*testing.T)
	if !ok {
		s.t.Fatal("API needs a test, not a benchmark: it sets the environment")
	}
	for _, kv := range [][2]string{
		{"AWS_ACCESS_KEY_ID", k.ID}, {"AWS_SECRET_ACCESS_KEY", k.Secret}, {"AWS_SESSION_TOKEN", k.Token},
		{"AWS_PROFILE", ""}, {"AWS_CONFIG_FILE", "/dev/null"}, {"AWS_SHARED_CREDENTIALS_FILE", "/dev/null"},
		{"AWS_EC2_METADATA_DISABLED", "true"},
	} {
		t.Setenv(kv[0], kv[1])
	}
	api, err := client.Connect(t.Context(), client.Options{Region: Region, Endpoint: s.PlainURL(), UserAgent: "sallyporttest"})
	if err != nil {
		t.Fatalf("connecting: %v", err)
	}
	return api
}

// Shell opens a shell on a node, types input, and returns what it showed by its end.
func (s *System) Shell(k Key, node, input string) string {
	s.t.Helper()
	return s.ShellAs(k, node, "", input)
}

// ShellAs is Shell as a login of the node; empty for the one that the session gets.
func (s *System) ShellAs(k Key, node, login, input string) string {
	s.t.Helper()
	api := s.API(k)
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	stream, err := api.Start(ctx, client.StartInput{Target: node, RunAs: login})
	if err != nil {
		s.t.Fatalf("starting a session on %s: %v", node, err)
	}
	screen := &screen{}
	channel := client.NewDataChannel(client.ChannelConfig{
		Stream: stream,
		Dial:   client.Dialer(api.TLS(), "sallyporttest"),
		Resume: api.ResumeSession,
		Handlers: map[string]client.Handler{
			client.StandardStream: screen,
		},
	})
	go func() {
		<-channel.Started()
		if err := channel.Send(ctx, wire.PayloadOutput, []byte(input)); err != nil {
			s.t.Errorf("typing: %v", err)
		}
	}()
	if _, err := channel.Run(ctx); err != nil {
		s.t.Fatalf("session on %s: %v; it showed %q", node, err, screen.String())
	}
	return screen.String()
}

// screen is a handler that keeps what it is shown.
type screen struct {
	mu sync.Mutex
	b  strings.Builder
}

// Start implements client.Handler.
func (s *screen) Start(json.RawMessage) error { return nil }

// Take implements client.Handler.
func (s *screen) Take(pt wire.PayloadType, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pt == wire.PayloadOutput {
		s.b.Write(payload)
	}
	return nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
