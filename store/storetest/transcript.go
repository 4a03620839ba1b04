package storetest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport.dev/index"
	"sallyport.dev/session"
	"sallyport.dev/store"
)

// addBlock appends one block.
func addBlock(s *store.Store, number int64, member string, b index.Block, now time.Time) error {
	gone, err := s.AddBlocks(context.Background(), member, []index.Addition{{Number: number, Block: b}}, now)
	if err == nil && len(gone) > 0 {
		return index.ErrGone
	}
	return err
}

// wrote makes a session that has ended, with a transcript of these lines, a block each.
func wrote(t testing.TB, s *store.Store, id string, n int, lines ...string) {
	t.Helper()
	must(t, s.CreateSession(t.Context(), session.Session{ID: id, State: session.StateTerminated, Started: at(n),
		NodeID: fmt.Sprint("mi-", n%2), OwnerID: fmt.Sprint("id", n%2), Recording: "rec/" + id}))
	number := get[int64](t)(s.CreateTranscript(t.Context(), id, "m", index.Live, at(n)))
	for _, line := range lines {
		must(t, addBlock(s, number, "m", index.Block{Text: line, Times: []byte{'o', 2}}, at(n)))
	}
}

func testTranscripts(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	wrote(t, s, "s1", 1, "systemctl restart nginx", "Größe: 100% of /var/log_x")
	wrote(t, s, "s2", 2, "SYSTEMCTL status", "said \"hi\" AND left's NEAR(x)")
	wrote(t, s, "s3", 3, "日本語のテスト", "größe", "a.b*c\\d")
	wrote(t, s, "s4", 4)
	clauses := func(literals ...string) (c index.Clauses) {
		for _, l := range literals {
			c = append(c, strings.Split(index.Fold(l), "|"))
		}
		return c
	}
	tests := []struct {
		name    string
		clauses index.Clauses
		filter  session.Filter
		want    string
	}{
		{"any text", nil, session.Filter{}, "s3 s2 s1"},
		{"text", clauses("nginx"), session.Filter{}, "s1"},
		{"in capitals or not", clauses("systemctl"), session.Filter{}, "s2 s1"},
		{"other letters", clauses("GRÖSSE"), session.Filter{}, ""},
		{"beyond ASCII", clauses("GRÖßE"), session.Filter{}, "s3 s1"},
		{"without words", clauses("本語の"), session.Filter{}, "s3"},
		{"all of several", clauses("restart", "nginx"), session.Filter{}, "s1"},
		{"not in one block", clauses("restart", "100%"), session.Filter{}, ""},
		{"any of several", clauses("nginx|NEAR(|nothing"), session.Filter{}, "s2 s1"},
		{"percent stands for itself", clauses("1%0"), session.Filter{}, ""},
		{"and is found", clauses("00%"), session.Filter{}, "s1"},
		{"underscore", clauses("g_x"), session.Filter{}, "s1"},
		{"underscore stands for itself", clauses("ngi_x"), session.Filter{}, ""},
		{"quotes", clauses("\"hi\""), session.Filter{}, "s2"},
		{"words of the query language", clauses("AND left's NEAR(x)"), session.Filter{}, "s2"},
		{"star and backslash", clauses("b*c\\d"), session.Filter{}, "s3"},
		{"page", clauses("systemctl"), session.Filter{Limit: 1}, "s2"},
		{"next page", clauses("systemctl"), session.Filter{After: "s2"}, "s1"},
		{"by node", clauses("systemctl"), session.Filter{NodeID: "mi-1"}, "s1"},
		{"by owner", nil, session.Filter{OwnerID: "id0"}, "s2"},
		{"by time", nil, session.Filter{StartedAfter: at(2)}, "s3"},
	}
	for _, tt := range tests {
		if got := names(get[[]session.Session](t)(s.FindSessions(ctx, tt.clauses, tt.filter)), sessionID); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	text := func(f index.Found) string { return fmt.Sprintf("%d:%s:%x", f.Number, f.Text, f.Times) }
	wantSame(t, "blocks", names(get[[]index.Found](t)(s.FindBlocks(ctx, "s3", clauses("größe"), 0, 10)), text), "0:日本語のテスト:6f02 1:größe:6f02 2:a.b*c\\d:6f02")
	wantSame(t, "blocks after the first", names(get[[]index.Found](t)(s.FindBlocks(ctx, "s3", nil, 1, 1)), text), "1:größe:6f02")
	wantSame(t, "blocks of another", names(get[[]index.Found](t)(s.FindBlocks(ctx, "none", nil, 0, 10)), text), "")
	testManyBlocks(t, s)
	testTranscriptStates(t, s)
}

// testManyBlocks: of long transcripts only the blocks that may match are read.
func testManyBlocks(t *testing.T, s *store.Store) {
	number := get[int64](t)(s.CreateTranscript(t.Context(), "long", "m", index.Live, at(1)))
	for i := range 60 {
		must(t, addBlock(s, number, "m", index.Block{Text: fmt.Sprintf("line %03d", i*7), Times: []byte{'o', 2}}, at(1)))
	}
	text := func(f index.Found) string { return fmt.Sprint(f.Number, ":", f.Text) }
	find := func(after int64, c index.Clauses) string {
		return names(get[[]index.Found](t)(s.FindBlocks(t.Context(), "long", c, after, 5)), text)
	}
	wantSame(t, "blocks of a long one", find(10, index.Clauses{{"LINE", "X Y"}, {"077", "084", "007"}}), "11:line 077 12:line 084")
	must(t, s.EndTranscript(t.Context(), number, "m", index.Whole, at(8)))
}

func testTranscriptStates(t *testing.T, s *store.Store) {
	ctx := t.Context()
	work := func(w index.Work) string { return fmt.Sprint(w.Number, w.Session, w.Recording, w.Ended.Equal(at(12))) }
	wantSame(t, "a second transcript of a session", get[int64](t)(s.CreateTranscript(ctx, "s1", "m", index.Live, at(9))), int64(0))
	number := get[int64](t)(s.CreateTranscript(ctx, "live", "m", index.Live, at(1)))
	must(t, s.CreateSession(ctx, session.Session{ID: "live", State: session.StateConnected, Started: at(9), Recording: "rec/live"}))
	must(t, s.CreateSession(ctx, session.Session{ID: "new", State: session.StateFailed, Started: at(10), Ended: at(12), Recording: "rec/new"}))
	must(t, s.CreateSession(ctx, session.Session{ID: "bare", State: session.StateFailed, Started: at(11)}))
	must(t, s.EndTranscript(ctx, 1, "m", index.Whole, at(8)))
	wantErr(t, "adding to one that is whole", addBlock(s, 1, "m", index.Block{Text: "x"}, at(9)), index.ErrGone)
	both := []index.Addition{{Number: 1, Block: index.Block{Text: "gone"}}, {Number: number, Block: index.Block{Text: "beside one that is gone", Times: []byte{'o', 2}}}}
	wantSame(t, "adding to one that is whole, and another", get[[]int64](t)(s.AddBlocks(ctx, "m", both, at(9))), []int64{1})
	wantErr(t, "adding to another member's", addBlock(s, number, "other", index.Block{Text: "x"}, at(9)), index.ErrGone)
	wantErr(t, "ending another member's", s.EndTranscript(ctx, number, "other", index.Whole, at(9)), index.ErrGone)

	wantSame(t, "missing", names(get[[]index.Work](t)(s.MissingTranscripts(ctx, 10)), work), "0newrec/newtrue")
	claimed := get[[]index.Work](t)(s.ClaimTranscripts(ctx, "other", at(4), at(20), 10))
	wantSame(t, "claimed: neither whole, nor touched since, nor live", names(claimed, work), "2s2rec/s2false 3s3rec/s3false")
	wantSame(t, "claimed again", len(get[[]index.Work](t)(s.ClaimTranscripts(ctx, "third", at(4), at(20), 10))), 0)
	wantSame(t, "they are empty", names(get[[]session.Session](t)(s.FindSessions(ctx, nil, session.Filter{})), sessionID), "live s1")
	wantErr(t, "adding to one that was claimed", addBlock(s, 2, "m", index.Block{Text: "x"}, at(9)), index.ErrGone)
	must(t, addBlock(s, 2, "other", index.Block{Text: "made again"}, at(21)))
	made := index.Clauses{{"MADE"}}
	wantSame(t, "made again", names(get[[]session.Session](t)(s.FindSessions(ctx, made, session.Filter{})), sessionID), "s2")

	must(t, s.DeleteTranscript(ctx, "s2", at(22)))
	must(t, s.DeleteTranscript(ctx, "none", at(22)))
	wantSame(t, "deleted", len(get[[]session.Session](t)(s.FindSessions(ctx, made, session.Filter{}))), 0)
	wantSame(t, "and its blocks", len(get[[]index.Found](t)(s.FindBlocks(ctx, "s2", nil, 0, 10))), 0)
	wantErr(t, "adding to one that was deleted", addBlock(s, 2, "other", index.Block{Text: "x"}, at(23)), index.ErrGone)
	wantErr(t, "ending one that was deleted", s.EndTranscript(ctx, 2, "other", index.Whole, at(23)), index.ErrGone)
	wantSame(t, "its session has one all the same", get[int64](t)(s.CreateTranscript(ctx, "s2", "m", index.Live, at(24))), int64(0))
}

// Clearing leaves no text, and sessions that are to be made again when the index is.
func testTranscriptsCleared(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	wrote(t, s, "s1", 1, "systemctl restart nginx", "ok")
	wrote(t, s, "s2", 2, "systemctl status")
	wrote(t, s, "s3", 3)
	systemctl := index.Clauses{{index.Fold("systemctl")}}
	wantSame(t, "sessions", get[int64](t)(s.ClearTranscripts(ctx)), int64(2))
	if got := get[[]session.Session](t)(s.FindSessions(ctx, systemctl, session.Filter{})); len(got) > 0 {
		t.Errorf("got %d sessions, want none", len(got))
	}
	if got := get[[]index.Work](t)(s.MissingTranscripts(ctx, 9)); len(got) != 3 {
		t.Errorf("got %d sessions without transcripts, want 3", len(got))
	}
	wantSame(t, "again", get[int64](t)(s.ClearTranscripts(ctx)), int64(0))
	wrote(t, s, "s4", 4, "systemctl stop")
	if got := get[[]session.Session](t)(s.FindSessions(ctx, systemctl, session.Filter{})); len(got) != 1 {
		t.Errorf("got %d sessions of an index that begins anew, want 1", len(got))
	}
}

// testTranscriptRace: members that begin transcripts at once get a number each, and one
// of them makes what is to be made again.
func testTranscriptRace(t *testing.T, fresh Fresh) {
	url := fresh(t)
	members := []*store.Store{Open(t, url), Open(t, url)}
	numbers := make(chan int64, 10)
	atOnce(t, cap(numbers), func(i int) error {
		n, err := members[i%2].CreateTranscript(t.Context(), fmt.Sprint("s", i), "m", index.Partial, at(1))
		numbers <- n
		return err
	})
	seen := map[int64]bool{}
	for range cap(numbers) {
		seen[<-numbers] = true
	}
	if len(seen) != cap(numbers) || seen[0] {
		t.Errorf("got numbers %v", seen)
	}
	must(t, members[0].CreateSession(t.Context(), session.Session{ID: "s0", State: session.StateTerminated, Started: at(1)}))
	claims := make(chan int, 4)
	atOnce(t, cap(claims), func(i int) error {
		w, err := members[i%2].ClaimTranscripts(t.Context(), fmt.Sprint("m", i), at(5), at(6), 10)
		claims <- len(w)
		return err
	})
	sum := 0
	for range cap(claims) {
		sum += <-claims
	}
	wantSame(t, "claims of one transcript", sum, 1)
}
