package grant_test

import (
	"context"
	"testing"

	"sallyport.dev/grant"
)

// forged is a store in which somebody has changed the row of one request.
type forged struct {
	grant.Store
	id string
}

func (s *forged) forge(r grant.Request) grant.Request {
	if r.ID == s.id {
		r.Frozen.Reason = "something else"
	}
	return r
}

// Request implements grant.Store.
func (s *forged) Request(ctx context.Context, id string) (grant.Request, error) {
	r, err := s.Store.Request(ctx, id)
	return s.forge(r), err
}

// Requests implements grant.Store.
func (s *forged) Requests(ctx context.Context, f grant.Filter) ([]grant.Request, error) {
	all, err := s.Store.Requests(ctx, f)
	for i := range all {
		all[i] = s.forge(all[i])
	}
	return all, err
}

// A changed row keeps nobody's requests from their end, and is ended itself: by whoever
// disables its user, and by the clocks.
func TestChangedRowOfWhoIsGone(t *testing.T) {
	for name, end := range map[string]func(*world, *grant.Engine) error{
		"the clocks": func(w *world, e *grant.Engine) error { return e.Start(w.t.Context()) },
		"who disables": func(w *world, e *grant.Engine) error {
			return e.EndPerson(w.t.Context(), w.ids["carol"], "carol is disabled")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ids := []string{w.ask("role").ID, w.ask("role").ID, w.ask("role").ID}
			config := w.set
			config.Store = &forged{w.store, ids[1]}
			e := grant.New(config)
			defer e.Close()
			w.must(w.store.UpdateUser(t.Context(), "carol", disabled))
			w.must(end(w, e))
			for i, id := range ids {
				want := "carol is disabled"
				if id == ids[1] {
					want = "its row was changed by hand"
				}
				if r := w.read(id); r.State != grant.Revoked || r.Because != want {
					t.Errorf("request %d: got %s, %q, want %q", i+1, r.State, r.Because, want)
				}
			}
		})
	}
}
