package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/session"
	"sallyport.dev/store"
)

// testTokens: a token works once, whichever member sees it first.
func testTokens(t *testing.T, fresh Fresh) {
	url := fresh(t)
	members := []*store.Store{Open(t, url), Open(t, url)}
	ctx := t.Context()
	soon := time.Now().Add(time.Minute)
	replay := errors.New("used before")
	counts := atOnce(t, 50, func(i int) error {
		first, err := members[i%2].UseToken(ctx, "token", soon)
		if err == nil && !first {
			err = replay
		}
		return err
	}, replay)
	wantSame(t, "first uses", counts[nil], 1)
	wantSame(t, "replays", counts[replay], 49)
	wantSame(t, "another token", get[bool](t)(members[0].UseToken(ctx, "other", soon)), true)
	wantSame(t, "an expired token", get[bool](t)(members[0].UseToken(ctx, "late", time.Now().Add(-time.Second))), false)
	wantSame(t, "a replay after others", get[bool](t)(members[1].UseToken(ctx, "token", soon)), false)
}

func testMeta(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	wantSame(t, "no value", get[string](t)(s.Meta(ctx, "k")), "")
	must(t, s.SetMeta(ctx, "k", "one"))
	must(t, s.SetMeta(ctx, "k", "two"))
	wantSame(t, "value", get[string](t)(s.Meta(ctx, "k")), "two")
}

// testRaces has two members change the same rows at once: every read-modify-write
// counts, every limit holds, every ended session stays ended.
func testRaces(t *testing.T, fresh Fresh) {
	url := fresh(t)
	members := []*store.Store{Open(t, url), Open(t, url)}
	ctx := t.Context()
	const callers = 50
	must(t, members[0].CreateUser(ctx, user("u")))
	must(t, members[0].CreateActivation(ctx, activation("a", 1)))
	get[node.Node](t)(members[0].Register(ctx, node.Node{ActivationID: "a"}, at(2), func() string { return "mi-1" }))
	must(t, members[0].CreateSession(ctx, session.Session{ID: "s", State: session.StateConnected, Started: at(1)}))

	atOnce(t, callers, func(i int) error {
		return members[i%2].UpdateNode(ctx, "mi-1", func(n *node.Node) error {
			n.Tags = withTag(n.Tags, i)
			return nil
		})
	})
	wantSame(t, "tags of the node", len(get[node.Node](t)(members[0].Node(ctx, "mi-1")).Tags), callers)

	atOnce(t, callers, func(i int) error {
		return members[i%2].UpdateUser(ctx, "u", func(u *identity.User) error {
			u.Tags = withTag(u.Tags, i)
			return nil
		})
	})
	wantSame(t, "tags of the user", len(get[identity.User](t)(members[0].User(ctx, "u")).Tags), callers)

	counts := atOnce(t, callers, func(i int) error {
		return members[i%2].CreateAccessKey(ctx, identity.AccessKey{ID: fmt.Sprint("AKIA", i), User: "u", Sealed: []byte{1}}, 2)
	}, identity.ErrLimit)
	wantSame(t, "keys", counts[nil], 2)

	lost := errors.New("another ended it")
	counts = atOnce(t, callers, func(i int) error {
		changed, err := members[i%2].UpdateSession(ctx, "s", func(s *session.Session) error {
			s.State, s.EndReason = session.StateTerminated, fmt.Sprint("caller ", i)
			return nil
		})
		if err == nil && !changed {
			err = lost
		}
		return err
	}, lost)
	wantSame(t, "callers that ended the session", counts[nil], 1)

	must(t, members[0].CreateGroup(ctx, group("g")))
	counts = atOnce(t, 2, func(i int) error {
		if i == 0 {
			return members[0].DeleteGroup(ctx, "g")
		}
		return members[1].AddMember(ctx, "g", "u")
	}, identity.ErrConflict, identity.ErrNotFound)
	wantSame(t, "of deleting a group and adding to it, one wins", counts[nil], 1)

	counts = atOnce(t, callers, func(i int) error {
		return members[i%2].CreateUser(ctx, identity.User{Name: "same", ID: fmt.Sprint("AIDA", i), Path: "/"})
	}, identity.ErrExists)
	wantSame(t, "created of one name", counts[nil], 1)
}

func withTag(tags identity.Tags, i int) identity.Tags {
	if tags == nil {
		tags = identity.Tags{}
	}
	tags[fmt.Sprint("tag", i)] = "x"
	return tags
}

func testContexts(t *testing.T, fresh Fresh) {
	s := open(t, fresh)
	gone := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	err := s.CreateUser(ctx, user("u"))
	if !errors.Is(err, gone) && !errors.Is(err, context.Canceled) {
		t.Errorf("writing with an ended context: got %v", err)
	}
	if _, err := s.Users(ctx, identity.Page{}); !errors.Is(err, context.Canceled) {
		t.Errorf("reading with an ended context: got %v", err)
	}
	wantSame(t, "users", len(get[[]identity.User](t)(s.Users(t.Context(), identity.Page{}))), 0)

	// Callers that leave at any moment get a true answer: an error means not done.
	var created []string
	for i := range 40 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*50)*time.Microsecond)
		name := fmt.Sprint("user", i)
		if err := s.CreateUser(ctx, user(name)); err == nil {
			created = append(created, name)
		}
		cancel()
	}
	var stored []string
	for _, u := range get[[]identity.User](t)(s.Users(t.Context(), identity.Page{})) {
		stored = append(stored, u.Name)
	}
	slices.Sort(created)
	wantSame(t, "stored users", stored, created)
}

// testPanics: a panic in a caller's function reaches that caller, changes nothing,
// and leaves the store usable.
func testPanics(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.CreateUser(ctx, user("u")))
	func() {
		defer func() {
			if got := recover(); got != "bug" {
				t.Errorf("recovered %v, want the panic", got)
			}
		}()
		s.UpdateUser(ctx, "u", func(u *identity.User) error { panic("bug") })
	}()
	must(t, s.UpdateUser(ctx, "u", func(u *identity.User) error { u.Path = "/x/"; return nil }))
}

func testReopen(t *testing.T, fresh Fresh) {
	url, ctx := fresh(t), t.Context()
	s := Open(t, url)
	must(t, s.CreateUser(ctx, user("u")))
	must(t, s.Ping(ctx))
	must(t, s.Close())
	must(t, s.Close())
	if err := s.CreateUser(ctx, user("v")); err == nil {
		t.Error("writing after Close: got no error")
	}
	if err := s.Ping(ctx); err == nil {
		t.Error("ping after Close: got no error")
	}
	s = Open(t, url)
	wantSame(t, "user after reopening", get[identity.User](t)(s.User(ctx, "u")), user("u"))

	r, err := store.Open(ctx, url, store.Options{ReadOnly: true})
	must(t, err)
	defer r.Close()
	wantSame(t, "user read only", get[identity.User](t)(r.User(ctx, "u")), user("u"))
	wantErr(t, "writing read only", r.CreateUser(ctx, user("v")), store.ErrReadOnly)
	_, err = r.UseToken(ctx, "t", time.Now().Add(time.Minute))
	wantErr(t, "using a token read only", err, store.ErrReadOnly)
}
