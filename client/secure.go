package client

import (
	"fmt"
	"net/url"
	"strings"

	"sallyport.dev/internal/loopback"
)

// secure refuses a URL whose connections anybody on the way could read and change:
// plain http and ws, but for this machine itself. what names the URL in the error.
func secure(what, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("%s %q is not a URL", what, address)
	}
	switch strings.ToLower(u.Scheme) {
	case "https", "wss":
		return nil
	case "http", "ws":
		if loopback.Is(u.Hostname()) {
			return nil
		}
		return fmt.Errorf("%s %s would not be encrypted: want https:// or wss:// for every host but this machine itself (localhost)", what, u.Redacted())
	}
	return fmt.Errorf("%s %q is no URL that can be called: want https:// or wss://", what, address)
}
