// Package idp runs a real, certified OpenID provider for tests: the npm package
// oidc-provider under node.
package idp

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport.dev/internal/needs"
	"sallyport.dev/internal/readalong"
)

//go:embed package.json
var packageJSON []byte

//go:embed provider.mjs
var program []byte

// Provider is a provider that runs until the test ends.
type Provider struct {
	Issuer                 string
	ClientID, ClientSecret string

	accounts string // file
}

const (
	installTimeout = 3 * time.Minute
	startTimeout   = 30 * time.Second
)

// Start starts a provider with one client, which gets its answers at the redirect URIs.
// Without node, npm or the package the test is skipped.
func Start(t testing.TB, redirects ...string) *Provider {
	t.Helper()
	node := needs.Program(t, "node")
	folder := install(t)
	dir := t.TempDir()
	p := &Provider{ClientID: "sallyport", ClientSecret: "secret-of-the-test", accounts: filepath.Join(dir, "accounts.json")}
	port := freePort(t)
	p.Issuer = "http://127.0.0.1:" + port
	clients := filepath.Join(dir, "clients.json")
	write(t, clients, []map[string]any{{
		"client_id": p.ClientID, "client_secret": p.ClientSecret, "redirect_uris": redirects, "response_types": []string{"code"},
		"grant_types": []string{"authorization_code"}, "token_endpoint_auth_method": "client_secret_basic",
	}})
	p.SetAccounts(t, map[string]map[string]any{})
	script := filepath.Join(folder, "provider.mjs")
	run(t, exec.Command(node, script, port, clients, p.accounts))
	return p
}

// SetAccounts replaces the accounts: claims by subject, which is what people log in as.
func (p *Provider) SetAccounts(t testing.TB, accounts map[string]map[string]any) {
	t.Helper()
	write(t, p.accounts, accounts)
}

func write(t testing.TB, path string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path) // never half of it
	}
	if err != nil {
		t.Fatal(err)
	}
}

func freePort(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// run starts the provider and waits until it is ready.
func run(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	var log readalong.Text
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == "ready" {
				close(ready)
			}
		}
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("the OpenID provider said: %s", log.String())
		}
	})
	select {
	case <-ready:
	case <-ended:
		t.Fatalf("the OpenID provider ended: %s", log.String())
	case <-time.After(startTimeout):
		t.Fatalf("the OpenID provider is not ready: %s", log.String())
	}
}

// install puts the package into the user's cache, once for all tests.
func install(t testing.TB) string {
	t.Helper()
	npm := needs.Program(t, "npm")
	cache, err := os.UserCacheDir()
	if err != nil {
		needs.Missing(t, "there is no folder for caches: "+err.Error())
	}
	dir := filepath.Join(cache, "sallyport-test", "idp")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	unlock := lock(t, filepath.Join(dir, "lock"))
	defer unlock()
	for name, text := range map[string][]byte{"package.json": packageJSON, "provider.mjs": program} {
		if err := replace(filepath.Join(dir, name), text); err != nil {
			t.Fatal(err)
		}
	}
	if err := installed(dir); err == nil {
		return dir
	}
	ctx, cancel := context.WithTimeout(t.Context(), installTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		needs.Missing(t, fmt.Sprintf("npm cannot install an OpenID provider: %v: %s", err, bytes.TrimSpace(out)))
	}
	return dir
}

// replace writes a file in one step, unless it is the same already: others may read it.
func replace(path string, text []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// installed tells whether the version that package.json wants is there.
func installed(dir string) error {
	var want struct {
		Dependencies map[string]string `json:"dependencies"`
	}
	if err := json.Unmarshal(packageJSON, &want); err != nil {
		return err
	}
	for name, version := range want.Dependencies {
		b, err := os.ReadFile(filepath.Join(dir, "node_modules", name, "package.json"))
		if err != nil {
			return err
		}
		var have struct {
			Version string `json:"version"`
		}
		if err := json.Unmarshal(b, &have); err != nil || have.Version != version {
			return errors.Join(err, fs.ErrNotExist)
		}
	}
	return nil
}

func lock(t testing.TB, path string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}
