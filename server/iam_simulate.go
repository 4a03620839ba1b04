package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// The policy simulator.

func iamSimulateOperations() []*Operation {
	return []*Operation{
		op("iam", "SimulatePrincipalPolicy", onPolicySource, simulatePrincipal, quietly),
		op("iam", "SimulateCustomPolicy", nil, simulateCustom, quietly),
	}
}

type contextEntry struct {
	ContextKeyName   string   `json:"ContextKeyName" check:"required,min=5,max=256"`
	ContextKeyValues []string `json:"ContextKeyValues" check:"max=100" each:"max=4096"`
	ContextKeyType   string   `json:"ContextKeyType" check:"enum=string|stringList|numeric|numericList|boolean|booleanList|ip|ipList|binary|binaryList|date|dateList"`
}

// simulateInput is what both simulations take. Values of context keys are text here,
// whatever their type, as in requests.
type simulateInput struct {
	ActionNames                        []string       `json:"ActionNames" check:"required,min=1,max=100" each:"min=3,max=128"`
	ResourceArns                       []string       `json:"ResourceArns" check:"max=100" each:"min=1,max=2048"`
	PolicyInputList                    []string       `json:"PolicyInputList" check:"max=20" each:"min=1,max=131072"`
	PermissionsBoundaryPolicyInputList []string       `json:"PermissionsBoundaryPolicyInputList" check:"max=1" each:"min=1,max=131072"`
	ContextEntries                     []contextEntry `json:"ContextEntries" check:"max=200"`
	CallerArn                          string         `json:"CallerArn" check:"min=1,max=2048"`
	ResourcePolicy                     string         `json:"ResourcePolicy" check:"max=131072"`
	Marker                             string         `json:"Marker" check:"min=1,max=4096"`
	MaxItems                           int            `json:"MaxItems" check:"min=1,max=1000"`
}

type simulateCustomInput struct{ simulateInput }

type simulatePrincipalInput struct {
	simulateInput
	PolicySourceArn string `json:"PolicySourceArn" check:"required,min=20,max=2048"`
}

type textPosition struct {
	Line   int `xml:"Line"`
	Column int `xml:"Column"`
}

type matchedStatement struct {
	SourcePolicyID   string       `xml:"SourcePolicyId"`
	SourcePolicyType string       `xml:"SourcePolicyType"`
	StartPosition    textPosition `xml:"StartPosition"`
	EndPosition      textPosition `xml:"EndPosition"`
}

type boundaryDetail struct {
	AllowedByPermissionsBoundary bool `xml:"AllowedByPermissionsBoundary"`
}

type evaluationResult struct {
	EvalActionName                    string                       `xml:"EvalActionName"`
	EvalResourceName                  string                       `xml:"EvalResourceName"`
	EvalDecision                      string                       `xml:"EvalDecision"`
	MatchedStatements                 memberList[matchedStatement] `xml:"MatchedStatements"`
	MissingContextValues              memberList[string]           `xml:"MissingContextValues"`
	PermissionsBoundaryDecisionDetail *boundaryDetail              `xml:"PermissionsBoundaryDecisionDetail,omitempty"`
}

type simulateOutput struct {
	EvaluationResults memberList[evaluationResult] `xml:"EvaluationResults"`
	pageOutput
}

// simulation is a set of policies to ask.
type simulation struct {
	principal string // ARN
	sources   []policy.Source
	origins   map[string]policyOrigin // by Source.Name
	context   policy.Context          // what the principal itself brings
}

// policyOrigin says where a source comes from, in IAM's terms.
type policyOrigin struct{ id, kind string }

func newSimulation() *simulation {
	return &simulation{origins: map[string]policyOrigin{}, context: policy.Context{}}
}

func (s *simulation) add(kind policy.Kind, name, text string, origin policyOrigin) error {
	d, err := policy.Parse([]byte(text))
	if err != nil {
		return invalidInput("Syntax error in %s: %v", name, err)
	}
	s.sources = append(s.sources, policy.Source{Kind: kind, Name: name, Document: d})
	s.origins[name] = origin
	return nil
}

// addInput adds the policies that came with the request. A boundary among them
// replaces the principal's own.
func (s *simulation) addInput(in *simulateInput) error {
	if in.ResourcePolicy != "" {
		return invalidInput("ResourcePolicy is given, but resources have no policies of their own here")
	}
	for i, text := range in.PolicyInputList {
		name := fmt.Sprintf("PolicyInputList.%d", i+1)
		if err := s.add(policy.Identity, name, text, policyOrigin{name, "none"}); err != nil {
			return err
		}
	}
	for i, text := range in.PermissionsBoundaryPolicyInputList {
		s.sources = slices.DeleteFunc(s.sources, func(p policy.Source) bool { return p.Kind == policy.Boundary })
		name := fmt.Sprintf("PermissionsBoundaryPolicyInputList.%d", i+1)
		if err := s.add(policy.Boundary, name, text, policyOrigin{name, "none"}); err != nil {
			return err
		}
	}
	return nil
}

// run asks about every action on every resource and answers a page of the results.
// Up to 100 × 100 questions are decided one at a time, so that a caller who leaves
// stops the work.
func (s *simulation) run(ctx context.Context, c *Call, in *simulateInput) (*simulateOutput, error) {
	resources := in.ResourceArns
	if len(resources) == 0 {
		resources = []string{"*"}
	}
	asked := maps.Clone(s.context)
	for _, e := range in.ContextEntries {
		maps.DeleteFunc(asked, func(key string, _ []string) bool { return strings.EqualFold(key, e.ContextKeyName) })
		asked.Add(e.ContextKeyName, e.ContextKeyValues...)
	}
	page, more, err := pageOf(c, pageInput{Marker: in.Marker, MaxItems: in.MaxItems},
		pairs(in.ActionNames, resources), func(p pair) string { return p.key })
	if err != nil {
		return nil, err
	}
	out := &simulateOutput{pageOutput: more}
	for _, p := range page {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out.EvaluationResults.add(s.evaluate(p.action, p.resource, asked))
	}
	return out, nil
}

// pair is one question; its key keeps the order of the request.
type pair struct{ key, action, resource string }

func pairs(actions, resources []string) []pair {
	var all []pair
	for i, action := range actions {
		for j, resource := range resources {
			all = append(all, pair{fmt.Sprintf("%04d/%04d", i, j), action, resource})
		}
	}
	return all
}

func (s *simulation) evaluate(action, resource string, asked policy.Context) evaluationResult {
	x := policy.Explain(s.sources, &policy.Request{
		Principal: s.principal, Action: action, Resource: resource, Context: asked,
	})
	result := evaluationResult{
		EvalActionName: action, EvalResourceName: resource,
		EvalDecision: map[policy.Effect]string{
			policy.Allowed: "allowed", policy.ExplicitlyDenied: "explicitDeny", policy.ImplicitlyDenied: "implicitDeny",
		}[x.Effect],
		MissingContextValues: memberList[string]{missingKeys(x.Statements)},
	}
	for _, r := range x.Statements {
		if r.Matched && r.Kind != policy.Boundary {
			result.MatchedStatements.add(s.matched(r))
		}
	}
	if s.bounded() {
		refused := x.Effect != policy.Allowed && x.Kind == policy.Boundary
		result.PermissionsBoundaryDecisionDetail = &boundaryDetail{AllowedByPermissionsBoundary: !refused}
	}
	return result
}

func (s *simulation) bounded() bool {
	return slices.ContainsFunc(s.sources, func(p policy.Source) bool { return p.Kind == policy.Boundary })
}

func (s *simulation) matched(r policy.Reason) matchedStatement {
	origin := s.origins[r.Source]
	return matchedStatement{
		SourcePolicyID: origin.id, SourcePolicyType: origin.kind,
		StartPosition: textPosition{r.Start.Line, r.Start.Column},
		EndPosition:   textPosition{r.End.Line, r.End.Column},
	}
}

// missingKeys lists the condition keys that policies ask for and the request does not
// have, in order.
func missingKeys(statements []policy.Reason) []string {
	missing := map[string]bool{}
	for _, st := range statements {
		for _, check := range st.Checks {
			if check.Absent && check.Key != "" {
				missing[check.Key] = true
			}
			for _, name := range check.Unresolved {
				missing[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(missing))
}

func simulateCustom(ctx context.Context, c *Call, in *simulateCustomInput) (*simulateOutput, error) {
	if len(in.PolicyInputList) == 0 {
		return nil, missingMember("policyInputList")
	}
	s := newSimulation()
	s.principal = in.CallerArn
	if err := s.addInput(&in.simulateInput); err != nil {
		return nil, err
	}
	return s.run(ctx, c, &in.simulateInput)
}

// policySource is the user, group or role that an ARN names.
func (c *Call) policySource(arn string) (entityKind, string, error) {
	for _, k := range []entityKind{userKind(), groupKind(), roleKind()} {
		if rest, ok := strings.CutPrefix(arn, c.iamARN(string(k.owner), "/", "")); ok && rest != "" {
			return k, rest[strings.LastIndexByte(rest, '/')+1:], nil
		}
	}
	return entityKind{}, "", invalidInput("Invalid Entity Arn: %s does not name a user, group or role of this account.", arn)
}

// onPolicySource authorises on the identity whose policies are asked; run refuses an
// ARN that names none.
func onPolicySource(ctx context.Context, c *Call, in *simulatePrincipalInput) ([]access.Resource, error) {
	k, name, err := c.policySource(in.PolicySourceArn)
	if err != nil {
		return []access.Resource{{ARN: in.PolicySourceArn}}, nil
	}
	return one(k.resource(ctx, c, name))
}

func simulatePrincipal(ctx context.Context, c *Call, in *simulatePrincipalInput) (*simulateOutput, error) {
	k, name, err := c.policySource(in.PolicySourceArn)
	if err != nil {
		return nil, err
	}
	e, err := k.find(ctx, c, name)
	if err != nil {
		return nil, err
	}
	if c.iamARN(string(k.owner), e.path, e.owner.Name) != in.PolicySourceArn {
		return nil, k.error(identity.ErrNotFound, name)
	}
	s := newSimulation()
	s.principal = orElse(in.CallerArn, in.PolicySourceArn)
	s.fill(c, k, e, in.PolicySourceArn)
	if err := s.gather(ctx, c.Server.config.Identities, e); err != nil {
		return nil, err
	}
	if err := s.addInput(&in.simulateInput); err != nil {
		return nil, err
	}
	return s.run(ctx, c, &in.simulateInput)
}

// fill adds the keys that requests of the entity would carry; ContextEntries go over
// them.
func (s *simulation) fill(c *Call, k entityKind, e entity, arn string) {
	if k.owner == identity.OwnerGroup {
		return
	}
	s.context.Add("aws:PrincipalArn", arn)
	s.context.Add("aws:PrincipalAccount", c.Server.config.Realm.Account)
	if k.owner == identity.OwnerUser {
		s.context.Add("aws:username", e.owner.Name)
		s.context.Add("aws:userid", e.id)
	}
	for _, key := range e.tags.Keys() {
		s.context.Add("aws:PrincipalTag/"+key, e.tags.Values(key)...)
	}
}

// gather adds the entity's policies, those of its groups, and its boundary.
func (s *simulation) gather(ctx context.Context, store identity.Store, e entity) error {
	owners := []identity.Owner{e.owner}
	if e.owner.Kind == identity.OwnerUser {
		groups, err := store.GroupsOf(ctx, e.owner.Name, identity.Page{})
		if err != nil {
			return err
		}
		for _, g := range groups {
			owners = append(owners, groupKind().named(g.Name))
		}
	}
	for _, o := range owners {
		if err := s.gatherOwner(ctx, store, o); err != nil {
			return err
		}
	}
	return s.gatherBoundary(ctx, store, e.boundary)
}

func (s *simulation) gatherOwner(ctx context.Context, store identity.Store, o identity.Owner) error {
	inline, err := store.InlinePolicies(ctx, o)
	if err != nil {
		return err
	}
	for _, p := range inline {
		id := string(o.Kind) + "_" + o.Name + "_" + p.Name
		name := fmt.Sprintf("inline policy %s of %s %s", p.Name, o.Kind, o.Name)
		if err := s.add(policy.Identity, name, p.Document, policyOrigin{id, string(o.Kind)}); err != nil {
			return err
		}
	}
	attached, err := store.AttachedPolicies(ctx, o)
	if err != nil {
		return err
	}
	for _, p := range attached {
		name := fmt.Sprintf("managed policy %s of %s %s", p.Name, o.Kind, o.Name)
		if err := s.addManaged(ctx, store, policy.Identity, name, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *simulation) addManaged(ctx context.Context, store identity.Store, kind policy.Kind, name string, p identity.ManagedPolicy) error {
	v, err := store.PolicyVersion(ctx, p.ARN, p.DefaultVersion)
	if err != nil {
		return err
	}
	return s.add(kind, name, v.Document, policyOrigin{p.Name, "user-managed"})
}

func (s *simulation) gatherBoundary(ctx context.Context, store identity.Store, arn string) error {
	if arn == "" {
		return nil
	}
	name := "permissions boundary " + arn
	p, err := store.Policy(ctx, arn)
	if errors.Is(err, identity.ErrNotFound) {
		// As in decisions: a boundary that is gone allows nothing.
		s.sources = append(s.sources, policy.Source{Kind: policy.Boundary, Name: name})
		return nil
	}
	if err != nil {
		return err
	}
	return s.addManaged(ctx, store, policy.Boundary, name, p)
}
