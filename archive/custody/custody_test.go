package custody_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gocloud.dev/blob"

	"sallyport.dev/archive"
	"sallyport.dev/archive/bucket"
	"sallyport.dev/archive/custody"
	"sallyport.dev/archive/keyring"
	"sallyport.dev/audit"
	"sallyport.dev/internal/tags"
	"sallyport.dev/recording"
	"sallyport.dev/store"
)

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// system is recordings in custody: a real database, store, key file and archive.
type system struct {
	t      *testing.T
	db     *store.Store
	dir    string
	bucket *bucket.Bucket
	ring   *keyring.Ring
	audit  *auditor
	cfg    custody.Config

	mu     sync.Mutex
	now    time.Time
	forgot []string
}

// auditor keeps records, or fails.
type auditor struct {
	mu      sync.Mutex
	records []audit.Record
	err     error
}

func (a *auditor) Append(_ context.Context, r audit.Record) (audit.Record, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		r.Hash, a.err = audit.Sum(r)
		a.records = append(a.records, r)
	}
	return r, a.err
}

func (a *auditor) Audit(_ context.Context, f audit.Filter) (found []audit.Record, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.records {
		if r.Session == f.Session && r.Event == f.Event && r.Action == f.Action {
			found = append(found, r)
		}
	}
	return found, a.err
}

func newSystem(t *testing.T) *system {
	t.Helper()
	s := &system{t: t, dir: t.TempDir(), audit: &auditor{}, now: start}
	var err error
	s.db, err = store.Open(t.Context(), "sqlite:"+filepath.Join(s.dir, "db"), store.Options{Logger: slog.New(slog.DiscardHandler)})
	s.must(err)
	t.Cleanup(func() { s.db.Close() })
	s.bucket, err = bucket.Open(t.Context(), bucket.Config{URL: filepath.Join(s.dir, "store")})
	s.must(err)
	t.Cleanup(func() { s.bucket.Close() })
	s.ring = s.keys("one.key")
	s.cfg = custody.Config{
		Store: s.db, Objects: s.bucket, Keys: s.ring, Audit: s.audit, Records: s.audit, Logger: slog.New(slog.DiscardHandler), Now: s.clock,
		Forget: func(_ context.Context, session string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.forgot = append(s.forgot, session)
			return nil
		},
	}
	return s
}

func (s *system) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *system) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *system) keeper(change ...func(*custody.Config)) *custody.Keeper {
	cfg := s.cfg
	for _, c := range change {
		c(&cfg)
	}
	return custody.New(cfg)
}

func (s *system) keys(file string, old ...string) *keyring.Ring {
	s.t.Helper()
	c := keyring.Config{URL: filepath.Join(s.dir, file), Logger: slog.New(slog.DiscardHandler)}
	for _, o := range old {
		c.OldURLs = append(c.OldURLs, filepath.Join(s.dir, o))
	}
	r, err := keyring.Open(s.t.Context(), c)
	s.must(err)
	s.t.Cleanup(r.Close)
	return r
}

// open opens the archive over the same store, to be closed by the caller.
func (s *system) open(keys *keyring.Ring) *archive.Archive {
	s.t.Helper()
	b, err := bucket.Open(s.t.Context(), bucket.Config{URL: filepath.Join(s.dir, "store")})
	s.must(err)
	a, err := archive.Open(s.t.Context(), archive.Config{
		Bucket: b.Bucket, Keeper: keys, Rows: s.db, Logger: slog.New(slog.DiscardHandler), Member: "one",
		Spool: filepath.Join(s.dir, "spool"), Now: s.clock,
	})
	s.must(err)
	return a
}

// record records sessions of alice on mi-1 that have ended and are stored.
func (s *system) record(sessions ...string) (names []string) {
	s.t.Helper()
	a := s.open(s.ring)
	for _, id := range sessions {
		r, err := a.Create(s.t.Context(), recording.Header{Width: 80, Height: 24, Metadata: recording.Metadata{
			Session: id, Principal: "arn:alice", Node: "mi-1", Document: "D", Started: s.clock(),
		}})
		s.must(err)
		s.must(r.Output(s.clock(), []byte("shown by "+id)))
		_, err = r.Close(recording.End{Reason: "exit", Ended: s.clock()})
		s.must(err)
		names = append(names, r.Name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s.must(a.Close(ctx))
	for _, name := range names {
		if row := s.row(name); row.State != archive.Stored {
			s.t.Fatalf("got recording %s %s, want it stored", name, row.State)
		}
	}
	return names
}

func (s *system) row(name string) archive.Row {
	s.t.Helper()
	row, err := s.db.Recording(s.t.Context(), name)
	s.must(err)
	return row
}

// objects lists what the store has of a recording.
func (s *system) objects(name string) (all []string) {
	s.t.Helper()
	files, err := os.ReadDir(filepath.Join(s.dir, "store", name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	for _, f := range files {
		all = append(all, f.Name())
	}
	return all
}

// verify reads a recording to its end with keys.
func (s *system) verify(keys *keyring.Ring, name string) archive.Report {
	s.t.Helper()
	a := s.open(keys)
	report, err := a.Verify(s.t.Context(), name)
	s.must(err)
	s.must(a.Close(s.t.Context()))
	return report
}

func TestDelete(t *testing.T) {
	s := newSystem(t)
	names := s.record("alice-1", "alice-10")
	k := s.keeper()
	if err := k.Delete(t.Context(), custody.Deletion{Name: names[0], By: "arn:bob", Reason: "asked for"}); err != nil {
		t.Fatal(err)
	}
	if got := s.objects(names[0]); len(got) > 0 {
		t.Errorf("got %v left, want nothing", got)
	}
	if got := s.objects(names[1]); len(got) != 3 {
		t.Errorf("got %v of the other recording, want all of it", got)
	}
	row := s.row(names[0])
	if row.State != archive.Deleted || row.DeletedBy != "arn:bob" || row.DeleteReason != "asked for" || row.SHA256 == "" {
		t.Errorf("got %+v, want a tombstone", row)
	}
	if diff := cmp.Diff([]string{"alice-1"}, s.forgot); diff != "" {
		t.Errorf("forgotten (-want +got):\n%s", diff)
	}
	if len(s.audit.records) != 1 || s.audit.records[0].Action != "delete" || s.audit.records[0].Details["recording_manifest_sha256"] != row.Manifest {
		t.Errorf("got records %+v, want one of the deletion", s.audit.records)
	}
	if err := k.Delete(t.Context(), custody.Deletion{Name: names[0], By: "arn:bob", Reason: "again"}); !errors.Is(err, custody.ErrDeleted) {
		t.Errorf("deleting again: got %v, want ErrDeleted", err)
	}
	if err := k.Delete(t.Context(), custody.Deletion{Name: "../../etc", By: "arn:bob", Reason: "r"}); !errors.Is(err, recording.ErrNotFound) {
		t.Errorf("a name that leads out: got %v, want recording.ErrNotFound", err)
	}
	if state, err := k.State(t.Context(), names[0]); err != nil || state.Purged.IsZero() {
		t.Errorf("got %+v, %v, want it purged", state, err)
	}
}

// A row whose name leads out of the store, however it came into the database, deletes
// nothing.
func TestDeleteStaysInTheStore(t *testing.T) {
	s := newSystem(t)
	outside := filepath.Join(s.dir, "one.key")
	for _, name := range []string{"..", "../", "2026/11/20/../../../..", "audit", ""} {
		s.must(s.db.PutRecording(t.Context(), archive.Row{Name: name, Session: "x" + name, State: archive.Stored, Started: start}))
		if err := s.keeper().Delete(t.Context(), custody.Deletion{Name: name, By: "arn:bob", Reason: "r"}); err == nil {
			t.Errorf("%q: got no error, want one", name)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("got %v, want the file outside untouched", err)
	}
}

// Who can write to the database alone, and says there that a recording was deleted, has the
// server delete nothing: the audit log does not tell of it, or not in a record that verifies.
func TestNoDeletionByTheDatabase(t *testing.T) {
	for name, forged := range map[string][]audit.Record{
		"no record":           nil,
		"one of another":      {{Event: audit.EventRecording, Action: "delete", Session: "alice-1", Details: map[string]string{"recording": "2026/11/20/alice-2"}}},
		"one that was edited": {{Event: audit.EventRecording, Action: "delete", Session: "alice-1", Details: map[string]string{"recording": "2026/11/20/alice-1"}, Hash: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t)
			name := s.record("alice-1")[0]
			k := s.keeper()
			s.must(k.Sweep(t.Context()))
			for i := range forged {
				if forged[i].Hash == "" {
					forged[i].Hash, _ = audit.Sum(forged[i])
				}
			}
			s.audit.records = forged
			s.must(s.db.UpdateRecording(t.Context(), name, func(r *archive.Row) error {
				r.State, r.DeletedAt, r.DeletedBy, r.DeleteReason = archive.Deleted, s.clock(), "arn:bob", "asked for"
				return nil
			}))
			s.advance(day)
			s.must(k.Sweep(t.Context()))
			if got := s.objects(name); len(got) != 3 || len(s.forgot) > 0 {
				t.Errorf("got %v left and %v forgotten, want all of it there", got, s.forgot)
			}
			state, err := k.State(t.Context(), name)
			if s.must(err); !state.Purged.IsZero() || !strings.Contains(state.Problem, "does not tell of its deletion") {
				t.Errorf("got %+v, want the problem", state)
			}
		})
	}
}

// Nor does retention delete what is not due by its rule, whatever the row's date says.
func TestNoRetentionByTheDatabase(t *testing.T) {
	for name, rule := range map[string]custody.Retention{
		"kept for a month":   {After: 30 * day},
		"of a rule for ever": {After: time.Hour, Rules: []custody.Rule{{Name: "ours", Documents: []string{"D"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t)
			name := s.record("alice-1")[0]
			k := s.keeper(func(c *custody.Config) { c.Retention = rule })
			s.must(k.Sweep(t.Context()))
			before := s.row(name).DeleteAfter
			s.must(s.db.UpdateRecording(t.Context(), name, func(r *archive.Row) error {
				r.DeleteAfter = start
				return nil
			}))
			s.advance(day)
			s.must(k.Sweep(t.Context()))
			if row := s.row(name); row.State != archive.Stored || len(s.objects(name)) != 3 || !row.DeleteAfter.Equal(before) {
				t.Errorf("got %s, due %v, with %v, want it kept until %v", row.State, row.DeleteAfter, s.objects(name), before)
			}
			if len(s.audit.records) > 0 {
				t.Errorf("got %+v, want no record of a deletion", s.audit.records)
			}
		})
	}
}

func TestNoAuditNoDeletion(t *testing.T) {
	s := newSystem(t)
	name := s.record("alice-1")[0]
	s.audit.err = errors.New("disk full")
	k := s.keeper(func(c *custody.Config) { c.Retention = custody.Retention{After: time.Hour} })
	if err := k.Delete(t.Context(), custody.Deletion{Name: name, By: "arn:bob", Reason: "r"}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("got %v, want the audit log's error", err)
	}
	s.advance(day)
	if err := k.Sweep(t.Context()); err == nil {
		t.Error("retention: got no error, want the audit log's")
	}
	if row := s.row(name); row.State != archive.Stored || len(s.objects(name)) != 3 {
		t.Errorf("got %s with %v, want it untouched", row.State, s.objects(name))
	}
}

func TestHolds(t *testing.T) {
	s := newSystem(t)
	name := s.record("alice-1")[0]
	subjects := []custody.Subject{{Kind: custody.OfPerson, Value: "AIDAALICE"}, {Kind: custody.OfRequest, Value: "req-1"}}
	k := s.keeper(func(c *custody.Config) {
		c.Retention = custody.Retention{After: day}
		c.Subjects = func(context.Context, string) ([]custody.Subject, error) { return subjects, nil }
	})
	for _, subject := range []custody.Subject{
		{Kind: custody.OfSession, Value: "alice-1"}, {Kind: custody.OfNode, Value: "mi-1"}, {Kind: custody.OfPerson, Value: "arn:alice"},
		{Kind: custody.OfPerson, Value: "AIDAALICE"}, {Kind: custody.OfRequest, Value: "req-1"},
	} {
		h, _, err := k.Hold(t.Context(), custody.Hold{Subject: subject, Reason: "case 7", By: "arn:eve"})
		s.must(err)
		held := (*custody.HeldError)(nil)
		err = k.Delete(t.Context(), custody.Deletion{Name: name, By: "arn:bob", Reason: "r"})
		if !errors.As(err, &held) || !strings.Contains(err.Error(), "case 7") || !strings.Contains(err.Error(), h.ID) {
			t.Errorf("%v: got %v, want *HeldError with the hold", subject, err)
		}
		s.advance(2 * day)
		s.must(k.Sweep(t.Context()))
		if row := s.row(name); row.State != archive.Stored || len(s.objects(name)) != 3 {
			t.Fatalf("%v: got %s after retention, want it kept", subject, row.State)
		}
		_, err = k.Release(t.Context(), h.ID, "arn:eve", "over")
		s.must(err)
	}
	if len(s.audit.records) > 0 {
		t.Errorf("got %+v, want no record of deletions that did not take place", s.audit.records)
	}
	s.must(k.Sweep(t.Context()))
	if row := s.row(name); row.State != archive.Deleted || row.DeletedBy != custody.Principal {
		t.Errorf("got %s by %q after the release, want retention to delete it", row.State, row.DeletedBy)
	}
	for _, h := range []custody.Hold{
		{Subject: custody.Subject{Kind: "world", Value: "x"}, Reason: "r", By: "b"},
		{Subject: custody.Subject{Kind: custody.OfNode}, Reason: "r", By: "b"},
		{Subject: custody.Subject{Kind: custody.OfNode, Value: "x"}, By: "b"},
	} {
		if _, _, err := k.Hold(t.Context(), h); err == nil {
			t.Errorf("%+v: got no error, want one", h)
		}
	}
}

// Two members, of which one holds what the other deletes: it is held and whole, or gone
// and the holder was told so.
func TestHoldAndDeleteRace(t *testing.T) {
	s := newSystem(t)
	var sessions []string
	for n := range 12 {
		sessions = append(sessions, fmt.Sprint("alice-", n))
	}
	one, two := s.keeper(), s.keeper()
	for i, name := range s.record(sessions...) {
		var holding, deleting error
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _, holding = one.Hold(t.Context(), custody.Hold{
				Subject: custody.Subject{Kind: custody.OfSession, Value: sessions[i]}, Reason: "case 7", By: "arn:eve",
			})
		})
		wg.Go(func() {
			deleting = two.Delete(t.Context(), custody.Deletion{Name: name, By: "arn:bob", Reason: "r"})
		})
		wg.Wait()
		held := (*custody.HeldError)(nil)
		switch left := len(s.objects(name)); {
		case holding == nil && errors.As(deleting, &held) && left == 3:
		case errors.Is(holding, custody.ErrDeleted) && deleting == nil && left == 0:
		default:
			t.Fatalf("%s: holding: %v; deleting: %v; %d objects left", name, holding, deleting, left)
		}
	}
}

func TestRetention(t *testing.T) {
	s := newSystem(t)
	names := s.record("alice-dev", "alice-prod", "alice-pci", "alice-unknown")
	for i, env := range []string{"dev", "prod", "prod, pci"} {
		s.must(s.keeper().Note(t.Context(), names[i], custody.Facts{NodeTags: tags.Tags{"Env": env}}, nil))
	}
	rules := custody.Retention{After: 10 * day, Rules: []custody.Rule{
		{Name: "dev", NodeTags: map[string]string{"Env": "dev"}, After: day},
		{Name: "prod", NodeTags: map[string]string{"Env": "prod"}, After: 20 * day},
		{Name: "pci", NodeTags: map[string]string{"Env": "pci"}, Documents: []string{"D"}}, // forever
	}}
	k := s.keeper(func(c *custody.Config) { c.Retention = rules })
	for _, step := range []struct {
		after time.Duration
		left  []string
	}{
		{0, names},
		{day - time.Second, names},
		{time.Second, names[1:]},
		{9 * day, names[1:3]},
		{10 * day, names[2:3]},
		{10000 * day, names[2:3]},
	} {
		s.advance(step.after)
		s.must(k.Sweep(t.Context()))
		var left []string
		for _, name := range names {
			if s.row(name).State == archive.Stored {
				left = append(left, name)
			}
		}
		if diff := cmp.Diff(step.left, left); diff != "" {
			t.Errorf("%v after the beginning (-want +got):\n%s", s.clock().Sub(start), diff)
		}
	}
	if got := s.row(names[0]).DeleteReason; !strings.Contains(got, `"dev"`) {
		t.Errorf("got the reason %q, want the rule in it", got)
	}
}

// Other rules are applied to what is there already; and a member with the old ones deletes
// nothing by them any more.
func TestRetentionChanges(t *testing.T) {
	s := newSystem(t)
	name := s.record("alice-1")[0]
	old := s.keeper(func(c *custody.Config) { c.Retention = custody.Retention{After: day} })
	s.must(old.Sweep(t.Context()))
	if got := s.row(name).DeleteAfter; !got.Equal(start.Add(day)) {
		t.Errorf("got %v, want a day after the end", got)
	}
	s.must(s.keeper().Sweep(t.Context())) // forever
	if got := s.row(name).DeleteAfter; !got.IsZero() {
		t.Errorf("got %v, want never", got)
	}
	longer := s.keeper(func(c *custody.Config) { c.Retention = custody.Retention{After: 3 * day} })
	s.must(longer.Sweep(t.Context()))
	s.advance(2 * day)
	s.must(longer.Sweep(t.Context()))
	if row := s.row(name); row.State != archive.Stored || !row.DeleteAfter.Equal(start.Add(3*day)) {
		t.Errorf("got %s until %v, want it kept for three days", row.State, row.DeleteAfter)
	}
}

// refusing is a store that refuses to delete some objects, as one with object lock does.
type refusing struct {
	*bucket.Bucket
	refuses func(key string) bool
}

func (r refusing) Purge(ctx context.Context, key string) error {
	if r.refuses(key) {
		return fmt.Errorf("deleting %s: %w: AccessDenied: object is WORM protected", key, bucket.ErrLocked)
	}
	return r.Bucket.Purge(ctx, key)
}

func TestStoreRefusesToDelete(t *testing.T) {
	s := newSystem(t)
	name := s.record("alice-1")[0]
	locked := true
	k := s.keeper(func(c *custody.Config) {
		c.Objects = refusing{s.bucket, func(key string) bool { return locked && !strings.HasSuffix(key, "key.json") }}
	})
	left := (*custody.PurgeError)(nil)
	err := k.Delete(t.Context(), custody.Deletion{Name: name, By: "arn:bob", Reason: "r"})
	if !errors.As(err, &left) || !errors.Is(err, bucket.ErrLocked) {
		t.Fatalf("got %v, want *PurgeError with ErrLocked", err)
	}
	if got := s.objects(name); slices.Contains(got, "key.json") || len(got) != 2 {
		t.Errorf("got %v left, want all but the key", got)
	}
	if state, _ := k.State(t.Context(), name); !strings.Contains(state.Problem, "WORM") || !state.Purged.IsZero() {
		t.Errorf("got %+v, want the store's words", state)
	}
	locked = false
	s.must(k.Sweep(t.Context()))
	if got := s.objects(name); len(got) != 2 {
		t.Errorf("got %v left, want the store left alone for a while", got)
	}
	s.advance(time.Hour)
	s.must(k.Sweep(t.Context()))
	if state, _ := k.State(t.Context(), name); len(s.objects(name)) > 0 || state.Problem != "" || state.Purged.IsZero() {
		t.Errorf("got %v and %+v, want nothing left", s.objects(name), state)
	}
}

func TestRewrap(t *testing.T) {
	s := newSystem(t)
	names := s.record("alice-1", "alice-2", "alice-3")
	before := map[string]string{}
	for _, name := range names {
		for _, object := range []string{"000001.chunk", "manifest.json"} {
			b, err := s.bucket.ReadAll(t.Context(), name+"/"+object)
			s.must(err)
			before[name+"/"+object] = string(b)
		}
	}
	// One member is killed after it has written a key, before the row knows.
	ring := s.keys("two.key", "one.key")
	k := s.keeper(func(c *custody.Config) { c.Keys = ring })
	first, err := k.Rewrap(t.Context(), custody.Rewrapping{Limit: 2})
	s.must(err)
	if first.Done != 2 || first.Next != names[1] {
		t.Errorf("got %+v, want two done and more", first)
	}
	s.must(s.db.UpdateRecording(t.Context(), names[0], func(r *archive.Row) error { r.KeyID = s.ring.ID(); return nil }))
	second, err := k.Rewrap(t.Context(), custody.Rewrapping{From: s.ring.ID(), Limit: 10})
	s.must(err)
	if second.Done != 2 || second.Next != "" || len(second.Failed) > 0 {
		t.Errorf("got %+v, want the other one and the one that was broken off", second)
	}
	if again, err := k.Rewrap(t.Context(), custody.Rewrapping{Limit: 10}); err != nil || again.Done != 0 {
		t.Errorf("got %+v, %v, want nothing to do", again, err)
	}
	alone := s.keys("two.key")
	for _, name := range names {
		if report := s.verify(alone, name); len(report.Damage) > 0 {
			t.Errorf("%s: got %v, want it good with the new key alone", name, report.Damage)
		}
		if got := s.row(name).KeyID; got != alone.ID() {
			t.Errorf("%s: got the key %s, want %s", name, got, alone.ID())
		}
	}
	for key, want := range before {
		if got, err := s.bucket.ReadAll(t.Context(), key); err != nil || string(got) != want {
			t.Errorf("%s was changed, or %v", key, err)
		}
	}
	if report := s.verify(alone, names[0]); len(report.Damage) > 0 {
		t.Errorf("got %v", report.Damage)
	}
}

// A member of the store's side swaps keys of recordings, changes one and removes one:
// that is told, and rewrapping does not bring a key to where it does not belong.
func TestSwappedKeys(t *testing.T) {
	s := newSystem(t)
	names := s.record("alice-1", "alice-2", "alice-3")
	one, err := s.bucket.ReadAll(t.Context(), names[0]+"/key.json")
	s.must(err)
	swapped := strings.ReplaceAll(string(one), names[0], names[1])
	s.must(s.bucket.WriteAll(t.Context(), names[0]+"/key.json", []byte(strings.ReplaceAll(string(one), "alice-1", "alice-2")), nil))
	s.must(s.bucket.WriteAll(t.Context(), names[1]+"/key.json", []byte(swapped), nil))
	s.must(s.bucket.Delete(t.Context(), names[2]+"/key.json"))
	for i, want := range []string{"key.json", "000001.chunk", "key.json"} {
		report := s.verify(s.ring, names[i])
		if len(report.Damage) == 0 || report.Damage[0].Object != want {
			t.Errorf("%s: got %v, want damage of %s", names[i], report.Damage, want)
		}
	}
	k := s.keeper(func(c *custody.Config) { c.Keys = s.keys("two.key", "one.key") })
	done, err := k.Rewrap(t.Context(), custody.Rewrapping{Limit: 10})
	s.must(err)
	if len(done.Failed) != 2 || done.Failed[names[0]] == "" || done.Failed[names[2]] == "" {
		t.Errorf("got %+v, want the two with keys that are not theirs to fail", done)
	}
	huge := strings.Repeat(" ", 1<<20) + string(one)
	s.must(s.bucket.WriteAll(t.Context(), names[0]+"/key.json", []byte(huge), nil))
	if done, err := k.Rewrap(t.Context(), custody.Rewrapping{Limit: 10}); err != nil || !strings.Contains(done.Failed[names[0]], "more than") {
		t.Errorf("a huge key: got %+v, %v, want it refused", done, err)
	}
}

// A recording is not deleted while its key is written anew: the key would come back.
func TestRewrapKeepsFromDeleting(t *testing.T) {
	s := newSystem(t)
	name := s.record("alice-1")[0]
	objects := &slow{Bucket: s.bucket, reached: make(chan struct{}), goOn: make(chan struct{})}
	k := s.keeper(func(c *custody.Config) { c.Objects, c.Keys = objects, s.keys("two.key", "one.key") })
	var wg sync.WaitGroup
	wg.Go(func() {
		if done, err := k.Rewrap(t.Context(), custody.Rewrapping{Limit: 10}); err != nil || done.Done != 1 {
			t.Errorf("got %+v, %v, want it done", done, err)
		}
	})
	<-objects.reached
	err := s.keeper().Delete(t.Context(), custody.Deletion{Name: name, By: "arn:bob", Reason: "r"})
	if !errors.Is(err, custody.ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	if len(s.audit.records) > 0 {
		t.Errorf("got %+v, want no record of a deletion that did not take place", s.audit.records)
	}
	close(objects.goOn)
	wg.Wait()
	s.must(s.keeper().Delete(t.Context(), custody.Deletion{Name: name, By: "arn:bob", Reason: "r"}))
	if got := s.objects(name); len(got) > 0 {
		t.Errorf("got %v left, want nothing", got)
	}
}

// slow is a store in which a key is written slowly.
type slow struct {
	*bucket.Bucket
	reached, goOn chan struct{}
}

func (s *slow) WriteAll(ctx context.Context, key string, p []byte, o *blob.WriterOptions) error {
	close(s.reached)
	<-s.goOn
	return s.Bucket.WriteAll(ctx, key, p, o)
}

func TestParseAge(t *testing.T) {
	for text, want := range map[string]time.Duration{"365d": 365 * day, "12h": 12 * time.Hour, "forever": 0} {
		if got, err := custody.ParseAge(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0d", "-1d", "1y", "365", "1.5d", "999999d", "d", "0"} {
		if got, err := custody.ParseAge(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}
