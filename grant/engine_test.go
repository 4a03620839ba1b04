package grant_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
)

// The life of a request, step by step: who does what, what comes of it, what is told.
func TestLife(t *testing.T) {
	type step struct {
		do    func(*world, grant.Request) (grant.Request, error)
		want  grant.State
		err   string // part of the refusal
		holds bool   // carol, afterwards
	}
	decide := func(by string, approve bool) func(*world, grant.Request) (grant.Request, error) {
		return func(w *world, r grant.Request) (grant.Request, error) {
			return w.Decide(w.t.Context(), w.as(by), r.ID, r.Hash, approve, "because I say so")
		}
	}
	later := func(d time.Duration) func(*world, grant.Request) (grant.Request, error) {
		return func(w *world, r grant.Request) (grant.Request, error) {
			w.advance(d)
			w.tick()
			return w.read(r.ID), nil
		}
	}
	cancel := func(by string) func(*world, grant.Request) (grant.Request, error) {
		return func(w *world, r grant.Request) (grant.Request, error) { return w.Cancel(w.t.Context(), w.as(by), r.ID) }
	}
	release := func(by string) func(*world, grant.Request) (grant.Request, error) {
		return func(w *world, r grant.Request) (grant.Request, error) {
			return w.Release(w.t.Context(), w.as(by), r.ID)
		}
	}
	activate := func(by string) func(*world, grant.Request) (grant.Request, error) {
		return func(w *world, r grant.Request) (grant.Request, error) {
			return w.Activate(w.t.Context(), w.as(by), r.ID)
		}
	}
	revoke := func(by string, allowed bool) func(*world, grant.Request) (grant.Request, error) {
		return func(w *world, r grant.Request) (grant.Request, error) {
			return w.Revoke(w.t.Context(), w.as(by), r.ID, "enough", allowed)
		}
	}
	for _, c := range []struct {
		name, flow string
		steps      []step
		kinds      string
	}{
		{"approved and used up", "role", []step{
			{decide("bob", true), grant.Active, "", true},
			{later(24 * time.Minute), grant.Active, "", true},
			{later(time.Minute), grant.Active, "", true},
			{later(5 * time.Minute), grant.Ended, "", false},
		}, "requested approved granted activated warning ended"},
		{"denied by one", "two", []step{
			{decide("alice", true), grant.Pending, "", false},
			{decide("dave", false), grant.Denied, "", false},
			{decide("bob", true), grant.Denied, "it is denied", false},
		}, "requested approved denied"},
		{"two stages", "two", []step{
			{decide("bob", true), grant.Pending, "bob is not among those who decide in stage team", false},
			{decide("alice", true), grant.Pending, "", false},
			{decide("alice", true), grant.Pending, "alice has decided already", false},
			{decide("dave", true), grant.Pending, "", false},
			{decide("alice", true), grant.Pending, "alice is not among those who decide in stage other", false},
			{decide("bob", true), grant.Active, "", true},
		}, "requested approved approved stage approved granted activated"},
		{"nobody decides", "role", []step{
			{later(59 * time.Minute), grant.Pending, "", false},
			{later(time.Minute), grant.Expired, "", false},
			{decide("bob", true), grant.Expired, "it is expired", false},
		}, "requested expired"},
		{"cancelled", "role", []step{
			{cancel("bob"), grant.Pending, "the request is carol's", false},
			{cancel("carol"), grant.Cancelled, "", false},
			{cancel("carol"), grant.Cancelled, "it is cancelled", false},
		}, "requested cancelled"},
		{"given back", "role", []step{
			{release("carol"), grant.Pending, "it is pending", false},
			{decide("bob", true), grant.Active, "", true},
			{release("bob"), grant.Active, "the request is carol's", true},
			{release("carol"), grant.Released, "", false},
		}, "requested approved granted activated released"},
		{"revoked by who decides", "role", []step{
			{decide("bob", true), grant.Active, "", true},
			{revoke("eve", false), grant.Active, "eve decides in no stage", true},
			{revoke("alice", false), grant.Revoked, "", false},
		}, "requested approved granted activated revoked"},
		{"revoked by policy", "role", []step{
			{decide("bob", true), grant.Active, "", true},
			{revoke("eve", true), grant.Revoked, "", false},
		}, "requested approved granted activated revoked"},
		{"activated by hand", "later", []step{
			{activate("carol"), grant.Pending, "it is pending", false},
			{decide("alice", true), grant.Approved, "", false},
			{later(time.Hour), grant.Approved, "", false},
			{activate("alice"), grant.Approved, "the request is carol's", false},
			{activate("carol"), grant.Active, "", true},
			{later(29 * time.Minute), grant.Active, "", true},
			{later(time.Minute), grant.Ended, "", false},
		}, "requested approved granted activated warning ended"},
		{"not used in time", "later", []step{
			{decide("alice", true), grant.Approved, "", false},
			{later(2 * time.Hour), grant.Lapsed, "", false},
			{activate("carol"), grant.Lapsed, "it is lapsed", false},
		}, "requested approved granted lapsed"},
		{"fallback and reminders", "slow", []step{
			{decide("bob", true), grant.Pending, "bob is not among those who decide", false},
			{later(5 * time.Minute), grant.Pending, "", false},
			{later(5 * time.Minute), grant.Pending, "", false},
			{decide("bob", true), grant.Active, "", true},
		}, "requested reminder fallback approved granted activated"},
		{"a stage's own time", "slow", []step{
			{later(30 * time.Minute), grant.Expired, "", false},
		}, "requested expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			r := w.ask(c.flow)
			for i, s := range c.steps {
				_, err := s.do(w, r)
				if got := w.read(r.ID).State; got != s.want {
					t.Fatalf("step %d: got %s (%v), want %s", i+1, got, err, s.want)
				}
				if (err != nil) != (s.err != "") || err != nil && !strings.Contains(err.Error(), s.err) {
					t.Fatalf("step %d: got error %v, want %q", i+1, err, s.err)
				}
				if got := w.holds("carol"); got != s.holds {
					t.Fatalf("step %d: carol holds something: got %v, want %v", i+1, got, s.holds)
				}
			}
			if got := w.kinds(r.ID); got != c.kinds {
				t.Errorf("events: got %s, want %s", got, c.kinds)
			}
			if got := strings.Join(w.log.of(r.ID), " "); got != c.kinds {
				t.Errorf("the audit log: got %s, want %s", got, c.kinds)
			}
		})
	}
}

func wantRefused(t testing.TB, err error, part string) {
	t.Helper()
	refused := (*grant.RefusedError)(nil)
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), part) {
		t.Errorf("got error %v, want a refusal with %q", err, part)
	}
}

func wantField(t testing.TB, err error, field, part string) {
	t.Helper()
	wrong := (*flow.FieldError)(nil)
	if !errors.As(err, &wrong) || wrong.Field != field || !strings.Contains(err.Error(), part) {
		t.Errorf("got error %v, want one of field %s with %q", err, field, part)
	}
}

// Nobody decides on what they ask for: not in a role session of theirs, not as another
// user that is known to be them.
func TestSelfApproval(t *testing.T) {
	t.Run("as oneself", func(t *testing.T) {
		w := newWorld(t)
		w.must(w.store.AddMember(t.Context(), "frontend", "carol"))
		r := w.ask("role")
		_, err := w.Decide(t.Context(), w.as("carol"), r.ID, r.Hash, true, "")
		wantRefused(t, err, "nobody decides on what they ask for themselves")
		_, err = w.Decide(t.Context(), w.through("carol", "FrontEnd", "bob"), r.ID, r.Hash, true, "")
		wantRefused(t, err, "nobody decides on what they ask for themselves")
	})
	t.Run("asked through a role", func(t *testing.T) {
		w := newWorld(t)
		w.must(w.store.AddMember(t.Context(), "frontend", "carol"))
		r, err := w.Ask(t.Context(), w.through("carol", "FrontEnd", "alice"), asked("role"))
		w.must(err)
		_, err = w.Decide(t.Context(), w.as("carol"), r.ID, r.Hash, true, "")
		wantRefused(t, err, "nobody decides on what they ask for themselves")
	})
	t.Run("by source identity", func(t *testing.T) {
		w := newWorld(t)
		r := w.ask("role")
		bob := w.through("bob", "FrontEnd", "x")
		bob.Principal.SourceIdentity = "Carol"
		_, err := w.Decide(t.Context(), bob, r.ID, r.Hash, true, "")
		wantRefused(t, err, "nobody decides on what they ask for themselves")
	})
	t.Run("as another user of the same person", func(t *testing.T) {
		w := newWorld(t)
		for _, user := range []string{"carol", "bob"} {
			w.must(w.store.UpdateUser(t.Context(), user, tagged("Person", "c-17")))
		}
		r := w.ask("role")
		_, err := w.Decide(t.Context(), w.as("bob"), r.ID, r.Hash, true, "")
		wantRefused(t, err, "nobody decides on what they ask for themselves")
	})
	t.Run("two of one person do not make two", func(t *testing.T) {
		w := newWorld(t)
		for _, user := range []string{"alice", "dave"} {
			w.must(w.store.UpdateUser(t.Context(), user, tagged("Person", "a-1")))
		}
		r := w.approve(w.ask("two"), w.as("alice"))
		_, err := w.Decide(t.Context(), w.as("dave"), r.ID, r.Hash, true, "")
		wantRefused(t, err, "dave has decided already, as alice")
	})
	t.Run("where the flow allows it", func(t *testing.T) {
		w := newWorld(t)
		r, err := w.Ask(t.Context(), w.as("alice"), asked("selfish"))
		w.must(err)
		if got := w.approve(r, w.as("alice")); got.State != grant.Active {
			t.Errorf("got %s", got.State)
		}
	})
}

// Rights to decide are those at the decision, and again when the grant begins.
func TestRightsAgain(t *testing.T) {
	t.Run("left the group before deciding", func(t *testing.T) {
		w := newWorld(t)
		r := w.ask("role")
		w.must(w.store.RemoveMember(t.Context(), "backend", "bob"))
		_, err := w.Decide(t.Context(), w.as("bob"), r.ID, r.Hash, true, "")
		wantRefused(t, err, "bob is not among those who decide")
	})
	t.Run("left the group before the last approval", func(t *testing.T) {
		w := newWorld(t)
		r := w.approve(w.ask("two"), w.as("alice"))
		w.must(w.store.RemoveMember(t.Context(), "frontend", "alice"))
		r = w.approve(r, w.as("dave"))
		if r.State != grant.Pending || r.Stage != 0 || r.Decisions[0].Struck == "" {
			t.Errorf("got %s in stage %d: %+v", r.State, r.Stage, r.Decisions)
		}
		if got := w.kinds(r.ID); got != "requested approved struck approved" {
			t.Errorf("events: got %s", got)
		}
	})
	t.Run("left the group before the first use", func(t *testing.T) {
		w := newWorld(t)
		r := w.approve(w.ask("later"), w.as("alice"))
		w.must(w.store.RemoveMember(t.Context(), "frontend", "alice"))
		_, err := w.Activate(t.Context(), w.as("carol"), r.ID)
		if !errors.Is(err, grant.ErrState) {
			t.Errorf("got error %v", err)
		}
		if got := w.read(r.ID); got.State != grant.Pending || w.holds("carol") {
			t.Errorf("got %s", got.State)
		}
		if got := w.approve(w.read(r.ID), w.as("dave")); got.State != grant.Approved {
			t.Errorf("approved by another: got %s", got.State)
		}
	})
	t.Run("approver disabled, and no time left", func(t *testing.T) {
		w := newWorld(t)
		r := w.approve(w.ask("later"), w.as("alice"))
		w.must(w.store.UpdateUser(t.Context(), "alice", disabled))
		w.advance(61 * time.Minute)
		if _, err := w.Activate(t.Context(), w.as("carol"), r.ID); err == nil {
			t.Error("got no error")
		}
		if got := w.read(r.ID); got.State != grant.Expired {
			t.Errorf("got %s", got.State)
		}
	})
	t.Run("who asked may ask no more", func(t *testing.T) {
		w := newWorld(t)
		r := w.approve(w.ask("later"), w.as("alice"))
		w.must(w.store.RemoveMember(t.Context(), "support", "carol"))
		if _, err := w.Activate(t.Context(), w.as("carol"), r.ID); err == nil {
			t.Error("got no error")
		}
		if got := w.read(r.ID); got.State != grant.Denied || !strings.Contains(got.Because, "may not ask") {
			t.Errorf("got %s: %s", got.State, got.Because)
		}
	})
}

// Who is disabled or deleted loses what they asked for, whoever did that and whatever was
// interrupted.
func TestEndPerson(t *testing.T) {
	w := newWorld(t)
	r := w.approve(w.ask("role"), w.as("bob"))
	waiting := w.ask("two")
	w.must(w.store.UpdateUser(t.Context(), "carol", disabled))
	w.tick()
	for _, id := range []string{r.ID, waiting.ID} {
		if got := w.read(id); got.State != grant.Revoked || got.Because != "carol is disabled" {
			t.Errorf("got %s: %s", got.State, got.Because)
		}
	}
	w.must(w.store.UpdateUser(t.Context(), "carol", enabled))
	if w.holds("carol") {
		t.Error("enabled again, carol holds what was revoked")
	}
}

// A decision is on what was asked, and nothing else.
func TestHash(t *testing.T) {
	w := newWorld(t)
	r, other := w.ask("role"), w.ask("two")
	for _, hash := range []string{"", other.Hash, strings.ToUpper(r.Hash), r.Hash[:63]} {
		if _, err := w.Decide(t.Context(), w.as("bob"), r.ID, hash, true, ""); !errors.Is(err, grant.ErrHash) {
			t.Errorf("hash %q: got %v", hash, err)
		}
	}
	// Changed flows change nothing that was asked for.
	w.put(strings.ReplaceAll(flows, "FrontEnd", "Everything"))
	r = w.approve(r, w.as("bob"))
	if got := r.Frozen.Targets[0].Role; got != "FrontEnd" || !r.Intact() {
		t.Errorf("got role %s", got)
	}
	r.Frozen.Targets[0].Role = "Everything"
	if r.Intact() {
		t.Error("a changed request is intact")
	}
}

// A second factor and comments are asked for where the stage says so; deputies decide in
// the place of who named them, as long as these may.
func TestStageRules(t *testing.T) {
	w := newWorld(t)
	r := w.ask("careful")
	_, err := w.Decide(t.Context(), w.as("alice"), r.ID, r.Hash, true, "ok")
	wantRefused(t, err, "demands a second factor")
	old := w.factored("alice")
	old.Principal.MFAAt = w.now().Add(-16 * time.Minute)
	_, err = w.Decide(t.Context(), old, r.ID, r.Hash, true, "ok")
	wantRefused(t, err, "demands a second factor")
	_, err = w.Decide(t.Context(), w.factored("alice"), r.ID, r.Hash, true, "  \n")
	wantField(t, err, "comment", "is required")

	_, err = w.Decide(t.Context(), w.factored("bob"), r.ID, r.Hash, true, "ok")
	wantRefused(t, err, "bob is not among those who decide")
	_, err = w.Delegate(t.Context(), w.factored("alice"), r.ID, "carol")
	wantRefused(t, err, "carol is who asked")
	_, err = w.Delegate(t.Context(), w.factored("alice"), r.ID, "bob")
	w.must(err)
	_, err = w.Delegate(t.Context(), w.factored("bob"), r.ID, "eve")
	wantRefused(t, err, "cannot name somebody else")
	w.must(w.store.RemoveMember(t.Context(), "frontend", "alice"))
	_, err = w.Decide(t.Context(), w.factored("bob"), r.ID, r.Hash, true, "ok")
	wantRefused(t, err, "bob is not among those who decide")
	w.must(w.store.AddMember(t.Context(), "frontend", "alice"))
	r, err = w.Decide(t.Context(), w.factored("bob"), r.ID, r.Hash, true, "ok")
	w.must(err)
	if d := r.Decisions[0]; r.State != grant.Active || d.For != "alice" || d.Factor != "totp" {
		t.Errorf("got %s, %+v", r.State, d)
	}
}

// Break-glass grants at once to who has a second factor and a reason, and is reviewed by
// somebody else.
func TestBreakGlass(t *testing.T) {
	w := newWorld(t)
	_, err := w.Ask(t.Context(), w.as("carol"), asked("glass"))
	wantRefused(t, err, "demands a second factor")
	_, err = w.Ask(t.Context(), w.factored("alice"), asked("glass"))
	wantRefused(t, err, "there is no flow")
	r, err := w.Ask(t.Context(), w.factored("carol"), asked("glass"))
	w.must(err)
	if r.State != grant.Active || r.Review == nil || !w.holds("carol") || r.Decisions[0].Rule != "break-glass" {
		t.Fatalf("got %s, %+v", r.State, r.Review)
	}
	_, err = w.CloseReview(t.Context(), w.as("carol"), r.ID, grant.Justified, "it was")
	wantRefused(t, err, "nobody reviews what they did themselves")
	_, err = w.CloseReview(t.Context(), w.as("alice"), r.ID, grant.Justified, "it was")
	wantRefused(t, err, "alice is not among those who review")
	w.advance(61 * time.Minute)
	w.tick()
	if got := w.kinds(r.ID); got != "requested approved granted activated ended reviewDue" {
		t.Errorf("events: got %s", got)
	}
	r, err = w.CloseReview(t.Context(), w.as("bob"), r.ID, grant.Justified, "it was")
	w.must(err)
	if r.Review.By.Name != "bob" || r.State != grant.Ended {
		t.Errorf("got %+v, %s", r.Review, r.State)
	}
	r, err = w.Ask(t.Context(), w.factored("carol"), asked("glass"))
	w.must(err)
	if r, err = w.CloseReview(t.Context(), w.as("bob"), r.ID, grant.Unjustified, "no"); err != nil || r.State != grant.Revoked || w.holds("carol") {
		t.Errorf("unjustified: got %s, %v", r.State, err)
	}
}

// Extensions are decided on as the request was, or need nobody, and never make a grant
// longer than its flow allows.
func TestExtend(t *testing.T) {
	t.Run("asking nobody", func(t *testing.T) {
		w := newWorld(t)
		r, err := w.Ask(t.Context(), w.as("alice"), asked("selfish"))
		w.must(err)
		r = w.approve(r, w.as("alice"))
		began := r.ActivatedAt
		for i, want := range []time.Duration{50 * time.Minute, time.Hour} {
			r, err = w.Extend(t.Context(), w.as("alice"), r.ID, 0, "not done")
			w.must(err)
			if got := r.EndsAt.Sub(began); got != want {
				t.Errorf("extension %d: got %s, want %s", i+1, got, want)
			}
		}
		_, err = w.Extend(t.Context(), w.as("alice"), r.ID, 0, "")
		wantRefused(t, err, "allows 2 extensions")
	})
	t.Run("decided on", func(t *testing.T) {
		w := newWorld(t)
		r := w.approve(w.ask("role"), w.as("bob"))
		_, err := w.Extend(t.Context(), w.as("bob"), r.ID, 0, "")
		wantRefused(t, err, "the request is carol's")
		_, err = w.Extend(t.Context(), w.as("carol"), r.ID, time.Hour, "")
		wantField(t, err, "duration", "is 30m0s at most")
		ends := r.EndsAt
		r, err = w.Extend(t.Context(), w.as("carol"), r.ID, 20*time.Minute, "not done")
		w.must(err)
		if !r.EndsAt.Equal(ends) || len(r.Extensions) != 1 || r.Extensions[0].Request == "" {
			t.Fatalf("got %+v", r.Extensions)
		}
		_, err = w.Extend(t.Context(), w.as("carol"), r.ID, 0, "")
		wantRefused(t, err, "was asked for already")
		child := w.read(r.Extensions[0].Request)
		_, err = w.Decide(t.Context(), w.as("carol"), child.ID, child.Hash, true, "")
		wantRefused(t, err, "nobody decides on what they ask for themselves")
		w.approve(child, w.as("alice"))
		w.tick()
		if got := w.read(r.ID); got.EndsAt.Sub(ends) != 20*time.Minute {
			t.Errorf("got %s more", got.EndsAt.Sub(ends))
		}
		if got := w.read(child.ID); got.State != grant.Ended {
			t.Errorf("the extension's request: got %s", got.State)
		}
		w.advance(31 * time.Minute)
		if !w.holds("carol") {
			t.Error("carol holds nothing although the grant is longer")
		}
		w.advance(20 * time.Minute)
		if w.holds("carol") {
			t.Error("carol holds a grant whose time is up")
		}
	})
	t.Run("decided too late", func(t *testing.T) {
		w := newWorld(t)
		r := w.approve(w.ask("role"), w.as("bob"))
		r, err := w.Extend(t.Context(), w.as("carol"), r.ID, 0, "")
		w.must(err)
		w.advance(30 * time.Minute)
		w.tick()
		if got := w.read(r.Extensions[0].Request); got.State != grant.Expired {
			t.Errorf("got %s", got.State)
		}
	})
}

// Nobody decides on more time for a grant that is over, however that came.
func TestExtensionEndsWithGrant(t *testing.T) {
	for name, end := range map[string]func(*world, grant.Request) error{
		"released": func(w *world, r grant.Request) error {
			_, err := w.Release(w.t.Context(), w.as("carol"), r.ID)
			return err
		},
		"revoked": func(w *world, r grant.Request) error {
			_, err := w.Revoke(w.t.Context(), w.as("bob"), r.ID, "enough", false)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r, err := w.Extend(t.Context(), w.as("carol"), w.approve(w.ask("role"), w.as("bob")).ID, 0, "")
			w.must(err)
			w.must(end(w, r))
			child := w.read(r.Extensions[0].Request)
			if child.State != grant.Expired || child.Because != "the grant "+r.ID+" had ended" {
				t.Errorf("got %s: %s", child.State, child.Because)
			}
			if got := w.kinds(child.ID); got != "requested expired" {
				t.Errorf("got the events %s", got)
			}
			if got := w.log.of(child.ID); !slices.Contains(got, "expired") {
				t.Errorf("the audit log has %v", got)
			}
			if concerns, err := w.Concerns(t.Context(), w.as("bob").Principal, child); err != nil || concerns {
				t.Errorf("bob is still asked: %v", err)
			}
		})
	}
}

// What people write is text. What would act in a terminal is refused.
func TestHostileText(t *testing.T) {
	w := newWorld(t)
	for _, text := range []string{
		"\x1b[2Jnothing to see", "a\rb", "a\x00b", "a\u0085b", "\u202eevil", "a\u2028b", "\xff\xfe", strings.Repeat("a", 2001),
	} {
		_, err := w.Ask(t.Context(), w.as("carol"), asked("role", "reason", text))
		wantField(t, err, "reason", "")
		r := w.ask("role")
		_, err = w.Decide(t.Context(), w.as("bob"), r.ID, r.Hash, false, text)
		wantField(t, err, "comment", "")
		_, err = w.Revoke(t.Context(), w.as("bob"), r.ID, text, false)
		wantField(t, err, "reason", "")
		_, err = w.Cancel(t.Context(), w.as("carol"), r.ID)
		w.must(err)
	}
	const markup = "<!channel> *urgent* <https://evil.example|click> ${aws:username}, 漢字, 👩‍🚒"
	if got := w.ask("role", "reason", markup).Frozen.Reason; got != markup {
		t.Errorf("got %q, want it as it was written", got)
	}
}

// Who may ask, and what for.
func TestAsk(t *testing.T) {
	w := newWorld(t)
	_, err := w.Ask(t.Context(), w.as("eve"), asked("role"))
	wantRefused(t, err, `there is no flow "role" that eve may ask for`)
	_, err = w.Ask(t.Context(), w.as("eve"), asked("nothing"))
	wantRefused(t, err, `there is no flow "nothing" that eve may ask for`)
	_, err = w.Ask(t.Context(), w.as("carol"), asked("role", "duration", "3h"))
	wantField(t, err, "duration", "")
	in := asked("role")
	in.Targets = []string{"backend"}
	_, err = w.Ask(t.Context(), w.as("carol"), in)
	wantField(t, err, "targets", `flow role has no target "backend"; it has frontend`)
	agent := w.as("carol")
	agent.Principal.Kind = "node"
	_, err = w.Ask(t.Context(), agent, asked("role"))
	wantRefused(t, err, "nodes ask for nothing")
	gone := w.as("carol")
	gone.Principal.UserID = "AIDAGONE"
	_, err = w.Ask(t.Context(), gone, asked("role"))
	wantRefused(t, err, "there is no such user any more")
	in = asked("role")
	in.Explain = true
	r, err := w.Ask(t.Context(), w.as("carol"), in)
	w.must(err)
	if _, err := w.store.Request(t.Context(), r.ID); !errors.Is(err, grant.ErrNotFound) {
		t.Errorf("explaining stored a request: %v", err)
	}
	for range 20 {
		w.ask("role")
	}
	_, err = w.Ask(t.Context(), w.as("carol"), asked("role"))
	wantRefused(t, err, "has 20 requests waiting already")
}

// A clock that jumps makes no grant longer, and none come back.
func TestClockJumps(t *testing.T) {
	w := newWorld(t)
	r := w.approve(w.ask("role"), w.as("bob"))
	w.advance(-2 * time.Minute)
	if w.holds("carol") {
		t.Error("a grant holds before it began")
	}
	w.advance(12 * time.Hour)
	if w.holds("carol") {
		t.Error("a grant holds after its end")
	}
	w.tick()
	w.advance(-12*time.Hour + 3*time.Minute)
	if w.holds("carol") || w.read(r.ID).State != grant.Ended {
		t.Error("a grant that has ended came back with the clock")
	}
}
