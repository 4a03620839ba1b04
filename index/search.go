package index

import (
	"context"
	"strings"
	"time"

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
	if !q.clauses.hold(Fold(b.Text)) {
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
