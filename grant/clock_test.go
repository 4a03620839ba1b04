package grant_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport.dev/flow"
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

// A changed row makes nobody a member of a group.
func TestChangedRowOfGroup(t *testing.T) {
	w := newWorld(t)
	w.put(strings.Replace(flows, `target "role" "frontend" { role = "FrontEnd" }`, `target "group" "backend" { group = "backend" }`, 1))
	r := w.approve(w.ask("role"), w.as("bob"))
	config := w.set
	s := &forged{w.store, ""}
	config.Store = s
	e := grant.New(config)
	defer e.Close()
	for id, want := range map[string]int{"": 1, r.ID: 0} {
		s.id = id
		if got, err := e.GroupHolders(t.Context(), "backend"); err != nil || len(got) != want {
			t.Errorf("with %q changed: got %v, %v, want %d", id, got, err, want)
		}
	}
}

// slowSource is an on-call source that answers once it is let go.
type slowSource struct {
	asked atomic.Int32
	goOn  chan struct{}
}

// OnCall implements grant.OnCall.
func (s *slowSource) OnCall(ctx context.Context, _ *flow.Schedule, _ time.Time) ([]string, error) {
	s.asked.Add(1)
	select {
	case <-s.goOn:
		return []string{"alice"}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// slowFlow has requests whose expiry waits for an on-call source.
const slowFlow = `
schedule "ops" {
  source = "rota"
  rota {
    start = "2026-01-01T00:00:00Z"
    shift = "24h"
    users = ["eve"]
  }
}
` + codeFlow + flows

const slowCode = `
def on_expire(event):
    return deny("nobody but " + on_call("ops")[0])
`

// What a flow's code waits for, others' clocks do not; and it is asked once, however many
// rounds there are meanwhile.
func TestClocksDoNotWaitForCode(t *testing.T) {
	duty := &slowSource{goOn: make(chan struct{})}
	w := newWorld(t, func(config *grant.Config) { config.OnCall = duty })
	w.put(slowFlow, slowCode)
	slow, other := w.ask("coded"), w.approve(w.ask("role"), w.as("bob"))
	w.advance(61 * time.Minute)
	w.must(w.Start(t.Context()))
	for range 2 { // rounds
		if r := w.read(other.ID); r.State != grant.Ended {
			t.Errorf("got %s while code waits", r.State)
		}
		w.must(w.Start(t.Context()))
	}
	if r := w.read(slow.ID); r.State != grant.Pending {
		t.Errorf("got %s before code has answered", r.State)
	}
	close(duty.goOn)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for r := slow; !r.State.Over() && ctx.Err() == nil; {
		var err error
		r, err = w.Wait(ctx, r.ID, r.Revision)
		w.must(err)
	}
	w.Close()
	if n := duty.asked.Load(); n != 1 {
		t.Errorf("the on-call source was asked %d times", n)
	}
	if r := w.read(slow.ID); r.State != grant.Expired || r.Because != "nobody but alice" {
		t.Errorf("got %s: %s", r.State, r.Because)
	}
}

// However much waits for a flow's code, what is due behind it is done.
func TestClocksReachAllThatIsDue(t *testing.T) {
	duty := &slowSource{goOn: make(chan struct{})}
	w := newWorld(t, func(config *grant.Config) { config.OnCall = duty })
	w.put(slowFlow, slowCode)
	for i := range 6 {
		name := fmt.Sprint("asker", i)
		w.user(name, "support")
		for range 20 {
			_, err := w.Ask(t.Context(), w.as(name), asked("coded"))
			w.must(err)
		}
	}
	w.advance(40 * time.Minute)
	r := w.approve(w.ask("role"), w.as("bob"))
	w.advance(31 * time.Minute)
	w.must(w.Start(t.Context()))
	if r := w.read(r.ID); r.State != grant.Ended {
		t.Errorf("got %s behind what waits for code", r.State)
	}
	close(duty.goOn)
}
