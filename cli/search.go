package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"sallyport.dev/client"
)

// searchFlags say what is searched for in sessions.
type searchFlags struct {
	text, regex string
	hits        int
}

func (s *searchFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.text, "search", "", "only sessions that showed this `text`, or in which it was typed")
	f.StringVar(&s.regex, "regex", "", "only sessions with a line that matches this `expression` (RE2)")
	f.IntVar(&s.hits, "hits", 3, "with --search and --regex: at most so many lines of a session")
}

// check refuses flags that contradict each other, or say nothing.
func (s searchFlags) check(given func(flag string) bool) error {
	switch {
	case given("search") && given("regex"):
		return usagef("--search or --regex, not both")
	case given("search") && s.text == "":
		return usagef("--search: want the text to search for")
	case given("regex") && s.regex == "":
		return usagef("--regex: want the expression to search for")
	case given("hits") && !s.given():
		return usagef("--hits: it is for --search and --regex")
	}
	return nil
}

func (s searchFlags) given() bool { return s.text != "" || s.regex != "" }

// search prints which lines of which sessions match.
func (p *program) search(ctx context.Context, flags sessionFlags) error {
	if flags.search.hits < 1 || flags.search.hits > 50 {
		return usagef("--hits %d: want 1 to 50", flags.search.hits)
	}
	api, in, err := p.sessionFilter(ctx, flags)
	if err != nil {
		return err
	}
	found, err := searchSessions(ctx, api, client.SearchSessionsInput{
		Text: flags.search.text, Regexp: flags.search.regex, MaxHits: flags.search.hits,
		State: in.State, NodeID: in.NodeID, Owner: in.Owner, Since: in.Since, Until: in.Until,
		MaxResults: min(flags.limit, 20),
	}, flags.limit)
	if err != nil && len(found) == 0 {
		return err
	}
	if p.flags.json {
		return errors.Join(p.writeJSON(foundJSON(found)), err)
	}
	if len(found) == 0 {
		p.say("no session that you may read shows this")
	}
	return errors.Join(p.printFound(found), err)
}

// searchSessions asks for page after page. With an error come the pages before.
func searchSessions(ctx context.Context, api *client.API, in client.SearchSessionsInput, limit int) ([]client.FoundSession, error) {
	var found []client.FoundSession
	for len(found) < limit {
		out, err := api.SearchSessions(ctx, in)
		if err != nil {
			return found, err
		}
		found = append(found, out.Sessions...)
		if in.NextToken = out.NextToken; in.NextToken == "" {
			break
		}
	}
	return found[:min(limit, len(found))], nil
}

// printFound groups lines by session, with what shows them in their place.
func (p *program) printFound(found []client.FoundSession) error {
	for i, f := range found {
		if i > 0 {
			fmt.Fprintln(p.stdout)
		}
		s := f.Session
		node := s.NodeName
		if node == "" {
			node = s.NodeID
		}
		_, err := fmt.Fprintf(p.stdout, "%s  %s on %s  %s\n", client.CleanLine(s.SessionID),
			client.CleanLine(shortARN(s.Owner)), client.CleanLine(node), clock(s.Started.Time))
		if err != nil {
			return err
		}
		for _, h := range f.Hits {
			fmt.Fprintf(p.stdout, "  %8s  %s\n", jumpText(offsetOf(h)), foundText(h))
		}
		if f.MoreHits {
			fmt.Fprintf(p.stdout, "  %8s  more lines match (--hits)\n", "…")
		}
		fmt.Fprintf(p.stdout, "  sallyport play %s --at %s\n", client.CleanLine(s.SessionID), jumpText(offsetOf(f.Hits[0])))
	}
	return nil
}

// foundText is a line as it may be shown: it is what a node wrote.
func foundText(h client.FoundLine) string {
	text := client.CleanLine(h.Line)
	if h.Cut {
		text = "…" + text + "…"
	}
	if h.Kind == "typed" {
		text = "typed: " + text
	}
	return text
}

// jumpText is a moment of a session as play --at takes it, to the second before.
func jumpText(at time.Duration) string { return at.Truncate(time.Second).String() }

func offsetOf(h client.FoundLine) time.Duration {
	return time.Duration(h.OffsetMillis) * time.Millisecond
}

// jsonFound is the contract of "sessions --search --json": a list of these.
type jsonFound struct {
	Session  jsonSession `json:"session"`
	Hits     []jsonHit   `json:"hits"`
	MoreHits bool        `json:"more_hits"`
}

// jsonHit is a line that matches. From and to are the match, in characters of the line.
type jsonHit struct {
	At   float64 `json:"at"` // seconds since the start
	Kind string  `json:"kind"`
	Line string  `json:"line"`
	From int     `json:"from"`
	To   int     `json:"to"`
	Cut  bool    `json:"cut,omitempty"`
}

func foundJSON(found []client.FoundSession) []jsonFound {
	list := make([]jsonFound, 0, len(found))
	for _, f := range found {
		j := jsonFound{Session: sessionJSON(f.Session), Hits: []jsonHit{}, MoreHits: f.MoreHits}
		for _, h := range f.Hits {
			j.Hits = append(j.Hits, jsonHit{At: float64(h.OffsetMillis) / 1000, Kind: h.Kind, Line: h.Line, From: h.From, To: h.To, Cut: h.Cut})
		}
		list = append(list, j)
	}
	return list
}
