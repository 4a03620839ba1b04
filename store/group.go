package store

import (
	"context"

	"sallyport.dev/identity"
)

const groupColumns = "user_groups.id, user_groups.name, user_groups.path, user_groups.created"

func scanGroup(r row) (g identity.Group, err error) {
	return g, r.Scan(&g.ID, &g.Name, &g.Path, stored{&g.Created})
}

func groupByName(t tx, name string) (identity.Group, error) {
	return one(t, about("group", name, identity.ErrNotFound), scanGroup,
		"SELECT "+groupColumns+" FROM user_groups WHERE key = $1", key(name))
}

// CreateGroup implements identity.Store.
func (s *Store) CreateGroup(ctx context.Context, g identity.Group) error {
	return s.writeIdentity(ctx, "creating group", func(t tx) error {
		_, err := t.exec("INSERT INTO user_groups (id, key, name, path, created) VALUES ($1, $2, $3, $4, $5)",
			g.ID, key(g.Name), g.Name, g.Path, micros(g.Created))
		return orExists(err, about("group", g.Name, identity.ErrExists))
	})
}

// Group implements identity.Store.
func (s *Store) Group(ctx context.Context, name string) (identity.Group, error) {
	g, err := groupByName(s.read(ctx), name)
	return g, wrap("reading group", err)
}

// Groups implements identity.Store.
func (s *Store) Groups(ctx context.Context, p identity.Page) ([]identity.Group, error) {
	page, args := paged("user_groups", p, where{})
	all, err := list(s.read(ctx), scanGroup, "SELECT "+groupColumns+" FROM user_groups"+page, args...)
	return all, wrap("listing groups", err)
}

// UpdateGroup implements identity.Store. The id stays what it is.
func (s *Store) UpdateGroup(ctx context.Context, name string, change func(*identity.Group) error) error {
	return s.writeIdentity(ctx, "changing group", func(t tx) error {
		g, err := groupByName(t, name)
		if err != nil {
			return err
		}
		id := g.ID
		if err := change(&g); err != nil {
			return err
		}
		_, err = t.exec("UPDATE user_groups SET key = $1, name = $2, path = $3, created = $4 WHERE id = $5",
			key(g.Name), g.Name, g.Path, micros(g.Created), id)
		return orExists(err, about("group", g.Name, identity.ErrExists))
	})
}

// DeleteGroup implements identity.Store.
func (s *Store) DeleteGroup(ctx context.Context, name string) error {
	return s.writeIdentity(ctx, "deleting group", func(t tx) error {
		g, err := groupByName(t, name)
		if err != nil {
			return err
		}
		err = t.unused(about("group", g.Name, identity.ErrConflict), `
			SELECT (SELECT COUNT(*) FROM memberships WHERE group_id = $1)
			     + (SELECT COUNT(*) FROM inline_policies WHERE owner_kind = 'group' AND owner_id = $1)
			     + (SELECT COUNT(*) FROM attachments WHERE owner_kind = 'group' AND owner_id = $1)`, g.ID)
		if err != nil {
			return err
		}
		_, err = t.exec("DELETE FROM user_groups WHERE id = $1", g.ID)
		return err
	})
}

// groupAndUser finds both ends of a membership.
func groupAndUser(t tx, group, user string) (g identity.Group, u identity.User, err error) {
	if g, err = groupByName(t, group); err != nil {
		return g, u, err
	}
	u, err = userByName(t, user)
	return g, u, err
}

// AddMember implements identity.Store.
func (s *Store) AddMember(ctx context.Context, group, user string) error {
	return s.writeIdentity(ctx, "adding to group", func(t tx) error {
		g, u, err := groupAndUser(t, group, user)
		if err != nil {
			return err
		}
		_, err = t.exec("INSERT INTO memberships (group_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", g.ID, u.ID)
		return err
	})
}

// RemoveMember implements identity.Store.
func (s *Store) RemoveMember(ctx context.Context, group, user string) error {
	return s.writeIdentity(ctx, "removing from group", func(t tx) error {
		g, u, err := groupAndUser(t, group, user)
		if err != nil {
			return err
		}
		return t.must(about("member", u.Name, identity.ErrNotFound),
			"DELETE FROM memberships WHERE group_id = $1 AND user_id = $2", g.ID, u.ID)
	})
}

// Members implements identity.Store.
func (s *Store) Members(ctx context.Context, group string, p identity.Page) ([]identity.User, error) {
	all, err := members(s.read(ctx), group, p)
	return all, wrap("listing members", err)
}

func members(t tx, group string, p identity.Page) ([]identity.User, error) {
	g, err := groupByName(t, group)
	if err != nil {
		return nil, err
	}
	w := where{}
	w.add("memberships.group_id = ?", g.ID)
	page, args := paged("users", p, w)
	return list(t, scanUser, "SELECT "+userColumns+
		" FROM users JOIN memberships ON memberships.user_id = users.id"+page, args...)
}

// GroupsOf implements identity.Store.
func (s *Store) GroupsOf(ctx context.Context, user string, p identity.Page) ([]identity.Group, error) {
	all, err := groupsOf(s.read(ctx), user, p)
	return all, wrap("listing groups of a user", err)
}

func groupsOf(t tx, user string, p identity.Page) ([]identity.Group, error) {
	u, err := userByName(t, user)
	if err != nil {
		return nil, err
	}
	w := where{}
	w.add("memberships.user_id = ?", u.ID)
	page, args := paged("user_groups", p, w)
	return list(t, scanGroup, "SELECT "+groupColumns+
		" FROM user_groups JOIN memberships ON memberships.group_id = user_groups.id"+page, args...)
}
