package client

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sallyport.dev/wire"
)

// SSOToken is a token of the portal by which AWS's command line gets credentials for
// profiles with sso_start_url.
type SSOToken struct {
	AccessToken string    `json:"AccessToken"`
	Expires     wire.Time `json:"Expires"`
}

// SSOToken asks for a token of the caller's sign-in. It lasts as long as that, eight hours
// at most.
func (a *API) SSOToken(ctx context.Context) (*SSOToken, error) {
	return call[SSOToken](ctx, a, "CreateSSOToken", struct{}{})
}

// ssoCached is a token as AWS's command line keeps it.
type ssoCached struct {
	StartURL    string `json:"startUrl"`
	Region      string `json:"region"`
	AccessToken string `json:"accessToken"`
	ExpiresAt   string `json:"expiresAt"`
}

// SaveSSOToken keeps a token where AWS's command line and SDKs look for it: in
// DIR/sha1(NAME).json, mode 0600, where name is the sso_session of a profile or, for one
// that has none, its sso_start_url. Dir is ~/.aws/sso/cache unless given. It returns the
// file's path.
func SaveSSOToken(dir, name, startURL, region string, t SSOToken) (string, error) {
	if name == "" || startURL == "" {
		return "", errors.New("saving the SSO token: there is no start URL")
	}
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("saving the SSO token: %w", err)
		}
		dir = filepath.Join(home, ".aws", "sso", "cache")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("saving the SSO token: %w", err)
	}
	b, err := json.MarshalIndent(ssoCached{startURL, region, t.AccessToken, t.Expires.UTC().Format("2006-01-02T15:04:05Z")}, "", "  ")
	if err != nil {
		return "", fmt.Errorf("saving the SSO token: %w", err)
	}
	path := filepath.Join(dir, SSOCacheName(name))
	if err := replacePrivate(path, append(b, '\n')); err != nil {
		return "", fmt.Errorf("saving the SSO token: %w", err)
	}
	return path, nil
}

// SSOCacheName is the name of the file in which AWS's command line keeps the token of an
// sso_session, or of a start URL.
func SSOCacheName(name string) string {
	sum := sha1.Sum([]byte(name))
	return hex.EncodeToString(sum[:]) + ".json"
}

// replacePrivate writes a file that only its owner may read, whole or not at all.
func replacePrivate(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".token-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
