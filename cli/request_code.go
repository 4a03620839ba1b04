package cli

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"sallyport.dev/client"
)

// authenticatorCode is what authenticators show.
var authenticatorCode = regexp.MustCompile(`^[0-9]{6,8}$`)

// withCode is the API as the same person, of whom a second factor was shown just now.
func withCode(ctx context.Context, api *client.API, code string) (*client.API, error) {
	code = strings.ReplaceAll(code, " ", "")
	if code == "" {
		return api, nil
	}
	if !authenticatorCode.MatchString(code) {
		return nil, usagef("--code: want the 6 digits that your authenticator shows")
	}
	proven, err := api.StepUp(ctx, code)
	if err != nil {
		return nil, fmt.Errorf("showing the code: %w", err)
	}
	return proven, nil
}
