package grant_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/policy"
)

// asking are policies that permit everything and remember what they were asked.
type asking struct{ asked []string }

// Permit implements grant.Policies.
func (p *asking) Permit(_ context.Context, _ grant.Actor, action, _ string, _ map[string]string) error {
	p.asked = append(p.asked, action)
	return nil
}

// Refuse implements grant.Policies.
func (p *asking) Refuse(context.Context, grant.Actor, string, string, string, map[string]string) {}

// Would implements grant.Policies.
func (p *asking) Would(context.Context, identity.Principal, node.Node, string, string, []policy.Source) (bool, error) {
	return false, nil
}

// overtaken is a store on which something else happens before a request is changed.
type overtaken struct {
	grant.Store
	first func()
}

// UpdateRequest implements grant.Store.
func (s *overtaken) UpdateRequest(ctx context.Context, id string, change func(*grant.Request) ([]grant.Event, error)) (grant.Request, error) {
	if first := s.first; first != nil {
		s.first = nil
		first()
	}
	return s.Store.UpdateRequest(ctx, id, change)
}

// A step that others came before is judged again, and is still one: policies are asked about
// it, and it is recorded as permitted, once.
func TestPermittedOnce(t *testing.T) {
	for _, c := range []struct {
		action, flow string
		approved     bool
		step         func(w *world, e *grant.Engine, r grant.Request) error
	}{
		{grant.ActionApprove, "careful", false, func(w *world, e *grant.Engine, r grant.Request) error {
			_, err := e.Decide(w.t.Context(), w.factored("alice"), r.ID, r.Hash, true, "fine")
			return err
		}},
		{grant.ActionDelegate, "careful", false, func(w *world, e *grant.Engine, r grant.Request) error {
			_, err := e.Delegate(w.t.Context(), w.factored("alice"), r.ID, "bob")
			return err
		}},
		{grant.ActionCancel, "careful", false, func(w *world, e *grant.Engine, r grant.Request) error {
			_, err := e.Cancel(w.t.Context(), w.as("carol"), r.ID)
			return err
		}},
		{grant.ActionActivate, "later", true, func(w *world, e *grant.Engine, r grant.Request) error {
			_, err := e.Activate(w.t.Context(), w.as("carol"), r.ID)
			return err
		}},
		{grant.ActionExtend, "role", true, func(w *world, e *grant.Engine, r grant.Request) error {
			_, err := e.Extend(w.t.Context(), w.as("carol"), r.ID, 0, "")
			return err
		}},
	} {
		t.Run(c.action, func(t *testing.T) {
			w := newWorld(t)
			r := w.ask(c.flow)
			if c.approved {
				r = w.approve(r, w.as("alice"))
			}
			policies, config := &asking{}, w.set
			config.Policies = policies
			config.Store = &overtaken{w.store, func() {
				_, err := w.store.UpdateRequest(t.Context(), r.ID, func(*grant.Request) ([]grant.Event, error) { return nil, nil })
				w.must(err)
			}}
			e := grant.New(config)
			defer e.Close()
			w.must(c.step(w, e, r))
			if d := cmp.Diff([]string{c.action}, policies.asked); d != "" {
				t.Errorf("asked about (-want +got):\n%s", d)
			}
		})
	}
}
