package server

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"sallyport.dev/index"
	"sallyport.dev/session"
	"sallyport.dev/store"
	"sallyport.dev/wire"
)

// Attack: somebody searches in as many calls as they can, under many names of a role, so
// that nobody else can search. They have one place at a time, whoever waits.
func TestSearchPlacesAreForEverybody(t *testing.T) {
	s := newSearches(searchesAtOnce)
	ctx, cancel := context.WithCancel(t.Context())
	leave, err := s.enter(ctx, "eve")
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 20)
	for range cap(refused) {
		go func() {
			_, err := s.enter(ctx, "eve")
			refused <- err
		}()
	}
	for { // until all of them wait
		s.mu.Lock()
		n := s.people["eve"].calls
		s.mu.Unlock()
		if n == cap(refused)+1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	soon, done := context.WithTimeout(t.Context(), 5*time.Second)
	defer done()
	other, err := s.enter(soon, "carol")
	if err != nil {
		t.Fatalf("another person: %v", err)
	}
	other()
	cancel()
	for range cap(refused) {
		if e := (*wire.Exception)(nil); !errors.As(<-refused, &e) || e.Code != "ThrottlingException" {
			t.Errorf("one more of eve's: want ThrottlingException")
		}
	}
	leave()
	if len(s.people) != 0 || len(s.places) != 0 {
		t.Errorf("left behind: %d people, %d places", len(s.people), len(s.places))
	}
	leave, err = s.enter(t.Context(), "eve")
	if err != nil {
		t.Fatal(err)
	}
	leave()
}

// Attack: the length of a token that continues after a session which the caller may not
// see would tell the length of its owner's name.
func TestSealedTokensAreOfOneLength(t *testing.T) {
	h := newHarness(t)
	s := search{c: &Call{Server: h.server, Operation: &Operation{Name: "SearchSessions"}}, in: &searchSessionsInput{}}
	for _, key := range []string{"", "al-0123456789abcdef0", "somebody.with.a.long.name-0123456789abcdef0"} {
		for name, token := range map[string]string{"search": s.token(key), "page": s.c.sealedToken(key)} {
			if got, want := len(token), len(s.token("x")); got != want {
				t.Errorf("%s token of %q: got %d characters, want %d as any", name, key, got, want)
			}
		}
		s.in.NextToken = s.token(key)
		if got, err := s.openToken(); got != key || err != nil {
			t.Errorf("opened: got %q, %v, want %q", got, err, key)
		}
		if got, err := s.c.openSealedToken(s.c.sealedToken(key)); got != key || err != nil {
			t.Errorf("opened: got %q, %v, want %q", got, err, key)
		}
	}
}

// counted counts the sessions that searches are told of.
type counted struct {
	index.Finder
	n int
}

func (c *counted) FindSessions(ctx context.Context, clauses index.Clauses, f session.Filter) ([]session.Session, error) {
	all, err := c.Finder.FindSessions(ctx, clauses, f)
	c.n += len(all)
	return all, err
}

// Attack: somebody who may read nothing of others' searches for what may stand in their
// sessions, and finds out by how long the answer takes: each session that matches was
// decided about.
func TestSearchLooksAtNoSessionsThatNobodyMayRead(t *testing.T) {
	count := &counted{}
	h := newHarness(t, func(c *Config) {
		count.Finder = c.Identities.(*store.Store)
		c.Search = count
	})
	h.node("i-00000000000000001", nil)
	eve := h.user("eve", nil)
	reader := h.user("reader", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:GetRecording","Resource":"*","Condition":{"StringLike":{"sallyport:SessionOwner":"*/bob"}}}]}`)
	h.user("bob", nil)
	h.showed("eve", "eve-1", "i-00000000000000001", "the secret is 4711")
	for i := range 2 * searchBatch {
		h.showed("bob", fmt.Sprintf("bob-%d", i), "i-00000000000000001", "the secret is 4711")
	}
	if ids, _ := h.foundIn(eve, searchSessionsInput{Text: "secret is 4711"}); len(ids) != 1 || count.n != 1 {
		t.Errorf("found %q after looking at %d sessions, want the own one alone", ids, count.n)
	}
	if ids, _ := h.foundIn(reader, searchSessionsInput{Text: "secret is 4711"}); len(ids) != 2*searchBatch {
		t.Errorf("who may read some finds %d sessions, want %d", len(ids), 2*searchBatch)
	}
}
