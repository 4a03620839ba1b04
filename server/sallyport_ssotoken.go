package server

import (
	"context"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/ssoportal"
	"sallyport.dev/wire"
)

// ssoTokenLasts is how long a token of the portal lasts at most, as those of aws sso login.
const ssoTokenLasts = 8 * time.Hour

func ssoTokenOperations() []*Operation {
	return []*Operation{op("sallyport", "CreateSSOToken", nil, createSSOToken, checksItself)}
}

type ssoTokenOutput struct {
	AccessToken string    `json:"AccessToken"`
	Expires     wire.Time `json:"Expires"`
}

// createSSOToken gives who is signed in a token of AWS's sign-in portal, for the same
// sign-in. Credentials that come from a key, or of a role, get none: they would become
// more than they are.
func createSSOToken(ctx context.Context, c *Call, _ *struct{}) (*ssoTokenOutput, error) {
	self := access.Resource{ARN: c.Principal.ARN, Tags: c.Principal.Tags}
	if c.Principal.Kind != identity.KindUser || c.Principal.SignIn == "" || c.Server.config.SignIns == nil {
		c.checked = true
		return nil, c.Server.checker.Refuse(ctx, c.query(c.Operation.Action, []access.Resource{self}), "because it takes a sign-in (sallyport login)")
	}
	if err := c.CheckOwn(ctx, self); err != nil {
		return nil, err
	}
	in, err := c.Server.config.SignIns.Get(ctx, c.Principal.SignIn)
	if err != nil {
		return nil, err
	}
	expires := c.Origin.Time.Add(ssoTokenLasts)
	if in.Expires.Before(expires) {
		expires = in.Expires
	}
	token := ssoportal.NewAccessToken(c.Server.config.Sealer, ssoportal.Token{SignIn: in.ID, User: in.User, Expires: expires})
	err = c.record(ctx, audit.Record{
		Event: audit.EventSignIn, Principal: c.Principal.ARN, Resources: []string{c.Principal.ARN}, Reason: "token of the sign-in portal issued",
		Details: map[string]string{"sign_in": in.ID, "expires": expires.UTC().Format(time.RFC3339)},
	})
	return &ssoTokenOutput{token, wire.Time{Time: expires}}, err
}
