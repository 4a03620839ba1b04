package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/store"
)

// request is a pending request, the nth of a person.
func request(person string, n int) grant.Request {
	id := fmt.Sprintf("oi-%012x", n)
	return grant.Request{
		ID: id, Revision: 1, State: grant.Pending, Hash: "h" + id, PendingUntil: at(n).Add(time.Hour), StageSince: at(n),
		Frozen: grant.Frozen{
			ID: id, Flow: flow.Flow{Name: "f", Stages: []flow.Stage{{Name: "s", Approvals: 1, Of: flow.People{Groups: []string{"g"}}}}},
			Person: flow.Person{ID: person, Name: person, Tags: map[string]string{"Team": "a, b"}}, Reason: hostile, Created: at(n),
			Values: flow.Values{"x": {"1", hostile}}, Duration: time.Minute,
		},
	}
}

// hostile is text that is easily mangled.
const hostile = "a'b\"c\\d\x00e\u2028f👩‍🚒%_;--"

func event(kind string, n int) grant.Event {
	return grant.Event{Kind: kind, At: at(n), Actor: "arn", Comment: hostile, State: grant.Pending}
}

// testRequests: what is stored comes back as it was; events are numbered in the order of
// all changes.
func testRequests(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	one, two := request("p", 1), request("q", 2)
	must(t, s.CreateRequest(ctx, one, []grant.Event{event("a", 1)}))
	before := get[int64](t)(s.GrantRevision(ctx))
	must(t, s.CreateRequest(ctx, two, []grant.Event{event("b", 2), event("c", 2)}))
	if after := get[int64](t)(s.GrantRevision(ctx)); after <= before {
		t.Errorf("revision: got %d after %d", after, before)
	}
	wantSame(t, "request", get[grant.Request](t)(s.Request(ctx, one.ID)), one)
	if err := s.CreateRequest(ctx, one, nil); err == nil {
		t.Error("a second request of the same id: got no error")
	}
	_, err := s.Request(ctx, "oi-none")
	wantErr(t, "no such request", err, grant.ErrNotFound)

	done := get[grant.Request](t)(s.UpdateRequest(ctx, one.ID, func(r *grant.Request) ([]grant.Event, error) {
		r.State, r.EndsAt, r.ActivatedAt = grant.Active, at(9), at(3)
		r.Frozen.Reason, r.Hash, r.ID = "something else", "x", "y" // which nothing changes
		return []grant.Event{event("d", 3)}, nil
	}))
	one.State, one.EndsAt, one.ActivatedAt, one.Revision = grant.Active, at(9), at(3), 2
	wantSame(t, "changed", done, one)
	wantSame(t, "changed, read again", get[grant.Request](t)(s.Request(ctx, one.ID)), one)
	failed := errors.New("no")
	_, err = s.UpdateRequest(ctx, two.ID, func(r *grant.Request) ([]grant.Event, error) {
		r.State = grant.Denied
		return []grant.Event{event("e", 4)}, failed
	})
	wantErr(t, "a change that fails", err, failed)
	wantSame(t, "not changed", get[grant.Request](t)(s.Request(ctx, two.ID)), two)
	_, err = s.UpdateRequest(ctx, "oi-none", nil)
	wantErr(t, "changing no request", err, grant.ErrNotFound)

	kind := func(e grant.Event) string { return fmt.Sprintf("%d%s", e.Seq, e.Kind) }
	wantSame(t, "events", names(get[[]grant.Event](t)(s.EventsAfter(ctx, 0, 0)), kind), "1a 2b 3c 4d")
	wantSame(t, "a page of events", names(get[[]grant.Event](t)(s.EventsAfter(ctx, 1, 2)), kind), "2b 3c")
	wantSame(t, "events of a request", names(get[[]grant.Event](t)(s.Events(ctx, one.ID)), kind), "1a 4d")
	wantSame(t, "event", get[[]grant.Event](t)(s.Events(ctx, one.ID))[0].Comment, hostile)
	must(t, s.Told(ctx, []int64{1, 3}))
	wantSame(t, "untold", names(get[[]grant.Event](t)(s.Untold(ctx, 0)), kind), "2b 4d")

	id := func(r grant.Request) string { return r.ID[len(r.ID)-1:] + r.Frozen.Person.ID }
	three := request("p", 3)
	three.State, three.ActivateBy = grant.Approved, at(5)
	must(t, s.CreateRequest(ctx, three, nil))
	four := request("p", 4)
	four.Review = &grant.Review{Due: at(100)}
	four.Frozen.Flow.Name, four.State = "g", grant.Ended
	must(t, s.CreateRequest(ctx, four, nil))
	for _, c := range []struct {
		name string
		f    grant.Filter
		want string
	}{
		{"all", grant.Filter{}, "4p 3p 2q 1p"},
		{"a page", grant.Filter{After: "oi-000000000004", Limit: 2}, "3p 2q"},
		{"of a person", grant.Filter{Person: "q"}, "2q"},
		{"of a flow", grant.Filter{Flow: "g"}, "4p"},
		{"in states", grant.Filter{States: []grant.State{grant.Active, grant.Approved}}, "3p 1p"},
		{"to be reviewed", grant.Filter{Review: true}, "4p"},
		{"to be reviewed, of another", grant.Filter{Review: true, Person: "q"}, ""},
		{"in open states and others", grant.Filter{States: []grant.State{grant.Active, grant.Ended}}, "4p 1p"},
		{"of a state that there is not", grant.Filter{States: []grant.State{"') OR ('' = '"}}, ""},
		{"with a clock", grant.Filter{Person: "p", Clocks: true}, "4p 3p 1p"},
		{"with a clock, in a state", grant.Filter{Clocks: true, States: []grant.State{grant.Pending}}, "2q"},
		{"due", grant.Filter{Due: at(5)}, "3p"},
		{"due later", grant.Filter{Due: at(9)}, "3p 1p"},
		{"due for longest", grant.Filter{Due: at(100), Limit: 2}, "3p 1p"},
		{"due after one", grant.Filter{Due: at(100), After: "oi-000000000003", AfterDue: at(5), Limit: 1}, "1p"},
		{"due as long as one", grant.Filter{Due: at(5), After: "oi-000000000002", AfterDue: at(5)}, "3p"},
	} {
		wantSame(t, c.name, names(get[[]grant.Request](t)(s.Requests(ctx, c.f)), id), c.want)
	}
	wantSame(t, "open grants", names(get[[]grant.Request](t)(s.OpenGrants(ctx, "p")), id), "1p 3p")
	wantSame(t, "nobody's open grants", names(get[[]grant.Request](t)(s.OpenGrants(ctx, "q")), id), "")
}

// testRequestRace: of many who would end a request one does, through whichever member;
// events have no gaps.
func testRequestRace(t *testing.T, fresh Fresh) {
	url := fresh(t)
	members := []*store.Store{Open(t, url), Open(t, url)}
	ctx := t.Context()
	must(t, members[0].CreateRequest(ctx, request("p", 1), nil))
	over := errors.New("over")
	counts := atOnce(t, 50, func(i int) error {
		_, err := members[i%2].UpdateRequest(ctx, request("p", 1).ID, func(r *grant.Request) ([]grant.Event, error) {
			if r.State.Over() {
				return nil, over
			}
			r.State = grant.Denied
			return []grant.Event{event("end", 1)}, nil
		})
		return err
	}, over)
	wantSame(t, "ends", counts[nil], 1)
	wantSame(t, "others", counts[over], 49)
	atOnce(t, 20, func(i int) error {
		return members[i%2].CreateRequest(ctx, request("p", i+2), []grant.Event{event("a", i), event("b", i)})
	})
	all := get[[]grant.Event](t)(members[1].EventsAfter(ctx, 0, 0))
	for i, e := range all {
		if e.Seq != int64(i+1) {
			t.Fatalf("event %d has number %d", i+1, e.Seq)
		}
	}
	wantSame(t, "events", len(all), 41)
}

// testFlows: flow files are put in force by who knows those that are.
func testFlows(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	files, digest, err := s.Flows(ctx)
	if err != nil || len(files) != 0 || digest != "" {
		t.Errorf("at first: got %v, %q, %v", files, digest, err)
	}
	one := map[string][]byte{"a.sallyport.hcl": []byte("flow \"ü\" {}\n"), "a.star": []byte("")}
	two := map[string][]byte{"b.sallyport.hcl": []byte("")}
	put := func(files map[string][]byte, digest, old string) bool {
		return get[bool](t)(s.PutFlows(ctx, files, digest, old, "arn", at(1)))
	}
	wantSame(t, "first", put(one, "d1", ""), true)
	wantSame(t, "of who knows nothing", put(two, "d2", ""), false)
	wantSame(t, "second", put(two, "d2", "d1"), true)
	wantSame(t, "back to the first", put(one, "d1", "d2"), true)
	files, digest, err = s.Flows(ctx)
	must(t, err)
	wantSame(t, "in force", files, one)
	wantSame(t, "digest", digest, "d1")
	wantSame(t, "digest alone", get[string](t)(s.FlowsDigest(ctx)), "d1")
	wantSame(t, "older ones", get[map[string][]byte](t)(s.FlowsBy(ctx, "d2")), two)
	_, err = s.FlowsBy(ctx, "d3")
	wantErr(t, "never there", err, grant.ErrNotFound)
	wantSame(t, "none any more", put(nil, "d0", "d1"), true)
	files, digest, err = s.Flows(ctx)
	must(t, err)
	wantSame(t, "no files", len(files), 0)
	wantSame(t, "their digest", digest, "d0")
}
