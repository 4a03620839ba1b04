package access

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// ruling are the policies that decide about a principal. What only a grant allows in a role
// must be what the person might do as themselves, too: the grant is theirs, and neither a
// policy that denies them something nor their permissions boundary is left behind in a role.
type ruling struct {
	all    *policy.Set // with grants
	own    *policy.Set // without; nil where there is nobody behind
	behind *policy.Set // of the user behind a role, with the grants
}

// Evaluate decides.
func (r ruling) Evaluate(req *policy.Request) policy.Decision {
	d := r.all.Evaluate(req)
	if r.behind == nil || !d.Allowed() || r.own.Evaluate(req).Allowed() {
		return d
	}
	if b := r.behind.Evaluate(req); !b.Allowed() {
		return b
	}
	return d
}

// Possible is policy.Set.Possible.
func (r ruling) Possible(req *policy.Request, unknown ...string) bool {
	return r.all.Possible(req, unknown...) &&
		(r.behind == nil || r.own.Possible(req, unknown...) || r.behind.Possible(req, unknown...))
}

// Offers is policy.Set.Offers.
func (r ruling) Offers(action string) bool { return r.all.Offers(action) }

// Uses reports whether a policy asks for a condition key.
func (r ruling) Uses(key string) bool {
	return r.all.Uses(key) || r.behind != nil && r.behind.Uses(key)
}

// sources are the policies of a principal, by where they come from.
type sources struct {
	compiled *compiled // the principal's own
	grants   []policy.Source
	behind   []policy.Source // of the user behind a role who has grants
}

// rule makes a ruling, with more policies beside.
func (s sources) rule(more []policy.Source) ruling {
	if len(s.grants)+len(more) == 0 {
		return ruling{all: s.compiled.set}
	}
	r := ruling{all: policy.NewSet(slices.Concat(s.compiled.sources, s.grants, more))}
	if s.behind != nil {
		own := slices.DeleteFunc(slices.Clone(more), granted)
		r.own = policy.NewSet(slices.Concat(s.compiled.sources, own))
		r.behind = policy.NewSet(slices.Concat(s.behind, s.grants, more))
	}
	return r
}

// sourcesOf reads the policies of a principal; grants are those that count.
func (c *Checker) sourcesOf(ctx context.Context, p identity.Principal, grants, more []policy.Source) (s sources, err error) {
	if s.compiled, err = c.compiled(ctx, p); err != nil {
		return s, err
	}
	s.grants = grants
	given := len(grants) > 0 || slices.ContainsFunc(more, granted)
	if p.Kind != identity.KindRole || p.Root == "" || !given {
		return s, nil
	}
	people, ok := c.config.Store.(interface {
		UserByID(ctx context.Context, id string) (identity.User, error)
	})
	if !ok {
		return s, nil
	}
	u, err := people.UserByID(ctx, p.Root)
	if errors.Is(err, identity.ErrNotFound) {
		s.behind = []policy.Source{{Kind: policy.Boundary, Name: "the user, who does not exist"}}
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("finding who is behind %s: %w", p.ARN, err)
	}
	arn := c.config.Realm.IAM("user", u.Path, u.Name)
	e, err := c.compiled(ctx, identity.Principal{Kind: identity.KindUser, ARN: arn, PolicyARN: arn, UserID: u.ID, Name: u.Name, Boundary: u.Boundary})
	if err != nil {
		return s, err
	}
	s.behind = append([]policy.Source{}, e.sources...) // not nil, though there be none
	return s, nil
}

func granted(s policy.Source) bool { return s.Kind == policy.Grant }
