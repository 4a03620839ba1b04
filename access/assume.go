package access

import (
	"context"
	"fmt"
	"slices"

	"sallyport.dev/policy"
)

// CheckAssume is Check for the actions of assuming a role (sts:AssumeRole,
// sts:TagSession, sts:SetSourceIdentity) on q's one resource. The role's trust policy
// must allow. Where it names the caller themselves (or everyone) that is enough, as
// long as no policy of the caller denies explicitly and their boundary and session
// policies do not leave the action out; where it names the account only, the caller's
// own policies must allow too.
func (c *Checker) CheckAssume(ctx context.Context, q Query, trust *policy.Document) (Decision, error) {
	if len(q.Resources) != 1 {
		return Decision{}, fmt.Errorf("deciding %s: %d resources instead of the role", q.Action, len(q.Resources))
	}
	role := q.Resources[0]
	delegated := false
	for one := range q.combinations() {
		t := c.evaluateTrust(one, trust)
		if !t.Allowed() {
			return c.settle(ctx, q, decision(role.ARN, t), c.untrusted(q, t))
		}
		delegated = delegated || t.Delegated
	}
	var named []policy.Source
	if !delegated {
		named = c.owned("trust policy of the role")
	}
	evaluate := func(more []policy.Source) (Decision, error) {
		return c.DecideWith(ctx, q, slices.Concat(named, more))
	}
	d, err := evaluate(nil)
	if err == nil {
		d, err = c.used(ctx, q, d, evaluate)
	}
	if err != nil {
		return Decision{}, err
	}
	return c.settle(ctx, q, d, nil)
}

func (c *Checker) untrusted(q Query, t policy.Decision) *DeniedError {
	e := &DeniedError{Principal: q.Principal.ARN, Action: q.Action, Resource: q.Resources[0].ARN, Decision: t}
	e.Because = "because no trust policy allows the " + q.Action + " action"
	if t.Effect == policy.ExplicitlyDenied {
		e.Because = "with an explicit deny in a trust policy"
	}
	return e
}

// evaluateTrust asks a trust policy about the caller.
func (c *Checker) evaluateTrust(q Query, trust *policy.Document) policy.Decision {
	return policy.EvaluateTrust(trust, q.Principal.ARN, c.config.Realm.Account, q.Action,
		c.Conditions(q, q.Resources[0]))
}

// CheckOwn is Check for what belongs to the caller (their own sessions): it needs no
// policy that allows, but an explicit deny refuses, and so do a boundary and session
// policies that leave the action out.
func (c *Checker) CheckOwn(ctx context.Context, q Query) (Decision, error) {
	d, err := c.decide(ctx, q, c.owned(rightToOwn)...)
	if err != nil {
		return Decision{}, fmt.Errorf("deciding %s: %w", q.Action, err)
	}
	return c.settle(ctx, q, d, nil)
}

// rightToOwn is what allows people what is their own.
const rightToOwn = "right to one's own"

// owned stands for an identity policy that allows what is asked for.
func (c *Checker) owned(name string) []policy.Source {
	return []policy.Source{{Kind: policy.Identity, Name: name, Document: c.everything}}
}
