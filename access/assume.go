package access

import (
	"context"
	"fmt"

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
	t := c.evaluateTrust(q, trust)
	if !t.Allowed() {
		return c.settle(ctx, q, decision(role.ARN, t), c.untrusted(q, t))
	}
	d, err := c.decide(ctx, q)
	if err != nil {
		return Decision{}, fmt.Errorf("deciding %s: %w", q.Action, err)
	}
	if !d.Allowed && !t.Delegated && d.Policy.Effect == policy.ImplicitlyDenied && d.Policy.Kind == policy.Identity {
		d = decision(role.ARN, t)
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

// evaluateTrust asks a trust policy about the caller. A role session may be named by
// its own ARN or by its role's; a deny of either counts.
func (c *Checker) evaluateTrust(q Query, trust *policy.Document) policy.Decision {
	p, conditions := q.Principal, c.Conditions(q, q.Resources[0])
	ask := func(arn string) policy.Decision {
		return policy.EvaluateTrust(trust, arn, c.config.Realm.Account, q.Action, conditions)
	}
	d := ask(p.ARN)
	if p.PolicyARN == p.ARN || d.Effect == policy.ExplicitlyDenied {
		return d
	}
	role := ask(p.PolicyARN)
	if better := role.Allowed() && (!d.Allowed() || d.Delegated); better || role.Effect == policy.ExplicitlyDenied {
		return role
	}
	return d
}
