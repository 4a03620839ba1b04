package index_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport.dev/index"
	"sallyport.dev/internal/pgtest"
	"sallyport.dev/session"
	"sallyport.dev/store"
	"sallyport.dev/transcript"
)

var benchWords = strings.Fields(`systemctl status nginx active running loaded since Fri main process worker memory tasks cgroup
	error warning info debug request GET POST /var/log/syslog /etc/nginx/nginx.conf connection refused timeout user root
	sudo apt install update kernel postgres listening port 5432 drwxr-xr-x total deploy payments frontend backend cache
	miss hit commit push pull branch origin master docker ps images kubectl get pods logs describe namespace default
	python3 manage.py migrate select from where insert into values json true false null curl -sS https localhost 8080`)

// benchLine is a line as shells and logs write them: words, times, addresses and ids.
func benchLine(r *rand.Rand) string {
	var b strings.Builder
	if r.IntN(8) == 0 {
		b.WriteString("alice@frontend-1:~$ ")
	}
	for want := 20 + r.IntN(80); b.Len() < want; {
		switch r.IntN(6) {
		case 0:
			fmt.Fprintf(&b, "%08x ", r.Uint32())
		case 1:
			fmt.Fprintf(&b, "10.%d.%d.%d ", r.IntN(256), r.IntN(256), r.IntN(256))
		default:
			b.WriteString(benchWords[r.IntN(len(benchWords))] + " ")
		}
	}
	return strings.TrimSpace(b.String())
}

// fill makes transcripts of n sessions of 200 lines. One of a thousand sessions holds a
// rare line.
func fill(b *testing.B, s *store.Store, n int) {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		id := fmt.Sprintf("bench-%016x", i)
		if err := s.CreateSession(b.Context(), session.Session{ID: id, NodeID: fmt.Sprint("mi-", i%50), OwnerID: fmt.Sprint("AIDA", i%20),
			State: session.StateTerminated, Started: start.Add(time.Duration(i) * time.Minute), Recording: id}); err != nil {
			b.Fatal(err)
		}
		number, err := s.CreateTranscript(b.Context(), id, "m", index.Live, start)
		if err != nil {
			b.Fatal(err)
		}
		var lines []transcript.Line
		for l := range 200 {
			text := benchLine(r)
			if i%1000 == 7 && l == 100 {
				text = "alice@frontend-1:~$ kubectl delete pod Payments-" + fmt.Sprint(i)
			}
			lines = append(lines, transcript.Line{At: time.Duration(l) * time.Second, Kind: transcript.Shown, Text: text})
		}
		var all []index.Addition
		for _, block := range index.Blocks(lines) {
			all = append(all, index.Addition{Number: number, Block: block})
		}
		if _, err := s.AddBlocks(b.Context(), "m", all, start); err != nil {
			b.Fatal(err)
		}
		if err := s.EndTranscript(b.Context(), number, "m", index.Whole, start); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSearch searches 10,000 sessions of 200 lines for one page of 20 sessions, as
// the API does. The size is SALLYPORT_BENCH_SESSIONS, 1,000 unless it says otherwise.
func BenchmarkSearch(b *testing.B) {
	b.Run("SQLite", func(b *testing.B) { benchSearch(b, "sqlite:"+filepath.Join(b.TempDir(), "s.db")) })
	b.Run("PostgreSQL", func(b *testing.B) { benchSearch(b, pgtest.Start(b).Database(b)) })
}

func benchSearch(b *testing.B, url string) {
	s, err := store.Open(b.Context(), url, store.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	n := 1000
	fmt.Sscan(os.Getenv("SALLYPORT_BENCH_SESSIONS"), &n)
	began := time.Now()
	fill(b, s, n)
	b.Logf("%d sessions, %d lines kept in %s", n, n*200, time.Since(began).Round(time.Millisecond))
	query := func(q *index.Query, err error) *index.Query {
		if err != nil {
			b.Fatal(err)
		}
		return q
	}
	for _, tt := range []struct {
		name  string
		query *index.Query
	}{
		{"rare text", query(index.Text("delete pod payments"))},
		{"common text", query(index.Text("nginx"))},
		{"text that is nowhere", query(index.Text("zebra crossing"))},
		{"regexp with literals", query(index.Regexp(`delete +pod +Payments-\d*7\b`))},
		{"regexp of alternatives", query(index.Regexp(`(?i)(shutdown|reboot|delete pod) +\S+`))},
		{"regexp with common literals", query(index.Regexp(`nginx.*postgres.*kubectl.*docker`))},
		{"regexp without literals", query(index.Regexp(`\b10\.1\.\d\.\d\b.*[0-9a-f]{8}$`))},
		{"regexp without literals that matches nowhere", query(index.Regexp(`^\d\D\d\D\d\D\d$`))},
	} {
		b.Run(tt.name, func(b *testing.B) {
			var took []time.Duration
			found := 0
			for b.Loop() {
				began := time.Now()
				found = benchPage(b, s, tt.query)
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
			b.ReportMetric(float64(found), "sessions")
		})
	}
}

// benchPage finds a page of sessions.
func benchPage(b *testing.B, s *store.Store, q *index.Query) int {
	found, f := 0, session.Filter{Limit: 50}
	var clauses index.Clauses
	for {
		batch, err := s.FindSessions(b.Context(), clauses, f)
		if err != nil {
			b.Fatal(err)
		}
		for window := range slices.Chunk(batch, index.Window) {
			var ids []string
			for _, v := range window {
				ids = append(ids, v.ID)
			}
			results, err := index.HitsOf(b.Context(), s, ids, q, 3)
			if err != nil {
				b.Fatal(err)
			}
			for _, r := range results {
				if len(r.Hits) > 0 {
					if found++; found == 20 {
						return found
					}
				}
			}
			f.After = ids[len(ids)-1]
		}
		if len(batch) < f.Limit {
			return found
		}
		f.Limit = min(8*f.Limit, 3200)
		clauses = q.Clauses()
	}
}
