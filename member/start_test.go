package member

import (
	"errors"
	"log/slog"
	"net"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/audit"
)

// A member that cannot listen never began: the audit log knows of no stop without a
// start.
func TestStartWithPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := Config{
		Account: "111111111111", Region: "us-east-1", Member: "m1", DataDir: t.TempDir(),
		ListenPlain: taken.Addr().String(), Logger: slog.New(slog.DiscardHandler),
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), cfg); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("got %v, want %v", err, syscall.EADDRINUSE)
	}
	cfg.ListenPlain = "127.0.0.1:0"
	m, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	state, err := OpenState(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	var got []string
	for r, err := range audit.All(t.Context(), state.Store, audit.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Action)
	}
	if diff := cmp.Diff([]string{"start", "stop"}, got); diff != "" {
		t.Error(diff)
	}
}
