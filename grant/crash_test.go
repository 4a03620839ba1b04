package grant_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
)

// errCut is what a cut-off store answers.
var errCut = errors.New("the server is gone")

// cutting is a store whose server stops at a write: before it is made, or right after it,
// before anybody hears of it.
type cutting struct {
	grant.Store
	at    int // write that is the last, from 1; 0 for none
	after bool

	mu sync.Mutex
	n  int
}

// gone reports whether the server has stopped.
func (s *cutting) gone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at > 0 && s.n >= s.at
}

func (s *cutting) write(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	if s.at > 0 && (s.n > s.at || s.n == s.at && !s.after) {
		return errCut
	}
	err := do()
	if s.n == s.at {
		return errCut
	}
	return err
}

// CreateRequest implements grant.Store.
func (s *cutting) CreateRequest(ctx context.Context, r grant.Request, events []grant.Event) error {
	return s.write(func() error { return s.Store.CreateRequest(ctx, r, events) })
}

// UpdateRequest implements grant.Store.
func (s *cutting) UpdateRequest(ctx context.Context, id string, change func(*grant.Request) ([]grant.Event, error)) (r grant.Request, err error) {
	err = s.write(func() (err error) {
		r, err = s.Store.UpdateRequest(ctx, id, change)
		return err
	})
	return r, err
}

// Told implements grant.Store.
func (s *cutting) Told(ctx context.Context, seqs []int64) error {
	return s.write(func() error { return s.Store.Told(ctx, seqs) })
}

// A server that stops at any write of a request's life, and starts again: no grant
// without its decisions, none past its time, no request lost, nothing that the audit log
// does not have, and everything given outside is taken back.
func TestCrash(t *testing.T) {
	writes := liveThrough(t, newWorld(t), &cutting{}, &outside{})
	if writes < 15 {
		t.Fatalf("a life has %d writes", writes)
	}
	for _, after := range []bool{false, true} {
		for at := 1; at <= writes; at++ {
			t.Run(fmt.Sprintf("write %d, after %v", at, after), func(t *testing.T) {
				t.Parallel()
				w, aws := newWorld(t), &outside{}
				liveThrough(t, w, &cutting{at: at, after: after}, aws)
				w.set.Giver = aws
				w.whole()
				w.tick()
				w.whole()
				w.toldAll()
				w.advance(24 * time.Hour)
				if w.holds("carol") {
					t.Error("carol holds a grant whose time is up, before anything was seen to")
				}
				for range 3 {
					w.tick()
				}
				w.whole()
				w.toldAll()
				open, err := w.store.Requests(t.Context(), grant.Filter{States: []grant.State{grant.Pending, grant.Approved, grant.Active}})
				w.must(err)
				if len(open) > 0 {
					t.Errorf("a day later: %s is %s", open[0].ID, open[0].State)
				}
				if len(aws.has) > 0 {
					t.Errorf("a day later AWS still has %v", aws.has)
				}
			})
		}
	}
}

const crashFlow = `
flow "crash" {
  ask { groups = ["support"] }
  target "role" "frontend" { role = "FrontEnd" }
  target "aws_group" "aws" {
    group = "Operators"
    user_field = "name"
  }
  stage "team" {
    approvals = 2
    of { groups = ["frontend"] }
  }
  clocks {
    pending = "1h"
    activate_by = "1h"
    default = "30m"
    longest = "2h"
    extension = "30m"
    extensions = 2
  }
}`

// liveThrough lives one request's life until the store is cut off, and returns how many
// writes it had.
func liveThrough(t *testing.T, w *world, s *cutting, aws *outside) int {
	t.Helper()
	ctx := t.Context()
	w.put(crashFlow)
	config := w.set
	s.Store, config.Store, config.Giver = w.store, s, aws
	e := grant.New(config)
	defer e.Close()
	var r, more grant.Request
	for _, step := range []func() (err error){
		func() (err error) { r, err = e.Ask(ctx, w.as("carol"), asked("crash")); return err },
		func() (err error) { r, err = e.Decide(ctx, w.as("alice"), r.ID, r.Hash, true, ""); return err },
		func() (err error) { r, err = e.Decide(ctx, w.as("dave"), r.ID, r.Hash, true, ""); return err },
		func() (err error) { r, err = e.Activate(ctx, w.as("carol"), r.ID); return err },
		func() error { return e.Start(ctx) },
		func() (err error) { r, err = e.Extend(ctx, w.as("carol"), r.ID, time.Minute, "more"); return err },
		func() (err error) { more, err = e.Request(ctx, r.Extensions[0].Request); return err },
		func() (err error) { _, err = e.Decide(ctx, w.as("alice"), more.ID, more.Hash, true, ""); return err },
		func() (err error) { _, err = e.Decide(ctx, w.as("dave"), more.ID, more.Hash, true, ""); return err },
		func() (err error) { _, err = e.Revoke(ctx, w.as("alice"), r.ID, "enough", false); return err },
	} {
		err := step()
		if s.gone() {
			return 0
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	e.Close()
	return s.n
}

// toldAll checks that the audit log has every event.
func (w *world) toldAll() {
	w.t.Helper()
	untold, err := w.store.Untold(w.t.Context(), 0)
	w.must(err)
	if len(untold) > 0 {
		w.t.Errorf("the audit log does not have %d events, the first %s", len(untold), untold[0].Kind)
	}
}

// outside is AWS, in memory.
type outside struct {
	mu    sync.Mutex
	has   map[string]bool
	fails int // so many calls fail
}

// failing is called with the mutex held.
func (o *outside) failing() error {
	if o.fails > 0 {
		o.fails--
		return errors.New("AWS says no")
	}
	return nil
}

// Prepare implements grant.Giver.
func (o *outside) Prepare(_ context.Context, t flow.Target, p flow.Person) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return t.Name + " for " + p.Name, o.failing()
}

// Give implements grant.Giver.
func (o *outside) Give(_ context.Context, _ flow.Target, handle string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.failing(); err != nil {
		return err
	}
	if o.has == nil {
		o.has = map[string]bool{}
	}
	o.has[handle] = true
	return nil
}

// Take implements grant.Giver.
func (o *outside) Take(_ context.Context, _ flow.Target, handle string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.failing(); err != nil {
		return err
	}
	delete(o.has, handle)
	return nil
}
