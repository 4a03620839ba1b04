package member

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport.dev/archive"
	"sallyport.dev/archive/keyring"
)

// A member whose recordings' key is lost says which, and does not make up another.
func TestRecordingsKeyLost(t *testing.T) {
	var log bytes.Buffer
	cfg := Config{
		Account: "111111111111", Region: "us-east-1", Member: "m1", DataDir: t.TempDir(),
		ListenPlain: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	start := func() error {
		m, err := Start(t.Context(), cfg)
		if err != nil {
			return err
		}
		return m.Close(t.Context())
	}
	state, err := OpenState(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	err = state.Store.PutRecording(t.Context(), archive.Row{
		Name: "2026/11/20/alice-1", Session: "alice-1", Node: "mi-1", Principal: "arn:alice", Member: "m1",
		State: archive.Stored, KeyID: "file:00aa", Started: time.Now(), Ended: time.Now(),
	})
	if err := errors.Join(err, state.Close()); err != nil {
		t.Fatal(err)
	}

	err = start()
	if !errors.Is(err, keyring.ErrLost) || !strings.Contains(err.Error(), "recordings.key: ") || !strings.Contains(err.Error(), "1 recordings are wrapped by file:00aa") {
		t.Errorf("without the file: got %v, want what is lost", err)
	}
	if _, err := os.Stat(cfg.Recordings.Key); err == nil {
		t.Error("another key was made")
	}

	if _, err := archive.KeyFile(cfg.Recordings.Key); err != nil { // that of somebody else
		t.Fatal(err)
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	if want := `level=ERROR msg="recordings cannot be read: `; !strings.Contains(log.String(), want) || !strings.Contains(log.String(), "key=file:00aa recordings=1") {
		t.Errorf("with another key: got the log %s, want %s with id and number", &log, want)
	}
}
