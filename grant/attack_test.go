package grant_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
)

const delegated = `
flow "delegated" {
  ask { groups = ["support"] }
  target "role" "frontend" { role = "FrontEnd" }
  stage "team" {
    approvals = 2
    delegate  = true
    of { groups = ["frontend"] }
  }
  stage "boss" {
    of { users = ["alice"] }
  }
}`

// Whoever names somebody in their place has one voice, and so has everybody: nobody makes
// two approvals of theirs by deputies, or by one and themselves.
func TestOneVoiceWithDeputies(t *testing.T) {
	w := newWorld(t)
	w.put(delegated)
	r := w.ask("delegated")
	for _, to := range []string{"bob", "eve"} {
		_, err := w.Delegate(t.Context(), w.as("alice"), r.ID, to)
		w.must(err)
	}
	r = w.approve(r, w.as("bob"))
	for _, user := range []string{"eve", "alice"} {
		_, err := w.Decide(t.Context(), w.as(user), r.ID, r.Hash, true, "")
		wantRefused(t, err, "alice has decided already, by bob")
	}
	people, err := w.Deciders(t.Context(), w.read(r.ID), 10)
	w.must(err)
	if len(people) != 1 || people[0].Name != "dave" {
		t.Errorf("who may decide: got %+v", people)
	}
	if r = w.approve(r, w.as("dave")); r.Stage != 1 {
		t.Fatalf("got stage %d", r.Stage)
	}
	_, err = w.Decide(t.Context(), w.as("alice"), r.ID, r.Hash, true, "")
	wantRefused(t, err, "alice has decided already, by bob")
}

// Of two who named the same deputy each has a voice that the deputy can use once.
func TestDeputyOfTwo(t *testing.T) {
	w := newWorld(t)
	w.put(delegated)
	r := w.ask("delegated")
	_, err := w.Delegate(t.Context(), w.as("alice"), r.ID, "bob")
	w.must(err)
	_, err = w.Delegate(t.Context(), w.as("dave"), r.ID, "bob")
	w.must(err)
	r = w.approve(r, w.as("alice"))
	if r = w.approve(r, w.as("bob")); r.Stage != 1 || r.Decisions[1].For != "dave" {
		t.Errorf("got stage %d, %+v", r.Stage, r.Decisions)
	}
}

// Code that names people one by one names them anew when an approval is judged again.
func TestCodeChoosesAgain(t *testing.T) {
	w := newWorld(t)
	w.put(`
flow "chosen" {
  ask { groups = ["support"] }
  code = "code0.star"
  target "role" "frontend" { role = "FrontEnd" }
  stage "team" {
    of { users = ["bob"] }
  }
  clocks { activate_by = "2h" }
}`, `
def get_permissions(event):
    return permission(people(users = [p.name for p in members("frontend")]))
`)
	r := w.approve(w.ask("chosen"), w.as("alice"))
	w.must(w.store.RemoveMember(t.Context(), "frontend", "alice"))
	if _, err := w.Activate(t.Context(), w.as("carol"), r.ID); err == nil || w.holds("carol") {
		t.Errorf("approved by who has left the group: got error %v", err)
	}
	r = w.approve(w.read(r.ID), w.as("dave"))
	if r, err := w.Activate(t.Context(), w.as("carol"), r.ID); err != nil || r.State != grant.Active {
		t.Errorf("approved by who is in it: got %s, %v", r.State, err)
	}
}

// What people were forwarded to decide they have decided, whomever code would choose.
func TestForwardedAgain(t *testing.T) {
	w := newWorld(t)
	w.put(`
flow "forwarded" {
  ask { groups = ["support"] }
  code = "code0.star"
  target "role" "frontend" { role = "FrontEnd" }
  stage "team" {
    of { groups = ["frontend"] }
  }
  clocks { activate_by = "2h" }
}`, `
def on_request(event):
    return forward(people(groups = ["backend"]))
`)
	r := w.approve(w.ask("forwarded"), w.as("bob"))
	if r, err := w.Activate(t.Context(), w.as("carol"), r.ID); err != nil || r.State != grant.Active {
		t.Errorf("got %s, %v", r.State, err)
	}
	r = w.approve(w.ask("forwarded"), w.as("bob"))
	w.must(w.store.RemoveMember(t.Context(), "backend", "bob"))
	if _, err := w.Activate(t.Context(), w.as("carol"), r.ID); err == nil {
		t.Error("bob has left the group: got no error")
	}
}

// factual are rules about people and nodes.
type factual struct {
	decide func(flow.Facts) grant.Verdict
}

// Flows implements grant.Rules.
func (*factual) Flows(context.Context) ([]*flow.Flow, error) { return nil, nil }

// Decide implements grant.Rules.
func (f *factual) Decide(_ context.Context, _ *flow.Flow, facts flow.Facts) (grant.Verdict, error) {
	return f.decide(facts), nil
}

// Rules are asked again about people and nodes as they are by then, not only as they were.
func TestRulesAboutWhatChanges(t *testing.T) {
	const id = "i-060ee0879f3ec4eb7"
	rules := &factual{func(facts flow.Facts) (v grant.Verdict) {
		for _, group := range facts.Person.Groups {
			if group == "trusted" {
				v.Permit = "trusted"
			}
		}
		for _, n := range facts.Nodes {
			if n.Tags["Frozen"] == "true" {
				v.Forbid = "no-frozen-nodes"
			}
		}
		return v
	}}
	w := newWorld(t, func(config *grant.Config) { config.Rules = rules })
	w.put(`
flow "nodes" {
  ask { groups = ["support"] }
  target "nodes" "web" { names = ["web-*"] }
  stage "team" {
    of { groups = ["frontend"] }
  }
  clocks { activate_by = "2h" }
}`)
	w.node(id, "web-1", nil)
	ctx := t.Context()
	w.must(w.store.CreateGroup(ctx, identity.Group{Name: "trusted", ID: identity.NewGroupID(), Path: "/", Created: w.now()}))
	w.must(w.store.AddMember(ctx, "trusted", "carol"))
	ask := asked("nodes")
	ask.Nodes = []string{id}

	r, err := w.Ask(ctx, w.as("carol"), ask)
	w.must(err)
	if r.State != grant.Approved {
		t.Fatalf("got %s", r.State)
	}
	w.must(w.store.RemoveMember(ctx, "trusted", "carol"))
	if _, err := w.Activate(ctx, w.as("carol"), r.ID); err == nil || w.holds("carol") {
		t.Errorf("who is trusted no more: got error %v", err)
	}

	r, err = w.Ask(ctx, w.as("carol"), ask)
	w.must(err)
	w.must(w.store.UpdateNode(ctx, id, retag("Frozen", "true")))
	if r = w.approve(r, w.as("alice")); r.State != grant.Denied {
		t.Errorf("a node frozen since: got %s", r.State)
	}
}

// Code that approves what nobody decided on approves nothing that is prohibited by then,
// or that its person may not ask for any more.
func TestApprovedAtExpiry(t *testing.T) {
	for _, c := range []struct {
		name   string
		forbid string
		leaves bool
		want   grant.State
	}{
		{"still allowed", "", false, grant.Active},
		{"prohibited since", "frozen", false, grant.Expired},
		{"may not ask any more", "", true, grant.Expired},
	} {
		t.Run(c.name, func(t *testing.T) {
			said := &rules{}
			w := newWorld(t, func(config *grant.Config) { config.Rules = said })
			w.put(codeFlow, "def on_expire(event):\n  return approve('silence is consent')\n")
			r := w.ask("coded")
			said.verdict.Forbid = c.forbid
			if c.leaves {
				w.must(w.store.RemoveMember(t.Context(), "support", "carol"))
			}
			w.advance(61 * time.Minute)
			w.tick()
			if got := w.read(r.ID); got.State != c.want {
				t.Errorf("got %s: %s", got.State, got.Because)
			}
		})
	}
}

// Who waits many times over leaves room for others.
func TestWaitsOfOne(t *testing.T) {
	w := newWorld(t)
	r := w.ask("role")
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	refused := make(chan error, 100)
	for range 100 {
		waiting.Go(func() {
			if _, err := w.WaitFor(ctx, w.ids["carol"], r.ID, r.Revision); err != nil {
				refused <- err
			}
		})
	}
	for range 36 { // those beyond the bound
		if err := <-refused; !errors.Is(err, grant.ErrBusy) {
			t.Errorf("got %v", err)
		}
	}
	short, done := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer done()
	_, err := w.WaitFor(short, w.ids["bob"], r.ID, r.Revision)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) { // which may come before the wait
		t.Errorf("another: got %v", err)
	}
}

// Listings ask of every request whether it is somebody's; that runs no code for those that
// are over.
func TestNoCodeForWhatIsOver(t *testing.T) {
	duty := &counted{}
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
`+codeFlow, "def get_permissions(event):\n  return permission(people(users = on_call('ops')))\n")
	r := w.ask("coded")
	may := func() (may bool, asked int32) {
		before := duty.n.Load()
		may, err := w.MayRevoke(t.Context(), w.as("eve").Principal, w.read(r.ID))
		w.must(err)
		return may, duty.n.Load() - before
	}
	if may, asked := may(); !may || asked == 0 {
		t.Errorf("while it waits: got %v, asked %d times", may, asked)
	}
	_, err := w.Cancel(t.Context(), w.as("carol"), r.ID)
	w.must(err)
	if may, asked := may(); may || asked != 0 {
		t.Errorf("when it is over: got %v, asked %d times", may, asked)
	}
}

// counted has eve on duty, and counts who asks.
type counted struct{ n atomic.Int32 }

// OnCall implements grant.OnCall.
func (c *counted) OnCall(context.Context, *flow.Schedule, time.Time) ([]string, error) {
	c.n.Add(1)
	return []string{"eve"}, nil
}

// Code that has a say before a grant begins has it where that is the approval, too.
func TestCodeBeforeTheBeginning(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		want         grant.State
	}{
		{"nothing", "None", grant.Active},
		{"denies", "deny('not at night')", grant.Denied},
		{"refuses", "ignore('not at night')", grant.Approved},
		{"fails", "fail('broken')", grant.Approved},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.put(codeFlow, "def on_activate(event):\n  return "+c.answer+"\n")
			r := w.approve(w.ask("coded"), w.as("alice"))
			if r.State != c.want || w.holds("carol") != (c.want == grant.Active) {
				t.Errorf("got %s: %s", r.State, r.Because)
			}
			w.advance(61 * time.Minute)
			w.tick()
			if r := w.read(r.ID); c.want == grant.Approved && r.State != grant.Lapsed {
				t.Errorf("never used: got %s", r.State)
			}
		})
	}
	for name, how := range map[string]string{
		"approved by code":   "def on_request(event):\n  return approve()\n",
		"approved at expiry": "def on_expire(event):\n  return approve()\n",
	} {
		w := newWorld(t)
		w.put(codeFlow, how+"def on_activate(event):\n  return deny('not at night')\n")
		r := w.ask("coded")
		w.advance(61 * time.Minute)
		w.tick()
		if r = w.read(r.ID); r.State != grant.Denied || r.Because != "not at night" {
			t.Errorf("%s: got %s: %s", name, r.State, r.Because)
		}
	}
}

// What a calendar or a service calls people is no more than text to those who decide.
func TestHostileOnCallAnswer(t *testing.T) {
	duty := &onCall{err: errors.New("on duty is \x1b[2J\r\nbob approved\u202e, who is no user here")}
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
    of { on_call = ["ops"] }
    fallback {
      after = "1m"
      of { users = ["bob"] }
    }
  }
}`)
	warnings := w.ask("oncall").Warnings
	if len(warnings) == 0 || strings.ContainsAny(strings.Join(warnings, ""), "\x1b\r\n\u202e") {
		t.Errorf("got %q", warnings)
	}
}
