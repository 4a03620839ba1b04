package server

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/index"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// Searching what sessions showed. Who searches finds what they may read: their own
// sessions, and others' by sallyport:GetRecording on each. What they may not read leaves no
// trace in the answer, neither in counts nor in where pages end.

const (
	// searchTime is how long one call searches. What it has found by then is its answer,
	// with a token to go on with.
	searchTime = 3 * time.Second
	// searchWait is how long a call waits for its turn before.
	searchWait = 2 * searchTime
	// searchesAtOnce bounds the calls that search at a time: they keep a processor busy.
	// One person has one of them at most.
	searchesAtOnce = 2
	// searchBatch is how many sessions that may match are asked for at first, and
	// searchBatches at most: each asking goes through the whole index.
	searchBatch   = 50
	searchBatches = 3200
	searchPage    = 20 // sessions of a page, unless MaxResults says less
	searchHits    = 3  // lines of a session, unless MaxHits says how many
)

// operationsOfSearch are those about what is in sessions.
func operationsOfSearch() []*Operation {
	return []*Operation{
		op("sallyport", "SearchSessions", nil, searchSessions, checksItself),
		op("sallyport", "ListTransfers", nil, listTransfers, checksItself, as("sallyport:GetRecording")),
	}
}

type searchSessionsInput struct {
	Text       string    `json:"Text" check:"max=256"`
	Regexp     string    `json:"Regexp" check:"max=512"`
	NodeID     string    `json:"NodeId" check:"max=64"`
	Owner      string    `json:"Owner" check:"max=2048"`
	State      string    `json:"State" check:"enum=|Active|History"`
	Since      wire.Time `json:"Since"`
	Until      wire.Time `json:"Until"`
	MaxResults int       `json:"MaxResults,omitempty" check:"min=1,max=20"`
	MaxHits    int       `json:"MaxHits,omitempty" check:"min=1,max=50"`
	NextToken  string    `json:"NextToken" check:"max=1024"`
}

type searchSessionsOutput struct {
	Sessions  []foundSession `json:"Sessions"`
	NextToken string         `json:"NextToken,omitempty"`
	// Unfinished says that time was up before everything was searched.
	Unfinished bool `json:"Unfinished,omitempty"`
}

type foundSession struct {
	Session  listedSession `json:"Session"`
	Hits     []foundLine   `json:"Hits"`
	MoreHits bool          `json:"MoreHits,omitempty"`
}

// foundLine is a line that matches. From and To are the match, in characters of Line.
type foundLine struct {
	OffsetMillis int64  `json:"OffsetMillis"`
	Kind         string `json:"Kind"` // shown or typed
	Line         string `json:"Line"`
	From         int    `json:"From"`
	To           int    `json:"To"`
	Cut          bool   `json:"Cut,omitempty"`
}

// query returns what is searched for.
func (in *searchSessionsInput) query() (q *index.Query, err error) {
	switch {
	case (in.Text == "") == (in.Regexp == ""):
		return nil, exception("ValidationException", "Exactly one of Text and Regexp is to be given.")
	case in.Text != "":
		q, err = index.Text(in.Text)
	default:
		q, err = index.Regexp(in.Regexp)
	}
	if err != nil {
		what := strings.TrimPrefix(err.Error(), index.ErrQuery.Error()+": ")
		return nil, exception("ValidationException", "%s.", "T"+strings.TrimPrefix(what, "t"))
	}
	return q, nil
}

func (in *searchSessionsInput) filter() session.Filter {
	f := session.Filter{NodeID: in.NodeID, Owner: in.Owner, StartedAfter: in.Since.Time, StartedBefore: in.Until.Time}
	if in.State != "" {
		active := in.State == "Active"
		f.Active = &active
	}
	return f
}

// searchSessions finds lines in the sessions that the caller may read, newest sessions
// first. Pages of one search make one audit record, which tells what was searched for.
func searchSessions(ctx context.Context, c *Call, in *searchSessionsInput) (*searchSessionsOutput, error) {
	about := in.identity()
	err := c.once(about, func() error { return c.CheckOwn(ctx, access.Resource{ARN: "*"}) })
	if err != nil {
		return nil, err
	}
	if c.Server.config.Search == nil {
		return nil, exception("UnsupportedOperationException", "Sessions are not indexed on this server, so they cannot be searched.")
	}
	q, err := in.query()
	if err != nil {
		return nil, err
	}
	s := search{c: c, in: in, query: q, filter: in.filter(), about: about}
	if s.began, err = s.openToken(); err != nil {
		return nil, err
	}
	s.filter.After = s.began
	if err := s.narrow(ctx); err != nil {
		return nil, err
	}
	leave, err := c.Server.searches.enter(ctx, c.Principal.RootID())
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	return s.run(ctx)
}

// identity is what pages of one search have in common.
func (in *searchSessionsInput) identity() string {
	return strings.Join([]string{in.Text, in.Regexp, in.NodeID, in.Owner, in.State,
		in.Since.UTC().String(), in.Until.UTC().String()}, "\n")
}

// searches are the places of those who search.
type searches struct {
	places chan struct{} // holds a value for each that is taken
	mu     sync.Mutex
	people map[string]*searcher // by the id of who is behind the call
}

// searcher is one person, who searches or waits in so many calls.
type searcher struct {
	turn  chan struct{}
	calls int
}

func newSearches(atOnce int) *searches {
	return &searches{places: make(chan struct{}, atOnce), people: map[string]*searcher{}}
}

// enter waits for a person's turn, and then for a place.
func (s *searches) enter(ctx context.Context, person string) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, searchWait)
	defer cancel()
	who := s.arrive(person)
	for i, place := range []chan struct{}{who.turn, s.places} {
		select {
		case place <- struct{}{}:
		case <-ctx.Done():
			if i > 0 {
				<-who.turn
			}
			s.depart(person)
			return nil, exception("ThrottlingException", "Too many calls of this kind are running; try again.")
		}
	}
	return func() {
		<-s.places
		<-who.turn
		s.depart(person)
	}, nil
}

func (s *searches) arrive(person string) *searcher {
	s.mu.Lock()
	defer s.mu.Unlock()
	who := s.people[person]
	if who == nil {
		who = &searcher{turn: make(chan struct{}, 1)}
		s.people[person] = who
	}
	who.calls++
	return who
}

func (s *searches) depart(person string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if who := s.people[person]; who.calls == 1 {
		delete(s.people, person)
	} else {
		who.calls--
	}
}

// search is one call on its way.
type search struct {
	c      *Call
	in     *searchSessionsInput
	query  *index.Query
	filter session.Filter
	about  string
	began  string // the session after which the call began
	shown  string // the last session of the page
	out    searchSessionsOutput
}

// narrow has those who can read their own sessions alone search no others: how long an
// answer takes would tell what is in them.
func (s *search) narrow(ctx context.Context) error {
	p := s.c.Principal
	others, err := s.c.Server.checker.Offers(ctx, p, "sallyport:GetRecording")
	if err != nil || others {
		return err
	}
	if s.filter.RootID = p.RootID(); p.Root != "" {
		s.filter.OwnerID = p.UserID
	}
	return nil
}

func (s *search) run(ctx context.Context) (*searchSessionsOutput, error) {
	s.out.Sessions = []foundSession{}
	s.filter.Limit = searchBatch
	limit := searchPage
	if s.in.MaxResults > 0 {
		limit = s.in.MaxResults
	}
	// The newest are looked at without the index: text that is everywhere is there, and
	// the index would name all sessions.
	var clauses index.Clauses
	for {
		batch, err := s.c.Server.config.Search.FindSessions(ctx, clauses, s.filter)
		if err != nil {
			return s.stopped(ctx, err)
		}
		for window := range slices.Chunk(batch, index.Window) {
			done, err := s.lookAll(ctx, window, limit)
			if err != nil {
				return s.stopped(ctx, err)
			}
			if done {
				return &s.out, nil
			}
		}
		if len(batch) < s.filter.Limit {
			return &s.out, nil
		}
		s.filter.Limit = min(8*s.filter.Limit, searchBatches)
		clauses = s.query.Clauses()
	}
}

// stopped answers what was found when time was up.
func (s *search) stopped(ctx context.Context, err error) (*searchSessionsOutput, error) {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, err
	}
	if s.filter.After == s.began {
		return nil, exception("ThrottlingException", "The search takes too long: narrow it by a node, a person or a time, or try again later.")
	}
	s.out.Unfinished = true
	s.out.NextToken = s.token(s.filter.After)
	return &s.out, nil
}

// lookAll searches some sessions in turn, as far as the caller may read them. It reports
// whether the page is full.
func (s *search) lookAll(ctx context.Context, all []session.Session, limit int) (done bool, err error) {
	var may []session.Session
	var ids []string
	for _, v := range all {
		ok, err := s.c.mayRead(ctx, v)
		if err != nil {
			return false, err
		}
		if ok {
			may, ids = append(may, v), append(ids, v.ID)
		}
	}
	most := searchHits
	if s.in.MaxHits > 0 {
		most = s.in.MaxHits
	}
	results, err := index.HitsOf(ctx, s.c.Server.config.Search, ids, s.query, most)
	for i, r := range results {
		if len(r.Hits) > 0 && len(s.out.Sessions) == limit {
			s.out.NextToken = s.token(s.shown)
			return true, nil
		}
		if err := s.show(ctx, may[i], r); err != nil {
			return false, err
		}
	}
	if err == nil {
		s.filter.After = all[len(all)-1].ID
	}
	return false, err
}

// show adds a session to the page if something was found there.
func (s *search) show(ctx context.Context, v session.Session, r index.Result) error {
	if len(r.Hits) > 0 {
		found := foundSession{MoreHits: r.More}
		for _, h := range r.Hits {
			found.Hits = append(found.Hits, newFoundLine(h))
		}
		var err error
		if found.Session, err = s.c.listedSession(ctx, v); err != nil {
			return err
		}
		s.shown = v.ID
		s.out.Sessions = append(s.out.Sessions, found)
	}
	s.filter.After = v.ID
	return nil
}

func newFoundLine(h index.Hit) foundLine {
	from := utf8.RuneCountInString(h.Text[:h.From])
	return foundLine{
		OffsetMillis: h.At.Milliseconds(), Kind: h.Kind.String(), Line: h.Text, Cut: h.Cut,
		From: from, To: from + utf8.RuneCountInString(h.Text[h.From:h.To]),
	}
}

// mayRead reports whether the caller may read a session's recording, as GetRecording
// would decide, without a record.
func (c *Call) mayRead(ctx context.Context, v session.Session) (bool, error) {
	resource, err := c.sessionResource(ctx, v)
	if err != nil {
		return false, err
	}
	return c.allowsAction(ctx, "sallyport:GetRecording", mayRead(c.Principal, v), resource)
}

// token continues after a session. It is sealed, because where a search stops may be a
// session that the caller knows nothing of, and good for this search and caller alone.
func (s *search) token(after string) string {
	return s.c.sealedToken(after, s.c.Principal.ARN, s.about)
}

func (s *search) openToken() (after string, err error) {
	return s.c.openSealedToken(s.in.NextToken, s.c.Principal.ARN, s.about)
}

type listTransfersInput struct {
	SessionID string `json:"SessionId" check:"required,min=1,max=96,pattern=[ -~]*"`
	NextToken string `json:"NextToken" check:"max=512"`
}

type listTransfersOutput struct {
	Transfers []listedTransfer `json:"Transfers"`
	NextToken string           `json:"NextToken,omitempty"`
}

// listedTransfer is something done to a file, as the gateway saw it.
type listedTransfer struct {
	Time      wire.Time         `json:"Time"`
	Operation string            `json:"Operation"`
	Details   map[string]string `json:"Details,omitempty"`
}

// listTransfers tells what a session did to files through the SSH front door, to who may
// read its recording.
func listTransfers(ctx context.Context, c *Call, in *listTransfersInput) (*listTransfersOutput, error) {
	err := c.once(in.SessionID, func() error {
		_, err := c.checkSession(ctx, in.SessionID)
		return err
	})
	if err != nil {
		return nil, err
	}
	filter, err := c.auditFilter(&queryAuditInput{SessionID: in.SessionID, Event: audit.EventTransfer, NextToken: in.NextToken})
	if err != nil {
		return nil, err
	}
	records, err := c.Server.config.AuditStore.Audit(ctx, filter)
	if err != nil {
		return nil, err
	}
	out := &listTransfersOutput{Transfers: []listedTransfer{}}
	for _, r := range records {
		out.Transfers = append(out.Transfers, listedTransfer{Time: wire.Time{Time: r.Time}, Operation: r.Action, Details: r.Details})
	}
	if n := len(records); n == filter.Limit {
		out.NextToken = c.pageToken(strconv.FormatInt(records[n-1].Seq, 10) + " " + records[n-1].Member)
	}
	return out, nil
}
