package grant_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport.dev/grant"
)

// between is a store on which something else happens before a request is stored.
type between struct {
	grant.Store
	first func()
}

// CreateRequest implements grant.Store.
func (s *between) CreateRequest(ctx context.Context, r grant.Request, events []grant.Event) error {
	if first := s.first; first != nil {
		s.first = nil
		first()
	}
	return s.Store.CreateRequest(ctx, r, events)
}

// newest is carol's request that was made last.
func (w *world) newest() grant.Request {
	w.t.Helper()
	all, err := w.Recent(w.t.Context(), w.ids["carol"], 1)
	w.must(err)
	return all[0]
}

// Of two who ask for more time at once one is refused, and leaves nothing to decide on.
func TestExtendAtOnce(t *testing.T) {
	w := newWorld(t)
	r := w.approve(w.ask("role"), w.as("bob"))
	config := w.set
	config.Store = &between{w.store, func() {
		_, err := w.Extend(t.Context(), w.as("carol"), r.ID, 0, "first")
		w.must(err)
	}}
	other := grant.New(config)
	defer other.Close()
	_, err := other.Extend(t.Context(), w.as("carol"), r.ID, 0, "second")
	wantRefused(t, err, "was asked for already")
	waiting, err := w.Asked(t.Context(), w.as("carol").Principal)
	w.must(err)
	if len(waiting) != 1 || waiting[0].Frozen.Reason != "first" {
		t.Errorf("waiting: got %d requests, want the first alone", len(waiting))
	}
}

// orphan makes a request for more time whose server stops before the grant knows of it.
func (w *world) orphan(a grant.Actor, id string) grant.Request {
	w.t.Helper()
	config := w.set
	config.Store = &cutting{Store: w.store, at: 2}
	e := grant.New(config)
	defer e.Close()
	if _, err := e.Extend(w.t.Context(), a, id, 0, "nobody knows of it"); !errors.Is(err, errCut) {
		w.t.Fatalf("got %v, want %v", err, errCut)
	}
	all, err := w.store.Requests(w.t.Context(), grant.Filter{Person: a.Principal.RootID()})
	w.must(err)
	for _, r := range all {
		if r.Extends() == id && r.Frozen.Reason == "nobody knows of it" {
			return r
		}
	}
	w.t.Fatal("no request for more time was stored")
	return grant.Request{}
}

// Whatever requests for more time there are, a grant has no more extensions than its flow
// allows.
func TestExtensionsAreCounted(t *testing.T) {
	w := newWorld(t)
	w.put(strings.Replace(flows, "extensions = 2", "extensions = 1", 1))
	r := w.approve(w.ask("role"), w.as("bob"))
	late := w.orphan(w.as("carol"), r.ID)
	r, err := w.Extend(t.Context(), w.as("carol"), r.ID, 0, "known")
	w.must(err)
	w.approve(w.read(r.Extensions[0].Request), w.as("bob"))
	r = w.read(r.ID)
	w.approve(late, w.as("bob"))
	w.tick()
	if got := w.read(r.ID); len(got.Extensions) != 1 || !got.EndsAt.Equal(r.EndsAt) {
		t.Errorf("got %d extensions until %s, want 1 until %s", len(got.Extensions), got.EndsAt, r.EndsAt)
	}
	if late = w.read(late.ID); late.State != grant.Lapsed || !strings.Contains(late.Because, "allows 1 extensions") {
		t.Errorf("got %s: %s", late.State, late.Because)
	}
}

// glassWithMore is break-glass whose extensions are decided as it is: by itself.
const glassWithMore = `
flow "glass" {
  ask { users = ["carol"] }
  target "role" "frontend" { role = "FrontEnd" }
  break_glass {
    review { groups = ["backend"] }
  }
  clocks {
    default    = "15m"
    longest    = "1h"
    extension  = "5m"
    extensions = 3
  }
}`

// More time that was asked for before the review closed is not given after it.
func TestReviewClosesBeforeMoreTime(t *testing.T) {
	review := func(w *world, id string) {
		_, err := w.CloseReview(w.t.Context(), w.as("bob"), id, grant.Justified, "it was")
		w.must(err)
	}
	for name, ask := range map[string]func(*world, string){
		"at once": func(w *world, id string) {
			config := w.set
			config.Store = &between{w.store, func() { review(w, id) }}
			other := grant.New(config)
			defer other.Close()
			_, err := other.Extend(t.Context(), w.factored("carol"), id, 0, "more")
			wantRefused(t, err, "was reviewed already")
		},
		"after a crash": func(w *world, id string) {
			w.orphan(w.factored("carol"), id)
			review(w, id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.put(glassWithMore)
			r, err := w.Ask(t.Context(), w.factored("carol"), asked("glass"))
			w.must(err)
			w.advance(time.Second)
			ask(w, r.ID)
			w.tick()
			if got := w.read(r.ID); !got.EndsAt.Equal(r.EndsAt) || len(got.Extensions) != 0 {
				t.Errorf("got %+v until %s, want no more than until %s", got.Extensions, got.EndsAt, r.EndsAt)
			}
			if child := w.newest(); child.Extends() != r.ID || !child.State.Over() {
				t.Errorf("the request for more time is %s", child.State)
			}
		})
	}
}

// More time is asked for at the pace at which all is.
func TestAskingForMoreTooOften(t *testing.T) {
	w := newWorld(t)
	r := w.approve(w.ask("role"), w.as("bob"))
	for range 20 {
		w.ask("role")
	}
	_, err := w.Extend(t.Context(), w.as("carol"), r.ID, 0, "")
	wantRefused(t, err, "has 20 requests waiting already")
}
