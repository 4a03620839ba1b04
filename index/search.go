package index

import (
	"context"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"sallyport.dev/transcript"
)

const (
	// blocksAtOnce is how many blocks of a session are read at a time.
	blocksAtOnce = 16
	// maxShown bounds what is shown of a line, in characters: some before the match, and
	// what follows.
	maxShown  = 400
	shownLead = 80
)

// Hit is a line that matches.
type Hit struct {
	At   time.Duration
	Kind transcript.Kind
	// Text is the line, or what stands around the match where it is long; the match is
	// Text[From:To].
	Text     string
	From, To int
	// Cut says that Text is not all of the line.
	Cut bool
}

// Hits returns the first lines of a session that match, at most limit, and whether there
// are more. It stops with ctx.
func Hits(ctx context.Context, store Finder, session string, q *Query, limit int) (hits []Hit, more bool, err error) {
	for after := int64(0); ; {
		found, err := store.FindBlocks(ctx, session, q.Clauses(), after, blocksAtOnce)
		if err != nil {
			return nil, false, err
		}
		for _, b := range found {
			after = b.Number + 1
			if err := q.in(ctx, b.Block, &hits, limit+1); err != nil {
				return nil, false, err
			}
			if len(hits) > limit {
				return hits[:limit], true, nil
			}
		}
		if len(found) < blocksAtOnce {
			return hits, false, nil
		}
	}
}

// in adds the lines of a block that match, up to limit.
func (q *Query) in(ctx context.Context, b Block, hits *[]Hit, limit int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !q.mayMatch(b.Text) {
		return nil
	}
	lines, err := b.lines()
	if err != nil {
		return err
	}
	for _, l := range lines {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if at := q.Find(l.Text); at != nil && l.Kind != transcript.Note && len(*hits) < limit {
			*hits = append(*hits, newHit(l, at[0], at[1]))
		}
	}
	return nil
}

// mayMatch is a quick test of a whole block: most hold nothing of interest. Lines are only
// taken apart where it is passed.
func (q *Query) mayMatch(text string) bool {
	folded := text
	if len(q.clauses) > 0 {
		folded = Fold(text) // line by line the same
		if !q.clauses.hold(folded) {
			return false
		}
	}
	for more := true; more; {
		var line, foldedLine string
		line, text, more = strings.Cut(text, "\n")
		foldedLine, folded, _ = strings.Cut(folded, "\n")
		if q.clauses.hold(foldedLine) && q.Find(line) != nil {
			return true
		}
	}
	return false
}

// Result is what was found in a session.
type Result struct {
	Hits []Hit
	More bool // than were asked for
}

const (
	// sessionsAtOnce is how many sessions are read together, and Window how many HitsOf had
	// best be asked for.
	sessionsAtOnce = 16
	Window         = 4 * sessionsAtOnce
)

// HitsOf is Hits of several sessions, read and compared on all processors. With an error come
// the results of the first sessions, as many as there are.
func HitsOf(ctx context.Context, store Finder, sessions []string, q *Query, limit int) ([]Result, error) {
	results := make([]Result, len(sessions))
	whole := make([]int, (len(sessions)+sessionsAtOnce-1)/sessionsAtOnce) // of each group
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range whole {
		from, to := i*sessionsAtOnce, min((i+1)*sessionsAtOnce, len(sessions))
		g.Go(func() (err error) {
			whole[i], err = hitsOfGroup(ctx, store, sessions[from:to], q, limit, results[from:to])
			return err
		})
	}
	err := g.Wait()
	n := 0
	for i := 0; i < len(whole) && n == i*sessionsAtOnce; i++ {
		n += whole[i]
	}
	return results[:n], err
}

// hitsOfGroup returns how many sessions it has results of.
func hitsOfGroup(ctx context.Context, store Finder, sessions []string, q *Query, limit int, results []Result) (int, error) {
	short, err := store.FindShort(ctx, sessions)
	if err != nil {
		return 0, err
	}
	for i, session := range sessions {
		r := &results[i]
		blocks, ok := short[session]
		if !ok {
			r.Hits, r.More, err = Hits(ctx, store, session, q, limit)
		}
		for _, b := range blocks {
			if err = q.in(ctx, b, &r.Hits, limit+1); err != nil || len(r.Hits) > limit {
				break
			}
		}
		if err != nil {
			return i, err
		}
		if len(r.Hits) > limit {
			r.Hits, r.More = r.Hits[:limit], true
		}
	}
	return len(sessions), nil
}

// newHit shows a line around its match.
func newHit(l transcript.Line, from, to int) Hit {
	h := Hit{At: l.At, Kind: l.Kind, Text: l.Text, From: from, To: to}
	lead := []rune(h.Text[:from])
	if len(lead)+len([]rune(h.Text[from:])) <= maxShown {
		return h
	}
	h.Cut = true
	if len(lead) > shownLead {
		skip := len(string(lead[:len(lead)-shownLead]))
		h.Text, h.From, h.To = h.Text[skip:], h.From-skip, h.To-skip
	}
	h.Text = strings.TrimRight(h.Text[:offset(h.Text, maxShown)], " ")
	h.To = min(h.To, len(h.Text))
	h.From = min(h.From, h.To)
	return h
}
