package storetest

import (
	"testing"

	"sallyport.dev/audit"
	"sallyport.dev/audit/forward"
)

// testAuditForwarding: one member at a time forwards to a destination, and only who does
// moves its cursors.
func testAuditForwarding(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	const name = "syslog/siem"
	hold := func(what, holder string, from, until int, want bool) {
		t.Helper()
		if held, err := s.HoldDestination(ctx, name, holder, at(from), at(until)); err != nil || held != want {
			t.Errorf("%s: got held %v, %v, want %v", what, held, err, want)
		}
	}
	hold("the first", "m1", 0, 10, true)
	hold("another meanwhile", "m2", 5, 15, false)
	hold("the same, longer", "m1", 5, 20, true)
	must(t, s.MoveAuditCursor(ctx, name, "m1", audit.Head{Member: "m1", Seq: 7}, audit.Head{Member: "m2", Seq: 3}))
	must(t, s.MoveAuditCursor(ctx, name, "m1", audit.Head{Member: "m1", Seq: 9}))
	wantErr(t, "who does not hold it", s.MoveAuditCursor(ctx, name, "m2", audit.Head{Member: "m1", Seq: 1}), forward.ErrLease)
	wantErr(t, "another destination", s.MoveAuditCursor(ctx, "s3/x", "m1", audit.Head{Member: "m1", Seq: 1}), forward.ErrLease)
	hold("another, when time is up", "m2", 20, 30, true)
	wantErr(t, "who held it", s.MoveAuditCursor(ctx, name, "m1", audit.Head{Member: "m1", Seq: 99}), forward.ErrLease)
	must(t, s.DropDestination(ctx, name, "m1")) // not theirs any more
	hold("who held it", "m1", 21, 31, false)
	must(t, s.DropDestination(ctx, name, "m2"))
	hold("once given up", "m1", 21, 31, true)
	wantSame(t, "cursors", get[map[string]int64](t)(s.AuditCursors(ctx, name)), map[string]int64{"m1": 9, "m2": 3})
	wantSame(t, "cursors of another", get[map[string]int64](t)(s.AuditCursors(ctx, "s3/x")), map[string]int64{})

	for _, member := range []string{"b", "a", "ä"} {
		must(t, s.AppendAudit(ctx, chain(t, audit.Record{Member: member}, 3)))
	}
	heads := get[[]audit.Head](t)(s.AuditHeads(ctx))
	wantSame(t, "heads", names(heads, func(h audit.Head) string { return h.Member }), "a b ä")
	rows := get[[]audit.Row](t)(s.AuditRows(ctx, "b", 1, 1))
	if len(rows) != 1 || rows[0].Seq != 2 || rows[0].Hash == heads[1].Hash || !rows[0].Time.Equal(at(2)) {
		t.Errorf("the second row: got %+v", rows)
	}
	if r, err := rows[0].Record(); err != nil || r.Seq != 2 {
		t.Errorf("its record: got %+v, %v", r, err)
	}
}
