package flow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
)

// Names of the Cedar entity types and of the one action that a flow's rules see.
const (
	CedarUser          = "Sallyport::User"
	CedarGroup         = "Sallyport::Group" // of people; also a target
	CedarNode          = "Sallyport::Node"
	CedarNodes         = "Sallyport::Nodes" // a target of nodes that is asked for as a whole
	CedarRole          = "Sallyport::Role"
	CedarPermissionSet = "Sallyport::PermissionSet"
	CedarAWSGroup      = "Sallyport::AWSGroup"
	CedarAction        = "Sallyport::Action"
	CedarRequest       = "request"
)

const maxCedar = 64 << 10 // bytes of a flow's rules

// MaxWorlds bounds the combinations of the values of tags that hold several.
const MaxWorlds = 256

// Rule asks the flow's Cedar rules about a request. forbid names the rule that prohibits
// it, permit the one that approves it by itself; both are empty where no rule speaks up or
// the flow has none.
//
// A request is prohibited if any resource that it asks for is, and approved only if every
// one is. Tags that hold several values are looked at once per value: one that prohibits
// suffices, approving needs all. A rule that cannot be evaluated is an error, and then
// nothing is approved: people decide.
func (f *Flow) Rule(ctx context.Context, facts Facts, now time.Time) (forbid, permit string, err error) {
	if strings.TrimSpace(f.Cedar) == "" {
		return "", "", nil
	}
	set, err := parseCedar(f.Cedar)
	if err != nil {
		return "", "", fmt.Errorf("flow %q: cedar: %w", f.Name, err)
	}
	asked := facts.cedarResources()
	if len(asked) == 0 {
		return "", "", fmt.Errorf("flow %q: cedar: the request names nothing that rules could be asked about", f.Name)
	}
	rules := cedarRules{set: set, person: facts.cedarPerson(), context: f.cedarContext(facts, now)}
	forbid, permit, err = CedarAll(ctx, asked, func(r cedarThing) (string, string, error) { return rules.ask(ctx, r) })
	if err != nil {
		return "", "", fmt.Errorf("flow %q: cedar: %w", f.Name, err)
	}
	return forbid, permit, nil
}

// CedarAll asks rules about each of several things, or of the worlds that one may be taken
// for. One that is forbidden suffices, whatever cannot be evaluated about others; permit is
// empty unless every one is permitted and nothing failed. Errors are those of ask, or of
// the context.
func CedarAll[T any](ctx context.Context, all []T, ask func(T) (forbid, permit string, err error)) (forbid, permit string, err error) {
	undecided := len(all) == 0
	for _, one := range all {
		if e := ctx.Err(); e != nil {
			return "", "", errors.Join(err, e)
		}
		no, yes, e := ask(one)
		if no != "" {
			return no, "", nil
		}
		err = errors.Join(err, e)
		undecided = undecided || yes == ""
		permit = yes
	}
	if undecided || err != nil {
		permit = ""
	}
	return "", permit, err
}

// cedarRules are rules with all that they look at, but the resource.
type cedarRules struct {
	set     *cedar.PolicySet
	person  cedarThing
	context cedar.Record
}

// ask decides about one resource in every world, that is for every value of its and the
// person's tags.
func (c *cedarRules) ask(ctx context.Context, resource cedarThing) (forbid, permit string, err error) {
	people, err := c.person.worlds()
	if err != nil {
		return "", "", err
	}
	things, err := resource.worlds()
	if err != nil {
		return "", "", err
	}
	if len(people)*len(things) > MaxWorlds {
		return "", "", ErrTooManyWorlds
	}
	return CedarAll(ctx, people, func(person cedar.Entity) (string, string, error) {
		return CedarAll(ctx, things, func(thing cedar.Entity) (string, string, error) {
			return c.authorize(person, thing)
		})
	})
}

// authorize asks Cedar once. Unlike Cedar itself it passes no error over: a prohibition
// that fails must not vanish.
func (c *cedarRules) authorize(person, resource cedar.Entity) (forbid, permit string, err error) {
	entities := cedar.EntityMap{person.UID: person, resource.UID: resource}
	for g := range person.Parents.All() {
		if _, ok := entities[g]; !ok {
			entities[g] = cedar.Entity{UID: g}
		}
	}
	decision, why := cedar.Authorize(c.set, entities, cedar.Request{
		Principal: person.UID,
		Action:    cedar.NewEntityUID(CedarAction, CedarRequest),
		Resource:  resource.UID,
		Context:   c.context,
	})
	name := c.first(why.Reasons)
	switch {
	case decision == cedar.Deny && name != "":
		return name, "", nil
	case len(why.Errors) > 0:
		e := why.Errors[0]
		return "", "", fmt.Errorf("%s: %s", c.name(e.PolicyID, e.Position), e.Message)
	case decision == cedar.Allow:
		return "", name, nil
	}
	return "", "", nil
}

// first names the reason that stands first in the text: Cedar gives them in no order.
func (c *cedarRules) first(reasons []cedar.DiagnosticReason) string {
	if len(reasons) == 0 {
		return ""
	}
	first := reasons[0]
	for _, r := range reasons[1:] {
		if r.Position.Offset < first.Position.Offset {
			first = r
		}
	}
	return c.name(first.PolicyID, first.Position)
}

// name is a rule's @id, or its line.
func (c *cedarRules) name(id cedar.PolicyID, at cedar.Position) string {
	if p := c.set.Get(id); p != nil && p.Annotations()["id"] != "" {
		return string(p.Annotations()["id"])
	}
	return fmt.Sprintf("line %d", at.Line)
}

// ParseCedar reads Cedar rules within the bounds that flows have. Errors name the line.
func ParseCedar(text string) (*cedar.PolicySet, error) { return parseCedar(text) }

// parseCedar reads rules.
func parseCedar(text string) (*cedar.PolicySet, error) {
	if len(text) > maxCedar {
		return nil, fmt.Errorf("%d bytes; at most %d", len(text), maxCedar)
	}
	if deepest(text) > maxNesting {
		return nil, errTooDeep
	}
	return cedar.NewPolicySetFromBytes("", []byte(text))
}

// cedarThing is a principal or resource whose tags may hold several values.
type cedarThing struct {
	uid     cedar.EntityUID
	attrs   cedar.RecordMap
	parents []cedar.EntityUID
	tags    map[string][]string
}

// ErrTooManyWorlds is returned for tags that cannot be tried out one by one.
var ErrTooManyWorlds = errors.New("the tags hold too many combinations of values for rules to be asked about")

// CedarWorlds are the tags that hold one value of each set: Cedar knows no tag with several.
func CedarWorlds(sets map[string][]string) ([]cedar.RecordMap, error) {
	worlds := []cedar.RecordMap{{}}
	for _, key := range slices.Sorted(maps.Keys(sets)) { // the same rule speaks up every time
		if len(sets[key])*len(worlds) > MaxWorlds {
			return nil, ErrTooManyWorlds
		}
		var next []cedar.RecordMap
		for _, w := range worlds {
			for _, v := range sets[key] {
				with := maps.Clone(w)
				with[cedar.String(key)] = cedar.String(v)
				next = append(next, with)
			}
		}
		worlds = next
	}
	return worlds, nil
}

// worlds are the entities that a thing may be taken for.
func (t cedarThing) worlds() ([]cedar.Entity, error) {
	worlds, err := CedarWorlds(t.tags)
	if err != nil {
		return nil, err
	}
	out := make([]cedar.Entity, len(worlds))
	for i, w := range worlds {
		out[i] = cedar.Entity{
			UID:        t.uid,
			Parents:    cedar.NewEntityUIDSet(t.parents...),
			Attributes: cedar.NewRecord(t.attrs),
			Tags:       cedar.NewRecord(w),
		}
	}
	return out, nil
}

func (facts Facts) cedarPerson() cedarThing {
	p := facts.Person
	thing := cedarThing{
		uid:   cedar.NewEntityUID(CedarUser, cedar.String(p.Name)),
		attrs: cedar.RecordMap{"name": cedar.String(p.Name), "id": cedar.String(p.ID), "arn": cedar.String(p.ARN)},
		tags:  p.Tags.Sets(),
	}
	for _, g := range p.Groups {
		thing.parents = append(thing.parents, cedar.NewEntityUID(CedarGroup, cedar.String(g)))
	}
	return thing
}

// cedarResources are what a request asks for: nodes where some are named, instead of the
// targets that select them.
func (facts Facts) cedarResources() []cedarThing {
	var things []cedarThing
	for _, n := range facts.Nodes {
		things = append(things, cedarThing{
			uid:   cedar.NewEntityUID(CedarNode, cedar.String(n.ID)),
			attrs: cedar.RecordMap{"id": cedar.String(n.ID), "name": cedar.String(n.Name), "kind": cedar.String("node")},
			tags:  n.Tags.Sets(),
		})
	}
	for _, t := range facts.Targets {
		if t.Kind != TargetNodes || len(facts.Nodes) == 0 {
			things = append(things, t.cedar())
		}
	}
	return things
}

func (t Target) cedar() cedarThing {
	thing := cedarThing{attrs: cedar.RecordMap{"target": cedar.String(t.Name), "kind": cedar.String(t.Kind)}}
	typ, id := cedar.EntityType(CedarNodes), t.Name
	switch {
	case t.Nodes != nil:
		thing.tags = t.Nodes.Tags
	case t.PermissionSet != nil:
		typ, id = CedarPermissionSet, t.PermissionSet.PermissionSetARN
		thing.attrs["account"] = cedar.String(t.PermissionSet.Account)
	case t.AWSGroup != nil:
		typ, id = CedarAWSGroup, t.AWSGroup.Group
	case t.Kind == TargetRole:
		typ, id = CedarRole, t.Role
	case t.Kind == TargetGroup:
		typ, id = CedarGroup, t.Group
	}
	thing.uid = cedar.NewEntityUID(typ, cedar.String(id))
	thing.attrs["name"] = cedar.String(id)
	return thing
}

// cedarContext is what rules know beside person and resource. Fields that hold lists are
// sets, all others text; time is UTC.
func (f *Flow) cedarContext(facts Facts, now time.Time) cedar.Record {
	values := cedar.RecordMap{}
	for name, given := range facts.Values {
		values[cedar.String(name)] = f.cedarValue(name, given)
	}
	now = now.UTC()
	return cedar.NewRecord(cedar.RecordMap{
		"flow":     cedar.String(f.Name),
		"reason":   cedar.String(facts.Reason),
		"duration": cedar.Long(facts.Duration / time.Second),
		"channel":  cedar.String(facts.Channel),
		"values":   cedar.NewRecord(values),
		"now":      cedar.NewDatetime(now),
		"time": cedar.NewRecord(cedar.RecordMap{
			"hour":    cedar.Long(now.Hour()),
			"minute":  cedar.Long(now.Minute()),
			"weekday": cedar.String(weekdays[now.Weekday()]),
		}),
	})
}

func (f *Flow) cedarValue(name string, given []string) cedar.Value {
	if field := f.Field(name); field != nil && !field.Type.list() && len(given) == 1 {
		return cedar.String(given[0])
	}
	set := make([]cedar.Value, len(given))
	for i, v := range given {
		set[i] = cedar.String(v)
	}
	return cedar.NewSet(set...)
}
