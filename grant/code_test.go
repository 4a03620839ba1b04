package grant_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/node"
)

const codeFlow = `
flow "coded" {
  ask { groups = ["support"] }
  code = "code0.star"
  target "role" "frontend" { role = "FrontEnd" }
  stage "team" {
    of { groups = ["frontend"] }
  }
  clocks {
    pending = "1h"
    default = "30m"
  }
}`

// Flow code may approve, deny, refuse and forward; where it fails, the stage's own people
// decide, and see why.
func TestCode(t *testing.T) {
	for _, c := range []struct {
		name, code, want string
		state            grant.State
		refused          string
		decides          string // who may decide then
	}{
		{name: "none of it", code: "x = 1", state: grant.Pending, decides: "alice dave"},
		{name: "approves", code: "def on_request(event):\n  return approve()\n", state: grant.Active},
		{name: "denies", code: "def on_request(event):\n  return deny('not on Fridays')\n", state: grant.Denied, want: "not on Fridays"},
		{name: "refuses", code: "def on_request(event):\n  return ignore('ask tomorrow')\n", refused: "ask tomorrow"},
		{name: "forwards", code: "def on_request(event):\n  return forward(people(users = ['bob']))\n", state: grant.Pending, decides: "bob"},
		{name: "chooses who decides", code: "def get_permissions(event):\n  return permission(people(groups = ['backend']))\n", state: grant.Pending, decides: "bob"},
		{name: "fails", code: "def on_request(event):\n  fail('broken')\n", state: grant.Pending, want: "broken", decides: "alice dave"},
		{name: "fails to choose", code: "def get_permissions(event):\n  return nothing\n", state: grant.Pending, decides: "alice dave"},
		{name: "loops", code: "def on_request(event):\n  for i in range(100000):\n    for j in range(100000):\n      i += j\n  return approve()\n", state: grant.Pending, want: "on_request", decides: "alice dave"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			files := map[string][]byte{"test.sallyport.hcl": []byte(codeFlow), "code0.star": []byte(c.code)}
			if err := w.LoadFlows(t.Context(), files); err != nil {
				if strings.Contains(c.code, "nothing") {
					return // found when the files were read
				}
				t.Fatal(err)
			}
			r, err := w.Ask(t.Context(), w.as("carol"), asked("coded"))
			if c.refused != "" {
				wantRefused(t, err, c.refused)
				return
			}
			w.must(err)
			said := r.Because + strings.Join(r.Warnings, " ")
			if r.State != c.state || !strings.Contains(said, c.want) {
				t.Errorf("got %s: %s", r.State, said)
			}
			people, err := w.Deciders(t.Context(), r, 10)
			w.must(err)
			var names []string
			for _, p := range people {
				names = append(names, p.Name)
			}
			if got := strings.Join(names, " "); got != c.decides {
				t.Errorf("who decides: got %q, want %q", got, c.decides)
			}
		})
	}
}

// Hooks on decisions: code may ask for more than the stage does, and an error of it keeps
// nobody from deciding.
func TestCodeOfDecisions(t *testing.T) {
	w := newWorld(t)
	put := func(code string) grant.Request {
		w.must(w.LoadFlows(t.Context(), map[string][]byte{"test.sallyport.hcl": []byte(codeFlow), "code0.star": []byte(code)}))
		return w.ask("coded")
	}
	r := put("def on_approve(event):\n  return ignore('not now')\n")
	_, err := w.Decide(t.Context(), w.as("alice"), r.ID, r.Hash, true, "")
	wantRefused(t, err, "not now")
	r = put("def on_approve(event):\n  return deny('changed my mind')\n")
	if r, err = w.Decide(t.Context(), w.as("alice"), r.ID, r.Hash, true, ""); err != nil || r.State != grant.Denied {
		t.Errorf("got %s, %v", r.State, err)
	}
	r = put("def on_approve(event):\n  return forward(people(users = ['bob']))\n")
	r = w.approve(r, w.as("alice"))
	if r.State != grant.Pending || len(r.Decisions) != 0 {
		t.Fatalf("got %s, %+v", r.State, r.Decisions)
	}
	_, err = w.Decide(t.Context(), w.as("dave"), r.ID, r.Hash, true, "")
	wantRefused(t, err, "dave is not among those who decide")
	r = put("def on_approve(event):\n  fail('broken')\n")
	if r = w.approve(r, w.as("alice")); r.State != grant.Active || !strings.Contains(strings.Join(r.Warnings, ""), "broken") {
		t.Errorf("got %s, %v", r.State, r.Warnings)
	}
	// Changed code changes nothing about what was asked for before.
	r = put("def on_request(event):\n  return None\n")
	put("def on_approve(event):\n  return deny('no')\n")
	if r = w.approve(r, w.as("alice")); r.State != grant.Active {
		t.Errorf("got %s: %s", r.State, r.Because)
	}
}

// rules decide as they are told.
type rules struct {
	verdict grant.Verdict
	err     error
}

// Flows implements grant.Rules.
func (*rules) Flows(context.Context) ([]*flow.Flow, error) { return nil, nil }

// Decide implements grant.Rules.
func (r *rules) Decide(context.Context, *flow.Flow, flow.Facts) (grant.Verdict, error) {
	return r.verdict, r.err
}

// Prohibitions come first, then what is approved by itself, then people; rules that
// cannot be asked approve nothing.
func TestRules(t *testing.T) {
	broken := errors.New("rules are broken")
	for _, c := range []struct {
		name  string
		rules rules
		flow  string
		want  grant.State
	}{
		{"nothing", rules{}, "role", grant.Pending},
		{"permit", rules{verdict: grant.Verdict{Permit: "p"}}, "role", grant.Active},
		{"forbid", rules{verdict: grant.Verdict{Forbid: "f"}}, "role", grant.Denied},
		{"both", rules{verdict: grant.Verdict{Forbid: "f", Permit: "p"}}, "role", grant.Denied},
		{"error", rules{err: broken}, "role", grant.Pending},
		{"error beside a permit", rules{verdict: grant.Verdict{Permit: "p"}, err: broken}, "role", grant.Pending},
		{"error beside a forbid", rules{verdict: grant.Verdict{Forbid: "f"}, err: broken}, "role", grant.Denied},
		{"break-glass", rules{}, "glass", grant.Active},
		{"break-glass, prohibited", rules{verdict: grant.Verdict{Forbid: "f"}}, "glass", grant.Denied},
		{"break-glass, error", rules{err: broken}, "glass", grant.Denied},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(config *grant.Config) { config.Rules = &c.rules })
			r, err := w.Ask(t.Context(), w.factored("carol"), asked(c.flow))
			w.must(err)
			if r.State != c.want {
				t.Errorf("got %s: %s %v", r.State, r.Because, r.Warnings)
			}
			if c.rules.err != nil && len(r.Warnings) == 0 {
				t.Error("nobody learns of the error")
			}
		})
	}
	t.Run("changed until the first use", func(t *testing.T) {
		said := &rules{verdict: grant.Verdict{Permit: "p"}}
		w := newWorld(t, func(config *grant.Config) { config.Rules = said })
		r := w.ask("later")
		said.verdict = grant.Verdict{}
		if _, err := w.Activate(t.Context(), w.as("carol"), r.ID); err == nil {
			t.Error("a permission that was taken back: got no error")
		}
		if got := w.read(r.ID); got.State != grant.Pending {
			t.Errorf("got %s", got.State)
		}
		r = w.approve(w.read(r.ID), w.as("alice"))
		said.verdict = grant.Verdict{Forbid: "f"}
		if _, err := w.Activate(t.Context(), w.as("carol"), r.ID); err == nil || w.read(r.ID).State != grant.Denied {
			t.Errorf("prohibited since: got %v", w.read(r.ID).State)
		}
	})
}

// onCall answers who is on duty, or nothing.
type onCall struct {
	first, then string // before and from noon on
	err         error
}

// OnCall implements grant.OnCall.
func (o *onCall) OnCall(_ context.Context, _ *flow.Schedule, at time.Time) ([]string, error) {
	if at.Hour() < 12 {
		return []string{o.first}, o.err
	}
	return []string{o.then}, o.err
}

// What only asks what would become of a request does nothing on the net, be it on the way or
// for who would decide.
func TestExplainAsksNobody(t *testing.T) {
	w := newWorld(t)
	w.put(strings.Replace(codeFlow, "stage", "http { allow_hosts = [\"tickets.example\"] }\n  stage", 1), `
def on_request(event):
    http_post("https://tickets.example/tickets", {"who": "carol"})

def get_permissions(event):
    http_get("https://tickets.example/people")
`)
	in := asked("coded")
	in.Explain = true
	r, err := w.Ask(t.Context(), w.as("carol"), in)
	w.must(err)
	const asksNobody = "a rehearsal asks nobody on the net"
	for _, hook := range []string{"on_request", "get_permissions"} {
		if !slices.ContainsFunc(r.Warnings, func(s string) bool { return strings.HasPrefix(s, hook) && strings.Contains(s, asksNobody) }) {
			t.Errorf("%s: got the warnings %q", hook, r.Warnings)
		}
	}
	if people, err := w.Deciders(t.Context(), r, 10); err != nil || len(people) != 2 {
		t.Errorf("who would decide: got %v, %v", people, err)
	}
}

// Where the source cannot be asked, the other people of the stage decide.
func TestOnCall(t *testing.T) {
	duty := &onCall{first: "eve", then: "alice"}
	w := newWorld(t, func(config *grant.Config) { config.OnCall = duty })
	w.put(`
schedule "ops" {
  source = "rota"
  rota {
    start = "2026-01-01T00:00:00Z"
    shift = "24h"
    users = ["eve"]
  }
}
flow "oncall" {
  ask { groups = ["support"] }
  target "role" "frontend" { role = "FrontEnd" }
  stage "team" {
    of {
      on_call = ["ops"]
      users   = ["bob"]
    }
  }
  clocks {
    default     = "30m"
    activate_by = "8h"
  }
}`)
	r := w.approve(w.ask("oncall"), w.as("eve"))
	w.advance(4 * time.Hour) // her shift has ended, which takes nothing back
	if r, err := w.Activate(t.Context(), w.as("carol"), r.ID); err != nil || r.State != grant.Active {
		t.Errorf("approval of a past shift: %s %v", r.State, err)
	}
	duty.err = errors.New("PagerDuty does not answer")
	r = w.ask("oncall")
	_, err := w.Decide(t.Context(), w.as("alice"), r.ID, r.Hash, true, "")
	wantRefused(t, err, "alice is not among those who decide")
	if r = w.approve(r, w.as("bob")); r.State != grant.Approved {
		t.Errorf("got %s", r.State)
	}
	if !strings.Contains(strings.Join(r.Warnings, " "), "PagerDuty does not answer") {
		t.Errorf("warnings: got %q", r.Warnings)
	}
}

// What is given outside is tried until it is, taken back until it is, and people are told
// when it cannot; what another grant gives stays.
func TestOutside(t *testing.T) {
	aws := &outside{fails: 2}
	w := newWorld(t, func(config *grant.Config) { config.Giver = aws })
	w.put(strings.NewReplacer("activate_by = \"1h\"", "", "approvals = 2", "").Replace(crashFlow))
	state := func(r grant.Request) string { return w.read(r.ID).Provisions[0].State }
	r := w.approve(w.ask("crash"), w.as("alice"))
	for range 3 {
		w.advance(time.Minute + time.Second)
		w.tick()
	}
	if state(r) != "given" || len(aws.has) != 1 {
		t.Fatalf("got %+v", w.read(r.ID).Provisions)
	}
	other := w.approve(w.ask("crash"), w.as("alice"))
	w.tick()
	_, err := w.Release(t.Context(), w.as("carol"), r.ID)
	w.must(err)
	w.tick()
	if state(r) != "taken" || state(other) != "given" || len(aws.has) != 1 {
		t.Errorf("with another grant of it: got %s, %s, %v", state(r), state(other), aws.has)
	}
	aws.fails = 7
	_, err = w.Release(t.Context(), w.as("carol"), other.ID)
	w.must(err)
	for range 7 {
		w.tick()
		w.advance(11 * time.Minute)
	}
	if got := w.kinds(other.ID); !strings.HasSuffix(got, "released alarm") {
		t.Errorf("events: got %s", got)
	}
	w.tick()
	if state(other) != "taken" || len(aws.has) != 0 {
		t.Errorf("in the end: got %+v", w.read(other.ID).Provisions)
	}
}

// Offers are the flows that somebody may ask; helps are those that would let them in.
func TestOffersAndHelps(t *testing.T) {
	g := newGuarded(t)
	helps := func(user, id, document, login string) string {
		n, err := g.store.Node(t.Context(), id)
		g.must(err)
		all, err := g.Helps(t.Context(), g.as(user).Principal, n, document, login, "cli")
		g.must(err)
		var names []string
		for _, h := range all {
			names = append(names, h.Offer.Flow.Name+"/"+h.Target.Name)
		}
		return strings.Join(names, " ")
	}
	offers, err := g.Offers(t.Context(), g.as("carol").Principal, "cli")
	g.must(err)
	if len(offers) != 4 || offers[0].Flow.Name != "both" || len(offers[0].Fields) != 2 {
		t.Errorf("got %+v", offers)
	}
	for _, c := range []struct{ user, node, document, login, want string }{
		{"carol", front1, "", "", "both/one shell/front"},
		{"carol", front2, "", "web", "shell/front"},
		{"carol", front2, "", "root", ""},
		{"carol", back1, "", "", ""},
		{"carol", back1, port, "", "forward/back"},
		{"eve", front1, "", "", ""},
	} {
		if got := helps(c.user, c.node, c.document, c.login); got != c.want {
			t.Errorf("%s on %s with %q as %q: got %q, want %q", c.user, c.node, c.document, c.login, got, c.want)
		}
	}
	g.must(g.store.UpdateNode(t.Context(), front1, func(n *node.Node) error { n.Tags["Department"] = "Lab"; return nil }))
	if got := helps("carol", front1, "", ""); got != "both/one" {
		t.Errorf("with another tag: got %q", got)
	}
}

// Who waits learns of a change at once, on another member within seconds, and so many at
// most wait.
func TestWait(t *testing.T) {
	w := newWorld(t)
	other := grant.New(w.set)
	defer other.Close()
	w.must(other.Start(t.Context()))
	r := w.ask("role")
	got := make(chan grant.Request, 2)
	for _, e := range []*grant.Engine{w.Engine, other} {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			r, _ := e.Wait(ctx, r.ID, r.Revision)
			got <- r
		}()
	}
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	w.approve(r, w.as("bob"))
	for range 2 {
		if r := <-got; r.State != grant.Active {
			t.Errorf("got %s", r.State)
		}
	}
	if took := time.Since(began); took > 4*time.Second { // who is not woken looks after five
		t.Errorf("took %s", took)
	}
	r = w.read(r.ID)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	results := make(chan error)
	for range 520 {
		go func() {
			_, err := w.Wait(ctx, r.ID, r.Revision)
			results <- err
		}()
	}
	for range 8 { // those beyond the bound
		if err := <-results; !errors.Is(err, grant.ErrBusy) {
			t.Errorf("got %v", err)
		}
	}
	w.Close() // lets the others go
	for range 512 {
		if err := <-results; err != nil {
			t.Errorf("got %v", err)
		}
	}
}
