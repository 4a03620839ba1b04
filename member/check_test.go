package member

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What "server --check" finds in the block recordings beyond its text. Nothing is made.
func TestCheckFiles(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "VAULT_TOKEN"} {
		t.Setenv(name, "")
	}
	dir := t.TempDir()
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "none"))
	garbled := filepath.Join(dir, "garbled")
	if err := os.WriteFile(garbled, []byte("no key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"": "",
		`store = "s3://bucket/p?region=r"
		credentials_file = "DIR/gone"`: "recordings.store: opening the store s3://bucket/p: credentials file: ",
		`credentials_file = "DIR/garbled"`:                                "a folder has no credentials file",
		`store = "s3://bucket/p?region=r&endpoint=http://s3.example.com"`: `want https; http is for this machine alone`,
		`store = "s3://bucket/p?region=r&endpoint=http://127.0.0.1:9000"`: "",
		`store = "s3://bucket/p"`:                                         "parameter region is missing",
		`key = "DIR/garbled"`:                                             "must hold 64 hexadecimal digits",
		`key = "awskms:///alias/k"`:                                       "recordings.key: opening the key of recordings awskms:///alias/k: parameter region is missing",
		`key = "awskms:///k?region=r&endpoint=http://kms.example.com"`:    "want https",
		`key_credentials_file = "DIR/gone"`:                               "recordings.key_credentials_file: ",
		`old_keys = ["DIR/gone"]`:                                         "recordings.key: an old key: opening the key of recordings DIR/gone: there is no such file",
		`old_keys = ["DIR/garbled"]`:                                      "must hold 64 hexadecimal digits",
	} {
		text, want = strings.ReplaceAll(text, "DIR", dir), strings.ReplaceAll(want, "DIR", dir)
		config := strings.ReplaceAll(goodConfig, "/var/lib/sallyport", filepath.Join(dir, "data"))
		c, err := load(t, config+"recordings {\n"+text+"\n}\n")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		switch err := c.CheckFiles(t.Context()); {
		case want == "" && err != nil:
			t.Errorf("%s: got %v, want it to be good", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("checking made the data folder")
	}
}

// A bucket that does not exist is told of when the member starts, not when a session ends.
func TestStoreThatIsNotThere(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIA")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	s3 := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		w.Write([]byte(`<Error><Code>NoSuchBucket</Code></Error>`))
	}))
	defer s3.Close()
	log := &lines{wrote: make(chan string, 100)}
	cfg := Config{
		Account: "111111111111", Region: "us-east-1", Member: "m1", DataDir: t.TempDir(), ListenPlain: "127.0.0.1:0",
		Recordings: &Recordings{Store: "s3://gone/p?region=us-east-1&path_style=true&endpoint=" + s3.URL},
		Logger:     slog.New(slog.NewTextHandler(log, nil)),
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	m, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(t.Context())
	for deadline := time.After(time.Minute); ; {
		select {
		case line := <-log.wrote:
			if strings.Contains(line, "level=ERROR") && strings.Contains(line, "recordings.store") && strings.Contains(line, "s3://gone/p") {
				return
			}
		case <-deadline:
			t.Fatal("the log does not tell that the bucket is not there")
		}
	}
}

// lines passes on what is written, as long as somebody reads it.
type lines struct{ wrote chan string }

func (l *lines) Write(p []byte) (int, error) {
	select {
	case l.wrote <- string(bytes.Clone(p)):
	default:
	}
	return len(p), nil
}
