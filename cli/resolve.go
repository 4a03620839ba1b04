package cli

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sallyport.dev/client"
)

var nodeID = regexp.MustCompile(`^(i|mi)-([0-9a-f]{8}|[0-9a-f]{17})$`)

// resolve finds the one node that terms name: an id as it is, a name, a unique
// beginning of either, or tags that all hold. A person is asked to choose among several.
func (p *program) resolve(ctx context.Context, terms []string) (client.Node, error) {
	byTags := strings.Contains(terms[0], "=")
	for _, t := range terms {
		if strings.Contains(t, "=") != byTags {
			return client.Node{}, usagef("%q: give one name or id, or KEY=VALUE terms only", t)
		}
	}
	if !byTags && len(terms) > 1 {
		return client.Node{}, usagef("%q: give one name or id; a command follows --", terms[1])
	}
	if nodeID.MatchString(terms[0]) {
		return client.Node{NodeID: terms[0], Name: terms[0]}, nil
	}
	nodes, err := p.candidates(ctx, terms, byTags)
	if err != nil {
		return client.Node{}, err
	}
	switch len(nodes) {
	case 0:
		return client.Node{}, &statusError{status: statusRefused, err: fmt.Errorf("no node that you may see matches %s", strings.Join(terms, " "))}
	case 1:
		return nodes[0], nil
	}
	if !p.interactive() {
		return client.Node{}, p.several(terms, nodes)
	}
	lines := make([]string, len(nodes))
	for i, n := range nodes {
		lines[i] = nodeLine(n)
	}
	chosen, err := p.pick("Which node?", lines)
	if err != nil {
		return client.Node{}, &statusError{status: statusRefused, err: fmt.Errorf("choosing a node: %w", err)}
	}
	return nodes[chosen], nil
}

func (p *program) candidates(ctx context.Context, terms []string, byTags bool) ([]client.Node, error) {
	if byTags {
		return p.nodes(ctx, terms)
	}
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	if api.Endpoint() == "" { // AWS tells no names of EC2 instances, but selects by them
		named, err := p.nodes(ctx, []string{"Name=" + terms[0]})
		if err != nil || len(named) > 0 {
			return named, err
		}
	}
	nodes, err := p.nodes(ctx, nil)
	if err != nil {
		return nil, err
	}
	return bestMatches(nodes, terms[0]), nil
}

// bestMatches returns the nodes of exactly this id or name; failing that those that
// begin so.
func bestMatches(nodes []client.Node, term string) []client.Node {
	for _, match := range []func(client.Node) bool{
		func(n client.Node) bool { return n.NodeID == term },
		func(n client.Node) bool { return n.Name == term || n.Tags["Name"] == term },
		func(n client.Node) bool {
			return strings.HasPrefix(n.NodeID, term) || strings.HasPrefix(n.Name, term)
		},
	} {
		found := slices.DeleteFunc(slices.Clone(nodes), func(n client.Node) bool { return !match(n) })
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// several lists the matches on standard error.
func (p *program) several(terms []string, nodes []client.Node) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d nodes match %s:", len(nodes), strings.Join(terms, " "))
	for _, n := range nodes {
		fmt.Fprintf(&b, "\n  %s", nodeLine(n))
	}
	return &statusError{status: statusUsage, err: fmt.Errorf("%s", b.String())}
}

func nodeLine(n client.Node) string {
	line := fmt.Sprintf("%-20s  %-20s  %-12s  %s", n.NodeID, orDash(n.Name), n.State, tagText(n.Tags, "Name"))
	if n.MayConnect != nil && !*n.MayConnect {
		line += "  (not allowed)"
	}
	return strings.TrimRight(strings.ReplaceAll(client.Clean(line), "\n", " "), " ")
}
