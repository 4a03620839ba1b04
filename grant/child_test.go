package grant_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/internal/pgtest"
	"sallyport.dev/node"
	"sallyport.dev/store"
)

// childURL, set, makes this test program live through requests on the store at that URL
// until it is killed.
const childURL = "SALLYPORT_TEST_REQUESTS_ON"

func lifeOfAChild() (code int, child bool) {
	url := os.Getenv(childURL)
	if url == "" {
		return 0, false
	}
	if err := liveRequests(url); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return 1, true // the parent kills it long before
}

func exit(code int) { os.Exit(code) }

// liveRequests asks, decides, extends and gives back, and prints each request's id once
// it is said to be stored.
func liveRequests(url string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, url, store.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	e := grant.New(grant.Config{Store: s, Directory: s, Nodes: s, Audit: &records{}, Realm: realm})
	if err := e.Start(ctx); err != nil {
		return err
	}
	user := func(name string) (grant.Actor, error) {
		u, err := s.User(ctx, name)
		return grant.Actor{Channel: "cli", Principal: identity.Principal{
			Kind: identity.KindUser, ARN: realm.IAM("user", "/", name), UserID: u.ID, Name: name, MFA: true, MFAAt: time.Now(),
		}}, err
	}
	carol, err := user("carol")
	if err != nil {
		return err
	}
	bob, err := user("bob")
	if err != nil {
		return err
	}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		r, err := e.Ask(ctx, carol, grant.Ask{Flow: "role", Values: flow.Values{"reason": {"x"}}})
		if err != nil {
			return err
		}
		fmt.Println(r.ID) // one write
		if r, err = e.Decide(ctx, bob, r.ID, r.Hash, true, ""); err != nil {
			return err
		}
		if r, err = e.Extend(ctx, carol, r.ID, time.Minute, "more"); err != nil {
			return err
		}
		more, err := e.Request(ctx, r.Extensions[0].Request)
		if err != nil {
			return err
		}
		if _, err = e.Decide(ctx, bob, more.ID, more.Hash, true, ""); err != nil {
			return err
		}
		if _, err = e.Release(ctx, carol, r.ID); err != nil {
			return err
		}
	}
	return nil
}

// A server that is killed loses no request that it said was stored, and leaves no grant
// without a decision, and none past its time.
func TestKilled(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testKilled(t, "sqlite:"+t.TempDir()+"/state.db") })
	t.Run("PostgreSQL", func(t *testing.T) { testKilled(t, pgtest.Start(t).Database(t)) })
}

func testKilled(t *testing.T, url string) {
	w := newWorldAt(t, url)
	for round := range 3 {
		ids := killAfter(t, url, 4+3*round)
		w.restarted(ids)
	}
	w.time = time.Now().Add(24 * time.Hour) // the children lived by the real clock
	w.tick()
	w.whole()
	open, err := w.store.Requests(t.Context(), grant.Filter{States: []grant.State{grant.Pending, grant.Approved, grant.Active}})
	w.must(err)
	if len(open) > 0 {
		t.Errorf("a day later: got %d open requests, the first %s %s", len(open), open[0].ID, open[0].State)
	}
}

// restarted checks that requests are still there, and in order.
func (w *world) restarted(ids []string) {
	w.t.Helper()
	for _, id := range ids {
		w.read(id)
	}
	w.whole()
}

// whole checks of every request that it is one story: a grant has the decisions that its
// flow wants, events agree with the row, and what was asked for is what was hashed.
func (w *world) whole() {
	w.t.Helper()
	all, err := w.store.Requests(w.t.Context(), grant.Filter{})
	w.must(err)
	for _, r := range all {
		if !r.Intact() {
			w.t.Errorf("request %s is not what was hashed", r.ID)
		}
		approvals := 0
		for _, d := range r.Decisions {
			if d.Approve && d.Struck == "" {
				approvals++
			}
		}
		if !r.ActivatedAt.IsZero() && approvals == 0 {
			w.t.Errorf("request %s began without a decision", r.ID)
		}
		events, err := w.store.Events(w.t.Context(), r.ID)
		w.must(err)
		if len(events) == 0 || events[len(events)-1].State != r.State || events[0].Kind != grant.KindRequested {
			w.t.Errorf("request %s is %s after %s", r.ID, r.State, w.kinds(r.ID))
		}
	}
}

// killAfter starts a child, kills it once it has stored so many requests, and returns
// their ids.
func killAfter(t *testing.T, url string, requests int) (ids []string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), childURL+"="+url)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if len(lines.Text()) == len("oi-000000000000") { // or the kill cut it short
			ids = append(ids, lines.Text())
		}
		if len(ids) == requests {
			cmd.Process.Kill() // SIGKILL: no chance to tidy up
		}
	}
	cmd.Wait() // killed, so an error
	if len(ids) < requests {
		t.Fatalf("the child stored %d requests", len(ids))
	}
	return ids
}

func disabled(u *identity.User) error { u.Disabled = true; return nil }

func enabled(u *identity.User) error { u.Disabled = false; return nil }

func tagged(key, value string) func(*identity.User) error {
	return func(u *identity.User) error {
		u.Tags = identity.Tags{key: value}
		return nil
	}
}

func retag(key, value string) func(*node.Node) error {
	return func(n *node.Node) error {
		n.Tags[key] = value
		return nil
	}
}
