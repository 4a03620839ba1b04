package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a store whose appends can be made to fail or to wait. The store that
// ships is tested with the log in store/storetest.
type memory struct {
	mu      sync.Mutex
	records []Record
	appends int
	fail    error         // of the next appends
	lose    bool          // store, but say that it failed
	gate    chan struct{} // when set, an append waits for it,
	begun   chan struct{} // having told so here
}

// gated returns a store whose appends wait for its gate.
func gated() *memory { return &memory{gate: make(chan struct{}), begun: make(chan struct{}, 100)} }

func (m *memory) AppendAudit(ctx context.Context, records []Record) error {
	if m.gate != nil {
		m.begun <- struct{}{}
		<-m.gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.appends++
	if m.fail != nil && !m.lose {
		return m.fail
	}
	for _, r := range records {
		if want := int64(len(m.records)) + 1; r.Seq != want {
			return fmt.Errorf("record %d stored as %d: %w", r.Seq, want, ErrChain)
		}
		m.records = append(m.records, r)
	}
	return m.fail
}

func (m *memory) LastAudit(ctx context.Context, member string) (Record, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.records) == 0 {
		return Record{}, false, nil
	}
	return m.records[len(m.records)-1], true, nil
}

func (m *memory) Audit(ctx context.Context, f Filter) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.records[f.AfterSeq:min(int64(len(m.records)), f.AfterSeq+int64(f.Limit))]), nil
}

func (m *memory) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

var errDisk = errors.New("disk is on fire")

// clock is a settable clock.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("CET", 3600))

func newLog(t testing.TB, s Store, now func() time.Time) *Log {
	t.Helper()
	l, err := New(t.Context(), s, "m", now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustAppend(t testing.TB, l *Log, r Record) Record {
	t.Helper()
	r, err := l.Append(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAppendLinksRecords(t *testing.T) {
	s := &memory{}
	c := &clock{at: noon}
	l := newLog(t, s, c.now)
	first := mustAppend(t, l, Record{Event: EventDecision, Member: "forged", Seq: 99, Hash: "forged", Prev: "forged"})
	second := mustAppend(t, l, Record{Event: EventChange})
	if first.Member != "m" || first.Seq != 1 || first.Prev != NoPrev {
		t.Errorf("first record: got %+v", first)
	}
	if want := time.Date(2026, 3, 1, 11, 0, 0, 123456000, time.UTC); first.Time != want {
		t.Errorf("time: got %v, want %v: UTC, in microseconds", first.Time, want)
	}
	if second.Seq != 2 || second.Prev != first.Hash {
		t.Errorf("second record: got %+v, want it to continue %s", second, first.Hash)
	}
	if diff := cmp.Diff([]Record{first, second}, s.records); diff != "" {
		t.Errorf("stored (+), returned (-):\n%s", diff)
	}
	l.Close()

	l = newLog(t, s, c.now)
	if third := mustAppend(t, l, Record{}); third.Seq != 3 || third.Prev != second.Hash {
		t.Errorf("after a restart: got %+v, want it to continue %s", third, second.Hash)
	}
	if err := Verify(All(t.Context(), s, Filter{})); err != nil {
		t.Error(err)
	}
}

// TestCanonical pins the form that hashes are taken over: changing it would make
// every log that exists look forged.
func TestCanonical(t *testing.T) {
	r := Record{Member: "m", Seq: 7, Time: noon, Event: EventDecision, Resources: []string{"<a>", "b&c"}, Reason: "ü \"q\" \n\u2028",
		Details: map[string]string{"z": "1", "a": "2"}, Prev: NoPrev, Hash: "not part of it"}
	got, err := Canonical(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"member":"m","seq":7,"time":"2026-03-01T11:00:00.123456789Z","event":"decision","resources":["<a>","b&c"],` +
		`"reason":"ü \"q\" \n\u2028","details":{"a":"2","z":"1"},"prev":"` + NoPrev + `","hash":""}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	sum, err := Sum(r) // as sha256sum gives it for the text above
	if want := "dc7598194dc381349b1dbd24bd3e9a0253ff7963cb93b392693dd51973511f18"; err != nil || sum != want {
		t.Errorf("sum: got %s, %v, want %s", sum, err, want)
	}
}

// queued waits until n records wait for the chain's owner.
func queued(t *testing.T, l *Log, n int) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); len(l.queue) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("records waiting: got %d, want %d", len(l.queue), n)
		}
	}
}

func TestCallersShareAppends(t *testing.T) {
	s := gated()
	l := newLog(t, s, time.Now)
	const callers = 100
	var wg sync.WaitGroup
	wg.Go(func() { mustAppend(t, l, Record{Event: EventDecision}) })
	<-s.begun // the others gather meanwhile
	for range callers {
		wg.Go(func() { mustAppend(t, l, Record{Event: EventDecision}) })
	}
	queued(t, l, callers)
	close(s.gate)
	wg.Wait()
	if len(s.records) != callers+1 || s.appends != 2 {
		t.Errorf("got %d records in %d appends, want %d in 2", len(s.records), s.appends, callers+1)
	}
	if err := Verify(All(t.Context(), s, Filter{})); err != nil {
		t.Error(err)
	}
}

// TestStoreFails: an error reaches every waiting caller, and the chain goes on from
// what is really stored.
func TestStoreFails(t *testing.T) {
	for _, lose := range []bool{false, true} {
		t.Run(fmt.Sprintf("stored all the same %v", lose), func(t *testing.T) {
			s := &memory{}
			l := newLog(t, s, time.Now)
			mustAppend(t, l, Record{Reason: "before"})
			s.set(func() { s.fail, s.lose = errDisk, lose })
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if r, err := l.Append(t.Context(), Record{Reason: "during"}); !errors.Is(err, errDisk) || r.Seq != 0 {
						t.Errorf("got %+v, %v, want the store's error alone", r, err)
					}
				})
			}
			wg.Wait()
			s.set(func() { s.fail, s.lose = nil, false })
			r := mustAppend(t, l, Record{Reason: "after"})
			if want := int64(len(s.records)); r.Seq != want {
				t.Errorf("after: got record %d, want %d", r.Seq, want)
			}
			if lose != (r.Seq > 2) {
				t.Errorf("after: got record %d", r.Seq)
			}
			if err := Verify(All(t.Context(), s, Filter{})); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClockSetBack(t *testing.T) {
	s := &memory{}
	c := &clock{at: noon}
	l := newLog(t, s, c.now)
	first := mustAppend(t, l, Record{})
	c.set(noon.Add(-time.Hour))
	details := map[string]string{"k": "v"}
	second := mustAppend(t, l, Record{Details: details})
	if !second.Time.Equal(first.Time) {
		t.Errorf("time after the clock was set back: got %v, want %v", second.Time, first.Time)
	}
	want := map[string]string{"k": "v", ClockDetail: "2026-03-01T10:00:00.123456Z"}
	if diff := cmp.Diff(want, second.Details); diff != "" {
		t.Errorf("details (-want +got):\n%s", diff)
	}
	if len(details) != 1 {
		t.Error("the caller's map was changed")
	}
	l.Close()
	l = newLog(t, s, c.now) // the chain remembers
	if third := mustAppend(t, l, Record{}); !third.Time.Equal(first.Time) || third.Details[ClockDetail] == "" {
		t.Errorf("after a restart: got %+v", third)
	}
	c.set(noon.Add(time.Second))
	if fourth := mustAppend(t, l, Record{}); !fourth.Time.After(first.Time) || fourth.Details != nil {
		t.Errorf("after the clock caught up: got %+v", fourth)
	}
	if err := Verify(All(t.Context(), s, Filter{})); err != nil {
		t.Error(err)
	}
}

// TestHostileTexts: what callers send cannot make a record that is not stored as it
// was hashed, nor one that fills the disk.
func TestHostileTexts(t *testing.T) {
	s := &memory{}
	l := newLog(t, s, time.Now)
	long := strings.Repeat("ü", textLength)
	r := mustAppend(t, l, Record{UserAgent: "a\x00b\xffc", Reason: long, Resources: slices.Repeat([]string{"arn"}, resourceCount+800),
		Details: map[string]string{"\xff": "\x00"}})
	if r.UserAgent != "a\uFFFDb\uFFFDc" {
		t.Errorf("user agent: got %q", r.UserAgent)
	}
	if want := strings.Repeat("ü", textLength/2) + "… (cut from 16384 bytes)"; r.Reason != want {
		t.Errorf("reason: got %d bytes ending in %q", len(r.Reason), r.Reason[max(0, len(r.Reason)-40):])
	}
	if len(r.Resources) != resourceCount+1 || r.Resources[resourceCount] != "… and 800 more" {
		t.Errorf("resources: got %d, the last %q", len(r.Resources), r.Resources[len(r.Resources)-1])
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Record
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if err := Verify(slice(back)); err != nil {
		t.Errorf("read back: %v", err)
	}
}

func TestContexts(t *testing.T) {
	s := gated()
	l := newLog(t, s, time.Now)
	first := make(chan error)
	go func() { _, err := l.Append(t.Context(), Record{Reason: "first"}); first <- err }()
	<-s.begun
	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("the caller left")
	second := make(chan error)
	go func() { _, err := l.Append(ctx, Record{Reason: "second"}); second <- err }()
	queued(t, l, 1)
	cancel(left)
	if err := <-second; !errors.Is(err, left) {
		t.Errorf("waiting: got %v, want the cause", err)
	}
	close(s.gate)
	if err := <-first; err != nil {
		t.Error(err)
	}
	l.Close()
	if len(s.records) != 1 || s.records[0].Reason != "first" {
		t.Errorf("records: got %+v, want the first only", s.records)
	}
	if _, err := l.Append(ctx, Record{}); err == nil {
		t.Error("appending with an ended context: got no error")
	}
}

func TestCloseWritesWhatWasAccepted(t *testing.T) {
	s := gated()
	l := newLog(t, s, time.Now)
	errs := make(chan error, 51)
	add := func() { _, err := l.Append(context.WithoutCancel(t.Context()), Record{}); errs <- err }
	go add()
	<-s.begun
	for range 50 {
		go add()
	}
	queued(t, l, 50)
	closed := make(chan struct{})
	go func() { l.Close(); close(closed) }()
	close(s.gate)
	<-closed
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Errorf("an accepted record: got %v", err)
		}
	}
	if len(s.records) != cap(errs) {
		t.Errorf("stored: got %d, want %d", len(s.records), cap(errs))
	}
	if _, err := l.Append(t.Context(), Record{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: got %v, want ErrClosed", err)
	}
}

func TestNewNeedsItsMemberAndItsChain(t *testing.T) {
	if _, err := New(t.Context(), &memory{}, "", time.Now, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "member is empty") {
		t.Errorf("no member: got %v", err)
	}
	if _, err := New(t.Context(), unreadable{}, "m", time.Now, slog.New(slog.DiscardHandler)); !errors.Is(err, errDisk) {
		t.Errorf("unreadable chain: got %v", err)
	}
}

type unreadable struct{}

func (unreadable) LastAudit(context.Context, string) (Record, bool, error) {
	return Record{}, false, errDisk
}
func (unreadable) AppendAudit(context.Context, []Record) error     { return errDisk }
func (unreadable) Audit(context.Context, Filter) ([]Record, error) { return nil, errDisk }

// slice iterates over records.
func slice(records ...Record) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// chainOf makes a chain of n records.
func chainOf(t *testing.T, member string, n int) []Record {
	t.Helper()
	s := &memory{}
	l, err := New(t.Context(), s, member, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		mustAppend(t, l, Record{Event: EventDecision, Decision: "ImplicitlyDenied", Reason: fmt.Sprint("reason ", i+1)})
	}
	l.Close()
	return s.records
}

func TestVerify(t *testing.T) {
	a := chainOf(t, "a", 6)
	edit := func(change func([]Record) []Record) []Record { return change(slices.Clone(a)) }
	forge := func(r Record) Record { // one who knows how the hash is made
		r.Hash, _ = Sum(r)
		return r
	}
	tests := []struct {
		name    string
		records []Record
		want    string // the error; empty for a whole chain
	}{
		{"whole", a, ""},
		{"two members, interleaved", append(edit(func(r []Record) []Record { return r }), chainOf(t, "b", 2)...), ""},
		{"a decision was changed", edit(func(r []Record) []Record { r[2].Decision = "Allowed"; return r }),
			`record 3 of member "a" was changed: its hash is not that of its content`},
		{"a time was changed", edit(func(r []Record) []Record { r[2].Time = r[2].Time.Add(time.Second); return r }),
			`record 3 of member "a" was changed`},
		{"a detail was added", edit(func(r []Record) []Record { r[2].Details = map[string]string{"x": "y"}; return r }),
			`record 3 of member "a" was changed`},
		{"changed and hashed again", edit(func(r []Record) []Record { r[2].Decision = "Allowed"; r[2] = forge(r[2]); return r }),
			`record 4 of member "a" does not continue record 3: one of them was replaced`},
		{"one is missing", edit(func(r []Record) []Record { return slices.Delete(r, 3, 4) }),
			`record 5 of member "a" comes after record 3: record 4 is missing`},
		{"several are missing", edit(func(r []Record) []Record { return slices.Delete(r, 1, 4) }),
			`record 5 of member "a" comes after record 1: records 2 to 4 are missing`},
		{"the beginning is missing", a[2:], `record 3 of member "a" comes after record 0: records 1 to 2 are missing`},
		{"two changed places", edit(func(r []Record) []Record { r[3], r[4] = r[4], r[3]; return r }),
			`record 5 of member "a" comes after record 3: record 4 is missing`},
		{"one was repeated", edit(func(r []Record) []Record { return slices.Insert(r, 3, r[2]) }),
			`record 3 of member "a" comes after record 3: it was moved or repeated`},
		{"numbered anew after a deletion", edit(func(r []Record) []Record {
			r = slices.Delete(r, 3, 4)
			for i := 3; i < len(r); i++ {
				r[i].Seq = int64(i + 1)
				r[i] = forge(r[i])
			}
			return r
		}), `record 4 of member "a" does not continue record 3: one of them was replaced`},
		{"given to another member", edit(func(r []Record) []Record { r[2].Member = "b"; r[2] = forge(r[2]); return r }),
			`record 3 of member "b" comes after record 0: records 1 to 2 are missing`},
		{"older than the one before", edit(func(r []Record) []Record {
			r[5].Time = r[5].Time.Add(-time.Hour)
			r[5] = forge(r[5])
			return r
		}), `record 6 of member "a" is older than record 5`},
		{"an empty record", []Record{{}}, `record 0 of member "" was changed`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Verify(slice(tt.records...))
			if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrChain) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestVerifyStopsAtAnError(t *testing.T) {
	err := Verify(func(yield func(Record, error) bool) { yield(Record{}, errDisk) })
	if !errors.Is(err, errDisk) {
		t.Errorf("got %v, want the iterator's error", err)
	}
}

func TestAllReadsPages(t *testing.T) {
	s := &memory{}
	l := newLog(t, s, time.Now)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range pageLength / 2 {
				mustAppend(t, l, Record{})
			}
		})
	}
	wg.Wait()
	n := 0
	for _, err := range All(t.Context(), s, Filter{Limit: 3}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 2*pageLength {
		t.Errorf("got %d records, want %d", n, 2*pageLength)
	}
}

func FuzzTidyRecordsKeepTheirHash(f *testing.F) {
	f.Add("reason", "key", "value")
	f.Add("\xff\x00", "\u2028", "<>&\\\"")
	f.Fuzz(func(t *testing.T, reason, k, v string) {
		r := tidy(Record{Reason: reason, Resources: []string{v}, Details: map[string]string{k: v}, Time: noon.UTC()})
		sum, err := Sum(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back Record
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if again, err := Sum(back); err != nil || again != sum {
			t.Errorf("hash of %q, read back: got %s, %v, want %s", text, again, err, sum)
		}
	})
}
