package store

import (
	"strings"
	"testing"
	"time"

	"sallyport.dev/grant"
)

// Looking for what is open, or to be reviewed, or due does not go through all requests that
// there ever were, nor for a person's through all of theirs.
func TestRequestsIndexes(t *testing.T) {
	s := openFile(t, dbPath(t))
	open := []grant.State{grant.Pending, grant.Approved, grant.Active}
	for _, c := range []struct {
		name, index string
		f           grant.Filter
	}{
		{"all", "requests_created", grant.Filter{}},
		{"a person's", "requests_person", grant.Filter{Person: "p"}},
		{"open", "requests_unsettled", grant.Filter{States: open}},
		{"active", "requests_unsettled", grant.Filter{States: []grant.State{grant.Active}}},
		{"pending, a page", "requests_unsettled", grant.Filter{States: []grant.State{grant.Pending}, Limit: 50}},
		{"to be reviewed", "requests_review", grant.Filter{Review: true}},
		{"due", "requests_due", grant.Filter{Due: time.Unix(1, 0), Limit: 100}},
		{"due, a page", "requests_due", grant.Filter{Due: time.Unix(1, 0), After: "oi-1", AfterDue: time.Unix(0, 1), Limit: 100}},
		{"a person's with a clock", "requests_clocks", grant.Filter{Person: "p", Clocks: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := requestsWhere(c.f)
			scan := func(r row) (detail string, err error) {
				var id, parent, unused int
				return detail, r.Scan(&id, &parent, &unused, &detail)
			}
			plan, err := list(s.read(t.Context()), scan, "EXPLAIN QUERY PLAN "+requestsQuery(c.f, w), w.args...)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(plan[0]+" ", " INDEX "+c.index+" ") {
				t.Errorf("got the plan %q, want the index %s", plan, c.index)
			}
		})
	}
}
