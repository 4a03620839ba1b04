package apply

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport.dev/document"
	"sallyport.dev/identity"
)

// owner is a user, group or role whose policies are planned.
type owner struct {
	kind   identity.OwnerKind
	name   string
	exists bool
}

// word is the kind as operations have it: User in PutUserPolicy.
func (o owner) word() string {
	return strings.ToUpper(string(o.kind[:1])) + string(o.kind[1:])
}

// named is input that names the owner, with more.
func (o owner) named(more map[string]any) map[string]any {
	input := map[string]any{o.word() + "Name": o.name}
	maps.Copy(input, more)
	return input
}

func (p *planner) group(want *Group) error {
	have, err := p.now.Identities.Group(p.ctx, want.Name)
	there, err := found(err)
	if err != nil {
		return err
	}
	o := owner{identity.OwnerGroup, want.Name, there}
	s := o.begin()
	if !there {
		s.add("", "iam", "CreateGroup", o.named(map[string]any{"Path": orRoot(want.Path)}))
	} else if want.Path != "" && have.Path != want.Path {
		s.add(changed("path", have.Path, want.Path), "iam", "UpdateGroup", o.named(map[string]any{"NewPath": want.Path}))
	}
	if err := p.policies(s, o, want.Policies, want.Inline, inlineBefore(saidOf(p.before.Groups, want.Name))); err != nil {
		return err
	}
	p.enter(s)
	return nil
}

func inlineBefore(g *Group) []Inline {
	if g == nil {
		return nil
	}
	return g.Inline
}

func (o owner) begin() *Step {
	if o.exists {
		return begin(Change, string(o.kind), o.name)
	}
	return begin(Create, string(o.kind), o.name)
}

func changed(what, from, to string) string {
	return fmt.Sprintf("%s %s → %s", what, orElse(from, "none"), orElse(to, "none"))
}

// members makes a group's members those that it lists.
func (p *planner) members(want *Group) error {
	if want.Members == nil {
		return nil
	}
	have, err := p.now.Identities.Members(p.ctx, want.Name, identity.Page{})
	if there, err := found(err); err != nil || !there {
		have = nil
		if err != nil {
			return err
		}
	}
	names := make([]string, len(have))
	for i, u := range have {
		names[i] = u.Name
	}
	s := begin(Change, "group", want.Name)
	add, drop := differ(names, *want.Members)
	for _, user := range add {
		s.add("member "+user+" joins", "iam", "AddUserToGroup", map[string]any{"GroupName": want.Name, "UserName": user})
	}
	for _, user := range drop {
		s.add("member "+user+" leaves", "iam", "RemoveUserFromGroup", map[string]any{"GroupName": want.Name, "UserName": user})
	}
	p.enter(s)
	return nil
}

// differ returns what is to be added to have, and what is to go, to make it want; names
// are the same whatever their case.
func differ(have, want []string) (add, drop []string) {
	in := func(all []string, one string) bool {
		return slices.ContainsFunc(all, func(s string) bool { return strings.EqualFold(s, one) })
	}
	for _, one := range want {
		if !in(have, one) && !in(add, one) {
			add = append(add, one)
		}
	}
	for _, one := range have {
		if !in(want, one) {
			drop = append(drop, one)
		}
	}
	slices.Sort(add)
	slices.Sort(drop)
	return add, drop
}

func (p *planner) role(want *Role) error {
	have, err := p.now.Identities.Role(p.ctx, want.Name)
	there, err := found(err)
	if err != nil {
		return err
	}
	o := owner{identity.OwnerRole, want.Name, there}
	s := o.begin()
	if there {
		if err := p.changeRole(s, o, want, have); err != nil {
			return err
		}
	} else {
		s.add("", "iam", "CreateRole", p.newRole(o, want))
	}
	var before []Inline
	if b := saidOf(p.before.Roles, want.Name); b != nil {
		before = b.Inline
	}
	if err := p.policies(s, o, want.Policies, want.Inline, before); err != nil {
		return err
	}
	p.enter(s)
	return nil
}

func (p *planner) newRole(o owner, want *Role) map[string]any {
	input := o.named(map[string]any{"Path": orRoot(want.Path), "AssumeRolePolicyDocument": want.Trust})
	if want.Description != nil {
		input["Description"] = *want.Description
	}
	if want.maxDuration > 0 {
		input["MaxSessionDuration"] = seconds(want.maxDuration)
	}
	p.newTags(input, want.Tags)
	p.newBoundary(input, want.Boundary)
	return input
}

func (p *planner) changeRole(s *Step, o owner, want *Role, have identity.Role) error {
	if want.Path != "" && want.Path != have.Path {
		return fmt.Errorf("role %q: path: it is %s, and IAM does not move roles", want.Name, have.Path)
	}
	if !sameJSON(have.Trust, want.Trust) {
		s.add("trust changes", "iam", "UpdateAssumeRolePolicy", o.named(map[string]any{"PolicyDocument": want.Trust}))
	}
	if want.Description != nil && *want.Description != have.Description {
		s.add("description changes", "iam", "UpdateRole", o.named(map[string]any{"Description": *want.Description}))
	}
	if want.maxDuration > 0 && want.maxDuration != have.MaxDuration {
		s.add(changed("max_duration", have.MaxDuration.String(), want.maxDuration.String()), "iam", "UpdateRole",
			o.named(map[string]any{"MaxSessionDuration": seconds(want.maxDuration)}))
	}
	p.tags(s, o, have.Tags, want.Tags)
	p.boundary(s, o, have.Boundary, want.Boundary)
	return nil
}

func (p *planner) user(want *User) error {
	have, err := p.now.Identities.User(p.ctx, want.Name)
	there, err := found(err)
	if err != nil {
		return err
	}
	o := owner{identity.OwnerUser, want.Name, there}
	s := o.begin()
	if there {
		p.changeUser(s, o, want, have)
	} else {
		input := o.named(map[string]any{"Path": orRoot(want.Path)})
		p.newTags(input, want.Tags)
		p.newBoundary(input, want.Boundary)
		s.add("", "iam", "CreateUser", input)
	}
	var before []Inline
	if b := saidOf(p.before.Users, want.Name); b != nil {
		before = b.Inline
	}
	if err := p.policies(s, o, want.Policies, want.Inline, before); err != nil {
		return err
	}
	if err := p.groupsOf(s, o, want.Groups); err != nil {
		return err
	}
	p.enter(s)
	return nil
}

func (p *planner) changeUser(s *Step, o owner, want *User, have identity.User) {
	if want.Path != "" && have.Path != want.Path {
		s.add(changed("path", have.Path, want.Path), "iam", "UpdateUser", o.named(map[string]any{"NewPath": want.Path}))
	}
	// One who was taken out of the files is disabled; one who is back in them is not. Whom
	// somebody disabled while they were in the files stays so.
	if have.Disabled && saidOf(p.before.Users, want.Name) == nil {
		s.add("is enabled again", "sallyport", "EnableUser", o.named(nil))
	}
	p.tags(s, o, have.Tags, want.Tags)
	p.boundary(s, o, have.Boundary, want.Boundary)
}

// groupsOf makes a user a member of the groups listed, and of no others.
func (p *planner) groupsOf(s *Step, o owner, want *[]string) error {
	if want == nil {
		return nil
	}
	var names []string
	if o.exists {
		have, err := p.now.Identities.GroupsOf(p.ctx, o.name, identity.Page{})
		if err != nil {
			return err
		}
		for _, g := range have {
			names = append(names, g.Name)
		}
	}
	add, drop := differ(names, *want)
	for _, group := range add {
		s.add("joins group "+group, "iam", "AddUserToGroup", o.named(map[string]any{"GroupName": group}))
	}
	for _, group := range drop {
		if g := saidOf(p.want.Groups, group); g != nil && g.Members != nil {
			continue // that group's list decides
		}
		s.add("leaves group "+group, "iam", "RemoveUserFromGroup", o.named(map[string]any{"GroupName": group}))
	}
	return nil
}

// newTags puts the tags of a new entity into the input that makes it.
func (p *planner) newTags(input map[string]any, want *map[string]string) {
	if want != nil && len(*want) > 0 {
		input["Tags"] = tagList(*want)
	}
}

func (p *planner) newBoundary(input map[string]any, want *string) {
	if want != nil && *want != "" {
		input["PermissionsBoundary"] = p.policyARN(*want)
	}
}

func tagList(tags map[string]string) []any {
	list := []any{}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, map[string]any{"Key": key, "Value": tags[key]})
	}
	return list
}

// tags makes the tags of a user or role those that files say.
func (p *planner) tags(s *Step, o owner, have identity.Tags, want *map[string]string) {
	if want == nil {
		return
	}
	var lines, drop []string
	set := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(*want)) {
		old, ok := have[key]
		if value := (*want)[key]; !ok || old != value {
			set[key] = value
			lines = append(lines, changed("tag "+key, old, value))
		}
	}
	for _, key := range have.Keys() {
		if _, ok := (*want)[key]; !ok {
			drop = append(drop, key)
		}
	}
	// Keys that differ only in case are the same to IAM: the old one goes first.
	if len(drop) > 0 {
		s.add("tags go: "+strings.Join(drop, ", "), "iam", "Untag"+o.word(), o.named(map[string]any{"TagKeys": anys(drop)}))
	}
	if len(set) > 0 {
		s.add(strings.Join(lines, ", "), "iam", "Tag"+o.word(), o.named(map[string]any{"Tags": tagList(set)}))
	}
}

func anys(texts []string) []any {
	list := make([]any, len(texts))
	for i, t := range texts {
		list[i] = t
	}
	return list
}

func (p *planner) boundary(s *Step, o owner, have string, want *string) {
	if want == nil {
		return
	}
	id := ""
	if *want != "" {
		id = p.policyARN(*want)
	}
	switch {
	case id == have:
	case id == "":
		s.add("permissions_boundary goes", "iam", "Delete"+o.word()+"PermissionsBoundary", o.named(nil))
	default:
		s.add(changed("permissions_boundary", have, id), "iam", "Put"+o.word()+"PermissionsBoundary", o.named(map[string]any{"PermissionsBoundary": id}))
	}
}

// policies makes an owner's policies those that files say. Inline ones that the files
// never named are left alone.
func (p *planner) policies(s *Step, o owner, attached *[]string, inline, before []Inline) error {
	if err := p.attach(s, o, attached); err != nil {
		return err
	}
	have := map[string]string{}
	if o.exists {
		all, err := p.now.Identities.InlinePolicies(p.ctx, identity.Owner{Kind: o.kind, Name: o.name})
		if err != nil {
			return err
		}
		for _, i := range all {
			have[strings.ToLower(i.Name)] = i.Document
		}
	}
	for _, i := range inline {
		if old, ok := have[strings.ToLower(i.Name)]; !ok || !sameJSON(old, i.Document) {
			s.add("inline_policy "+i.Name, "iam", "Put"+o.word()+"Policy", o.named(map[string]any{"PolicyName": i.Name, "PolicyDocument": i.Document}))
		}
	}
	for _, i := range before {
		still := slices.ContainsFunc(inline, func(w Inline) bool { return strings.EqualFold(w.Name, i.Name) })
		if _, ok := have[strings.ToLower(i.Name)]; ok && !still {
			s.add("inline_policy "+i.Name+" goes", "iam", "Delete"+o.word()+"Policy", o.named(map[string]any{"PolicyName": i.Name}))
		}
	}
	return nil
}

func (p *planner) attach(s *Step, o owner, want *[]string) error {
	if want == nil {
		return nil
	}
	var have, ids []string
	if o.exists {
		all, err := p.now.Identities.AttachedPolicies(p.ctx, identity.Owner{Kind: o.kind, Name: o.name})
		if err != nil {
			return err
		}
		for _, m := range all {
			have = append(have, m.ARN)
		}
	}
	for _, name := range *want {
		ids = append(ids, p.policyARN(name))
	}
	add, drop := differ(have, ids)
	for _, id := range add {
		s.add("policy "+id+" is attached", "iam", "Attach"+o.word()+"Policy", o.named(map[string]any{"PolicyArn": id}))
	}
	for _, id := range drop {
		s.add("policy "+id+" is detached", "iam", "Detach"+o.word()+"Policy", o.named(map[string]any{"PolicyArn": id}))
	}
	return nil
}

func (p *planner) disableUser(name string) error {
	u, err := p.now.Identities.User(p.ctx, name)
	there, err := found(err)
	if err != nil || !there || u.Disabled {
		return err
	}
	s := begin(Disable, "user", name)
	s.add("keys, sessions, sign-ins and grants end; sallyport user enable undoes it", "sallyport", "DisableUser", map[string]any{"UserName": name})
	p.enter(s)
	return nil
}

// strip takes an owner's policies away, so that it can be deleted.
func (p *planner) strip(s *Step, o owner) error {
	who := identity.Owner{Kind: o.kind, Name: o.name}
	inline, err := p.now.Identities.InlinePolicies(p.ctx, who)
	if err != nil {
		return err
	}
	for _, i := range inline {
		s.add("", "iam", "Delete"+o.word()+"Policy", o.named(map[string]any{"PolicyName": i.Name}))
	}
	attached, err := p.now.Identities.AttachedPolicies(p.ctx, who)
	for _, m := range attached {
		s.add("", "iam", "Detach"+o.word()+"Policy", o.named(map[string]any{"PolicyArn": m.ARN}))
	}
	return err
}

func (p *planner) deleteRole(name string) error {
	_, err := p.now.Identities.Role(p.ctx, name)
	there, err := found(err)
	if err != nil || !there {
		return err
	}
	o := owner{identity.OwnerRole, name, true}
	s := begin(Delete, "role", name)
	if err := p.strip(s, o); err != nil {
		return err
	}
	s.add("", "iam", "DeleteRole", o.named(nil))
	p.enter(s)
	return nil
}

func (p *planner) deleteGroup(name string) error {
	members, err := p.now.Identities.Members(p.ctx, name, identity.Page{})
	there, err := found(err)
	if err != nil || !there {
		return err
	}
	o := owner{identity.OwnerGroup, name, true}
	s := begin(Delete, "group", name)
	if err := p.strip(s, o); err != nil {
		return err
	}
	for _, u := range members {
		if w := saidOf(p.want.Users, u.Name); w != nil && w.Groups != nil {
			continue // left with the user
		}
		s.add("member "+u.Name+" leaves", "iam", "RemoveUserFromGroup", o.named(map[string]any{"UserName": u.Name}))
	}
	s.add("", "iam", "DeleteGroup", o.named(nil))
	p.enter(s)
	return nil
}

func (p *planner) deleteDocument(name string) error {
	_, _, err := p.now.Documents.Document(p.ctx, name, document.VersionDefault)
	there, err := found(err)
	if err != nil || !there {
		return err
	}
	s := begin(Delete, "document", name)
	s.add("", "ssm", "DeleteDocument", map[string]any{"Name": name})
	p.enter(s)
	return nil
}

func (p *planner) deletePolicy(name string) error {
	id := p.policyARN(name)
	_, err := p.now.Identities.Policy(p.ctx, id)
	there, err := found(err)
	if err != nil || !there {
		return err
	}
	versions, err := p.now.Identities.PolicyVersions(p.ctx, id)
	if err != nil {
		return err
	}
	s := begin(Delete, "policy", name)
	for _, v := range versions {
		if !v.Default {
			s.add("", "iam", "DeletePolicyVersion", map[string]any{"PolicyArn": id, "VersionId": v.ID})
		}
	}
	s.add("", "iam", "DeletePolicy", map[string]any{"PolicyArn": id})
	p.enter(s)
	return nil
}

// seconds are a duration as the API takes it.
func seconds(d time.Duration) json.Number {
	return json.Number(strconv.FormatInt(int64(d/time.Second), 10))
}
