package server

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// holdings are the grants of a test: what an engine would say of rows that the test
// writes.
type holdings struct {
	t     testing.TB
	clock func() time.Time

	mu        sync.Mutex
	revision  int64
	rows      []*holding
	err       error // of every read
	signedOut bool
	extend    func(*grant.Request) (grant.Request, error)
}

type holding struct {
	grant.Request
	policies []policy.Source
}

func newHoldings(t testing.TB) *holdings { return &holdings{t: t, clock: time.Now} }

// use makes a server enforce the holdings.
func (h *holdings) use(c *Config) {
	h.clock = c.Now
	c.engine, c.Ties = h, h
}

// give gives a person a grant that is a policy, for a time.
func (h *holdings) give(id string, person identity.User, life time.Duration, text string, targets ...flow.Target) {
	h.t.Helper()
	d, err := policy.Parse([]byte(text))
	if err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.clock()
	r := grant.Request{
		ID: id, State: grant.Active, ActivatedAt: now, EndsAt: now.Add(life),
		Frozen: grant.Frozen{ID: id, Person: flow.Person{ID: person.ID, Name: person.Name}, Targets: targets},
	}
	h.rows = append(h.rows, &holding{r, []policy.Source{{Kind: policy.Grant, Name: "grant " + id, Document: d}}})
	h.revision++
}

// change changes a grant's row.
func (h *holdings) change(id string, change func(*grant.Request)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.rows {
		if r.ID == id {
			change(&r.Request)
		}
	}
	h.revision++
}

func (h *holdings) revoke(id string) {
	h.change(id, func(r *grant.Request) {
		r.State, r.EndedAt, r.EndedBy = grant.Revoked, h.clock(), "arn:aws:iam::111111111111:user/bob"
	})
}

// fail makes every read an error; nil ends that.
func (h *holdings) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

func (h *holdings) of(p identity.Principal, at time.Time) (all []holding, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.rows {
		if r.Frozen.Person.ID == p.RootID() && r.State == grant.Active && at.Before(r.EndsAt) {
			all = append(all, *r)
		}
	}
	return all, h.err
}

func (h *holdings) Grants(ctx context.Context, p identity.Principal) ([]policy.Source, error) {
	return h.GrantsAt(ctx, p, h.clock())
}

func (h *holdings) GrantsAt(_ context.Context, p identity.Principal, at time.Time) (all []policy.Source, err error) {
	held, err := h.of(p, at)
	for _, r := range held {
		all = append(all, r.policies...)
	}
	return all, err
}

func (h *holdings) Held(_ context.Context, p identity.Principal) (all []grant.Request, err error) {
	held, err := h.of(p, h.clock())
	for _, r := range held {
		all = append(all, r.Request)
	}
	return all, err
}

func (h *holdings) Usable(ctx context.Context, p identity.Principal) ([]grant.Request, error) {
	return h.Held(ctx, p)
}

func (h *holdings) Request(_ context.Context, id string) (grant.Request, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.rows {
		if r.ID == id {
			return r.Request, h.err
		}
	}
	return grant.Request{}, errors.Join(h.err, grant.ErrNotFound)
}

func (h *holdings) Extend(_ context.Context, a grant.Actor, id string, _ time.Duration, _ string) (grant.Request, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revision++
	for _, r := range h.rows {
		if r.ID == id && r.Frozen.Person.ID == a.Principal.RootID() {
			return h.extend(&r.Request)
		}
	}
	return grant.Request{}, grant.ErrNotFound
}

func (h *holdings) Deciders(context.Context, grant.Request, int) ([]flow.Person, error) {
	return []flow.Person{{Name: "bob"}, {Name: "alice"}}, nil
}

func (h *holdings) Revision(context.Context) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.revision, h.err
}

func (h *holdings) SignIn(_ context.Context, id, _ string) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.signedOut {
		return "the sign-in was ended by bob", nil
	}
	return "", nil
}

func (h *holdings) Granted(_ context.Context, person string, g identity.GrantedRole) (string, error) {
	held, err := h.of(identity.Principal{UserID: person}, h.clock())
	for _, r := range held {
		if slices.Contains(g.Grants, r.ID) || givesRole(r.Request, g.Role) {
			return "", err
		}
	}
	return "the grant of the role " + g.Role + " has ended", err
}

var _ accessEngine = (*grant.Engine)(nil)

var _ accessEngine = (*holdings)(nil)
