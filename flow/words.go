package flow

import (
	"maps"
	"slices"
	"strings"
)

// Gives says what a target gives: role Deploy, nodes web-* with Team=payments as ops.
func (t Target) Gives() string {
	switch {
	case t.Nodes != nil:
		return t.Nodes.String()
	case t.PermissionSet != nil:
		arn := t.PermissionSet.PermissionSetARN
		return "permission set " + arn[strings.LastIndex(arn, "/")+1:] + " in account " + t.PermissionSet.Account
	case t.AWSGroup != nil:
		return "AWS group " + t.AWSGroup.Group
	case t.Kind == TargetRole:
		return "role " + t.Role
	case t.Kind == TargetGroup:
		return "group " + t.Group
	}
	return string(t.Kind)
}

// String says which nodes.
func (n *Nodes) String() string {
	text := "nodes"
	if which := slices.Concat(n.IDs, n.Names); len(which) > 0 {
		text += " " + strings.Join(which, " ")
	}
	if len(n.Tags) > 0 {
		var pairs []string
		for _, key := range slices.Sorted(maps.Keys(n.Tags)) {
			pairs = append(pairs, key+"="+strings.Join(n.Tags[key], "|"))
		}
		text += " with " + strings.Join(pairs, " ")
	}
	if n.Login != "" {
		text += " as " + n.Login
	}
	if len(n.Documents) > 0 {
		text += " by " + strings.Join(n.Documents, " ")
	}
	if n.Commands {
		text += ", and commands"
	}
	return text
}
