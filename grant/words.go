package grant

import (
	"maps"
	"slices"
	"strings"

	"sallyport.dev/flow"
)

// PeopleWords says who people are: "groups frontend, backend or user bob".
func PeopleWords(p flow.People) string {
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

// TargetWords says what a target gives: "role FrontEndSSHAccess".
func TargetWords(t flow.Target) string {
	switch t.Kind {
	case flow.TargetRole:
		return "role " + t.Role
	case flow.TargetGroup:
		return "group " + t.Group
	case flow.TargetPermissionSet:
		return "permission set " + t.PermissionSet.PermissionSetARN + " in account " + t.PermissionSet.Account
	case flow.TargetAWSGroup:
		return "IAM group " + t.AWSGroup.Group + " in AWS"
	}
	return nodeWords(t.Nodes)
}

func nodeWords(n *flow.Nodes) string {
	var parts []string
	if named := slices.Concat(n.IDs, n.Names); len(named) > 0 && !slices.Contains(named, flow.EveryNode) {
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
	return words
}
