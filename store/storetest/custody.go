package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/archive"
	"sallyport.dev/archive/custody"
	"sallyport.dev/internal/tags"
	"sallyport.dev/recording"
	"sallyport.dev/store"
)

// putStored puts a stored recording of alice on node mi-1.
func putStored(t *testing.T, s *store.Store, session string) string {
	t.Helper()
	name := "2026/11/20/" + session
	must(t, s.PutRecording(t.Context(), archive.Row{
		Name: name, Session: session, Node: "mi-1", Principal: "arn:alice", State: archive.Stored, KeyID: "k1", Started: at(1), Ended: at(2),
	}))
	must(t, s.PutRecordingSubjects(t.Context(), name, []custody.Subject{
		{Kind: custody.OfSession, Value: session}, {Kind: custody.OfNode, Value: "mi-1"}, {Kind: custody.OfPerson, Value: "arn:alice"},
		{Kind: custody.OfPerson, Value: "AIDAALICE"}, {Kind: custody.OfRequest, Value: "req-1"},
	}))
	return name
}

func hold(n int, kind custody.Kind, value, also string) custody.Hold {
	return custody.Hold{ID: fmt.Sprint("hold-", n), Subject: custody.Subject{Kind: kind, Value: value}, Also: also, Reason: "case 7", By: "arn:eve", At: at(n)}
}

func holdID(h custody.Hold) string { return h.ID }

func testHolds(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	name := putStored(t, s, "alice-1")
	other := putStored(t, s, "alice-2")
	for n, h := range []custody.Hold{
		hold(1, custody.OfSession, "alice-1", ""),
		hold(2, custody.OfPerson, "arn:formerly-alice", "AIDAALICE"),
		hold(3, custody.OfNode, "mi-1", ""),
		hold(4, custody.OfRequest, "req-1", ""),
		hold(5, custody.OfNode, "AIDAALICE", ""), // of another kind
	} {
		want := []int64{1, 2, 2, 2, 0}[n]
		if got := get[int64](t)(s.CreateRecordingHold(ctx, h, 10)); got != want {
			t.Errorf("hold %d is on %d recordings, want %d", n+1, got, want)
		}
	}
	wantSame(t, "holds on one", names(get[[]custody.Hold](t)(s.HoldsOnRecording(ctx, name)), holdID), "hold-1 hold-2 hold-3 hold-4")
	wantSame(t, "holds on the other", names(get[[]custody.Hold](t)(s.HoldsOnRecording(ctx, other)), holdID), "hold-2 hold-3 hold-4")
	wantSame(t, "of a person by either name", names(get[[]custody.Hold](t)(s.RecordingHolds(ctx,
		custody.HoldFilter{Subject: custody.Subject{Kind: custody.OfPerson, Value: "AIDAALICE"}})), holdID), "hold-2")
	_, err := s.CreateRecordingHold(ctx, hold(6, custody.OfSession, "nobody-1", ""), 10)
	wantErr(t, "holding what is not there", err, custody.ErrDeleted)
	_, err = s.CreateRecordingHold(ctx, hold(7, custody.OfNode, "mi-2", ""), 5)
	wantErr(t, "one hold too many", err, custody.ErrTooMany)

	for n := 1; n <= 4; n++ {
		err := s.CondemnRecording(ctx, name, custody.Condemnation{By: "arn:eve", Reason: "r", At: at(9)})
		if held := (*custody.HeldError)(nil); !errors.As(err, &held) || len(held.Holds) != 5-n {
			t.Errorf("with %d holds: got %v, want *HeldError", 5-n, err)
		}
		id := fmt.Sprint("hold-", n)
		released := get[custody.Hold](t)(s.ReleaseRecordingHold(ctx, id, "arn:bob", "over", at(8)))
		if released.Active() || released.ReleasedBy != "arn:bob" || released.ReleaseReason != "over" {
			t.Errorf("got %+v, want a hold that bob released", released)
		}
		_, err = s.ReleaseRecordingHold(ctx, id, "arn:bob", "over", at(8))
		wantErr(t, "releasing again", err, custody.ErrReleased)
	}
	_, err = s.ReleaseRecordingHold(ctx, "hold-9", "arn:bob", "over", at(8))
	wantErr(t, "releasing no hold", err, custody.ErrNoHold)
	wantSame(t, "active", names(get[[]custody.Hold](t)(s.RecordingHolds(ctx, custody.HoldFilter{Active: true})), holdID), "hold-5")
	wantSame(t, "a page", names(get[[]custody.Hold](t)(s.RecordingHolds(ctx, custody.HoldFilter{After: "hold-2", Limit: 2})), holdID), "hold-3 hold-4")
	must(t, s.CondemnRecording(ctx, name, custody.Condemnation{By: "arn:eve", Reason: "r", At: at(9)}))
	_, err = s.CreateRecordingHold(ctx, hold(8, custody.OfSession, "alice-1", ""), 10)
	wantErr(t, "holding what is deleted", err, custody.ErrDeleted)
	if got := get[int64](t)(s.CreateRecordingHold(ctx, hold(9, custody.OfNode, "mi-1", ""), 10)); got != 1 {
		t.Errorf("the hold is on %d recordings, want the 1 that is left", got)
	}
}

// testKnownSubjects looks at a recording while another writes: who reads does not wait to note
// what is known.
func testKnownSubjects(t *testing.T, fresh Fresh) {
	s := open(t, fresh)
	name := putStored(t, s, "alice-1")
	known := []custody.Subject{{Kind: custody.OfSession, Value: "alice-1"}, {Kind: custody.OfNode, Value: "mi-1"}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, s.UpdateRecording(t.Context(), name, func(*archive.Row) error { return s.PutRecordingSubjects(ctx, name, known) }))
	must(t, s.PutRecordingSubjects(t.Context(), name, append(known, custody.Subject{Kind: custody.OfRequest, Value: "req-2"})))
	if got := get[int64](t)(s.CreateRecordingHold(t.Context(), hold(1, custody.OfRequest, "req-2", ""), 10)); got != 1 {
		t.Errorf("a hold on what became known later is on %d recordings, want 1", got)
	}
}

func testCondemn(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	name := putStored(t, s, "a")
	must(t, s.PutRecording(ctx, archive.Row{Name: "2026/11/20/live", Session: "live", State: archive.Spooled, Started: at(1)}))
	c := custody.Condemnation{By: "arn:eve", Reason: "why", At: at(9)}
	wantErr(t, "what is not stored", s.CondemnRecording(ctx, "2026/11/20/live", c), custody.ErrUnstored)
	wantErr(t, "what is not there", s.CondemnRecording(ctx, "2026/11/20/none", c), recording.ErrNotFound)

	must(t, s.LeaseRecording(ctx, name, at(3), at(20)))
	wantErr(t, "a second lease", s.LeaseRecording(ctx, name, at(4), at(21)), custody.ErrBusy)
	wantErr(t, "what is leased", s.CondemnRecording(ctx, name, c), custody.ErrBusy)
	must(t, s.UnleaseRecording(ctx, name))
	must(t, s.LeaseRecording(ctx, name, at(4), at(5))) // it ends by itself

	must(t, s.CondemnRecording(ctx, name, c))
	row := get[archive.Row](t)(s.Recording(ctx, name))
	if row.State != archive.Deleted || row.DeletedBy != "arn:eve" || row.DeleteReason != "why" || !row.DeletedAt.Equal(at(9)) {
		t.Errorf("got %+v, want a tombstone", row)
	}
	wantErr(t, "deleting again", s.CondemnRecording(ctx, name, c), custody.ErrDeleted)
	wantErr(t, "leasing what is deleted", s.LeaseRecording(ctx, name, at(20), at(21)), custody.ErrDeleted)

	same := func(s string) string { return s }
	wantSame(t, "unpurged too early", names(get[[]string](t)(s.UnpurgedRecordings(ctx, at(8), "", 10)), same), "")
	must(t, s.PurgedRecording(ctx, name, at(10), "locked"))
	wantSame(t, "unpurged", names(get[[]string](t)(s.UnpurgedRecordings(ctx, at(9), "", 10)), same), name)
	if got := get[custody.State](t)(s.RecordingState(ctx, name)); got.Problem != "locked" || !got.Purged.IsZero() {
		t.Errorf("got %+v, want a problem", got)
	}
	must(t, s.PurgedRecording(ctx, name, at(11), ""))
	wantSame(t, "nothing unpurged", names(get[[]string](t)(s.UnpurgedRecordings(ctx, at(20), "", 10)), same), "")
	if got := get[custody.State](t)(s.RecordingState(ctx, name)); got.Problem != "" || !got.Purged.Equal(at(11)) {
		t.Errorf("got %+v, want it purged", got)
	}
}

func testRetentionPlans(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	one, two := putStored(t, s, "a"), putStored(t, s, "b")
	same := func(s string) string { return s }
	listed := func(all []string, err error) string { t.Helper(); return names(get[[]string](t)(all, err), same) }
	facts := custody.Facts{NodeTags: tags.Tags{"Env": "prod"}, OwnerTags: tags.Tags{"Team": "a, b"}}
	must(t, s.PutRecordingFacts(ctx, one, facts))
	must(t, s.PutRecordingFacts(ctx, one, custody.Facts{NodeTags: tags.Tags{"Env": "dev"}}))
	wantSame(t, "facts stay as they were first", get[custody.State](t)(s.RecordingState(ctx, one)).Facts, facts)
	wantSame(t, "facts of none", get[custody.State](t)(s.RecordingState(ctx, "none")), custody.State{})

	wantSame(t, "unplanned", listed(s.UnplannedRecordings(ctx, "p1", 10)), strings.Join([]string{one, two}, " "))
	must(t, s.PlanRecording(ctx, one, "p1", "short", at(5)))
	must(t, s.PlanRecording(ctx, two, "p1", "retain", time.Time{}))
	wantSame(t, "all planned", listed(s.UnplannedRecordings(ctx, "p1", 10)), "")
	wantSame(t, "unplanned by another plan", listed(s.UnplannedRecordings(ctx, "p2", 1)), one)
	wantSame(t, "due too early", listed(s.DueRecordings(ctx, "p1", at(4), "", 10)), "")
	wantSame(t, "due", listed(s.DueRecordings(ctx, "p1", at(5), "", 10)), one)
	wantSame(t, "due after it", listed(s.DueRecordings(ctx, "p1", at(5), one, 10)), "")
	wantSame(t, "due by another plan", listed(s.DueRecordings(ctx, "p2", at(5), "", 10)), "")
	if got := get[custody.State](t)(s.RecordingState(ctx, one)); got.Rule != "short" || got.NodeTags["Env"] != "prod" {
		t.Errorf("got %+v, want the rule beside the facts", got)
	}
	wantErr(t, "too early", s.CondemnRecording(ctx, one, custody.Condemnation{At: at(4), Plan: "p1"}), custody.ErrNotDue)
	wantErr(t, "by another plan", s.CondemnRecording(ctx, one, custody.Condemnation{At: at(5), Plan: "p2"}), custody.ErrNotDue)
	wantErr(t, "kept forever", s.CondemnRecording(ctx, two, custody.Condemnation{At: at(99), Plan: "p1"}), custody.ErrNotDue)
	must(t, s.CondemnRecording(ctx, one, custody.Condemnation{At: at(5), Plan: "p1"}))
}

func testWrappedBy(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	one, two := putStored(t, s, "a"), putStored(t, s, "b")
	must(t, s.UpdateRecording(ctx, two, func(r *archive.Row) error { r.KeyID = "k2"; return nil }))
	same := func(s string) string { return s }
	listed := func(all []string, err error) string { t.Helper(); return names(get[[]string](t)(all, err), same) }
	counts, err := s.RecordingKeys(ctx)
	must(t, err)
	wantSame(t, "by key", fmt.Sprint(counts), "map[k1:1 k2:1]")
	wantSame(t, "with another than k2", listed(s.RecordingsWrappedBy(ctx, "", "k2", "", 10)), one)
	wantSame(t, "with another than k3", listed(s.RecordingsWrappedBy(ctx, "", "k3", "", 10)), one+" "+two)
	wantSame(t, "after the first", listed(s.RecordingsWrappedBy(ctx, "", "k3", one, 10)), two)
	wantSame(t, "from k2", listed(s.RecordingsWrappedBy(ctx, "k2", "k3", "", 10)), two)
}

// testHoldRace has a hold and a deletion come together, often: either the recording is
// gone and the hold was told so, or it is held and there.
func testHoldRace(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	for n := range 20 {
		session := fmt.Sprint("race-", n)
		name := putStored(t, s, session)
		var holding, deleting error
		var wg sync.WaitGroup
		wg.Go(func() { _, holding = s.CreateRecordingHold(ctx, hold(n, custody.OfSession, session, ""), 100) })
		wg.Go(func() { deleting = s.CondemnRecording(ctx, name, custody.Condemnation{At: at(9)}) })
		wg.Wait()
		held := (*custody.HeldError)(nil)
		switch {
		case holding == nil && errors.As(deleting, &held):
		case errors.Is(holding, custody.ErrDeleted) && deleting == nil:
		default:
			t.Fatalf("holding: %v; deleting: %v; want one of them to succeed", holding, deleting)
		}
	}
}
