package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sallyport.dev/internal/tags"
)

// Has reports whether a person is among people. env answers who is on call; an error of
// it leaves those out and is returned beside the answer.
func (p People) Has(ctx context.Context, env Env, who Person) (bool, error) {
	if p.hasByName(who) {
		return true, nil
	}
	var failed error
	for _, schedule := range p.OnCall {
		duty, err := onCall(ctx, env, schedule)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if slices.Contains(duty, who.Name) {
			return true, failed
		}
	}
	return false, failed
}

// hasByName answers without asking anybody.
func (p People) hasByName(who Person) bool {
	if who.Name == "" {
		return false
	}
	if p.Everyone || slices.Contains(p.Users, who.Name) {
		return true
	}
	for _, group := range p.Groups {
		if slices.Contains(who.Groups, group) {
			return true
		}
	}
	return len(p.Tags) > 0 && hasTags(p.Tags, who.Tags)
}

func onCall(ctx context.Context, env Env, schedule string) ([]string, error) {
	if env == nil {
		return nil, fmt.Errorf("schedule %q: nobody to ask", schedule)
	}
	duty, err := env.OnCall(ctx, schedule)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", schedule, err)
	}
	return duty, nil
}

// hasTags reports whether, of every wanted key, one of the values is there.
func hasTags(want map[string][]string, have tags.Tags) bool {
	for key, values := range want {
		if !slices.ContainsFunc(have.Values(key), func(v string) bool { return slices.Contains(values, v) }) {
			return false
		}
	}
	return true
}

// Has reports whether a node is among nodes. Nodes that select nothing have none.
func (n *Nodes) Has(node Node) bool {
	if n == nil || n.selectsNothing() || node.ID == "" {
		return false
	}
	if len(n.IDs)+len(n.Names) > 0 && !n.hasID(node.ID) && !n.hasName(node.Name) {
		return false
	}
	return hasTags(n.Tags, node.Tags)
}

func (n *Nodes) selectsNothing() bool { return len(n.IDs)+len(n.Names)+len(n.Tags) == 0 }

// EveryNode among the ids stands for all nodes; only documents of AWS's write it.
const EveryNode = "*"

func (n *Nodes) hasID(id string) bool {
	return slices.Contains(n.IDs, id) || slices.Contains(n.IDs, EveryNode)
}

// hasName compares with Name tags. A node without one has no name to match.
func (n *Nodes) hasName(name string) bool {
	return name != "" && slices.ContainsFunc(n.Names, func(pattern string) bool { return glob(pattern, name) })
}

// glob matches as IAM does: * is any run of characters, ? any one; letters' case counts.
func glob(pattern, s string) bool {
	p, text := []rune(pattern), []rune(s)
	i, j, star, mark := 0, 0, -1, 0
	for j < len(text) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == text[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
