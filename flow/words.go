package flow

import (
	"maps"
	"slices"
	"strings"
)

// String says who people are: groups web, db or user ann.
func (p People) String() string {
	if p.Everyone {
		return "everyone"
	}
	var parts []string
	add := func(one, many string, names []string) {
		if len(names) == 1 {
			many = one
		}
		if len(names) > 0 {
			parts = append(parts, many+" "+strings.Join(names, ", "))
		}
	}
	add("user", "users", p.Users)
	add("group", "groups", p.Groups)
	add("on call for", "on call for", p.OnCall)
	if len(p.Tags) > 0 {
		parts = append(parts, "with "+tagWords(p.Tags))
	}
	if len(parts) == 0 {
		return "nobody"
	}
	return strings.Join(parts, " or ")
}

func tagWords(tags map[string][]string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		parts = append(parts, key+"="+strings.Join(tags[key], "|"))
	}
	return strings.Join(parts, ", ")
}

// Gives says what a target gives: role Deploy, nodes web-* with Team=payments as ops.
func (t Target) Gives() string {
	switch {
	case t.Nodes != nil:
		return t.Nodes.String()
	case t.PermissionSet != nil:
		return "permission set " + t.PermissionSet.PermissionSetARN + " in AWS account " + t.PermissionSet.Account
	case t.AWSGroup != nil:
		return "IAM group " + t.AWSGroup.Group + " in AWS"
	case t.Kind == TargetRole:
		return "role " + t.Role
	case t.Kind == TargetGroup:
		return "group " + t.Group
	}
	return string(t.Kind)
}

// String says which nodes.
func (n *Nodes) String() string {
	var parts []string
	if named := slices.Concat(n.IDs, n.Names); len(named) > 0 && !slices.Contains(named, EveryNode) {
		parts = append(parts, strings.Join(named, ", "))
	}
	if len(n.Tags) > 0 {
		parts = append(parts, "with "+tagWords(n.Tags))
	}
	words := "all nodes"
	if len(parts) > 0 {
		words = "nodes " + strings.Join(parts, " ")
	}
	if n.Login != "" {
		words += " as " + n.Login
	}
	if len(n.Documents) > 0 {
		words += " by " + strings.Join(n.Documents, ", ")
	}
	if n.Commands {
		words += ", and commands"
	}
	return words
}
