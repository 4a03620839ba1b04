package grant_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport.dev/audit"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/node"
	"sallyport.dev/store"
	"sallyport.dev/store/storetest"
)

func TestMain(m *testing.M) {
	if code, child := lifeOfAChild(); child {
		exit(code)
	}
	goleak.VerifyTestMain(m)
}

var realm = arn.Realm{Account: "111111111111", Region: "us-east-1"}

// world is people, nodes and flows on a real store, with a clock that tests turn.
type world struct {
	t     testing.TB
	store *store.Store
	*grant.Engine
	log  *records
	ids  map[string]string // unique ids of users, by name
	set  grant.Config
	mu   sync.Mutex
	time time.Time
}

// flows is what most tests ask for; carol asks, alice and dave of frontend, bob of
// backend decide.
const flows = `
flow "role" {
  ask { groups = ["support"] }
  target "role" "frontend" { role = "FrontEnd" }
  stage "team" {
    of { groups = ["frontend", "backend"] }
  }
  clocks {
    pending = "1h"
    default = "30m"
    longest = "2h"
    extension = "30m"
    extensions = 2
  }
}
flow "two" {
  ask { groups = ["support"] }
  target "role" "frontend" { role = "FrontEnd" }
  stage "team" {
    approvals = 2
    of { groups = ["frontend"] }
  }
  stage "other" {
    of { groups = ["backend"] }
  }
  clocks { default = "30m" }
}
flow "later" {
  ask { groups = ["support"] }
  target "role" "frontend" { role = "FrontEnd" }
  stage "team" {
    of { groups = ["frontend"] }
  }
  clocks {
    pending = "1h"
    activate_by = "2h"
    default = "30m"
  }
}
flow "careful" {
  ask { groups = ["support"] }
  target "role" "frontend" { role = "FrontEnd" }
  stage "team" {
    of { groups = ["frontend"] }
    second_factor = true
    comment = "required"
    delegate = true
  }
}
flow "slow" {
  ask { groups = ["support"] }
  target "role" "frontend" { role = "FrontEnd" }
  stage "team" {
    of { users = ["alice"] }
    within = "30m"
    remind = "5m"
    fallback {
      after = "10m"
      of { users = ["bob"] }
    }
  }
  clocks { pending = "1h" }
}
flow "glass" {
  ask { users = ["carol"] }
  target "role" "frontend" { role = "FrontEnd" }
  break_glass {
    review { groups = ["backend", "support"] }
    review_within = "1h"
  }
  clocks { default = "15m" }
}
flow "selfish" {
  ask { groups = ["frontend"] }
  target "role" "frontend" { role = "FrontEnd" }
  stage "team" {
    of { groups = ["frontend"] }
    allow_self = true
  }
  clocks {
    default = "30m"
    longest = "1h"
    extension = "20m"
    extensions = 2
    extend_without = true
  }
}
`

func newWorld(t testing.TB, changes ...func(*grant.Config)) *world {
	t.Helper()
	return newWorldAt(t, storetest.File(t), changes...)
}

func newWorldAt(t testing.TB, url string, changes ...func(*grant.Config)) *world {
	t.Helper()
	w := &world{t: t, log: &records{}, ids: map[string]string{}, time: time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)}
	var err error
	if w.store, err = store.Open(t.Context(), url, store.Options{Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	w.set = grant.Config{
		Store: w.store, Directory: w.store, Nodes: w.store, Audit: w.log, Realm: realm, Now: w.now,
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, change := range changes {
		change(&w.set)
	}
	w.Engine = grant.New(w.set)
	t.Cleanup(w.Engine.Close)
	w.people()
	w.put(flows)
	return w
}

func (w *world) people() {
	w.t.Helper()
	for user, groups := range map[string][]string{
		"alice": {"frontend"}, "dave": {"frontend"}, "bob": {"backend"}, "carol": {"support"}, "eve": nil,
	} {
		w.user(user, groups...)
	}
}

// user makes a user, and the groups that they are in.
func (w *world) user(name string, groups ...string) {
	w.t.Helper()
	ctx := w.t.Context()
	u := identity.User{Name: name, ID: identity.NewUserID(), Path: "/", Created: w.now()}
	w.must(w.store.CreateUser(ctx, u))
	w.ids[name] = u.ID
	for _, g := range groups {
		_ = w.store.CreateGroup(ctx, identity.Group{Name: g, ID: identity.NewGroupID(), Path: "/", Created: w.now()})
		w.must(w.store.AddMember(ctx, g, name))
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// put puts one file of flows in force.
func (w *world) put(text string, code ...string) {
	w.t.Helper()
	files := map[string][]byte{"test.sallyport.hcl": []byte(text)}
	for i, c := range code {
		files[fmt.Sprintf("code%d.star", i)] = []byte(c)
	}
	w.must(w.LoadFlows(w.t.Context(), files))
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.time
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.time = w.time.Add(d)
}

// as is a person with long-lived keys.
func (w *world) as(user string) grant.Actor {
	arn := realm.IAM("user", "/", user)
	return grant.Actor{Channel: "cli", SourceIP: "127.0.0.1", Principal: identity.Principal{
		Kind: identity.KindUser, ARN: arn, PolicyARN: arn, UserID: w.ids[user], Name: user,
	}}
}

// factored is a person who has just shown a second factor.
func (w *world) factored(user string) grant.Actor {
	a := w.as(user)
	a.Principal.MFA, a.Principal.MFAAt, a.Principal.Factor = true, w.now(), "totp"
	return a
}

// through is a person in a session of a role.
func (w *world) through(user, role, session string) grant.Actor {
	a := w.as(user)
	a.Principal = identity.Principal{
		Kind: identity.KindRole, ARN: realm.AssumedRole(role, session), PolicyARN: realm.IAM("role", "/", role),
		UserID: "AROA:" + session, Name: role, SessionName: session, Root: w.ids[user], RootARN: a.Principal.ARN,
	}
	return a
}

// ask asks for a flow with a reason, as carol.
func (w *world) ask(flowName string, pairs ...string) grant.Request {
	w.t.Helper()
	r, err := w.Ask(w.t.Context(), w.as("carol"), asked(flowName, pairs...))
	w.must(err)
	return r
}

func asked(flowName string, pairs ...string) grant.Ask {
	values := flow.Values{"reason": {"ticket 42"}}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = []string{pairs[i+1]}
	}
	return grant.Ask{Flow: flowName, Values: values}
}

// approve approves as somebody, or ends the test.
func (w *world) approve(r grant.Request, as grant.Actor) grant.Request {
	w.t.Helper()
	r, err := w.Decide(w.t.Context(), as, r.ID, r.Hash, true, "fine")
	w.must(err)
	return r
}

// tick lets the clocks of a member run once.
func (w *world) tick() {
	w.t.Helper()
	e := grant.New(w.set)
	w.must(e.Start(w.t.Context()))
	e.Close()
}

func (w *world) read(id string) grant.Request {
	w.t.Helper()
	r, err := w.store.Request(w.t.Context(), id)
	w.must(err)
	return r
}

// kinds are the kinds of a request's events, in order.
func (w *world) kinds(id string) string {
	w.t.Helper()
	events, err := w.store.Events(w.t.Context(), id)
	w.must(err)
	var kinds []string
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	return strings.Join(kinds, " ")
}

// holds reports whether a person holds anything.
func (w *world) holds(user string) bool {
	w.t.Helper()
	sources, err := w.Grants(w.t.Context(), w.as(user).Principal)
	w.must(err)
	return len(sources) > 0
}

func (w *world) node(id, name string, tags identity.Tags) {
	w.t.Helper()
	_, hash := node.NewCode()
	all := identity.Tags{"Name": name}
	for k, v := range tags {
		all[k] = v
	}
	a := node.Activation{
		ID: node.NewActivationID(), CodeHash: hash, Limit: 1, NodeIDs: []string{id}, Created: w.now(), Expires: w.now().Add(time.Hour), Tags: all,
	}
	w.must(w.store.CreateActivation(w.t.Context(), a))
	_, err := w.store.Register(w.t.Context(), node.Node{ActivationID: a.ID, Registered: w.now(), Tags: all}, w.now(), node.NewID)
	w.must(err)
}

// records is an audit log in memory.
type records struct {
	mu  sync.Mutex
	all []audit.Record
}

// Append implements grant.Auditor.
func (l *records) Append(_ context.Context, r audit.Record) (audit.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, r)
	return r, nil
}

// of are the actions that were recorded of a request, in order.
func (l *records) of(id string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var actions []string
	for _, r := range l.all {
		if r.Details["request"] == id {
			actions = append(actions, strings.TrimPrefix(r.Action, "request:"))
		}
	}
	return slices.Clip(actions)
}
