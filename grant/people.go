package grant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/identity"
)

// env answers what flow code and selections of people ask, as of one time.
type env struct {
	e   *Engine
	set *flow.Set
	at  time.Time
}

func (v env) Now() time.Time { return v.at }

// maxMembers bounds the people of one group or selection that are looked at.
const maxMembers = 2000

// GroupMembers implements flow.Env. Who is disabled is nobody's member.
func (v env) GroupMembers(ctx context.Context, group string) ([]flow.Person, error) {
	users, err := v.e.config.Directory.Members(ctx, group, identity.Page{Limit: maxMembers})
	if errors.Is(err, identity.ErrNotFound) {
		return nil, fmt.Errorf("there is no group %q", group)
	}
	if err != nil {
		return nil, err
	}
	return v.e.people(ctx, users)
}

// Person implements flow.Env.
func (v env) Person(ctx context.Context, name string) (flow.Person, error) {
	u, err := v.e.config.Directory.User(ctx, name)
	if errors.Is(err, identity.ErrNotFound) || err == nil && u.Disabled {
		return flow.Person{}, fmt.Errorf("there is no user %q", name)
	}
	if err != nil {
		return flow.Person{}, err
	}
	return v.e.person(ctx, u)
}

// OnCall implements flow.Env.
func (v env) OnCall(ctx context.Context, schedule string) ([]string, error) {
	var s *flow.Schedule
	if v.set != nil {
		s = v.set.Schedules[schedule]
	}
	if s == nil {
		return nil, fmt.Errorf("there is no schedule %q", schedule)
	}
	if v.e.config.OnCall == nil {
		return nil, fmt.Errorf("schedule %q: this server asks no on-call sources", schedule)
	}
	names, err := v.e.config.OnCall.OnCall(ctx, s, v.at)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", schedule, err)
	}
	return names, nil
}

// people returns the users that are not disabled as flows see them.
func (e *Engine) people(ctx context.Context, users []identity.User) ([]flow.Person, error) {
	var all []flow.Person
	for _, u := range users {
		if u.Disabled {
			continue
		}
		p, err := e.person(ctx, u)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// person is a user as flows see them.
func (e *Engine) person(ctx context.Context, u identity.User) (flow.Person, error) {
	groups, err := e.config.Directory.GroupsOf(ctx, u.Name, identity.Page{})
	if err != nil {
		return flow.Person{}, fmt.Errorf("groups of %s: %w", u.Name, err)
	}
	p := flow.Person{ID: u.ID, Name: u.Name, ARN: e.config.Realm.IAM("user", u.Path, u.Name), Tags: u.Tags}
	for _, g := range groups {
		p.Groups = append(p.Groups, g.Name)
	}
	return p, nil
}

// behind finds who is behind a principal. Because says why there is nobody who may ask
// or decide.
func (e *Engine) behind(ctx context.Context, p identity.Principal) (who flow.Person, because string, err error) {
	if p.IsNode() {
		return who, "because nodes ask for nothing and decide nothing", nil
	}
	return e.byID(ctx, p.RootID())
}

// byID finds a person by the unique id of their user.
func (e *Engine) byID(ctx context.Context, id string) (who flow.Person, because string, err error) {
	u, err := e.config.Directory.UserByID(ctx, id)
	switch {
	case errors.Is(err, identity.ErrNotFound):
		return who, "because there is no such user any more", nil
	case err != nil:
		return who, "", err
	case u.Disabled:
		return who, "because " + u.Name + " is disabled", nil
	}
	who, err = e.person(ctx, u)
	return who, "", err
}

// samePerson reports whether a decider is who asked, under whatever name: the same user,
// the same source identity, or a user that is linked to the same person.
func (e *Engine) samePerson(ctx context.Context, r Request, who flow.Person, sourceIdentity string) (bool, error) {
	asked := r.Frozen.Person
	switch {
	case who.ID == asked.ID:
		return true, nil
	case sourceIdentity != "" && (sourceIdentity == r.Frozen.SourceIdentity || strings.EqualFold(sourceIdentity, asked.Name)):
		return true, nil
	case r.Frozen.SourceIdentity != "" && strings.EqualFold(r.Frozen.SourceIdentity, who.Name):
		return true, nil
	}
	return e.linked(ctx, who.ID, asked.ID)
}

// linked reports whether two users are known to be one person.
func (e *Engine) linked(ctx context.Context, a, b string) (bool, error) {
	if a == b {
		return true, nil
	}
	same, err := e.samePersonTag(ctx, a, b)
	return same || err != nil, err
}

// TagPerson is the tag of users that says which person they are: those with a value in
// common are one, who does not decide on what they ask for under another name.
const TagPerson = "Person"

// samePersonTag reports whether two users are tagged as one person.
func (e *Engine) samePersonTag(ctx context.Context, a, b string) (bool, error) {
	one, err := e.config.Directory.UserByID(ctx, a)
	if err != nil {
		return false, ignoreMissing(err)
	}
	other, err := e.config.Directory.UserByID(ctx, b)
	if err != nil {
		return false, ignoreMissing(err)
	}
	values := other.Tags.Values(TagPerson)
	return slices.ContainsFunc(one.Tags.Values(TagPerson), func(v string) bool { return v != "" && slices.Contains(values, v) }), nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, identity.ErrNotFound) {
		return nil
	}
	return err
}

// among reports whether a person is among people. What cannot be asked (who is on call)
// leaves those out, and is told.
func (v env) among(ctx context.Context, of flow.People, who flow.Person) (bool, string) {
	has, err := of.Has(ctx, v, who)
	if err != nil {
		return has, err.Error()
	}
	return has, ""
}

// listed are people by name, group, tag and schedule; at most limit.
func (v env) listed(ctx context.Context, of flow.People, limit int) ([]flow.Person, error) {
	var all []flow.Person
	add := func(people ...flow.Person) {
		for _, p := range people {
			known := slices.ContainsFunc(all, func(q flow.Person) bool { return q.ID == p.ID })
			if !known && len(all) < limit {
				all = append(all, p)
			}
		}
	}
	var errs []error
	names := slices.Clone(of.Users)
	for _, schedule := range of.OnCall {
		onCall, err := v.OnCall(ctx, schedule)
		errs = append(errs, err)
		names = append(names, onCall...)
	}
	for _, name := range names {
		if p, err := v.Person(ctx, name); err == nil {
			add(p)
		}
	}
	for _, group := range of.Groups {
		members, err := v.GroupMembers(ctx, group)
		errs = append(errs, err)
		add(members...)
	}
	if of.Everyone || len(of.Tags) > 0 {
		tagged, err := v.search(ctx, of)
		errs = append(errs, err)
		add(tagged...)
	}
	return all, errors.Join(errs...)
}

// search goes through all users for those that tags select.
func (v env) search(ctx context.Context, of flow.People) ([]flow.Person, error) {
	users, err := v.e.config.Directory.Users(ctx, identity.Page{Limit: maxMembers})
	if err != nil {
		return nil, err
	}
	only := flow.People{Everyone: of.Everyone, Tags: of.Tags}
	people, err := v.e.people(ctx, users)
	return slices.DeleteFunc(people, func(p flow.Person) bool {
		has, _ := only.Has(ctx, v, p)
		return !has
	}), err
}
