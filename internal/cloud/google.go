//go:build clouds

package cloud

import (
	"context"
	"encoding/json"
	"fmt"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// GoogleTokens gives tokens for a scope by the JSON of a service account in a file, or by
// the credentials of the environment if none is named.
func GoogleTokens(ctx context.Context, file, scope string) (oauth2.TokenSource, error) {
	if file == "" {
		c, err := google.FindDefaultCredentials(ctx, scope)
		if err != nil {
			return nil, err
		}
		return c.TokenSource, nil
	}
	text, err := ReadSecret(file)
	if err != nil {
		return nil, err
	}
	var kind struct{ Type google.CredentialsType }
	if err := json.Unmarshal(text, &kind); err != nil || kind.Type == "" {
		return nil, fmt.Errorf("credentials file %s: want the JSON of a service account", file)
	}
	c, err := google.CredentialsFromJSONWithType(ctx, text, kind.Type, scope)
	if err != nil {
		return nil, fmt.Errorf("credentials file %s: %w", file, err)
	}
	return c.TokenSource, nil
}
