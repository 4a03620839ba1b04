package signin

import (
	"context"
	"errors"
	"sync"
	"time"

	"sallyport.dev/identity"
)

// tied tells whether sign-ins still hold, for the credentials that come from them. Rows
// are remembered for tiedFor at most; what this member ends itself it forgets at once.
type tied struct {
	store Store
	now   func() time.Time

	mu   sync.Mutex
	rows map[string]tiedRow
}

type tiedRow struct {
	row  SignIn
	read time.Time
}

const (
	// tiedFor is how old an answer may be.
	tiedFor = time.Second
	// maxTied bounds the rows remembered.
	maxTied = 4096
)

func newTied(store Store, now func() time.Time) *tied {
	return &tied{store: store, now: now, rows: map[string]tiedRow{}}
}

func (t *tied) get(ctx context.Context, id string) (SignIn, error) {
	now := t.now()
	t.mu.Lock()
	known, ok := t.rows[id]
	t.mu.Unlock()
	if age := now.Sub(known.read); ok && age >= 0 && age < tiedFor {
		return known.row, nil
	}
	row, err := t.store.SignIn(ctx, id)
	if err != nil {
		return SignIn{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.rows) >= maxTied {
		clear(t.rows)
	}
	// Read before the store was asked: an end that came meanwhile is not covered by it.
	t.rows[id] = tiedRow{row, now}
	return row, nil
}

func (t *tied) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.rows)
}

// SignIn tells whether a sign-in of a user still holds: an empty because says that it
// does. It is the half of identity.Ties that sign-ins answer.
func (s *Service) SignIn(ctx context.Context, id, user string) (because string, err error) {
	row, because, err := s.tiedTo(ctx, id, user)
	if err == nil && because == "" && !s.config.Now().Before(row.Expires) {
		because = "the sign-in " + id + " has expired"
	}
	return because, err
}

// SignInEnded is SignIn for what has begun: that a sign-in expires ends none of it.
func (s *Service) SignInEnded(ctx context.Context, id, user string) (because string, err error) {
	_, because, err = s.tiedTo(ctx, id, user)
	return because, err
}

func (s *Service) tiedTo(ctx context.Context, id, user string) (row SignIn, because string, err error) {
	row, err = s.ties.get(ctx, id)
	switch {
	case errors.Is(err, identity.ErrNotFound):
		return row, "the sign-in " + id + " is not known", nil
	case err != nil:
		return row, "", err
	case row.User != user:
		return row, "the sign-in " + id + " is of another person", nil
	case !row.Ended.IsZero():
		return row, "the sign-in " + id + " was ended: " + row.Because, nil
	}
	return row, "", nil
}

// end ends a sign-in; one that has ended already stays as it is.
func (s *Service) end(ctx context.Context, id, because string) error {
	_, err := s.config.Store.UpdateSignIn(ctx, id, func(row *SignIn) error {
		if row.Ended.IsZero() {
			row.Ended, row.Because = s.config.Now(), cut(because, 512)
		}
		return nil
	})
	s.ties.forget()
	return err
}

// End ends a sign-in, and with it its cookie or refresh token and all credentials that
// were issued from it. Who may is for the caller to check, and to record.
func (s *Service) End(ctx context.Context, id, because string) error { return s.end(ctx, id, because) }

// EndAll ends the sign-ins of a user and returns how many those were.
func (s *Service) EndAll(ctx context.Context, user, because string) (int, error) {
	n, err := s.config.Store.EndSignIns(ctx, user, cut(because, 512), s.config.Now())
	s.ties.forget()
	return n, err
}

// Get returns a sign-in; identity.ErrNotFound, wrapped, where there is none.
func (s *Service) Get(ctx context.Context, id string) (SignIn, error) {
	return s.config.Store.SignIn(ctx, id)
}

// List lists sign-ins.
func (s *Service) List(ctx context.Context, f Filter) ([]SignIn, error) {
	return s.config.Store.SignIns(ctx, f)
}
