package grant_test

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sallyport.dev/grant"
	"sallyport.dev/internal/pgtest"
	"sallyport.dev/store"
)

// Two hundred approvals and denials of one request, at once and through two members:
// there is one outcome, which everybody sees, and which the decisions add up to.
func TestRace(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testRace(t, "sqlite:"+filepath.Join(t.TempDir(), "state.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { testRace(t, pgtest.Start(t).Database(t)) })
}

const racers, races = 200, 5

func testRace(t *testing.T, url string) {
	w := newWorldAt(t, url)
	people := make([]grant.Actor, racers)
	for i := range people {
		name := fmt.Sprintf("racer%d", i)
		w.user(name, "frontend")
		people[i] = w.as(name)
	}
	w.put(strings.ReplaceAll(flows, "approvals = 2", "approvals = 3"))
	second, err := store.Open(t.Context(), url, store.Options{Logger: slog.New(slog.DiscardHandler)})
	w.must(err)
	defer second.Close()
	config := w.set
	config.Store, config.Directory, config.Nodes = second, second, second
	members := []*grant.Engine{w.Engine, grant.New(config)}
	defer members[1].Close()
	for _, m := range members {
		w.must(m.Start(t.Context()))
	}
	for range races {
		w.race(members, people, w.ask("two"))
	}
}

// race has everybody decide on a request at once.
func (w *world) race(members []*grant.Engine, people []grant.Actor, r grant.Request) {
	w.t.Helper()
	begin := make(chan struct{})
	errs := make([]error, len(people))
	var done sync.WaitGroup
	for i, who := range people {
		done.Go(func() {
			<-begin
			_, errs[i] = members[i%2].Decide(w.t.Context(), who, r.ID, r.Hash, i%10 != 0, "as I like it")
		})
	}
	close(begin)
	done.Wait()
	w.settled(r.ID, errs)
}

// settled checks that what happened is one story.
func (w *world) settled(id string, errs []error) {
	w.t.Helper()
	r := w.read(id)
	took, approvals, denials := 0, 0, 0
	for _, err := range errs {
		refused := (*grant.RefusedError)(nil)
		switch {
		case err == nil:
			took++
		case !errors.Is(err, grant.ErrState) && !errors.As(err, &refused):
			w.t.Errorf("unexpected error: %v", err)
		}
	}
	for _, d := range r.Decisions {
		if d.Approve {
			approvals++
		} else {
			denials++
		}
	}
	if took != len(r.Decisions) {
		w.t.Errorf("%d decisions were taken, and %d stored", took, len(r.Decisions))
	}
	// Three approvals lead to the next stage, in which none of these decides.
	through := r.State == grant.Pending && r.Stage == 1 && approvals == 3 && denials == 0
	ended := r.State == grant.Denied && denials == 1 && approvals < 3
	if through == ended {
		w.t.Errorf("got %s in stage %d after %d approvals and %d denials", r.State, r.Stage, approvals, denials)
	}
	kinds := w.kinds(id)
	if n := strings.Count(kinds, "denied") + strings.Count(kinds, "stage"); n != 1 {
		w.t.Errorf("events: got %s", kinds)
	}
}

// The last approval, a denial, a cancellation and the end of its time at once: one of
// them happens.
func TestRaceOfEnds(t *testing.T) {
	w := newWorld(t)
	other := grant.New(w.set)
	defer other.Close()
	ctx := t.Context()
	for range 30 {
		r := w.ask("role")
		steps := []func() error{
			func() error { _, err := w.Decide(ctx, w.as("bob"), r.ID, r.Hash, true, ""); return err },
			func() error { _, err := other.Decide(ctx, w.as("alice"), r.ID, r.Hash, false, ""); return err },
			func() error { _, err := other.Cancel(ctx, w.as("carol"), r.ID); return err },
			func() error { _, err := w.Revoke(ctx, w.as("dave"), r.ID, "", false); return err },
		}
		var done sync.WaitGroup
		for _, step := range steps {
			done.Go(func() {
				if err := step(); err != nil && !errors.Is(err, grant.ErrState) {
					t.Errorf("unexpected error: %v", err)
				}
			})
		}
		done.Wait()
		if got := w.read(r.ID); !got.State.Over() {
			t.Errorf("got %s", got.State)
		}
		ends := 0
		for _, kind := range strings.Fields(w.kinds(r.ID)) {
			switch kind {
			case grant.KindDenied, grant.KindCancelled, grant.KindRevoked, grant.KindReleased:
				ends++
			}
		}
		if ends != 1 {
			t.Errorf("events: got %s", w.kinds(r.ID))
		}
	}
	if w.holds("carol") {
		t.Error("carol holds something")
	}
}

// Of several members' clocks each step is taken once.
func TestClocksOfMembers(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for range 5 {
		ids = append(ids, w.approve(w.ask("role"), w.as("bob")).ID, w.ask("role").ID)
	}
	w.advance(2 * w.read(ids[0]).Frozen.Duration * 2)
	var done sync.WaitGroup
	for range 4 {
		done.Go(w.tick)
	}
	done.Wait()
	for _, id := range ids {
		kinds := w.kinds(id)
		if kinds != "requested approved granted activated ended" && kinds != "requested expired" {
			t.Errorf("events: got %s", kinds)
		}
	}
}
