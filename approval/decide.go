package approval

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sallyport.dev/document"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
)

// Decide implements grant.Rules. What a flow's own Cedar forbids is forbidden. What it
// permits, or the AutoApprovalPolicy for flows that documents make, is permitted unless
// the deny-access policy has a word against that: then people decide.
//
// Flows that documents make also forbid what AWS refuses: nodes that are not named, that
// are under another document, or under two.
func (r *Rules) Decide(ctx context.Context, f *flow.Flow, facts flow.Facts) (grant.Verdict, error) {
	forbid, permit, err := f.Rule(ctx, facts, r.config.Now())
	if forbid != "" {
		return grant.Verdict{Forbid: "cedar " + forbid}, err
	}
	if permit != "" {
		permit = "cedar " + permit
	}
	if strings.HasPrefix(f.Name, Prefix) {
		because, e := r.misplaced(ctx, f, facts)
		if because != "" || e != nil {
			return grant.Verdict{Forbid: because}, errors.Join(err, e)
		}
		auto, e := r.auto(ctx, facts)
		permit, err = auto, errors.Join(err, e)
	}
	if permit == "" || err != nil {
		return grant.Verdict{}, err
	}
	denied, err := r.denied(ctx, facts)
	if denied || err != nil {
		return grant.Verdict{}, err
	}
	return grant.Verdict{Permit: permit}, nil
}

// Fits implements grant.Fitter: a document's flow fits the nodes that are its own, the
// automatic one those that the policy approves. Flows of files always do.
func (r *Rules) Fits(ctx context.Context, f *flow.Flow, who flow.Person, n flow.Node) (bool, error) {
	if !strings.HasPrefix(f.Name, Prefix) {
		return true, nil
	}
	facts := flow.Facts{Flow: f.Name, Person: who, Nodes: []flow.Node{n}, Targets: f.Targets, Duration: min(f.Clocks.Default, autoAccess)}
	verdict, err := r.Decide(ctx, f, facts)
	if err != nil {
		return len(f.Stages) > 0, nil // people are shown what is wrong
	}
	return verdict.Forbid == "" && (verdict.Permit != "" || len(f.Stages) > 0), nil
}

// misplaced tells why nodes cannot be asked for under a document's flow.
func (r *Rules) misplaced(ctx context.Context, f *flow.Flow, facts flow.Facts) (because string, err error) {
	if len(facts.Nodes) == 0 {
		return f.Name + ": name the nodes", nil
	}
	if f.Name == AutoFlow {
		return "", nil
	}
	name, _, err := r.Manual(ctx, facts.Nodes)
	if conflict := (*ConflictError)(nil); errors.As(err, &conflict) {
		return conflict.Problem, nil
	}
	if none := (*NoPolicyError)(nil); errors.As(err, &none) {
		return none.Error(), nil
	}
	if err == nil && name != f.Name {
		return fmt.Sprintf("approval policy %s applies to these nodes, not %s", strings.TrimPrefix(name, Prefix), f.Label), nil
	}
	return "", err
}

// auto asks the AutoApprovalPolicy about nodes, each of which it must permit.
func (r *Rules) auto(ctx context.Context, facts flow.Facts) (permit string, err error) {
	if facts.Duration > autoAccess {
		return "", nil
	}
	text, found, err := r.text(ctx, document.AutoApproval)
	if err != nil || !found {
		return "", err
	}
	forbid, permit, err := r.ask(ctx, document.AutoApproval, text, facts)
	if err != nil || forbid != "" || permit == "" {
		return "", err
	}
	return document.AutoApproval + " " + permit, nil
}

// denied asks the deny-access policy. Where nodes are asked for without naming them,
// it cannot be asked, and denies.
func (r *Rules) denied(ctx context.Context, facts flow.Facts) (bool, error) {
	text, found, err := r.text(ctx, document.DenyAccess)
	if err != nil || !found {
		return false, err
	}
	if len(facts.Nodes) == 0 {
		for _, t := range facts.Targets {
			if t.Kind == flow.TargetNodes {
				return true, nil
			}
		}
		return false, nil
	}
	forbid, _, err := r.ask(ctx, document.DenyAccess, text, facts)
	return forbid != "", err
}
