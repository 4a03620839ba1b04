package storetest

import (
	"fmt"
	"sync"
	"testing"

	"sallyport.dev/notify"
)

func delivery(id string, seq int64, lane string, second int) notify.Delivery {
	return notify.Delivery{
		ID: id, Seq: seq, Request: "oi-000000000001", Kind: "requested", Lane: lane, What: "ask", To: "C1",
		Next: at(second), State: notify.DeliveryWaiting, Made: at(second),
	}
}

func ids(ds []notify.Delivery) []string {
	var out []string
	for _, d := range ds {
		out = append(out, d.ID)
	}
	return out
}

// One member reads and delivers at a time; what it queues it queues once, with how far
// it has read.
func testNotifyLease(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	hold := func(holder string, now, until int) (bool, int64) {
		t.Helper()
		held, position, err := s.HoldLease(ctx, holder, at(now), at(until))
		must(t, err)
		return held, position
	}
	if held, position := hold("a", 0, 10); !held || position != 0 {
		t.Errorf("the first: got %v, %d", held, position)
	}
	if held, _ := hold("b", 9, 19); held {
		t.Error("two hold the lease")
	}
	if held, _ := hold("a", 9, 15); !held {
		t.Error("the holder could not renew")
	}
	must(t, s.Queue(ctx, "a", 7, []notify.Delivery{delivery("x", 5, "slack", 1), delivery("y", 7, "mail", 1)}))
	wantErr(t, "queueing without the lease", s.Queue(ctx, "b", 9, nil), notify.ErrLease)
	if held, position := hold("b", 15, 30); !held || position != 7 {
		t.Errorf("after it ran out: got %v, %d, want the lease and position 7", held, position)
	}
	wantErr(t, "queueing after it ran out", s.Queue(ctx, "a", 9, nil), notify.ErrLease)
	again := delivery("x", 5, "slack", 2)
	must(t, s.Queue(ctx, "b", 3, []notify.Delivery{again}))
	wantSame(t, "queued twice", get[[]notify.Delivery](t)(s.Deliveries(ctx, again.Request)),
		[]notify.Delivery{delivery("x", 5, "slack", 1), delivery("y", 7, "mail", 1)})
	if _, position := hold("b", 16, 30); position != 7 {
		t.Errorf("position went back to %d", position)
	}
	must(t, s.DropLease(ctx, "a"))
	if held, _ := hold("c", 17, 30); held {
		t.Error("one that does not hold it gave it up")
	}
	must(t, s.DropLease(ctx, "b"))
	if held, _ := hold("c", 17, 30); !held {
		t.Error("given up, but not to be had")
	}
}

func testNotifyDeliveries(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	if _, _, err := s.HoldLease(ctx, "a", at(0), at(100)); err != nil {
		t.Fatal(err)
	}
	must(t, s.Queue(ctx, "a", 3, []notify.Delivery{delivery("3", 3, "slack", 1), delivery("1", 1, "slack", 2), delivery("2", 2, "mail", 1)}))
	due := func(lane string, second int) []string {
		t.Helper()
		return ids(get[[]notify.Delivery](t)(s.Due(ctx, lane, at(second), 10)))
	}
	wantSame(t, "due at 1", due("slack", 1), []string{"3"})
	wantSame(t, "due at 2", due("slack", 2), []string{"1", "3"})
	wantErr(t, "beginning without the lease", s.Begin(ctx, "b", "1", 0, at(9)), notify.ErrLease)
	must(t, s.Begin(ctx, "a", "1", 0, at(9)))
	wantErr(t, "beginning the same try again", s.Begin(ctx, "a", "1", 0, at(9)), notify.ErrLease)
	wantSame(t, "while one is tried", due("slack", 8), []string{"3"})
	must(t, s.Finish(ctx, "1", notify.DeliveryWaiting, at(5), "busy"))
	wantSame(t, "to be tried again", due("slack", 5), []string{"1", "3"})
	must(t, s.Begin(ctx, "a", "1", 1, at(9)))
	must(t, s.Finish(ctx, "1", notify.DeliverySent, at(6), ""))
	wantErr(t, "beginning what was sent", s.Begin(ctx, "a", "1", 2, at(9)), notify.ErrLease)
	must(t, s.Finish(ctx, "1", notify.DeliveryFailed, at(6), "late"))
	sent := delivery("1", 1, "slack", 2)
	sent.State, sent.Tries, sent.Next = notify.DeliverySent, 2, at(6)
	wantSame(t, "what became of it", get[[]notify.Delivery](t)(s.Deliveries(ctx, sent.Request))[0], sent)
	left := func() []string { return ids(get[[]notify.Delivery](t)(s.Deliveries(ctx, sent.Request))) }
	must(t, s.Forget(ctx, at(1)))
	wantSame(t, "what was not made before", left(), []string{"1", "2", "3"})
	must(t, s.Forget(ctx, at(2)))
	wantSame(t, "what waited for a lane that is gone", left(), []string{"1"})
	must(t, s.Forget(ctx, at(50)))
	wantSame(t, "what was sent", left(), []string(nil))
}

func testNotifyReferences(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	f := notify.Reference{Request: "oi-1", Service: "slack", To: "#ops", Channel: "C1", Message: "1.2", Revision: 3, Shown: "x", Made: at(1)}
	must(t, s.PutReference(ctx, f))
	f.Revision, f.Shown = 4, "y"
	must(t, s.PutReference(ctx, f))
	other := f
	other.Request = "oi-2"
	must(t, s.PutReference(ctx, other))
	wantSame(t, "references", get[[]notify.Reference](t)(s.References(ctx, "oi-1")), []notify.Reference{f})
}

func linkCode(user, hash string, until int) notify.LinkCode {
	return notify.LinkCode{
		Account: notify.Account{Service: "slack", Team: "T1", User: user},
		Hash:    hash, Name: "name of " + user, In: "Example", Expires: at(until),
	}
}

// An account is one person's, a person has one account in a team, and a code is spent once.
func testChatLinks(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.PutLinkCode(ctx, linkCode("U1", "old", 60)))
	must(t, s.PutLinkCode(ctx, linkCode("U1", "h1", 60)))
	link := func(hash, person string, now int) error {
		_, err := s.Link(ctx, hash, person, at(now))
		return err
	}
	wantErr(t, "a code that was replaced", link("old", "AIDA1", 1), notify.ErrNotFound)
	wantErr(t, "a code that has expired", link("h1", "AIDA1", 60), notify.ErrNotFound)
	wantSame(t, "the code", get[notify.LinkCode](t)(s.LinkCode(ctx, "h1", at(1))), linkCode("U1", "h1", 60))
	must(t, link("h1", "AIDA1", 1))
	wantErr(t, "a code again", link("h1", "AIDA1", 1), notify.ErrNotFound)
	first := notify.Link{Account: linkCode("U1", "", 0).Account, Name: "name of U1", Person: "AIDA1", Made: at(1)}
	wantSame(t, "the link", get[notify.Link](t)(s.LinkOf(ctx, first.Account)), first)

	must(t, s.PutLinkCode(ctx, linkCode("U2", "h2", 60)))
	wantErr(t, "a second account of a person", link("h2", "AIDA1", 1), notify.ErrLinked)
	must(t, link("h2", "AIDA2", 1)) // what failed spent nothing
	must(t, s.PutLinkCode(ctx, linkCode("U1", "h3", 60)))
	wantErr(t, "an account of two persons", link("h3", "AIDA3", 1), notify.ErrLinked)

	all := get[[]notify.Link](t)(s.Links(ctx, notify.Account{}, 10))
	if len(all) != 2 || all[0] != first {
		t.Errorf("all: got %v", all)
	}
	rest := get[[]notify.Link](t)(s.Links(ctx, all[0].Account, 10))
	wantSame(t, "the rest", rest, all[1:])
	wantSame(t, "of a person", get[[]notify.Link](t)(s.LinksOf(ctx, "AIDA1")), []notify.Link{first})
	must(t, s.Unlink(ctx, first.Account))
	wantErr(t, "unlinking twice", s.Unlink(ctx, first.Account), notify.ErrNotFound)
	_, err := s.LinkOf(ctx, first.Account)
	wantErr(t, "unlinked", err, notify.ErrNotFound)
}

func testChatCodeRace(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.PutLinkCode(ctx, linkCode("U1", "h", 60)))
	var wg sync.WaitGroup
	var mu sync.Mutex
	linked := 0
	for i := range 8 {
		wg.Go(func() {
			if _, err := s.Link(ctx, "h", fmt.Sprint("AIDA", i), at(1)); err == nil {
				mu.Lock()
				linked++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if linked != 1 {
		t.Errorf("%d spent one code", linked)
	}
}
