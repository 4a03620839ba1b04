package grant_test

import (
	"testing"
	"time"
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
