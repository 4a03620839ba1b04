package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/factor"
	"sallyport.dev/identity"
)

// Second factors of callers: serial number and code in STS, and what must be shown
// before factors are changed.

// mfaFresh is how long ago a second factor may have been given for what asks for one
// anew.
const mfaFresh = 15 * time.Minute

// fresh reports whether a principal gave a second factor a short while ago.
func fresh(p identity.Principal, now time.Time) bool {
	return p.MFA && now.Sub(p.MFAAt) <= mfaFresh
}

// Texts of STS.
const (
	mfaIncomplete = "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code."
	mfaNoDevice   = "MultiFactorAuthentication failed, unable to validate MFA code. Please verify your MFA serial number is valid and associated with this user."
	mfaWrong      = "MultiFactorAuthentication failed with invalid MFA one time pass code."
)

// secondFactor takes the serial number and code of a call of STS, if they are there: the
// caller has then given a second factor at this moment, for policies too.
func (c *Call) secondFactor(ctx context.Context, serial, code string) error {
	if serial == "" && code == "" {
		return nil
	}
	if serial == "" || code == "" {
		return exception("AccessDenied", mfaIncomplete)
	}
	user, d, err := c.deviceOf(ctx, serial)
	if errors.Is(err, identity.ErrNotFound) {
		return c.factorRefused(ctx, serial, errors.New("not a device of the caller's"), exception("AccessDenied", mfaNoDevice))
	}
	if err != nil {
		return err
	}
	d, err = c.Server.config.Factors.CheckTOTP(ctx, user, d.ID, code, c.Origin.SourceIP)
	return c.showed(ctx, serial, d, err)
}

// showed settles what came of a code: the principal has a second factor, or a refusal is
// recorded.
func (c *Call) showed(ctx context.Context, serial string, d factor.Device, err error) error {
	wait := (*factor.WaitError)(nil)
	switch {
	case errors.Is(err, factor.ErrWrong), errors.Is(err, factor.ErrUsed):
		return c.factorRefused(ctx, serial, err, exception("AccessDenied", mfaWrong))
	case errors.As(err, &wait):
		return c.factorRefused(ctx, serial, err, exception("AccessDenied", "MultiFactorAuthentication failed: %v.", wait))
	case err != nil:
		return err
	}
	c.Principal.MFA, c.Principal.MFAAt, c.Principal.Factor = true, c.Origin.Time, string(d.Kind)
	return nil
}

// factorRefused records a second factor that was not taken, and why, and returns what the
// caller is told.
func (c *Call) factorRefused(ctx context.Context, serial string, why, told error) error {
	details := map[string]string{"access_key_id": c.Principal.AccessKeyID}
	if serial != "" {
		details["serial_number"] = serial
	}
	err := c.record(ctx, audit.Record{
		Event: audit.EventSignIn, Principal: c.Principal.ARN, Resources: []string{c.Principal.ARN}, Decision: "Refused",
		Reason: "second factor: " + why.Error(), Error: "AccessDenied", Details: details,
	})
	return errors.Join(told, err)
}

// person is the user behind the caller.
func (c *Call) person(ctx context.Context) (identity.User, error) {
	return c.Server.config.Identities.UserByID(ctx, strings.SplitN(c.Principal.RootID(), ":", 2)[0])
}

// deviceOf finds a device of one-time codes of the caller's by its serial number. It
// returns identity.ErrNotFound for any other.
func (c *Call) deviceOf(ctx context.Context, serial string) (identity.User, factor.Device, error) {
	keeper := c.Server.config.Factors
	if keeper == nil || c.Principal.IsNode() {
		return identity.User{}, factor.Device{}, identity.ErrNotFound
	}
	user, err := c.person(ctx)
	if err != nil {
		return user, factor.Device{}, err
	}
	d, err := keeper.BySerial(ctx, serial)
	if err == nil && (d.UserID != user.ID || d.Enabled.IsZero()) {
		err = identity.ErrNotFound
	}
	return user, d, err
}

// mayChangeFactors refuses to change the caller's own factors or password to whom a
// stolen key would be enough: where there is a second factor, one must have been given a
// short while ago; where there is a password, or an account at a provider, the person must
// have signed in a short while ago. Only who has nothing but keys does with one.
func (c *Call) mayChangeFactors(ctx context.Context, user identity.User) error {
	if fresh(c.Principal, c.Origin.Time) {
		return nil
	}
	keeper := c.Server.config.Factors
	devices, err := keeper.Devices(ctx, user.ID)
	if err != nil {
		return err
	}
	if len(devices) > 0 {
		return c.refuseFactor(ctx, user, "because there is a second factor, which must be given first")
	}
	if c.Principal.SignIn != "" && c.Server.config.SignIns != nil {
		return c.signedInLately(ctx, user)
	}
	_, err = keeper.Password(ctx, user.ID)
	switch {
	case err == nil:
		return c.refuseFactor(ctx, user, "because there is a password, so that the person must sign in first")
	case !errors.Is(err, identity.ErrNotFound):
		return err
	case c.Server.config.SignIns == nil:
		return nil
	}
	accounts, err := c.Server.config.SignIns.Accounts(ctx, user.ID)
	if err == nil && len(accounts) > 0 {
		return c.refuseFactor(ctx, user, "because there is an account at a provider, so that the person must sign in first")
	}
	return err
}

// signedInLately refuses whose sign-in is so old that its token may be in other hands, as
// the pages do.
func (c *Call) signedInLately(ctx context.Context, user identity.User) error {
	in, err := c.Server.config.SignIns.Get(ctx, c.Principal.SignIn)
	if err != nil || c.Origin.Time.Sub(in.Created) <= mfaFresh {
		return err
	}
	return c.refuseFactor(ctx, user, "because the sign-in is not new: the person must sign in again first")
}

func (c *Call) refuseFactor(ctx context.Context, user identity.User, because string) error {
	c.checked = true
	return c.Server.checker.Refuse(ctx, c.query(c.Operation.Action, []access.Resource{c.Server.userResource(user.Name, user)}), because)
}

// claimsOf are those that the caller's temporary credentials were issued with, or that a
// user's would be.
func claimsOf(p identity.Principal) (identity.Claims, error) {
	c := identity.Claims{
		Kind: p.Kind, Name: p.Name, ID: p.UserID, SessionName: p.SessionName,
		Tags: p.SessionTags, Transitive: p.Transitive, Policies: p.SessionPolicies, PolicyARNs: p.SessionPolicyARNs,
		MFA: p.MFA, MFAAt: p.MFAAt, Factor: p.Factor, Source: p.Source, SourceIdentity: p.SourceIdentity,
		Root: p.Root, SignIn: p.SignIn, Granted: p.Granted,
	}
	switch p.Kind {
	case identity.KindUser:
		return c, nil
	case identity.KindRole:
		c.ID, _, _ = strings.Cut(p.UserID, ":")
		return c, nil
	}
	return c, fmt.Errorf("a principal of kind %q has no factors", p.Kind)
}
