package notify_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/node"
	"sallyport.dev/notify"
	"sallyport.dev/policy"
	"sallyport.dev/store"
	"sallyport.dev/store/storetest"
)

// flows of the tests: peers decide; strong needs a second factor; quiet is not for Slack;
// talk wants comments.
const testFlows = `
flow "frontend" {
  label = "Front end"
  ask { groups = ["dev"] }
  field "ticket" {
    pattern  = "[A-Z]+-[0-9]+"
    message  = "a ticket such as OPS-12"
    required = true
  }
  target "nodes" "web" { tags = { Team = "frontend" } }
  target "nodes" "db" { tags = { Team = "db" } }
  stage "peers" {
    approvals = 1
    of { groups = ["leads"] }
  }
  clocks {
    pending = "1h"
    default = "30m"
    longest = "2h"
  }
  announce { slack = ["#ops"] }
}
flow "strong" {
  ask { groups = ["dev"] }
  target "nodes" "web" { tags = { Team = "frontend" } }
  stage "peers" {
    approvals     = 1
    of { groups = ["leads"] }
    second_factor = true
  }
  clocks {
    pending = "1h"
    default = "30m"
    longest = "2h"
  }
}
flow "quiet" {
  channels = ["cli"]
  ask { groups = ["dev"] }
  target "nodes" "web" { tags = { Team = "frontend" } }
  stage "peers" {
    approvals = 1
    of { groups = ["leads"] }
  }
  clocks {
    pending = "1h"
    default = "30m"
    longest = "2h"
  }
}
flow "talk" {
  ask { groups = ["dev"] }
  target "nodes" "web" { tags = { Team = "frontend" } }
  stage "peers" {
    approvals = 2
    of { groups = ["leads"] }
    comment   = "required"
  }
  clocks {
    pending = "1h"
    default = "30m"
    longest = "2h"
  }
  announce {
    on      = ["requested", "activated"]
    webhook = ["hook"]
    email   = ["ops@example.com"]
  }
}
`

// world is a store, an engine and a service of notifications, with some people.
type world struct {
	t       testing.TB
	store   *store.Store
	engine  *grant.Engine
	audit   *audit.Log
	service *notify.Service
	slack   *fakeSlack
	web     *httptest.Server
	realm   arn.Realm
	ahead   atomic.Int64 // of the machine's clock, in nanoseconds
}

type option func(*notify.Config)

func newWorld(t testing.TB, options ...option) *world {
	t.Helper()
	w := &world{t: t, slack: newFakeSlack(t), realm: arn.Realm{Account: "123456789012", Region: "eu-central-1"}}
	log := slog.New(slog.DiscardHandler)
	var err error
	w.store, err = store.Open(t.Context(), storetest.File(t), store.Options{Logger: log})
	w.must(err)
	t.Cleanup(func() { w.store.Close() })
	w.audit, err = audit.New(t.Context(), w.store, "m1", time.Now, log)
	w.must(err)
	t.Cleanup(func() { w.audit.Close() })
	w.people()
	w.engine = grant.New(grant.Config{
		Store: w.store, Directory: w.store, Nodes: w.store, Audit: w.audit, Realm: w.realm, Now: w.now, Logger: log,
		Policies: policies{access.New(access.Config{Store: w.store, Audit: w.audit, Realm: w.realm, Now: time.Now, Logger: log})},
	})
	w.must(w.engine.Start(context.WithoutCancel(t.Context())))
	t.Cleanup(w.engine.Close)
	_, err = w.engine.PutFlows(t.Context(), grant.Actor{Principal: w.principal("bob"), Channel: "api"}, map[string][]byte{"test.sallyport.hcl": []byte(testFlows)}, "")
	w.must(err)
	w.service = w.start("m1", options...)
	mux := http.NewServeMux()
	for pattern, h := range w.service.Handlers() {
		mux.Handle(pattern, h)
	}
	w.web = httptest.NewServer(mux)
	t.Cleanup(w.web.Close)
	return w
}

// start starts a member's notifications.
func (w *world) start(member string, options ...option) *notify.Service {
	w.t.Helper()
	s := w.create(member, options...)
	s.Start(context.WithoutCancel(w.t.Context()))
	w.t.Cleanup(func() { w.close(s) })
	return s
}

func (w *world) create(member string, options ...option) *notify.Service {
	w.t.Helper()
	c := notify.Config{
		Store: w.store, Access: w.engine, Events: w.store, Principal: w.byID, Audit: w.audit, Member: member, Now: w.now,
		URL: "https://gate.example.com", Logger: slog.New(slog.DiscardHandler),
		Slack: &notify.Slack{BotToken: botToken, SigningSecret: slackSecret, APIURL: w.slack.apiURL()},
	}
	c.Quicken(10*time.Millisecond, 20*time.Millisecond)
	for _, o := range options {
		o(&c)
	}
	s, err := notify.New(c)
	w.must(err)
	return s
}

func (w *world) close(s *notify.Service) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil && !errors.Is(err, store.ErrClosed) {
		w.t.Errorf("closing: %v", err)
	}
}

// now is the clock of the engine and of the services.
func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// people are carol, who asks, bob and dave, who lead, and mallory, who may nothing.
func (w *world) people() {
	ctx := w.t.Context()
	for i, name := range []string{"carol", "bob", "dave", "mallory"} {
		w.must(w.store.CreateUser(ctx, identity.User{
			Name: name, ID: fmt.Sprintf("AIDA%016d", i), Path: "/", Created: time.Now(), Tags: identity.Tags{"Email": name + "@example.com"},
		}))
	}
	for i, g := range []string{"dev", "leads"} {
		w.must(w.store.CreateGroup(ctx, identity.Group{Name: g, ID: fmt.Sprintf("AGPA%016d", i), Path: "/", Created: time.Now()}))
	}
	w.must(w.store.AddMember(ctx, "dev", "carol"))
	w.must(w.store.AddMember(ctx, "dev", "bob"))
	w.must(w.store.AddMember(ctx, "leads", "bob"))
	w.must(w.store.AddMember(ctx, "leads", "dave"))
}

func (w *world) user(name string) identity.User {
	w.t.Helper()
	u, err := w.store.User(w.t.Context(), name)
	w.must(err)
	return u
}

func (w *world) principal(name string) identity.Principal {
	w.t.Helper()
	return identity.NewResolver(w.realm, w.store, nil, time.Now).UserPrincipal(w.user(name))
}

func (w *world) byID(ctx context.Context, id string) (identity.Principal, error) {
	u, err := w.store.UserByID(ctx, id)
	if err == nil && u.Disabled {
		err = fmt.Errorf("user %s is disabled: %w", u.Name, identity.ErrNotFound)
	}
	if err != nil {
		return identity.Principal{}, err
	}
	return identity.NewResolver(w.realm, w.store, nil, time.Now).UserPrincipal(u), nil
}

// link links an account of Slack to a person, as the person does.
func (w *world) link(user, name string) {
	w.t.Helper()
	_, body := w.callSlack("command", w.slack.command(slackTeam, user, "request"))
	_, rest, found := strings.Cut(string(body), "sallyport chat link ")
	if !found {
		w.t.Fatalf("got %s, want a code", body)
	}
	_, err := notify.LinkAccount(w.t.Context(), w.store, rest[:19], w.user(name).ID, time.Now())
	w.must(err)
}

// asked is a request of carol's, made elsewhere.
func (w *world) asked(name, reason string) grant.Request {
	w.t.Helper()
	r, err := w.engine.Ask(w.t.Context(), grant.Actor{Principal: w.principal("carol"), Channel: "cli"}, grant.Ask{
		Flow: name, Values: flow.Values{"reason": {reason}, "duration": {"30m"}, "ticket": {"OPS-1"}},
	})
	if name != "frontend" {
		r, err = w.engine.Ask(w.t.Context(), grant.Actor{Principal: w.principal("carol"), Channel: "cli"}, grant.Ask{
			Flow: name, Values: flow.Values{"reason": {reason}, "duration": {"30m"}},
		})
	}
	w.must(err)
	return r
}

func (w *world) request(id string) grant.Request {
	w.t.Helper()
	r, err := w.engine.Request(w.t.Context(), id)
	w.must(err)
	return r
}

// becomes waits for a request's state.
func (w *world) becomes(id string, s grant.State) grant.Request {
	w.t.Helper()
	var r grant.Request
	eventually(w.t, "the request to be "+string(s), func() bool {
		r = w.request(id)
		return r.State == s
	})
	return r
}

// recorded waits for an audit record of a refusal with a word in error or reason.
func (w *world) recorded(event, word string) audit.Record {
	w.t.Helper()
	var found audit.Record
	eventually(w.t, "an audit record of "+word, func() bool {
		records, err := w.store.Audit(w.t.Context(), audit.Filter{Event: event})
		w.must(err)
		for _, r := range records {
			if strings.Contains(r.Error, word) || strings.Contains(r.Reason, word) {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// policies are asked as the server asks them.
type policies struct{ checker *access.Checker }

func (p policies) query(a grant.Actor, action, resource string, details map[string]string) access.Query {
	return access.Query{
		Principal: a.Principal, Action: action, Resources: []access.Resource{{ARN: resource}}, Details: details,
		Origin: access.Origin{SourceIP: a.SourceIP, UserAgent: a.UserAgent, RequestID: a.RequestID, Time: time.Now()},
	}
}

func (p policies) Permit(ctx context.Context, a grant.Actor, action, resource string, details map[string]string) error {
	_, err := p.checker.CheckOwn(ctx, p.query(a, action, resource, details))
	return err
}

func (p policies) Refuse(ctx context.Context, a grant.Actor, action, resource, because string, details map[string]string) {
	_ = p.checker.Refuse(ctx, p.query(a, action, resource, details), because)
}

func (p policies) Would(context.Context, identity.Principal, node.Node, string, string, []policy.Source) (bool, error) {
	return false, nil
}
