package storetest

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/store"
)

// chain makes n linked records of a member, a second apart, beginning after last.
func chain(t testing.TB, last audit.Record, n int) []audit.Record {
	t.Helper()
	if last.Seq == 0 {
		last.Hash = audit.NoPrev
	}
	var all []audit.Record
	for range n {
		r := audit.Record{Member: last.Member, Seq: last.Seq + 1, Time: at(int(last.Seq) + 1), Event: audit.EventDecision, Prev: last.Hash}
		r.Hash = get[string](t)(audit.Sum(r))
		all = append(all, r)
		last = r
	}
	return all
}

func recordName(r audit.Record) string { return fmt.Sprint(r.Member, r.Seq) }

func testAudit(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	if _, found, err := s.LastAudit(ctx, "m"); found || err != nil {
		t.Errorf("end of no chain: got %v, %v", found, err)
	}
	must(t, s.AppendAudit(ctx, nil))
	r := audit.Record{Member: "m", Seq: 1, Time: at(1).Add(7 * time.Microsecond), Event: audit.EventDecision, Principal: "arn:p",
		Action: "ssm:StartSession", Resources: []string{"arn:1", "arn:2"}, Decision: "ImplicitlyDenied",
		Reason: `because "<no>" & 'none' \ ü`, Error: "AccessDeniedException", SourceIP: "192.0.2.1", UserAgent: "aws-cli",
		RequestID: "id", Session: "s", Node: "mi-1", Document: "D", Details: map[string]string{"b": "2", "a": "1"}, Prev: audit.NoPrev}
	r.Hash = get[string](t)(audit.Sum(r))
	must(t, s.AppendAudit(ctx, []audit.Record{r}))
	last, found, err := s.LastAudit(ctx, "m")
	if err != nil || !found {
		t.Fatalf("end of chain: got %v, %v", found, err)
	}
	wantSame(t, "record", last, r)
	wantSame(t, "hash of the record read back", get[string](t)(audit.Sum(last)), r.Hash)
	more := chain(t, r, 500)
	must(t, s.AppendAudit(ctx, more))
	wantSame(t, "all", get[[]audit.Record](t)(s.Audit(ctx, audit.Filter{})), append([]audit.Record{r}, more...))
	must(t, audit.Verify(audit.All(ctx, s, audit.Filter{})))
}

// testAuditChain: nothing that does not continue the chain is stored, nor anything
// beside it.
func testAuditChain(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	first := chain(t, audit.Record{Member: "m"}, 2)
	must(t, s.AppendAudit(ctx, first))
	next := chain(t, first[1], 3)
	other := chain(t, audit.Record{Member: "other"}, 1)
	forged := next[0]
	forged.Prev = audit.NoPrev
	for name, records := range map[string][]audit.Record{
		"repeat":               {first[1]},
		"gap":                  {next[1]},
		"gap inside":           {next[0], next[2]},
		"out of order":         {next[1], next[0]},
		"another continuation": {forged},
		"begins in the middle": chain(t, audit.Record{Member: "new", Seq: 4, Hash: "x"}, 1),
	} {
		wantErr(t, name, s.AppendAudit(ctx, records), audit.ErrChain)
	}
	if err := s.AppendAudit(ctx, []audit.Record{next[0], other[0]}); err == nil {
		t.Error("two members in one append: got no error")
	}
	wantSame(t, "records", names(get[[]audit.Record](t)(s.Audit(ctx, audit.Filter{})), recordName), "m1 m2")
	must(t, s.AppendAudit(ctx, next))
	must(t, s.AppendAudit(ctx, other))
	wantSame(t, "records", names(get[[]audit.Record](t)(s.Audit(ctx, audit.Filter{})), recordName), "m1 other1 m2 m3 m4 m5")
	must(t, audit.Verify(audit.All(ctx, s, audit.Filter{})))
}

func testAuditFilters(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	records := []audit.Record{
		{Event: audit.EventDecision, Action: "ssm:StartSession", Decision: "Allowed", Principal: "arn:aws:iam::1:user/alice", Node: "mi-1", Session: "alice-1"},
		{Event: audit.EventDecision, Action: "ssm:TerminateSession", Decision: "ImplicitlyDenied", Principal: "arn:aws:iam::1:user/bob", Node: "mi-2", Session: "alice-1"},
		{Event: audit.EventSessionEnd, Session: "alice-1", Node: "mi-1"},
		{Event: audit.EventDecision, Action: "iam:Get_User", Decision: "Allowed", Principal: "arn:aws:iam::1:user/100%"},
	}
	last := audit.Record{Member: "m", Hash: audit.NoPrev}
	for i := range records {
		records[i].Member, records[i].Seq, records[i].Time, records[i].Prev = "m", last.Seq+1, at(i+1), last.Hash
		records[i].Hash = get[string](t)(audit.Sum(records[i]))
		last = records[i]
	}
	must(t, s.AppendAudit(ctx, records))
	must(t, s.AppendAudit(ctx, chain(t, audit.Record{Member: "a"}, 2))) // at the same moments
	tests := []struct {
		name   string
		filter audit.Filter
		want   string
	}{
		{"all, in order of time", audit.Filter{}, "a1 m1 a2 m2 m3 m4"},
		{"the oldest", audit.Filter{Limit: 2}, "a1 m1"},
		{"the newest, still in order", audit.Filter{Limit: 3, Newest: true}, "m2 m3 m4"},
		{"since, inclusive", audit.Filter{Since: at(3)}, "m3 m4"},
		{"until, exclusive", audit.Filter{Until: at(2)}, "a1 m1"},
		{"event", audit.Filter{Event: audit.EventSessionEnd}, "m3"},
		{"part of a principal, any case", audit.Filter{Principal: "USER/alice"}, "m1"},
		{"a principal with a percent sign", audit.Filter{Principal: "0%"}, "m4"},
		{"a percent sign is not wild", audit.Filter{Principal: "user%bob"}, ""},
		{"action", audit.Filter{Action: "ssm:startsession"}, "m1"},
		{"actions", audit.Filter{Action: "ssm:*Session"}, "m1 m2"},
		{"an action with one unknown letter", audit.Filter{Action: "iam:Get?User"}, "m4"},
		{"an underscore is not wild", audit.Filter{Action: "ssm:Start_ession"}, ""},
		{"node", audit.Filter{Node: "mi-1"}, "m1 m3"},
		{"session", audit.Filter{Session: "alice-1"}, "m1 m2 m3"},
		{"decision", audit.Filter{Decision: "Allowed"}, "m1 m4"},
		{"session and decision", audit.Filter{Session: "alice-1", Decision: "Allowed"}, "m1"},
		{"after a record", audit.Filter{AfterMember: "m", AfterSeq: 1, Limit: 2}, "a2 m2"},
		{"after the last", audit.Filter{AfterMember: "m", AfterSeq: 4}, ""},
	}
	for _, tt := range tests {
		if got := names(get[[]audit.Record](t)(s.Audit(ctx, tt.filter)), recordName); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	if _, err := s.Audit(ctx, audit.Filter{AfterMember: "m", AfterSeq: 99}); err == nil {
		t.Error("after an unknown record: got no error")
	}
}

// testAuditLog runs logs of two members on the store, as a cluster does.
func testAuditLog(t *testing.T, fresh Fresh) {
	url := fresh(t)
	ctx := t.Context()
	stores := []*store.Store{Open(t, url), Open(t, url)}
	var logs []*audit.Log
	for i, member := range []string{"one", "two"} {
		l, err := audit.New(ctx, stores[i], member, time.Now, slog.New(slog.DiscardHandler))
		must(t, err)
		logs = append(logs, l)
	}
	const records = 200
	atOnce(t, records, func(i int) error {
		r, err := logs[i%2].Append(ctx, audit.Record{Event: audit.EventChange, Reason: fmt.Sprint("<", i, ">"),
			UserAgent: "bad \xff\x00 text", Details: map[string]string{"z": "1", "a": "2"}})
		if err == nil && (r.Seq == 0 || r.Hash == "") {
			err = fmt.Errorf("record %v has no place", r)
		}
		return err
	})
	for _, l := range logs {
		must(t, l.Close())
	}
	must(t, audit.Verify(audit.All(ctx, stores[0], audit.Filter{})))
	reasons := make(map[string]bool)
	for r, err := range audit.All(ctx, stores[0], audit.Filter{}) {
		must(t, err)
		reasons[r.Reason] = true
	}
	wantSame(t, "records", len(reasons), records)
	heads, err := stores[0].AuditHeads(ctx)
	must(t, err)
	if !slices.EqualFunc(heads, []string{"one", "two"}, func(h audit.Head, m string) bool { return h.Member == m && h.Seq == records/2 }) {
		t.Errorf("heads: got %v, want %d records each", heads, records/2)
	}
}
