package grant_test

import (
	"testing"
	"time"

	"sallyport.dev/grant"
)

// Asking and taking it back again fills tables and logs for good: there is a pace to it.
func TestAskingTooOften(t *testing.T) {
	w := newWorld(t)
	for range 200 {
		r := w.ask("role")
		if _, err := w.Cancel(t.Context(), w.as("carol"), r.ID); err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.Ask(t.Context(), w.as("carol"), asked("role"))
	wantRefused(t, err, "has asked 200 times within the hour")
	w.advance(time.Hour)
	w.ask("role")
}

// To ask what would become of a request costs a run of code: there is a pace to that, too.
func TestExplainingTooOften(t *testing.T) {
	w := newWorld(t)
	in := asked("role")
	in.Explain = true
	explain := func() error {
		_, err := w.Ask(t.Context(), w.as("carol"), in)
		return err
	}
	for range 200 {
		w.must(explain())
	}
	wantRefused(t, explain(), "has asked 200 times within the hour")
	w.advance(time.Hour)
	w.must(explain())
	for range 20 {
		w.ask("role")
	}
	wantRefused(t, explain(), "has 20 requests waiting already")
}

// Once the use of a break-glass grant has been reviewed, nobody would see what more time is
// used for.
func TestNoMoreTimeAfterReview(t *testing.T) {
	w := newWorld(t)
	w.put(`
flow "glass" {
  ask { users = ["carol"] }
  target "role" "frontend" { role = "FrontEnd" }
  break_glass {
    review { groups = ["backend"] }
  }
  clocks {
    default        = "15m"
    longest        = "1h"
    extension      = "5m"
    extensions     = 3
    extend_without = true
  }
}`)
	r, err := w.Ask(t.Context(), w.factored("carol"), asked("glass"))
	w.must(err)
	_, err = w.Extend(t.Context(), w.factored("carol"), r.ID, 0, "still at it")
	w.must(err)
	_, err = w.CloseReview(t.Context(), w.as("bob"), r.ID, grant.Justified, "it was")
	w.must(err)
	_, err = w.Extend(t.Context(), w.factored("carol"), r.ID, 0, "and on")
	wantRefused(t, err, "was reviewed already")
}
