package approval

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"sallyport.dev/document"
	"sallyport.dev/flow"
	"sallyport.dev/identity"
)

// Schema is what auto-approval and deny-access policies may speak of, as AWS has it.
const Schema = `namespace AWS::EC2 {
  entity Instance tags String;
}

namespace AWS::IAM {
  type AuthorizationContext = { principalTags: PrincipalTags };
  entity PrincipalTags tags String;
}

namespace AWS::IdentityStore {
  entity Group;
  entity User in [Group] = {
    costCenter?: String,
    division?: String,
    employeeNumber?: String,
    organization?: String
  };
}

namespace AWS::SSM {
  entity ManagedInstance tags String;
  action "getTokenForInstanceAccess" appliesTo {
    principal: [AWS::IdentityStore::User],
    resource: [AWS::EC2::Instance, AWS::SSM::ManagedInstance],
    context: { iam: AWS::IAM::AuthorizationContext }
  };
}`

// attributes of users, which are tags of the same names here.
var attributes = []string{"costCenter", "division", "employeeNumber", "organization"}

// maxTags bounds the tags of a person or node that policies are asked about.
const maxTags = 200

var validator = sync.OnceValue(func() *validate.Validator {
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(Schema)); err != nil {
		panic("approval: schema: " + err.Error())
	}
	resolved, err := s.Resolve()
	if err != nil {
		panic("approval: schema: " + err.Error())
	}
	return validate.New(resolved)
})

// allowed says what policies may speak of, for errors.
const allowed = `the principal is an AWS::IdentityStore::User in AWS::IdentityStore::Group, with costCenter, division, employeeNumber and organization; ` +
	`the action AWS::SSM::Action::"getTokenForInstanceAccess"; the resource an AWS::EC2::Instance or AWS::SSM::ManagedInstance with tags; ` +
	`the context iam.principalTags`

// CheckCedar checks the text of an AutoApprovalPolicy document by its name. Errors name
// the line and what is allowed.
func CheckCedar(name, text string) error {
	set, err := flow.ParseCedar(text)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	policies := 0
	for _, p := range set.All() {
		policies++
		if p.Effect() == cedar.Permit && name == document.DenyAccess {
			return fmt.Errorf("%s: line %d: a deny-access policy has forbid statements only", name, p.Position().Line)
		}
		if err := check((*ast.Policy)(p.AST())); err != nil {
			return fmt.Errorf("%s: in the statement at line %d: %w; %s", name, p.Position().Line, err, allowed)
		}
	}
	if policies == 0 {
		return fmt.Errorf("%s: has no statement: permit or forbid (principal, action, resource) when { … };", name)
	}
	return nil
}

// check validates a policy. The validator is an experiment of its authors: a panic of
// it is a refusal.
func check(p *ast.Policy) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("checking it: %v", r)
		}
	}()
	return validator().Policy("", p)
}

// ask asks a policy about all nodes of a request: one that is forbidden is enough, and
// all must be permitted. Tags that hold several values are looked at once for each. forbid
// and permit tell the line of the statement. One that cannot be evaluated is an error,
// unlike in Cedar itself: a prohibition must not vanish.
func (r *Rules) ask(ctx context.Context, name, text string, facts flow.Facts) (forbid, permit string, err error) {
	set, err := flow.ParseCedar(text)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", name, err)
	}
	people, err := r.person(ctx, facts.Person)
	if err != nil {
		return "", "", err
	}
	forbid, permit, err = flow.CedarAll(ctx, facts.Nodes, func(n flow.Node) (string, string, error) {
		return askOf(ctx, set, people, n)
	})
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", name, err)
	}
	return forbid, permit, nil
}

// askOf asks about one node in every world.
func askOf(ctx context.Context, set *cedar.PolicySet, people []person, n flow.Node) (forbid, permit string, err error) {
	nodes, err := nodeWorlds(n)
	if err != nil {
		return "", "", err
	}
	if len(people)*len(nodes) > flow.MaxWorlds {
		return "", "", flow.ErrTooManyWorlds
	}
	return flow.CedarAll(ctx, people, func(p person) (string, string, error) {
		return flow.CedarAll(ctx, nodes, func(node cedar.Entity) (string, string, error) {
			return authorize(set, p, node)
		})
	})
}

func authorize(set *cedar.PolicySet, p person, node cedar.Entity) (forbid, permit string, err error) {
	entities := cedar.EntityMap{p.user.UID: p.user, p.tags.UID: p.tags, node.UID: node}
	for g := range p.user.Parents.All() {
		entities[g] = cedar.Entity{UID: g}
	}
	decision, why := cedar.Authorize(set, entities, cedar.Request{
		Principal: p.user.UID,
		Action:    cedar.NewEntityUID("AWS::SSM::Action", "getTokenForInstanceAccess"),
		Resource:  node.UID,
		Context: cedar.NewRecord(cedar.RecordMap{
			"iam": cedar.NewRecord(cedar.RecordMap{"principalTags": p.tags.UID}),
		}),
	})
	if len(why.Errors) > 0 {
		e := why.Errors[0]
		return "", "", fmt.Errorf("line %d: %s", e.Position.Line, e.Message)
	}
	if len(why.Reasons) == 0 {
		return "", "", nil
	}
	first := slices.MinFunc(why.Reasons, func(a, b cedar.DiagnosticReason) int { return a.Position.Offset - b.Position.Offset })
	line := fmt.Sprintf("line %d", first.Position.Line)
	if decision == cedar.Allow {
		return "", line, nil
	}
	return line, "", nil
}

// person is somebody in one of their worlds.
type person struct{ user, tags cedar.Entity }

// person returns who asks. The attributes are tags of the user as they are now; the
// principal's tags are those of the request, which those of a role session may be.
func (r *Rules) person(ctx context.Context, p flow.Person) ([]person, error) {
	user, err := r.config.Directory.User(ctx, p.Name)
	if err != nil {
		return nil, fmt.Errorf("looking up %q: %w", p.Name, err)
	}
	if user.ID != p.ID {
		return nil, fmt.Errorf("user %q was made anew: %w", p.Name, identity.ErrNotFound)
	}
	groups, err := r.groups(ctx, p.Name)
	if err != nil {
		return nil, err
	}
	users, err := worlds(attributesOf(user.Tags))
	if err != nil {
		return nil, err
	}
	tags, err := worlds(p.Tags.Sets())
	if err != nil {
		return nil, err
	}
	if len(users)*len(tags) > flow.MaxWorlds {
		return nil, flow.ErrTooManyWorlds
	}
	var all []person
	for _, attrs := range users {
		for _, t := range tags {
			all = append(all, person{
				user: cedar.Entity{UID: cedar.NewEntityUID("AWS::IdentityStore::User", cedar.String(p.Name)), Parents: groups, Attributes: cedar.NewRecord(attrs)},
				tags: cedar.Entity{UID: cedar.NewEntityUID("AWS::IAM::PrincipalTags", cedar.String(p.Name)), Tags: cedar.NewRecord(t)},
			})
		}
	}
	return all, nil
}

// groupID is how ids of groups look; a group that is named so goes by its id alone.
var groupID = regexp.MustCompile(`^AGPA[A-Z0-9]{12,}$`)

// groups are those of a user, by name and by id.
func (r *Rules) groups(ctx context.Context, user string) (cedar.EntityUIDSet, error) {
	found, err := r.config.Directory.GroupsOf(ctx, user, identity.Page{})
	if err != nil {
		return cedar.EntityUIDSet{}, fmt.Errorf("looking up the groups of %q: %w", user, err)
	}
	var all []cedar.EntityUID
	for _, g := range found {
		all = append(all, cedar.NewEntityUID("AWS::IdentityStore::Group", cedar.String(g.ID)))
		if !groupID.MatchString(g.Name) {
			all = append(all, cedar.NewEntityUID("AWS::IdentityStore::Group", cedar.String(g.Name)))
		}
	}
	return cedar.NewEntityUIDSet(all...), nil
}

// attributesOf picks the attributes that policies know out of a user's tags, whose keys
// do not tell upper from lower case.
func attributesOf(tags identity.Tags) map[string][]string {
	all := map[string][]string{}
	for key := range tags {
		for _, name := range attributes {
			if strings.EqualFold(key, name) {
				all[name] = append(all[name], tags.Values(key)...)
			}
		}
	}
	return all
}

// nodeWorlds are the entities that a node may be taken for.
func nodeWorlds(n flow.Node) ([]cedar.Entity, error) {
	kind := cedar.EntityType("AWS::SSM::ManagedInstance")
	if strings.HasPrefix(n.ID, "i-") {
		kind = "AWS::EC2::Instance"
	}
	tags, err := worlds(n.Tags.Sets())
	if err != nil {
		return nil, err
	}
	var all []cedar.Entity
	for _, t := range tags {
		all = append(all, cedar.Entity{UID: cedar.NewEntityUID(kind, cedar.String(n.ID)), Tags: cedar.NewRecord(t)})
	}
	return all, nil
}

// worlds are the records that choose one value of each set.
func worlds(sets map[string][]string) ([]cedar.RecordMap, error) {
	if len(sets) > maxTags {
		return nil, flow.ErrTooManyWorlds
	}
	return flow.CedarWorlds(sets)
}
