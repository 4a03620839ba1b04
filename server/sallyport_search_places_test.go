package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"sallyport.dev/wire"
)

// Attack: somebody searches in as many calls as they can, under many names of a role, so
// that nobody else can search. They have one place at a time, whoever waits.
func TestSearchPlacesAreForEverybody(t *testing.T) {
	s := newSearches()
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
