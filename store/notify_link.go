package store

import (
	"context"
	"time"

	"sallyport.dev/notify"
)

// PutLinkCode implements notify.Store.
func (s *Store) PutLinkCode(ctx context.Context, c notify.LinkCode) error {
	return s.write(ctx, "keeping a code", func(t tx) error {
		_, err := t.exec(`INSERT INTO chat_codes (service, team, account, hash, name, team_name, expires)
			VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (service, team, account) DO UPDATE SET hash = excluded.hash, name = excluded.name,
				team_name = excluded.team_name, expires = excluded.expires`,
			c.Service, c.Account.Team, c.User, c.Hash, c.Name, c.In, micros(c.Expires))
		return err
	})
}

func scanLinkCode(r row) (c notify.LinkCode, err error) {
	return c, r.Scan(&c.Service, &c.Account.Team, &c.User, &c.Hash, &c.Name, &c.In, stored{&c.Expires})
}

func linkCode(t tx, hash string, now time.Time) (notify.LinkCode, error) {
	return one(t, notify.ErrNotFound, scanLinkCode, `SELECT service, team, account, hash, name, team_name, expires
		FROM chat_codes WHERE hash = $1 AND expires > $2`, hash, micros(now))
}

// LinkCode implements notify.Store.
func (s *Store) LinkCode(ctx context.Context, hash string, now time.Time) (notify.LinkCode, error) {
	c, err := linkCode(s.read(ctx), hash, now)
	return c, wrap("finding a code", err)
}

const linkColumns = "service, team, account, name, person, made"

func scanLink(r row) (l notify.Link, err error) {
	return l, r.Scan(&l.Service, &l.Team, &l.User, &l.Name, &l.Person, stored{&l.Made})
}

// Link implements notify.Store.
func (s *Store) Link(ctx context.Context, hash, person string, now time.Time) (l notify.Link, err error) {
	err = s.write(ctx, "linking a chat account", func(t tx) error {
		c, err := linkCode(t, hash, now)
		if err != nil {
			return err
		}
		// Of two that spend it at once, one finds it gone.
		if err := t.must(notify.ErrNotFound, "DELETE FROM chat_codes WHERE hash = $1", hash); err != nil {
			return err
		}
		l = notify.Link{Account: c.Account, Name: c.Name, Person: person, Made: now}
		n, err := t.exec("INSERT INTO chat_links ("+linkColumns+") VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
			l.Service, l.Team, l.User, l.Name, l.Person, micros(now))
		if err == nil && n == 0 {
			err = notify.ErrLinked
		}
		return err
	})
	return l, err
}

// LinkOf implements notify.Store.
func (s *Store) LinkOf(ctx context.Context, a notify.Account) (notify.Link, error) {
	l, err := one(s.read(ctx), notify.ErrNotFound, scanLink, "SELECT "+linkColumns+
		" FROM chat_links WHERE service = $1 AND team = $2 AND account = $3", a.Service, a.Team, a.User)
	return l, wrap("finding who a chat account is", err)
}

// LinksOf implements notify.Store.
func (s *Store) LinksOf(ctx context.Context, person string) ([]notify.Link, error) {
	all, err := list(s.read(ctx), scanLink, "SELECT "+linkColumns+
		" FROM chat_links WHERE person = $1 ORDER BY service, team, account", person)
	return all, wrap("listing a person's chat accounts", err)
}

// Links implements notify.Store.
func (s *Store) Links(ctx context.Context, after notify.Account, n int) ([]notify.Link, error) {
	all, err := list(s.read(ctx), scanLink, "SELECT "+linkColumns+` FROM chat_links
		WHERE service > $1 OR service = $2 AND (team > $3 OR team = $4 AND account > $5)
		ORDER BY service, team, account`+limit(n), after.Service, after.Service, after.Team, after.Team, after.User)
	return all, wrap("listing chat accounts", err)
}

// Unlink implements notify.Store.
func (s *Store) Unlink(ctx context.Context, a notify.Account) error {
	return s.write(ctx, "unlinking a chat account", func(t tx) error {
		return t.must(notify.ErrNotFound, "DELETE FROM chat_links WHERE service = $1 AND team = $2 AND account = $3",
			a.Service, a.Team, a.User)
	})
}
