package storetest

import (
	"errors"
	"fmt"
	"testing"

	"sallyport.dev/archive"
	"sallyport.dev/recording"
)

func recordingName(r archive.Row) string { return r.Session }

func testRecordings(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	full := archive.Row{
		Name: "2026/11/20/alice-1", Session: "alice-1", Node: "mi-1", NodeName: "web-1", Principal: "arn:alice", Document: "D",
		Member: "one", Started: at(1), Ended: at(2), EndReason: "exit", State: archive.Stored, Size: 1 << 40,
		SHA256: "aa", Manifest: "bb", KeyID: "file:1",
		DeleteAfter: at(4), DeletedAt: at(5), DeletedBy: "arn:bob", DeleteReason: "why",
	}
	must(t, s.PutRecording(ctx, full))
	wantSame(t, "recording", get[archive.Row](t)(s.Recording(ctx, full.Name)), full)
	changed := full
	changed.State, changed.SHA256 = archive.Spooled, "cc"
	must(t, s.PutRecording(ctx, changed))
	wantSame(t, "recording that is put again", get[archive.Row](t)(s.Recording(ctx, full.Name)), full)
	_, err := s.Recording(ctx, "none")
	wantErr(t, "unknown recording", err, recording.ErrNotFound)
}

func testUpdateRecording(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	before := archive.Row{Name: "a", Session: "a", State: archive.Spooled, Started: at(1)}
	must(t, s.PutRecording(ctx, before))
	refused := errors.New("refused")
	err := s.UpdateRecording(ctx, "a", func(r *archive.Row) error {
		r.State = archive.Deleted
		return refused
	})
	wantErr(t, "refused change", err, refused)
	wantSame(t, "after a refused change", get[archive.Row](t)(s.Recording(ctx, "a")), before)
	must(t, s.UpdateRecording(ctx, "a", func(r *archive.Row) error {
		r.State, r.Ended, r.Name = archive.Stored, at(2), "b"
		return nil
	}))
	after := before
	after.State, after.Ended = archive.Stored, at(2)
	wantSame(t, "after a change", get[archive.Row](t)(s.Recording(ctx, "a")), after)
	must(t, s.UpdateRecording(ctx, "a", func(*archive.Row) error { return nil }))
	err = s.UpdateRecording(ctx, "none", func(*archive.Row) error { return nil })
	wantErr(t, "changing an unknown recording", err, recording.ErrNotFound)
}

func testRecordingFilters(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	states := []archive.State{archive.Spooled, archive.Stored, archive.Deleted}
	for i := range 6 {
		n := i + 1
		r := archive.Row{Name: fmt.Sprint("2026/r", n), Session: fmt.Sprint("r", n), Node: fmt.Sprint("mi-", n%2), Principal: fmt.Sprint("arn:", n%3),
			KeyID: fmt.Sprint("k", n%2), State: states[i%3], Started: at(n)}
		must(t, s.PutRecording(ctx, r))
	}
	must(t, s.PutRecording(ctx, archive.Row{Name: "2026/r0", Session: "r0", State: archive.Stored, Started: at(6)})) // same moment as r6
	tests := []struct {
		name   string
		filter archive.RowFilter
		want   string
	}{
		{"all, newest first", archive.RowFilter{}, "r6 r0 r5 r4 r3 r2 r1"},
		{"by session", archive.RowFilter{Session: "r3"}, "r3"},
		{"by node", archive.RowFilter{Node: "mi-1"}, "r5 r3 r1"},
		{"by principal", archive.RowFilter{Principal: "arn:2"}, "r5 r2"},
		{"by key and state", archive.RowFilter{KeyID: "k1", State: archive.Spooled}, "r1"},
		{"by state", archive.RowFilter{State: archive.Stored}, "r0 r5 r2"},
		{"by key", archive.RowFilter{KeyID: "k0"}, "r6 r4 r2"},
		{"started after", archive.RowFilter{StartedAfter: at(5)}, "r6 r0"},
		{"started before", archive.RowFilter{StartedBefore: at(3)}, "r2 r1"},
		{"page", archive.RowFilter{Limit: 1}, "r6"},
		{"next page, at the same moment", archive.RowFilter{After: "2026/r6", Limit: 2}, "r0 r5"},
		{"last page", archive.RowFilter{After: "2026/r1"}, ""},
	}
	for _, tt := range tests {
		if got := names(get[[]archive.Row](t)(s.Recordings(ctx, tt.filter)), recordingName); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	_, err := s.Recordings(ctx, archive.RowFilter{After: "none"})
	wantErr(t, "after an unknown recording", err, recording.ErrNotFound)
}
