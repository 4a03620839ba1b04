package member

import (
	"context"
	"errors"
	"net/http"

	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/signin"
)

// ties tell what temporary credentials come from. What a member does not have holds
// nothing.
type ties struct {
	signIns *signin.Service
	access  *grant.Engine
}

// SignIn implements identity.Ties.
func (t ties) SignIn(ctx context.Context, id, user string) (string, error) {
	if t.signIns == nil {
		return identity.NoTies{}.SignIn(ctx, id, user)
	}
	return t.signIns.SignIn(ctx, id, user)
}

// SignInEnded tells whether a sign-in was ended, though not whether it has expired.
func (t ties) SignInEnded(ctx context.Context, id, user string) (string, error) {
	if t.signIns == nil {
		return identity.NoTies{}.SignIn(ctx, id, user)
	}
	return t.signIns.SignInEnded(ctx, id, user)
}

// Granted implements identity.Ties.
func (t ties) Granted(ctx context.Context, user string, g identity.GrantedRole) (string, error) {
	if t.access == nil {
		return identity.NoTies{}.Granted(ctx, user, g)
	}
	return t.access.Granted(ctx, user, g)
}

// merge joins the handlers of several parts; two of one pattern are a mistake of ours.
func merge(parts ...map[string]http.Handler) (map[string]http.Handler, error) {
	all := map[string]http.Handler{}
	for _, part := range parts {
		for pattern, h := range part {
			if all[pattern] != nil {
				return nil, errors.New("two handlers of " + pattern)
			}
			all[pattern] = h
		}
	}
	return all, nil
}
