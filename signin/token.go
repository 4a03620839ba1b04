package signin

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
)

// maxSpent bounds the tokens of a sign-in that are remembered as spent: more than the
// longest sign-in needs, as each lasts about an hour. None is ever forgotten, or a thief
// would exchange theirs until nobody knows the owner's for a spent one.
const maxSpent = 1024

// Refresh exchanges a token for the next, whose hash is given. A token is the sign-in's id,
// a dot and a secret, so that one that was spent long ago is known for what it is: it ends
// the sign-in, as there are two who hold it, and one of them has stolen it. The same
// exchange again, by who did not get the answer, is none.
func (s *Service) Refresh(r *http.Request, token, next string) (SignIn, error) {
	id, secret, ok := strings.Cut(token, ".")
	if !ok || !hashed(next) || len(secret) > 128 {
		return SignIn{}, ErrRefused
	}
	have, end := Hash(secret), ""
	in, err := s.config.Store.UpdateSignIn(r.Context(), id, func(row *SignIn) error {
		end = ""
		switch {
		case row.Kind == KindBrowser:
			return ErrRefused
		case same(row.Secret, have):
		case slices.ContainsFunc(row.Spent, func(spent string) bool { return same(spent, have) }):
			if same(row.Secret, next) && same(row.Spent[len(row.Spent)-1], have) {
				return row.holds(s.config.Now())
			}
			end = "a token of it was used twice"
			return ErrReused
		default:
			return ErrRefused
		}
		if err := row.holds(s.config.Now()); err != nil {
			return err
		}
		if len(row.Spent) >= maxSpent {
			end = "its tokens were exchanged too often"
			return ErrRefused
		}
		row.Spent = append(row.Spent, row.Secret)
		row.Secret, row.Used = next, s.config.Now()
		return nil
	})
	if errors.Is(err, identity.ErrNotFound) || errors.Is(err, identity.ErrExists) {
		return SignIn{}, ErrRefused
	}
	if end != "" {
		return SignIn{}, errors.Join(err, s.reused(r, id, "", end))
	}
	return in, err
}

// holds is nil while a sign-in lasts.
func (s SignIn) holds(now time.Time) error {
	switch {
	case !s.Ended.IsZero():
		return ErrRefused
	case !now.Before(s.Expires):
		return ErrExpired
	}
	return nil
}

// Revoke ends the sign-in of a token; one that is not good ends nothing, and is no error.
func (s *Service) Revoke(r *http.Request, token string) error {
	id, secret, ok := strings.Cut(token, ".")
	if !ok {
		return nil
	}
	in, err := s.config.Store.SignIn(r.Context(), id)
	if errors.Is(err, identity.ErrNotFound) || err == nil && (in.Kind == KindBrowser || !same(in.Secret, Hash(secret)) || !in.Ended.IsZero()) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(s.end(r.Context(), id, "signed out"), s.recordEnd(r, in, "signed out"))
}

func (s *Service) recordEnd(r *http.Request, in SignIn, reason string) error {
	rec := audit.Record{Action: "sign-in:End", Reason: reason, Details: details("sign_in", in.ID, "kind", string(in.Kind))}
	if user, err := s.config.Identities.UserByID(r.Context(), in.User); err == nil {
		rec.Principal = s.config.Realm.IAM("user", user.Path, user.Name)
	}
	return s.record(r, rec)
}

// Credentials issues temporary AWS credentials of whoever is signed in, for as long as the
// sign-in lasts and life at most (0: an hour, which is the longest).
func (s *Service) Credentials(ctx context.Context, in SignIn, life time.Duration) (identity.Credentials, identity.Principal, error) {
	p, err := s.Principal(ctx, in)
	if err != nil {
		return identity.Credentials{}, p, err
	}
	if life <= 0 || life > maxCredential {
		life = maxCredential
	}
	now := s.config.Now()
	until := now.Add(life)
	if in.Expires.Before(until) {
		until = in.Expires
	}
	cred, err := s.issuer.Issue(identity.Claims{
		Kind: identity.KindUser, Name: p.Name, ID: p.UserID, SignIn: in.ID,
		MFA: p.MFA, MFAAt: p.MFAAt, Factor: p.Factor, IssuedAt: now, ExpiresAt: until.Truncate(time.Second),
	})
	if err != nil {
		return identity.Credentials{}, p, err
	}
	_, err = s.config.Audit.Append(context.WithoutCancel(ctx), audit.Record{
		Event: audit.EventChange, Principal: p.ARN, Resources: []string{p.ARN}, Action: "sign-in:IssueCredentials", Reason: "credentials issued",
		Details: details("issued_access_key_id", cred.AccessKeyID, "expires", cred.Expires.UTC().Format(time.RFC3339), "sign_in", in.ID),
	})
	return cred, p, err
}

// keepFor is how long sign-ins that are over are listed; tidyEvery how often others are
// forgotten.
const (
	keepFor   = 90 * 24 * time.Hour
	tidyEvery = 10 * time.Minute
)

// tidy forgets what is over. What it cannot do it does the next time.
func (s *Service) tidy(ctx context.Context) {
	now := s.config.Now()
	if last := s.tidied.Load(); now.UnixMicro()-last < tidyEvery.Microseconds() && last <= now.UnixMicro() {
		return
	}
	s.tidied.Store(now.UnixMicro())
	err := errors.Join(s.config.Store.DeletePairings(ctx, now.Add(-time.Hour)), s.config.Store.DeleteSignIns(ctx, now.Add(-keepFor)))
	if err != nil {
		s.config.Logger.Warn("forgetting old sign-ins", "error", err)
	}
}
