package keyring

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"

	"sallyport.dev/internal/cloud"
)

// vaultKey is a key of the transit engine of Vault or OpenBao.
type vaultKey struct {
	client    *http.Client
	address   string // https://HOST[:PORT]
	mount     string
	key       string
	namespace string
	tokenFile string // read for each call: whoever renews the token need not restart anything
}

const (
	// vaultLimit bounds an answer, in bytes.
	vaultLimit = 64 << 10
	vaultMount = "transit"
)

var (
	vaultName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	vaultPlace = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$`)
)

// openVault opens hashivault://KEY. Parameters: address (the variable VAULT_ADDR without
// it), mount (transit) and namespace. The token is in the credentials file, or in the
// variable VAULT_TOKEN.
func openVault(_ context.Context, u *url.URL, credentials string) (service, error) {
	p, err := cloud.ParseParams(u, "address", "mount", "namespace")
	if err != nil {
		return nil, err
	}
	k := &vaultKey{
		address: strings.TrimRight(cmp.Or(p["address"], os.Getenv("VAULT_ADDR")), "/"),
		mount:   cmp.Or(p["mount"], vaultMount), key: u.Host, namespace: p["namespace"], tokenFile: credentials,
		client: &http.Client{
			Timeout:       attemptTime,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if !vaultName.MatchString(k.key) || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("key %q: want hashivault://KEY", u.Host+u.Path)
	}
	if !vaultPlace.MatchString(k.mount) || k.namespace != "" && !vaultPlace.MatchString(strings.Trim(k.namespace, "/")) {
		return nil, errors.New("mount, namespace: want names with single slashes between")
	}
	if k.address == "" {
		return nil, errors.New("parameter address is missing")
	}
	if err := cloud.Endpoint(k.address); err != nil {
		return nil, err
	}
	if _, err := k.token(); err != nil {
		return nil, err
	}
	return k, nil
}

// ID implements service.
func (k *vaultKey) ID() string {
	if k.mount == vaultMount {
		return "hashivault://" + k.key
	}
	return "hashivault://" + k.key + "?mount=" + k.mount
}

func (*vaultKey) local() bool { return false }

func (k *vaultKey) token() (string, error) {
	if k.tokenFile == "" {
		if token := os.Getenv("VAULT_TOKEN"); token != "" {
			return token, nil
		}
		return "", errors.New("want a credentials file with a token, or the variable VAULT_TOKEN")
	}
	b, err := cloud.ReadSecret(k.tokenFile)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// Wrap implements service.
func (k *vaultKey) Wrap(ctx context.Context, key []byte) ([]byte, error) {
	var out struct{ Ciphertext string }
	if err := k.call(ctx, "encrypt", map[string]any{"plaintext": key}, &out); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(out.Ciphertext, "vault:") {
		return nil, errors.New("vault: the answer has no ciphertext")
	}
	return []byte(out.Ciphertext), nil
}

// Unwrap implements service.
func (k *vaultKey) Unwrap(ctx context.Context, wrapped []byte) ([]byte, error) {
	var out struct{ Plaintext []byte }
	if err := k.call(ctx, "decrypt", map[string]any{"ciphertext": string(wrapped)}, &out); err != nil {
		return nil, err
	}
	return out.Plaintext, nil
}

// call asks the transit engine. Byte slices travel in base64, as it wants them.
func (k *vaultKey) call(ctx context.Context, operation string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	token, err := k.token()
	if err != nil {
		return err
	}
	at := k.address + "/v1/" + k.mount + "/" + operation + "/" + k.key
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Vault-Token", token)
	r.Header.Set("X-Vault-Request", "true")
	if k.namespace != "" {
		r.Header.Set("X-Vault-Namespace", k.namespace)
	}
	answer, err := k.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, vaultLimit))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return vaultError(answer.StatusCode, text)
	}
	return json.Unmarshal(text, &struct{ Data any }{out})
}

// vaultError is a refusal in Vault's words. What a client did wrong stays wrong.
func vaultError(status int, text []byte) error {
	var said struct{ Errors []string }
	json.Unmarshal(text, &said) // without it the status stands alone
	err := fmt.Errorf("vault: status %d %s", status, strings.Join(said.Errors, "; "))
	if status/100 == 4 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout {
		return fmt.Errorf("%w: %w", errFinal, err)
	}
	return err
}
