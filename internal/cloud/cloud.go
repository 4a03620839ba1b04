// Package cloud is what opening stores and key services by URL has in common: what may be
// in a URL, where it may lead, and files of credentials. No credentials are in a URL, and
// what leaves this machine goes by TLS.
package cloud

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"sallyport.dev/internal/loopback"
)

// Parse reads a URL, which has no credentials in it.
func Parse(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return nil, errors.New("want an absolute path or a URL") // the text may hold a secret
	}
	if u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%q: a URL has no credentials in it; name a file that has them", Shown(u))
	}
	return u, nil
}

// Shown is a URL without what may be secret in it.
func Shown(u *url.URL) string { return u.Scheme + "://" + u.Host + u.Path }

// Params are the parameters of a URL.
type Params map[string]string

// ParseParams takes the parameters of a URL, each of which may be given once, and refuses
// those that are not allowed.
func ParseParams(u *url.URL, allowed ...string) (Params, error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the parameters are not KEY=VALUE&…")
	}
	got := Params{}
	for key, values := range query {
		if !slices.Contains(allowed, key) {
			return nil, fmt.Errorf("parameter %q: %s", key, want(allowed))
		}
		if len(values) != 1 || values[0] == "" {
			return nil, fmt.Errorf("parameter %q: want one value", key)
		}
		got[key] = values[0]
	}
	return got, nil
}

func want(allowed []string) string {
	if len(allowed) == 0 {
		return "there are none"
	}
	return "want one of " + strings.Join(allowed, ", ")
}

// Endpoint checks the address of a service: TLS, but on this machine.
func Endpoint(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("endpoint: want https://HOST[:PORT]")
	}
	if u.Scheme == "https" || u.Scheme == "http" && loopback.Is(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("endpoint %q: want https; http is for this machine alone", text)
}

// maxSecret bounds a file of credentials, in bytes.
const maxSecret = 64 << 10

// ReadSecret reads a file of credentials, which others must not be able to read.
func ReadSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("credentials file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || info.Size() > maxSecret {
		return nil, fmt.Errorf("credentials file %s: want a file of mode 0600 with at most %d bytes", path, maxSecret)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("credentials file: %w", err)
	}
	return b, nil
}
