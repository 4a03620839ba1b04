package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/policy"
)

// Store is the part of identity.Store that holds policies.
type Store interface {
	GroupsOf(ctx context.Context, user string, p identity.Page) ([]identity.Group, error)
	InlinePolicies(ctx context.Context, o identity.Owner) ([]identity.InlinePolicy, error)
	AttachedPolicies(ctx context.Context, o identity.Owner) ([]identity.ManagedPolicy, error)
	Policy(ctx context.Context, arn string) (identity.ManagedPolicy, error)
	PolicyVersion(ctx context.Context, arn, id string) (identity.PolicyVersion, error)
	Revision(ctx context.Context) (int64, error)
}

// Auditor records decisions; Append returns when the record is durable.
type Auditor interface {
	Append(ctx context.Context, r audit.Record) (audit.Record, error)
}

// GrantSource gives the grants that a principal holds at this moment, as policies of
// kind policy.Grant. It is asked for every decision.
type GrantSource interface {
	Grants(ctx context.Context, p identity.Principal) ([]policy.Source, error)
}

// Config is what a Checker needs.
type Config struct {
	Store  Store
	Audit  Auditor
	Grants GrantSource // nil for none
	Realm  arn.Realm
	Now    func() time.Time
	Logger *slog.Logger
	// Observe is told of every decision that was made, with how long that took, the
	// audit log not included; nil for nobody.
	Observe func(d policy.Decision, took time.Duration)
}

// Checker decides, and records what it decided. It is safe for concurrent use.
type Checker struct {
	config     Config
	cache      cache
	everything *policy.Document // allows all
	refusals   refusals
}

// New returns a Checker.
func New(c Config) *Checker {
	everything, err := policy.Parse([]byte(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`))
	if err != nil {
		panic("access: " + err.Error())
	}
	return &Checker{config: c, cache: newCache(), everything: everything}
}

// recordTimeout bounds the wait for a record to become durable.
const recordTimeout = 10 * time.Second

// Check decides and audits. A refusal is a *DeniedError; any other error means
// that the decision could not be made or not be recorded, and nothing is allowed.
func (c *Checker) Check(ctx context.Context, q Query) (Decision, error) {
	return c.check(ctx, q)
}

// check decides by the first of the alternatives that allows, else by the last one.
func (c *Checker) check(ctx context.Context, alternatives ...Query) (Decision, error) {
	d, q, err := c.first(ctx, nil, alternatives...)
	if err == nil {
		d, err = c.used(ctx, q, d, func(more []policy.Source) (d Decision, err error) {
			d, q, err = c.first(ctx, more, alternatives...)
			return d, err
		})
	}
	if err != nil {
		return Decision{}, err
	}
	return c.settle(ctx, q, d, nil)
}

// first returns the decision on the first of the alternatives that allows, else on the
// last one, and which one that was; with more policies beside the principal's own.
func (c *Checker) first(ctx context.Context, more []policy.Source, alternatives ...Query) (d Decision, q Query, err error) {
	for _, q = range alternatives {
		if d, err = c.decide(ctx, q, more...); err != nil {
			return Decision{}, q, fmt.Errorf("deciding %s: %w", q.Action, err)
		}
		if d.Allowed {
			break
		}
	}
	return d, q, nil
}

// settle records a decision and turns a refusal into an error.
func (c *Checker) settle(ctx context.Context, q Query, d Decision, denied *DeniedError) (Decision, error) {
	if !d.Allowed && denied == nil {
		denied = &DeniedError{Principal: q.Principal.ARN, Action: q.Action, Resource: d.Resource, Decision: d.Policy, Because: d.Because}
	}
	err := c.record(ctx, q, d, denied)
	if err != nil && (denied != nil || !q.Ending) {
		return Decision{}, err
	}
	if err != nil {
		c.emergency(q, err)
	}
	if denied != nil {
		return d, denied
	}
	return d, nil
}

// Refuse records and returns a refusal that no policy had a say in; because begins
// with "because".
func (c *Checker) Refuse(ctx context.Context, q Query, because string) error {
	d := Decision{Resource: firstARN(q)}
	_, err := c.settle(ctx, q, d, &DeniedError{
		Principal: q.Principal.ARN, Action: q.Action, Resource: d.Resource, Because: because,
	})
	return err
}

// Admit records that a call was allowed without asking policies: an agent on its own
// node.
func (c *Checker) Admit(ctx context.Context, q Query) error {
	d := Decision{Allowed: true, Resource: firstARN(q), Policy: policy.Decision{Effect: policy.Allowed}}
	_, err := c.settle(ctx, q, d, nil)
	return err
}

func firstARN(q Query) string {
	if len(q.Resources) == 0 {
		return "*"
	}
	return q.Resources[0].ARN
}

// Decide decides as Check does, but records nothing and returns refusals as decisions.
func (c *Checker) Decide(ctx context.Context, q Query) (Decision, error) {
	d, err := c.decide(ctx, q)
	if err != nil {
		return Decision{}, fmt.Errorf("deciding %s: %w", q.Action, err)
	}
	return d, nil
}

// decide evaluates every resource of a query, with more policies beside the
// principal's own.
func (c *Checker) decide(ctx context.Context, q Query, more ...policy.Source) (d Decision, err error) {
	if c.config.Observe != nil {
		began := time.Now()
		defer func() {
			if err == nil {
				c.config.Observe(d.Policy, time.Since(began))
			}
		}()
	}
	if len(q.Resources) == 0 {
		return Decision{}, errors.New("no resource to decide on")
	}
	if q.combined() > maxCombinations {
		return Decision{Resource: firstARN(q), Because: fmt.Sprintf("because the values of its tags have more than %d combinations", maxCombinations)}, nil
	}
	set, err := c.policies(ctx, q.Principal, more)
	if err != nil {
		return Decision{}, err
	}
	return c.evaluate(set, q), nil
}

// evaluate decides by a set of policies: the first resource that refuses does.
func (c *Checker) evaluate(set ruling, q Query) (d Decision) {
	for one := range q.combinations() {
		for _, r := range q.Resources {
			if d = decision(r.ARN, set.Evaluate(c.request(one, r))); !d.Allowed {
				return d
			}
		}
	}
	return d
}

func decision(arn string, p policy.Decision) Decision {
	return Decision{Allowed: p.Allowed(), Resource: arn, Policy: p}
}

func (c *Checker) request(q Query, r Resource) *policy.Request {
	return &policy.Request{
		Principal: q.Principal.ARN, Action: q.Action, Resource: r.ARN,
		Context: c.Conditions(q, r),
	}
}

// record writes the audit record of a decision. It outlives the request's context: a
// caller who hangs up does not leave a refusal unrecorded.
func (c *Checker) record(ctx context.Context, q Query, d Decision, denied *DeniedError) error {
	if q.NoAudit || q.Quiet && d.Allowed {
		return nil
	}
	r := c.recordOf(q, d, denied)
	c.recordCounted(ctx, c.refusals.due(c.config.Now(), false))
	if denied != nil && !c.refusals.note(q.Principal.RootID(), r) {
		return nil
	}
	if err := c.append(ctx, r); err != nil {
		return fmt.Errorf("recording the decision on %s: %w", q.Action, err)
	}
	return nil
}

func (c *Checker) append(ctx context.Context, r audit.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	_, err := c.config.Audit.Append(ctx, r)
	return err
}

// recordCounted records what was counted of refusals, which happened whether or not
// that succeeds.
func (c *Checker) recordCounted(ctx context.Context, due []audit.Record) {
	for _, r := range due {
		if err := c.append(ctx, r); err != nil {
			c.config.Logger.Error("recording refusals", "principal", r.Principal, "repeated", r.Details["repeated"], "error", err)
		}
	}
}

// Flush records the refusals that have been counted so far.
func (c *Checker) Flush(ctx context.Context) {
	c.recordCounted(ctx, c.refusals.due(c.config.Now(), true))
}

// emergency writes to the log what the audit log could not take of an action that goes
// ahead all the same.
func (c *Checker) emergency(q Query, cause error) {
	r := c.recordOf(q, Decision{Policy: policy.Decision{Effect: policy.Allowed}}, nil)
	c.config.Logger.Error("not in the audit log: allowed because it only ends access", "principal", r.Principal, "action", r.Action,
		"resources", r.Resources, "session", r.Session, "source_ip", r.SourceIP, "request", r.RequestID, "details", r.Details, "error", cause)
}

func (c *Checker) recordOf(q Query, d Decision, denied *DeniedError) audit.Record {
	r := audit.Record{
		Time: c.config.Now(), Event: audit.EventDecision,
		Principal: q.Principal.ARN, Action: q.Action,
		Decision: d.Policy.Effect.String(), Reason: reasons(d.Policy),
		SourceIP: q.Origin.SourceIP, UserAgent: q.Origin.UserAgent, RequestID: q.Origin.RequestID,
		Session: q.Session, Node: q.Node, Document: q.Document, Details: details(q),
	}
	for _, resource := range q.Resources {
		r.Resources = append(r.Resources, resource.ARN)
	}
	if denied != nil {
		r.Error, r.Reason = "AccessDenied", denied.Error()
	}
	return r
}

// details adds to the query's details who is behind the caller: which key signed and,
// behind a role, who assumed it and which user is at the beginning of the chain.
func details(q Query) map[string]string {
	all := maps.Clone(q.Details)
	if all == nil {
		all = map[string]string{}
	}
	for key, value := range map[string]string{
		"access_key_id": q.Principal.AccessKeyID, "source": q.Principal.Source, "root": q.Principal.RootARN,
		"root_id": q.Principal.Root, "source_identity": q.Principal.SourceIdentity,
	} {
		if value != "" {
			all[key] = value
		}
	}
	return all
}

func reasons(d policy.Decision) string {
	lines := make([]string, len(d.Reasons))
	for i, r := range d.Reasons {
		lines[i] = r.String()
	}
	return strings.Join(lines, "; ")
}

// Explanation is a decision with every statement's part in it.
type Explanation struct {
	Decision
	Denied    *DeniedError // nil if allowed
	Resources []ResourceExplanation
}

// ResourceExplanation explains the decision on one resource.
type ResourceExplanation struct {
	ARN string
	policy.Explanation
}

// Explain decides as Check does, but of all resources, says why, and records nothing.
func (c *Checker) Explain(ctx context.Context, q Query) (Explanation, error) {
	return c.explain(ctx, q)
}

// ExplainOwn is Explain for what belongs to the principal, which CheckOwn decides.
func (c *Checker) ExplainOwn(ctx context.Context, q Query) (Explanation, error) {
	return c.explainOne(ctx, q, c.owned(rightToOwn)...)
}

func (c *Checker) explain(ctx context.Context, alternatives ...Query) (Explanation, error) {
	var e Explanation
	for _, q := range alternatives {
		var err error
		if e, err = c.explainOne(ctx, q); err != nil || e.Allowed {
			return e, err
		}
	}
	return e, nil
}

func (c *Checker) explainOne(ctx context.Context, q Query, more ...policy.Source) (Explanation, error) {
	sources, err := c.Sources(ctx, q.Principal)
	if err != nil {
		return Explanation{}, err
	}
	sources = slices.Concat(sources, more)
	e := Explanation{Decision: Decision{Allowed: true}}
	for _, r := range q.Resources {
		x := policy.Explain(sources, c.request(q, r))
		e.Resources = append(e.Resources, ResourceExplanation{r.ARN, x})
		if e.Allowed {
			e.Decision = decision(r.ARN, x.Decision)
		}
	}
	if e.Allowed {
		// What only a grant allows is looked at again for who is behind a role.
		if e.Decision, err = c.decide(ctx, q, more...); err != nil {
			return Explanation{}, err
		}
	}
	if !e.Allowed {
		e.Denied = &DeniedError{Principal: q.Principal.ARN, Action: q.Action, Resource: e.Resource, Decision: e.Policy}
	}
	return e, nil
}
