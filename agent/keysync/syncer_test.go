//go:build unix

package keysync

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport.dev/internal/authorizedkeys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func public(name string) string {
	var b []byte
	for _, part := range []string{"ssh-ed25519", (name + strings.Repeat(".", 32))[:32]} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return "ssh-ed25519 " + base64.StdEncoding.EncodeToString(b)
}

func key(user string) authorizedkeys.Key {
	return authorizedkeys.Key{User: user, ID: "APKA" + user, PublicKey: public(user)}
}

// world is a server that gives keys, or is away, and a node.
type world struct {
	t       *testing.T
	account Account
	state   string
	logs    bytes.Buffer

	mu     sync.Mutex
	groups map[string][]authorizedkeys.Key
	err    error
	asked  int
	now    time.Time
}

func newWorld(t *testing.T) *world {
	return &world{t: t, account: account(t), state: t.TempDir(), groups: map[string][]authorizedkeys.Key{}, now: time.Now()}
}

func (w *world) GroupKeys(_ context.Context, group string) ([]authorizedkeys.Key, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	return w.groups[group], w.err
}

func (w *world) set(err error, users ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var keys []authorizedkeys.Key
	for _, u := range users {
		keys = append(keys, key(u))
	}
	w.groups["ops"], w.err = keys, err
}

var rootKey = `from="10.0.0.0/8" ` + public("root") + " emergency"

func (w *world) config() Config {
	return Config{Login: "deploy", Groups: []string{"ops"}, RootKeys: []string{rootKey}}
}

// syncer returns a keeper as it is after a start of the agent.
func (w *world) syncer(c Config) *Syncer {
	w.t.Helper()
	s, err := New(Options{
		Configs: []Config{c}, Source: w, StateDir: w.state, Jitter: -1,
		Lookup: func(context.Context, string) (Account, error) { return w.account, nil },
		Logger: slog.New(slog.NewTextHandler(&w.logs, nil)),
		Now:    func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
	})
	check(w.t, err)
	for _, k := range s.keepers {
		k.load()
	}
	return s
}

// want checks whose keys the file has, after the emergency key.
func (w *world) want(what string, users ...string) {
	w.t.Helper()
	b, err := os.ReadFile(w.account.keys())
	check(w.t, err)
	want := header + ": what is changed here is lost.\n" + rootKey + "\n# IAM groups: ops\n"
	for _, u := range users {
		want += public(u) + " " + u + " APKA" + u + "\n"
	}
	if string(b) != want {
		w.t.Errorf("%s: got\n%swant\n%s", what, b, want)
	}
}

var errAway = errors.New("connection refused")

func TestSync(t *testing.T) {
	w := newWorld(t)
	s, ctx := w.syncer(w.config()), t.Context()
	w.set(nil, "carol", "Alice", "bob")
	check(t, s.sync(ctx))
	w.want("first", "Alice", "bob", "carol")
	w.set(nil, "Alice", "Alice")
	check(t, s.sync(ctx))
	w.want("members left, and one key came twice", "Alice")

	// While the server is away nothing changes, but for what somebody else changed.
	w.set(errAway)
	check(t, os.WriteFile(w.account.keys(), []byte("mine\n"), 0o600))
	if err := s.sync(ctx); !errors.Is(err, errAway) {
		t.Errorf("away: got %v", err)
	}
	w.want("away, after a change by hand", "Alice")
	check(t, os.Remove(w.account.keys()))
	s = w.syncer(w.config())
	if err := s.sync(ctx); !errors.Is(err, errAway) {
		t.Errorf("away after a restart: got %v", err)
	}
	w.want("away after a restart, file deleted", "Alice")

	// A refusal is an answer.
	w.set(ErrRefused)
	check(t, s.sync(ctx))
	w.want("refused")
	w.set(nil, "bob")
	check(t, s.sync(ctx))
	w.want("allowed again", "bob")
}

func TestSyncBeforeTheServerHasSpoken(t *testing.T) {
	w := newWorld(t)
	w.set(errAway)
	s, ctx := w.syncer(w.config()), t.Context()
	if err := s.sync(ctx); !errors.Is(err, errAway) {
		t.Errorf("got %v", err)
	}
	w.want("no file was there: the emergency key is") // and nobody's
	check(t, os.WriteFile(w.account.keys(), []byte("others\n"), 0o600))
	_ = s.sync(ctx)
	if b, _ := os.ReadFile(w.account.keys()); string(b) != "others\n" {
		t.Errorf("a file that was there became %q", b)
	}
}

func TestSyncMaxAge(t *testing.T) {
	w := newWorld(t)
	c := w.config()
	c.MaxAge = time.Hour
	s, ctx := w.syncer(c), t.Context()
	w.set(nil, "alice")
	check(t, s.sync(ctx))
	w.set(errAway)
	w.now = w.now.Add(59 * time.Minute)
	s = w.syncer(c)
	_ = s.sync(ctx)
	w.want("within the age", "alice")
	w.now = w.now.Add(2 * time.Minute)
	_ = s.sync(ctx)
	w.want("too old")
}

// Whatever the server says, the file holds keys and no options.
func TestHostileServer(t *testing.T) {
	w := newWorld(t)
	w.set(nil)
	w.groups["ops"] = []authorizedkeys.Key{
		{User: "x\n" + public("evil"), ID: "\r\ncommand=\"id\" " + public("evil"), PublicKey: public("x")},
		{User: "evil", PublicKey: `command="id" ` + public("evil")},
		{User: "evil", PublicKey: public("evil") + "\n" + public("evil")},
		{User: "evil", PublicKey: ""},
	}
	check(t, w.syncer(w.config()).sync(t.Context()))
	b, err := os.ReadFile(w.account.keys())
	check(t, err)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[3], public("x")+" x?") || strings.HasPrefix(lines[3], "command") {
		t.Errorf("got\n%s", b)
	}
	if n := strings.Count(w.logs.String(), "leaving out an SSH key"); n != 3 {
		t.Errorf("%d keys were told of, want 3", n)
	}
	// Too many are as if the server were away.
	w.groups["ops"] = make([]authorizedkeys.Key, maxKeys+1)
	if err := w.syncer(w.config()).sync(t.Context()); err == nil || !strings.Contains(err.Error(), "at most 5000") {
		t.Errorf("too many keys: got %v", err)
	}
}

func TestRootKeysFile(t *testing.T) {
	w := newWorld(t)
	c := w.config()
	c.RootKeys, c.RootKeysFile = nil, filepath.Join(t.TempDir(), "root-keys")
	w.set(nil, "alice")
	s, ctx := w.syncer(c), t.Context()
	wrong := func(what string) {
		t.Helper()
		if err := s.sync(ctx); err == nil || !strings.Contains(err.Error(), "root_keys_file") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	wrong("no file")
	check(t, os.WriteFile(c.RootKeysFile, []byte("# none\n"), 0o644))
	wrong("no key")
	check(t, os.WriteFile(c.RootKeysFile, []byte("\n# emergency\n"+rootKey+"\n"), 0o644))
	check(t, s.sync(ctx))
	w.want("root key of a file", "alice")
	check(t, os.Chmod(c.RootKeysFile, 0o666))
	wrong("a file that others can write")
	check(t, os.Remove(c.RootKeysFile))
	w.set(nil)
	wrong("the file is gone")
	w.want("rather the keys of before than none", "alice")
}

func TestCopyThatOthersWrote(t *testing.T) {
	w := newWorld(t)
	w.set(nil, "alice")
	check(t, w.syncer(w.config()).sync(t.Context()))
	path := filepath.Join(w.state, "keys-deploy.json")
	check(t, os.Chmod(path, 0o666))
	if s := w.syncer(w.config()); len(s.keepers[0].known.Groups) != 0 {
		t.Error("a copy that others can write was believed")
	}
}

func TestConfigErrors(t *testing.T) {
	good := Config{Login: "deploy", Groups: []string{"ops"}, RootKeys: []string{rootKey}}
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Login = "../root" }, "not the name of a user"},
		{func(c *Config) { c.Login = "" }, "not the name of a user"},
		{func(c *Config) { c.Groups = nil }, "groups: name 1 to 32"},
		{func(c *Config) { c.Groups = []string{"a b"} }, `"a b" is not the name of a group`},
		{func(c *Config) { c.Groups = []string{"a\nssh-rsa"} }, "is not the name of a group"},
		{func(c *Config) { c.RootKeys = nil }, "no_root_key = true"},
		{func(c *Config) { c.NoRootKey = true }, "no_root_key = true"},
		{func(c *Config) { c.RootKeysFile = "/x" }, "either them or root_keys_file"},
		{func(c *Config) { c.RootKeys = []string{"ssh-rsa nonsense"} }, "holds no public key"},
		{func(c *Config) { c.RootKeys = []string{rootKey + "\r"} }, ""},
		{func(c *Config) { c.RootKeys = []string{rootKey + "\x00"} }, "control characters"},
		{func(c *Config) { c.File = "keys" }, "not an absolute path"},
		{func(c *Config) { c.File = "/a/../b" }, "not an absolute path"},
		{func(c *Config) { c.Every = time.Second }, "shorter than 10s"},
		{func(c *Config) { c.MaxAge = -1 }, "negative"},
	} {
		c := good
		tt.change(&c)
		_, err := New(Options{Configs: []Config{c}})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", c, err, tt.want)
		}
	}
	if _, err := New(Options{Configs: []Config{good, good}}); err == nil || !strings.Contains(err.Error(), "given twice") {
		t.Errorf("one login twice: got %v", err)
	}
}

// Hints that come together are followed once, and Run ends with its context.
func TestRunFollowsHints(t *testing.T) {
	w := newWorld(t)
	w.set(nil, "alice")
	s := w.syncer(w.config())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	w.eventually("the file is there", "alice APKAalice")
	w.set(nil, "bob")
	for range 100 {
		s.Wake()
	}
	w.eventually("bob came", "bob APKAbob")
	w.mu.Lock()
	asked := w.asked
	w.mu.Unlock()
	if asked > 20 {
		t.Errorf("asked %d times", asked)
	}
	cancel()
	<-done
}

func (w *world) eventually(what, text string) {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if b, _ := os.ReadFile(w.account.keys()); strings.Contains(string(b), text) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("waited for: %s", what)
		}
	}
}
