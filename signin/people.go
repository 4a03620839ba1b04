package signin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
)

// peoplePath is where people that a provider vouches for are found among users.
const peoplePath = "/people/"

// person returns the user whom a provider's claims are of: made now, if the account was
// never seen before, and brought up to date. Refusals are *RefusedError.
func (s *Service) person(r *http.Request, p *provider, c claims) (identity.User, error) {
	ctx := r.Context()
	refuse := func(reason string) (identity.User, error) {
		return identity.User{}, s.fail(r, "oidc "+p.Name, c.text(p.UserClaim), reason)
	}
	if err := p.required(c); err != nil {
		return refuse(err.Error())
	}
	// Before anybody is made: who cannot be brought up to date does not come in.
	wanted, err := p.wanted(c)
	if err != nil {
		return refuse(err.Error())
	}
	account, err := s.config.Store.Account(ctx, p.Issuer, c.text("sub"))
	if errors.Is(err, identity.ErrNotFound) {
		if account, err = s.enrol(r, p, c); errors.Is(err, identity.ErrExists) {
			return refuse("a user of this name exists here and is not linked to this account; an administrator can link them")
		}
	}
	if err != nil {
		return identity.User{}, err
	}
	user, err := s.config.Identities.UserByID(ctx, account.User)
	if err != nil {
		return identity.User{}, err
	}
	if user.Disabled {
		return refuse("the person is disabled")
	}
	return s.update(r, p, user, wanted)
}

// enrol makes a person of an account. A name that somebody has is ErrExists: two people
// must not become one because they are called the same.
func (s *Service) enrol(r *http.Request, p *provider, c claims) (Account, error) {
	name, err := p.userName(c)
	if err != nil {
		return Account{}, s.fail(r, "oidc "+p.Name, "", err.Error())
	}
	if _, err := s.config.Identities.User(r.Context(), name); !errors.Is(err, identity.ErrNotFound) {
		return Account{}, errors.Join(err, fmt.Errorf("user %s: %w", name, identity.ErrExists))
	}
	now := s.config.Now()
	user := identity.User{Name: name, ID: identity.NewUserID(), Path: peoplePath, Created: now}
	account := Account{Issuer: p.Issuer, Subject: c.text("sub"), User: user.ID, Provider: p.Name, Name: name, Linked: now}
	arn := s.config.Realm.IAM("user", user.Path, user.Name)
	err = s.record(r, audit.Record{
		Principal: arn, Action: "sign-in:Enrol", Resources: []string{arn},
		Details: details("provider", p.Name, "issuer", account.Issuer, "subject", account.Subject),
	})
	if err != nil {
		return Account{}, err
	}
	err = s.config.Store.Enrol(r.Context(), user, account)
	if errors.Is(err, identity.ErrExists) {
		// Perhaps they signed in twice at once.
		if account, err := s.config.Store.Account(r.Context(), account.Issuer, account.Subject); err == nil {
			return account, nil
		}
	}
	return account, err
}

// wanted is what a person is to be by a provider's claims.
type wanted struct {
	groups []string
	tags   map[string]string // empty values are of tags to take away
}

func (p *provider) wanted(c claims) (w wanted, err error) {
	if w.groups, err = p.groups(c); err != nil {
		return w, err
	}
	w.tags, err = p.Provider.tags(c)
	return w, err
}

// update brings the groups and tags of a person up to date, as far as the provider has a
// say in them.
func (s *Service) update(r *http.Request, p *provider, user identity.User, w wanted) (identity.User, error) {
	join, leave, err := s.memberships(r.Context(), p, user, w.groups)
	if err != nil {
		return user, err
	}
	tags := overlaid(user.Tags, w.tags)
	retag := !maps.Equal(tags, user.Tags)
	if len(join)+len(leave) == 0 && !retag {
		return user, nil
	}
	arn := s.config.Realm.IAM("user", user.Path, user.Name)
	d := details("provider", p.Name, "joined", strings.Join(join, ", "), "left", strings.Join(leave, ", "))
	if retag {
		for key, value := range w.tags {
			d["tag "+key] = value
		}
	}
	if err := s.record(r, audit.Record{Principal: arn, Action: "sign-in:UpdatePerson", Resources: []string{arn}, Details: d}); err != nil {
		return user, err
	}
	// First what takes away: if the rest fails, nobody has too much.
	for _, g := range leave {
		if err := s.config.Identities.RemoveMember(r.Context(), g, user.Name); err != nil && !errors.Is(err, identity.ErrNotFound) {
			return user, err
		}
	}
	if retag {
		err := s.config.Identities.UpdateUser(r.Context(), user.Name, func(u *identity.User) error {
			u.Tags = overlaid(u.Tags, w.tags)
			return nil
		})
		if err != nil {
			return user, err
		}
	}
	for _, g := range join {
		if err := s.config.Identities.AddMember(r.Context(), g, user.Name); err != nil {
			return user, err
		}
	}
	user.Tags = tags
	return user, nil
}

// memberships lists which of the groups that the provider governs a person joins and
// leaves. A group that does not exist here is not made.
func (s *Service) memberships(ctx context.Context, p *provider, user identity.User, want []string) (join, leave []string, err error) {
	have, err := s.config.Identities.GroupsOf(ctx, user.Name, identity.Page{})
	if err != nil {
		return nil, nil, err
	}
	in := func(names []string, name string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	}
	var names []string
	for _, g := range have {
		names = append(names, g.Name)
		if p.governs(g.Name) && !in(want, g.Name) {
			leave = append(leave, g.Name)
		}
	}
	for _, name := range want {
		if in(names, name) || in(join, name) {
			continue
		}
		g, err := s.config.Identities.Group(ctx, name)
		if errors.Is(err, identity.ErrNotFound) {
			s.config.Logger.Warn("a provider names a group that does not exist here", "provider", p.Name, "group", name, "user", user.Name)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		join = append(join, g.Name)
	}
	return join, leave, nil
}

// overlaid puts tags over others. Policies ignore the case of keys, so that one that
// differs only in case is the same tag.
func overlaid(under identity.Tags, over map[string]string) identity.Tags {
	tags := identity.Tags{}
	for key, value := range under {
		replaced := slices.ContainsFunc(mapKeys(over), func(k string) bool { return strings.EqualFold(k, key) })
		if !replaced {
			tags[key] = value
		}
	}
	for key, value := range over {
		if value != "" {
			tags[key] = value
		}
	}
	return tags
}

// Accounts lists the accounts that a user is, by their unique id.
func (s *Service) Accounts(ctx context.Context, user string) ([]Account, error) {
	return s.config.Store.Accounts(ctx, user)
}

// Link makes an account at a provider be a user. Who may is for the caller to check.
func (s *Service) Link(ctx context.Context, provider, subject, user, by string) error {
	p := s.provider(provider)
	if p == nil {
		return fmt.Errorf("provider %q: %w", provider, identity.ErrNotFound)
	}
	return s.config.Store.LinkAccount(ctx, Account{
		Issuer: p.Issuer, Subject: subject, User: user, Provider: p.Name, Linked: s.config.Now(), By: by,
	})
}

// Unlink ends that an account is a user. Who may is for the caller to check.
func (s *Service) Unlink(ctx context.Context, provider, subject, user string) error {
	p := s.provider(provider)
	if p == nil {
		return fmt.Errorf("provider %q: %w", provider, identity.ErrNotFound)
	}
	account, err := s.config.Store.Account(ctx, p.Issuer, subject)
	if err == nil && account.User != user {
		err = fmt.Errorf("account %q: %w", subject, identity.ErrNotFound)
	}
	if err != nil {
		return err
	}
	return s.config.Store.UnlinkAccount(ctx, p.Issuer, subject)
}
