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

// withCode is the API as the same person with a second factor shown: with temporary
// credentials that a code of their authenticator was given for.
func (p *program) withCode(ctx context.Context, api *client.API, code string) (*client.API, error) {
	code = strings.ReplaceAll(code, " ", "")
	if code == "" {
		return api, nil
	}
	if !authenticatorCode.MatchString(code) {
		return nil, usagef("--code: want the 6 digits that your authenticator shows")
	}
	me, err := p.whoami(ctx)
	if err != nil {
		return nil, err
	}
	serial, ok := authenticatorOf(me.Principal)
	if !ok {
		return nil, usagef("--code: %s is not a user; codes are shown with the credentials of the user, and asked for by sallyport login", client.CleanLine(shortARN(me.Principal)))
	}
	proven, err := api.WithCode(ctx, serial, code)
	if err != nil {
		return nil, fmt.Errorf("showing the code: %w", err)
	}
	return proven, nil
}

// authenticatorOf is the serial number of a user's authenticator: arn:…:mfa/NAME.
func authenticatorOf(principal string) (string, bool) {
	before, name, ok := strings.Cut(principal, ":user/")
	if !ok || !strings.HasPrefix(principal, "arn:") {
		return "", false
	}
	return before + ":mfa/" + name[strings.LastIndexByte(name, '/')+1:], true
}
