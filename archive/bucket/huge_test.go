package bucket

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"gocloud.dev/blob"
)

// A store, or a destination of the audit log, that answers without end takes no more memory
// than what an answer may have.
func TestS3AnswersWithoutEnd(t *testing.T) {
	var sent atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.WriteHeader(http.StatusForbidden)
		}
		for piece := bytes.Repeat([]byte(" "), 1<<20); sent.Load() < 256<<20; {
			n, err := w.Write(piece)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	b := open(t, Config{
		URL:             "s3://recordings/p?region=us-east-1&path_style=true&endpoint=" + server.URL,
		CredentialsFile: credentials(t, 0o600),
	})
	for name, call := range map[string]func() error{
		"writing": func() error { return b.WriteAll(t.Context(), "a", []byte("x"), nil) },
		"purging": func() error { return b.Purge(t.Context(), "a") },
		"listing": func() error {
			_, err := b.List(&blob.ListOptions{Prefix: "a"}).Next(t.Context())
			return err
		},
	} {
		sent.Store(0)
		if err := call(); err == nil {
			t.Errorf("%s: got no error", name)
		}
		if n := sent.Load(); n > 96<<20 {
			t.Errorf("%s: the server sent %d MiB", name, n>>20)
		}
	}
}
