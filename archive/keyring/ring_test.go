package keyring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/internal/seal"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func ring(t *testing.T, c Config) *Ring {
	t.Helper()
	c.Logger = quiet()
	r, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func spares(r *Ring) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.spares)
}

// tokenFile writes a file of credentials.
func tokenFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

// transit is a server that speaks as Vault's transit engine does.
type transit struct {
	*httptest.Server
	key *seal.Key

	mu    sync.Mutex
	away  bool
	calls int
}

func newTransit(t *testing.T) *transit {
	t.Helper()
	key, err := seal.New(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	v := &transit{key: key}
	v.Server = httptest.NewServer(v)
	t.Cleanup(v.Close)
	return v
}

func (v *transit) setAway(away bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.away = away
}

func (v *transit) asked() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.calls
}

func (v *transit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	v.calls++
	away := v.away
	v.mu.Unlock()
	fail := func(status int, text string) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string][]string{"errors": {text}})
	}
	var in struct {
		Plaintext  []byte
		Ciphertext string
	}
	body, _ := io.ReadAll(r.Body)
	switch {
	case away:
		fail(http.StatusServiceUnavailable, "Vault is sealed")
	case r.Header.Get("X-Vault-Token") != "s.token" || r.Header.Get("X-Vault-Namespace") != "ours":
		fail(http.StatusForbidden, "permission denied")
	case json.Unmarshal(body, &in) != nil:
		fail(http.StatusBadRequest, "no JSON")
	case r.URL.Path == "/v1/keys/transit/encrypt/recordings":
		sealed := v.key.Seal("transit", in.Plaintext, nil)
		json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"ciphertext": fmt.Sprintf("vault:v1:%x", sealed), "key_version": 1}})
	case r.URL.Path == "/v1/keys/transit/decrypt/recordings":
		var sealed []byte
		fmt.Sscanf(in.Ciphertext, "vault:v1:%x", &sealed)
		plain, err := v.key.Open("transit", sealed, nil)
		if err != nil {
			fail(http.StatusBadRequest, "invalid ciphertext")
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"plaintext": plain}})
	default:
		fail(http.StatusNotFound, "no handler for route")
	}
}

func (v *transit) url() string {
	return "hashivault://recordings?mount=keys/transit&namespace=ours&address=" + v.URL
}

func TestFileKeys(t *testing.T) {
	dir := t.TempDir()
	old := ring(t, Config{URL: filepath.Join(dir, "old.key")})
	k, err := old.NewKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now := ring(t, Config{URL: "file://" + filepath.Join(dir, "new.key"), OldURLs: []string{filepath.Join(dir, "old.key")}})
	got, err := now.Unwrap(t.Context(), k.ID, k.Wrapped)
	if err != nil || !bytes.Equal(got, k.Key) {
		t.Errorf("got %x, %v, want what the old key wrapped", got, err)
	}
	if now.ID() == old.ID() || !now.Has(old.ID()) {
		t.Errorf("got the key %s with %s known %v, want a new key beside the old one", now.ID(), old.ID(), now.Has(old.ID()))
	}
	if _, err := old.Unwrap(t.Context(), now.ID(), k.Wrapped); !errors.Is(err, ErrUnknownKey) || !strings.Contains(err.Error(), "old_keys") {
		t.Errorf("got %v, want ErrUnknownKey and what to do", err)
	}
	if n := spares(old); n != 0 {
		t.Errorf("got %d spare keys, want none: the key is here", n)
	}
	k.Wrapped[len(k.Wrapped)-1]++
	if _, err := now.Unwrap(t.Context(), k.ID, k.Wrapped); err == nil {
		t.Error("got no error, want one: the wrapped key was changed")
	}
}

// A key's file that is missing is not made anew where recordings need the one that was there.
func TestLostFile(t *testing.T) {
	dir := t.TempDir()
	old, lost := filepath.Join(dir, "old.key"), filepath.Join(dir, "recordings.key")
	oldID := ring(t, Config{URL: old}).ID()
	if _, err := Open(t.Context(), Config{URL: lost, Existing: true, Logger: quiet()}); !errors.Is(err, ErrLost) {
		t.Errorf("with no file to be made: got %v, want %v", err, ErrLost)
	}
	for _, test := range []struct {
		name    string
		olds    []string
		wrapped map[string]int64
		want    string // of the error; empty where the file is made
	}{
		{"a first start", nil, nil, ""},
		{"its recordings are there", nil, map[string]int64{"file:00aa": 5}, "5 recordings are wrapped by file:00aa; restore that key's file, or name it in old_keys"},
		{"those of one of two", []string{old}, map[string]int64{oldID: 1, "file:00aa": 2}, "2 recordings are wrapped by file:00aa"},
		{"a new key beside the old one", []string{old}, map[string]int64{oldID: 1}, ""},
		{"recordings of a key service", nil, map[string]int64{"awskms:///alias/k": 5}, ""},
	} {
		r, err := Open(t.Context(), Config{URL: lost, OldURLs: test.olds, Wrapped: test.wrapped, Logger: quiet()})
		_, statErr := os.Stat(lost)
		if err == nil {
			r.Close()
		}
		if got := fmt.Sprint(err); test.want != "" && (!strings.Contains(got, test.want) || !errors.Is(err, ErrLost) || statErr == nil) {
			t.Errorf("%s: got %q and a file %v, want %q and none", test.name, got, statErr == nil, test.want)
		} else if test.want == "" && (err != nil || statErr != nil) {
			t.Errorf("%s: got %v, %v, want a key", test.name, err, statErr)
		}
		os.Remove(lost)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	ring(t, Config{URL: key})
	garbled := tokenFile(t, "no key", 0o600)
	token := tokenFile(t, "s.token", 0o600)
	for _, test := range []struct {
		url  string
		old  []string
		file string
		want string
	}{
		{url: "", want: "want an absolute path or a URL"},
		{url: "rot13://key", want: "want an absolute path or one of awskms://, azurekeyvault://, file://, gcpkms://, hashivault://"},
		{url: "hashivault://token@key", want: "a URL has no credentials in it"},
		{url: "hashivault://key?token=s.token", want: `parameter "token": want one of address, mount, namespace`},
		{url: "hashivault://key?address=http://vault.example.com", file: token, want: "want https; http is for this machine alone"},
		{url: "hashivault://key?address=https://vault.example.com", want: "want a credentials file with a token"},
		{url: "hashivault://key?address=https://vault.example.com", file: tokenFile(t, "x", 0o640), want: "want a file of mode 0600"},
		{url: "hashivault://key/../sys?address=https://vault.example.com", file: token, want: "want hashivault://KEY"},
		{url: "hashivault://key?address=https://vault.example.com&mount=../sys", file: token, want: "want names with single slashes"},
		{url: "awskms:///a b?region=r", want: "want awskms:///ID"},
		{url: "awskms:///key?region=r&endpoint=http://kms.example.com", want: "want https"},
		{url: garbled, want: "reading the key file: " + garbled + " must hold 64 hexadecimal digits"},
		{url: key, old: []string{key}, want: "configured twice"},
		{url: key, old: []string{filepath.Join(dir, "gone")}, want: "an old key: opening the key of recordings "},
	} {
		_, err := Open(t.Context(), Config{URL: test.url, OldURLs: test.old, CredentialsFile: test.file, Logger: quiet()})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.url, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "token@") {
			t.Errorf("%s: the error %q tells a secret", test.url, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "gone")); err == nil {
		t.Error("an old key was made up")
	}
}

func TestVault(t *testing.T) {
	v := newTransit(t)
	r := ring(t, Config{URL: v.url(), CredentialsFile: tokenFile(t, "s.token\n", 0o600), Spares: -1})
	k, err := r.NewKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if k.ID != "hashivault://recordings?mount=keys/transit" || !strings.HasPrefix(string(k.Wrapped), "vault:v1:") {
		t.Errorf("got %s and %q, want the key's id and Vault's form", k.ID, k.Wrapped)
	}
	if got, err := r.Unwrap(t.Context(), k.ID, k.Wrapped); err != nil || !bytes.Equal(got, k.Key) {
		t.Errorf("got %x, %v, want the key", got, err)
	}
	before := v.asked()
	if _, err := r.Unwrap(t.Context(), k.ID, []byte("vault:v1:00")); err == nil || !strings.Contains(err.Error(), "invalid ciphertext") {
		t.Errorf("got %v, want Vault's words", err)
	}
	if n := v.asked() - before; n != 1 {
		t.Errorf("asked %d times, want once: asking again does not mend it", n)
	}
	before = v.asked()
	v.setAway(true)
	if _, err := r.NewKey(t.Context()); err == nil || !strings.Contains(err.Error(), "Vault is sealed") {
		t.Errorf("got %v, want Vault's words", err)
	}
	if n := v.asked() - before; n != attempts {
		t.Errorf("asked %d times, want %d", n, attempts)
	}
	bad := ring(t, Config{URL: v.url(), CredentialsFile: tokenFile(t, "other", 0o600), Spares: -1})
	if _, err := bad.NewKey(t.Context()); err == nil || strings.Contains(err.Error(), "other") {
		t.Errorf("got %v, want an error without the token", err)
	}
}

// TestSpares sees to it that sessions begin while the key service is away, for as long as
// there are spare keys, and that none is given out twice or when it is old.
func TestSpares(t *testing.T) {
	v := newTransit(t)
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	r := ring(t, Config{URL: v.url(), CredentialsFile: tokenFile(t, "s.token", 0o600), Spares: 3, Now: clock})
	filled := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); spares(r) != n; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("got %d spare keys, want %d", spares(r), n)
			}
		}
	}
	filled(3)
	v.setAway(true)
	seen := map[string]bool{}
	for n := range 3 {
		k, err := r.NewKey(t.Context())
		if err != nil || seen[string(k.Key)] {
			t.Fatalf("key %d while the service is away: got %v, given out before %v, want a new key", n, err, seen[string(k.Key)])
		}
		seen[string(k.Key)] = true
	}
	if _, err := r.NewKey(t.Context()); err == nil {
		t.Error("got a key, want an error: there are no spare ones left")
	}
	r.wg.Wait() // or what still fails puts the next attempt off by the new clock
	v.setAway(false)
	mu.Lock()
	now = now.Add(refillAgain)
	mu.Unlock()
	if _, err := r.NewKey(t.Context()); err != nil {
		t.Errorf("got %v, want a key: the service is back", err)
	}
	filled(3)
	v.setAway(true)
	mu.Lock()
	now = now.Add(spareLife)
	mu.Unlock()
	if _, err := r.NewKey(t.Context()); err == nil {
		t.Error("got a key, want an error: the spare ones are too old")
	}
}

// TestCloseForgets sees to it that a Ring that is closed keeps no keys and asks nobody.
func TestCloseForgets(t *testing.T) {
	v := newTransit(t)
	r, err := Open(t.Context(), Config{URL: v.url(), CredentialsFile: tokenFile(t, "s.token", 0o600), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if n := spares(r); n != 0 {
		t.Errorf("got %d spare keys, want none", n)
	}
	before := v.asked()
	r.fill()
	r.wg.Wait()
	if n := v.asked() - before; n != 0 {
		t.Errorf("asked %d times after the end, want none", n)
	}
}

// TestGivesUp sees to it that a key service that does not answer is not waited for longer
// than the caller does.
func TestGivesUp(t *testing.T) {
	stuck := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stuck }))
	defer server.Close()
	defer close(stuck)
	r := ring(t, Config{URL: "hashivault://k?address=" + server.URL, CredentialsFile: tokenFile(t, "x", 0o600), Spares: -1})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.NewKey(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want context.DeadlineExceeded", err)
	}
}
