package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport.dev/document"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
)

// Now is what there is.
type Now struct {
	Identities identity.Store
	Documents  document.Store
	Realm      arn.Realm
}

// Verb says what becomes of something.
type Verb string

// What becomes of things. Users that are in the files no more are disabled, which ends
// all that is theirs, and stay for the record.
const (
	Create  Verb = "create"
	Change  Verb = "change"
	Delete  Verb = "delete"
	Disable Verb = "disable"
)

// Step is one thing that a plan makes, changes or takes away.
type Step struct {
	Verb  Verb     `json:"Verb"`
	Kind  string   `json:"Kind"` // user, group, role, policy, document, flows
	Name  string   `json:"Name"`
	Lines []string `json:"Lines,omitempty"` // what differs, for people
	Calls []Call   `json:"-"`
}

// Call is an operation of the API.
type Call struct {
	Service, Operation string
	Input              map[string]any
}

// Plan is what there is to do, in the order in which it is to be done.
type Plan struct {
	Steps []Step
	Hash  string // hex SHA-256 over the steps and their calls
}

// planner collects steps; its first error stops it.
type planner struct {
	ctx    context.Context // of one plan
	now    Now
	want   *World
	before *World
	arns   map[string]string // of managed policies that there are, by themselves in lower case
	steps  []Step
	err    error
}

// NewPlan compares what files want with what there is. Before is what the files said that
// were applied last: what these had and want has no more is taken away.
func NewPlan(ctx context.Context, now Now, want, before *World) (Plan, error) {
	p := &planner{ctx: ctx, now: now, want: want, before: before, arns: map[string]string{}}
	have, err := now.Identities.Policies(ctx, identity.Page{})
	if err != nil {
		return Plan{}, err
	}
	for _, m := range have {
		p.arns[strings.ToLower(m.ARN)] = m.ARN
	}
	each(p, want.Policies, p.policy)
	each(p, want.Documents, p.document)
	each(p, want.Groups, p.group)
	each(p, want.Roles, p.role)
	each(p, want.Users, p.user)
	each(p, want.Groups, p.members) // once the users are there
	gone(p, before.Users, want.Users, saidOf, p.disableUser)
	gone(p, before.Roles, want.Roles, saidOf, p.deleteRole)
	gone(p, before.Groups, want.Groups, saidOf, p.deleteGroup)
	gone(p, before.Documents, want.Documents, saidSo, p.deleteDocument)
	gone(p, before.Policies, want.Policies, saidOf, p.deletePolicy)
	return Plan{p.steps, hash(p.steps)}, p.err
}

// With returns the plan with one step more.
func (p Plan) With(s Step) Plan {
	p.Steps = append(slices.Clone(p.Steps), s)
	p.Hash = hash(p.Steps)
	return p
}

func hash(steps []Step) string {
	type whole struct {
		Step
		Calls []Call
	}
	all := make([]whole, len(steps))
	for i, s := range steps {
		all[i] = whole{s, s.Calls}
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic("apply: " + err.Error()) // texts, lists and maps of them
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func each[T any](p *planner, all map[string]*T, plan func(*T) error) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if p.err == nil {
			p.err = plan(all[name])
		}
	}
}

// saidOf finds what files say of a name, whatever its case, as names are in IAM.
func saidOf[T any](all map[string]*T, name string) *T {
	for said, one := range all {
		if strings.EqualFold(said, name) {
			return one
		}
	}
	return nil
}

// saidSo finds what files say of a name whose case counts, as documents' does.
func saidSo[T any](all map[string]*T, name string) *T { return all[name] }

// gone calls take for what was said before and is no more, as said finds it.
func gone[T any](p *planner, before, want map[string]*T, said func(map[string]*T, string) *T, take func(name string) error) {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if said(want, name) == nil && p.err == nil {
			p.err = take(name)
		}
	}
}

// begin starts a step.
func begin(v Verb, kind, name string) *Step { return &Step{Verb: v, Kind: kind, Name: name} }

// add puts a call and what it changes, in words, into a step.
func (s *Step) add(line, service, operation string, input map[string]any) {
	if line != "" {
		s.Lines = append(s.Lines, line)
	}
	s.Calls = append(s.Calls, Call{service, operation, input})
}

// enter takes a step that does something.
func (p *planner) enter(s *Step) {
	if len(s.Calls) > 0 {
		p.steps = append(p.steps, *s)
	}
}

// found tells whether something is there.
func found(err error) (bool, error) {
	if errors.Is(err, identity.ErrNotFound) || errors.Is(err, document.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// policyARN is the ARN of a managed policy that files name, as it is written where there is
// one; an ARN is its own.
func (p *planner) policyARN(name string) string {
	if strings.HasPrefix(name, "arn:") {
		return name
	}
	at := "/"
	for _, w := range []*World{p.before, p.want} {
		if said := saidOf(w.Policies, name); said != nil {
			name, at = said.Name, orRoot(said.Path)
		}
	}
	id := p.now.Realm.IAM("policy", at, name)
	return orElse(p.arns[strings.ToLower(id)], id)
}

func orRoot(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

// sameJSON reports whether two texts are the same JSON.
func sameJSON(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return a == b
	}
	left, errLeft := json.Marshal(x)
	right, errRight := json.Marshal(y)
	return errLeft == nil && errRight == nil && string(left) == string(right)
}

func (p *planner) policy(want *Policy) error {
	id := p.policyARN(want.Name)
	have, err := p.now.Identities.Policy(p.ctx, id)
	there, err := found(err)
	if err != nil {
		return err
	}
	if !there {
		s := begin(Create, "policy", want.Name)
		input := map[string]any{"PolicyName": want.Name, "Path": orRoot(want.Path), "PolicyDocument": want.Document}
		if want.Description != "" {
			input["Description"] = want.Description
		}
		s.add("", "iam", "CreatePolicy", input)
		p.enter(s)
		return nil
	}
	v, err := p.now.Identities.PolicyVersion(p.ctx, id, have.DefaultVersion)
	if err != nil || sameJSON(v.Document, want.Document) {
		return err
	}
	return p.policyVersion(want, id)
}

// maxVersions is how many versions of a policy IAM keeps.
const maxVersions = 5

// policyVersion puts a new version in force, in the place of the oldest one if need be.
func (p *planner) policyVersion(want *Policy, id string) error {
	versions, err := p.now.Identities.PolicyVersions(p.ctx, id)
	if err != nil {
		return err
	}
	s := begin(Change, "policy", want.Name)
	if len(versions) >= maxVersions {
		oldest := versions[len(versions)-1]
		if oldest.Default {
			oldest = versions[len(versions)-2]
		}
		s.add("version "+oldest.ID+" goes", "iam", "DeletePolicyVersion", map[string]any{"PolicyArn": id, "VersionId": oldest.ID})
	}
	s.add("document changes", "iam", "CreatePolicyVersion", map[string]any{"PolicyArn": id, "PolicyDocument": want.Document, "SetAsDefault": true})
	p.enter(s)
	return nil
}

func (p *planner) document(want *Document) error {
	kind, format := orElse(want.Type, "Session"), orElse(want.Format, "JSON")
	have, v, err := p.now.Documents.Document(p.ctx, want.Name, document.VersionDefault)
	there, err := found(err)
	if err != nil {
		return err
	}
	if !there {
		s := begin(Create, "document", want.Name)
		s.add("", "ssm", "CreateDocument", map[string]any{"Name": want.Name, "DocumentType": kind, "DocumentFormat": format, "Content": want.Content})
		p.enter(s)
		return nil
	}
	if have.Type != kind {
		return fmt.Errorf("document %q: it is a %s document and cannot become a %s document", want.Name, have.Type, kind)
	}
	if v.Content == want.Content || sameJSON(v.Content, want.Content) {
		return nil
	}
	return p.documentVersion(want, format, have)
}

// documentVersion adds a version and makes it the default; where it is the latest one
// already, that alone is done.
func (p *planner) documentVersion(want *Document, format string, have document.Stored) error {
	_, latest, err := p.now.Documents.Document(p.ctx, want.Name, document.VersionLatest)
	if err != nil {
		return err
	}
	s, next := begin(Change, "document", want.Name), have.LatestVersion
	if latest.Content != want.Content {
		next++
		s.add("content changes", "ssm", "UpdateDocument", map[string]any{
			"Name": want.Name, "DocumentVersion": "$LATEST", "DocumentFormat": format, "Content": want.Content,
		})
	}
	s.add(fmt.Sprintf("default version %d → %d", have.DefaultVersion, next), "ssm", "UpdateDocumentDefaultVersion",
		map[string]any{"Name": want.Name, "DocumentVersion": fmt.Sprint(next)})
	p.enter(s)
	return nil
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
