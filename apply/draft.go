package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport.dev/identity"
)

// Draft is the identities and policies as they would be once files are applied. It is for
// reading: what policies decide, and who is in which group.
type Draft struct {
	identity.Store // as it is; what it writes is none of a draft's

	now          Now
	want, before *World
}

// NewDraft returns what there would be; want and before are as in NewPlan.
func NewDraft(now Now, want, before *World) *Draft {
	return &Draft{now.Identities, now, want, before}
}

func (d *Draft) planner(ctx context.Context) *planner {
	return &planner{ctx: ctx, now: d.now, want: d.want, before: d.before}
}

// draftID is the id of what the draft makes.
func draftID(kind, name string) string { return "draft-" + kind + "-" + name }

// goneFrom reports whether files had something that they have no more.
func goneFrom[T any](before, want map[string]*T, name string) bool {
	return saidOf(before, name) != nil && saidOf(want, name) == nil
}

// User implements identity.Store.
func (d *Draft) User(ctx context.Context, name string) (identity.User, error) {
	u, err := d.Store.User(ctx, name)
	there, err := found(err)
	if err != nil {
		return u, err
	}
	said := saidOf(d.want.Users, name)
	if !there {
		if said == nil {
			return u, fmt.Errorf("user %q: %w", name, identity.ErrNotFound)
		}
		u = identity.User{Name: said.Name, ID: draftID("user", said.Name), Path: "/"}
	}
	return d.user(ctx, u), nil
}

// UserByID implements identity.Store.
func (d *Draft) UserByID(ctx context.Context, id string) (identity.User, error) {
	for _, said := range d.want.Users {
		if draftID("user", said.Name) == id {
			return d.User(ctx, said.Name)
		}
	}
	u, err := d.Store.UserByID(ctx, id)
	if err != nil {
		return u, err
	}
	return d.user(ctx, u), nil
}

// user is a user as the files make them.
func (d *Draft) user(ctx context.Context, u identity.User) identity.User {
	if goneFrom(d.before.Users, d.want.Users, u.Name) {
		u.Disabled = true
	}
	said := saidOf(d.want.Users, u.Name)
	if said == nil {
		return u
	}
	if saidOf(d.before.Users, u.Name) == nil {
		u.Disabled = false
	}
	u.Path = orElse(said.Path, u.Path)
	if said.Tags != nil {
		u.Tags = maps.Clone(*said.Tags)
	}
	u.Boundary = d.boundary(ctx, said.Boundary, u.Boundary)
	return u
}

func (d *Draft) boundary(ctx context.Context, said *string, have string) string {
	switch {
	case said == nil:
		return have
	case *said == "":
		return ""
	}
	return d.planner(ctx).policyARN(*said)
}

// Users implements identity.Store; pages are not cut.
func (d *Draft) Users(ctx context.Context, _ identity.Page) ([]identity.User, error) {
	all, err := d.Store.Users(ctx, identity.Page{})
	if err != nil {
		return nil, err
	}
	for i, u := range all {
		all[i] = d.user(ctx, u)
	}
	for _, name := range slices.Sorted(maps.Keys(d.want.Users)) {
		if !slices.ContainsFunc(all, func(u identity.User) bool { return strings.EqualFold(u.Name, name) }) {
			u, err := d.User(ctx, name)
			if err != nil {
				return nil, err
			}
			all = append(all, u)
		}
	}
	return all, nil
}

// Group implements identity.Store.
func (d *Draft) Group(ctx context.Context, name string) (identity.Group, error) {
	g, err := d.Store.Group(ctx, name)
	there, err := found(err)
	said := saidOf(d.want.Groups, name)
	switch {
	case err != nil:
		return g, err
	case !there && said == nil, goneFrom(d.before.Groups, d.want.Groups, name):
		return g, fmt.Errorf("group %q: %w", name, identity.ErrNotFound)
	case !there:
		g = identity.Group{Name: said.Name, ID: draftID("group", said.Name), Path: "/"}
	}
	return g, nil
}

// GroupsOf implements identity.Store; pages are not cut.
func (d *Draft) GroupsOf(ctx context.Context, user string, _ identity.Page) ([]identity.Group, error) {
	have, err := d.Store.GroupsOf(ctx, user, identity.Page{})
	if there, err := found(err); err != nil {
		return nil, err
	} else if !there {
		have = nil
	}
	names := map[string]bool{} // in lower case
	for _, g := range have {
		names[strings.ToLower(g.Name)] = true
	}
	if said := saidOf(d.want.Users, user); said != nil && said.Groups != nil {
		clear(names)
		for _, g := range *said.Groups {
			names[strings.ToLower(g)] = true
		}
	}
	for _, g := range d.want.Groups {
		if g.Members != nil {
			names[strings.ToLower(g.Name)] = slices.ContainsFunc(*g.Members, func(m string) bool { return strings.EqualFold(m, user) })
		}
	}
	return d.groups(ctx, names)
}

// groups finds those of the names that there would be.
func (d *Draft) groups(ctx context.Context, names map[string]bool) ([]identity.Group, error) {
	var all []identity.Group
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !names[name] {
			continue
		}
		g, err := d.Group(ctx, name)
		if there, err := found(err); err != nil {
			return nil, err
		} else if there {
			all = append(all, g)
		}
	}
	return all, nil
}

// Members implements identity.Store; pages are not cut.
func (d *Draft) Members(ctx context.Context, group string, _ identity.Page) ([]identity.User, error) {
	users, err := d.Users(ctx, identity.Page{})
	if err != nil {
		return nil, err
	}
	var members []identity.User
	for _, u := range users {
		groups, err := d.GroupsOf(ctx, u.Name, identity.Page{})
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(groups, func(g identity.Group) bool { return strings.EqualFold(g.Name, group) }) {
			members = append(members, u)
		}
	}
	return members, nil
}

// Role implements identity.Store.
func (d *Draft) Role(ctx context.Context, name string) (identity.Role, error) {
	r, err := d.Store.Role(ctx, name)
	there, err := found(err)
	said := saidOf(d.want.Roles, name)
	switch {
	case err != nil:
		return r, err
	case !there && said == nil, goneFrom(d.before.Roles, d.want.Roles, name):
		return r, fmt.Errorf("role %q: %w", name, identity.ErrNotFound)
	case said == nil:
		return r, nil
	case !there:
		r = identity.Role{Name: said.Name, ID: draftID("role", said.Name), Path: orRoot(said.Path)}
	}
	r.Trust = said.Trust
	if said.maxDuration > 0 {
		r.MaxDuration = said.maxDuration
	}
	if said.Tags != nil {
		r.Tags = maps.Clone(*said.Tags)
	}
	r.Boundary = d.boundary(ctx, said.Boundary, r.Boundary)
	return r, nil
}

// policiesSaid are an owner's policies as files say: those attached (nil: not said), and
// the inline ones now and before.
func (d *Draft) policiesSaid(o identity.Owner) (attached *[]string, inline, before []Inline) {
	switch o.Kind {
	case identity.OwnerUser:
		if u := saidOf(d.want.Users, o.Name); u != nil {
			attached, inline = u.Policies, u.Inline
		}
		if u := saidOf(d.before.Users, o.Name); u != nil {
			before = u.Inline
		}
	case identity.OwnerGroup:
		if g := saidOf(d.want.Groups, o.Name); g != nil {
			attached, inline = g.Policies, g.Inline
		}
		if g := saidOf(d.before.Groups, o.Name); g != nil {
			before = g.Inline
		}
	case identity.OwnerRole:
		if r := saidOf(d.want.Roles, o.Name); r != nil {
			attached, inline = r.Policies, r.Inline
		}
		if r := saidOf(d.before.Roles, o.Name); r != nil {
			before = r.Inline
		}
	}
	return attached, inline, before
}

// InlinePolicies implements identity.Store.
func (d *Draft) InlinePolicies(ctx context.Context, o identity.Owner) ([]identity.InlinePolicy, error) {
	have, err := d.Store.InlinePolicies(ctx, o)
	if there, err := found(err); err != nil {
		return nil, err
	} else if !there {
		have = nil
	}
	_, inline, before := d.policiesSaid(o)
	all := map[string]string{}
	for _, p := range have {
		all[p.Name] = p.Document
	}
	for _, p := range slices.Concat(before, inline) {
		maps.DeleteFunc(all, func(name, _ string) bool { return strings.EqualFold(name, p.Name) })
	}
	for _, p := range inline {
		all[p.Name] = p.Document
	}
	var list []identity.InlinePolicy
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, identity.InlinePolicy{Owner: o, Name: name, Document: all[name]})
	}
	return list, nil
}

// AttachedPolicies implements identity.Store.
func (d *Draft) AttachedPolicies(ctx context.Context, o identity.Owner) ([]identity.ManagedPolicy, error) {
	attached, _, _ := d.policiesSaid(o)
	if attached == nil {
		have, err := d.Store.AttachedPolicies(ctx, o)
		if there, err := found(err); err != nil || !there {
			return nil, err
		}
		return have, nil
	}
	var all []identity.ManagedPolicy
	for _, name := range *attached {
		p, err := d.Policy(ctx, d.planner(ctx).policyARN(name))
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// draftVersion is the version of a policy that the draft makes.
const draftVersion = "draft"

// policySaid finds what files say of a managed policy.
func (d *Draft) policySaid(ctx context.Context, arn string) *Policy {
	for name, p := range d.want.Policies {
		if strings.EqualFold(d.planner(ctx).policyARN(name), arn) {
			return p
		}
	}
	return nil
}

// Policy implements identity.Store.
func (d *Draft) Policy(ctx context.Context, arn string) (identity.ManagedPolicy, error) {
	p, err := d.Store.Policy(ctx, arn)
	said := d.policySaid(ctx, arn)
	if said == nil {
		return p, err
	}
	if there, err := found(err); err != nil {
		return p, err
	} else if !there {
		p = identity.ManagedPolicy{ARN: arn, Name: said.Name, Path: orRoot(said.Path)}
	}
	p.DefaultVersion = draftVersion
	return p, nil
}

// PolicyVersion implements identity.Store.
func (d *Draft) PolicyVersion(ctx context.Context, arn, id string) (identity.PolicyVersion, error) {
	if said := d.policySaid(ctx, arn); said != nil && id == draftVersion {
		return identity.PolicyVersion{PolicyARN: arn, ID: id, Document: said.Document, Default: true}, nil
	}
	return d.Store.PolicyVersion(ctx, arn, id)
}
