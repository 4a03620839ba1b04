package grant_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/audit"
	"sallyport.dev/grant"
)

// picky is an audit log that does not take records of one action.
type picky struct {
	*records
	refuses string
}

// Append implements grant.Auditor.
func (l *picky) Append(ctx context.Context, r audit.Record) (audit.Record, error) {
	if r.Action == l.refuses {
		return r, errors.New("the disk is full")
	}
	return l.records.Append(ctx, r)
}

// What the audit log does not take is told again until it does, and nothing else is.
func TestAuditLogFails(t *testing.T) {
	log := &picky{&records{}, "request:granted"}
	w := newWorld(t, func(config *grant.Config) { config.Audit = log })
	r := w.approve(w.ask("role"), w.as("bob"))
	for range 3 {
		w.tick()
	}
	if d := cmp.Diff([]string{"requested", "approved", "activated"}, log.of(r.ID)); d != "" {
		t.Errorf("while it fails (-want +got):\n%s", d)
	}
	log.refuses = ""
	for range 3 {
		w.tick()
	}
	if d := cmp.Diff([]string{"requested", "approved", "activated", "granted"}, log.of(r.ID)); d != "" {
		t.Errorf("once it does not (-want +got):\n%s", d)
	}
	w.toldAll()
}
