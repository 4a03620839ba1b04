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
	claimed := !byTags && len(nodes) > 0 && claims(nodes[0], terms[0])
	switch {
	case len(nodes) == 0:
		return client.Node{}, noneMatches(terms)
	case len(nodes) == 1 && !claimed:
		return nodes[0], nil
	case !p.interactive() && claimed:
		return client.Node{}, several(fmt.Sprintf("no node was named %s; give the id of one that calls itself so:", terms[0]), nodes)
	case !p.interactive():
		return client.Node{}, several(fmt.Sprintf("%d nodes match %s; give the id of one:", len(nodes), strings.Join(terms, " ")), nodes)
	}
	title := "Which node?"
	if claimed {
		title = "None was named so, but these call themselves so. Which node?"
	}
	chosen, err := p.pick(title, nodeLines(nodes))
	if err != nil {
		return client.Node{}, notChosen(err)
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
		for i := range named {
			named[i].Name, named[i].NameReported = terms[0], false
		}
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
// begin so. What nodes call themselves comes last: a hostile one may choose the name
// that somebody else is looked for by.
func bestMatches(nodes []client.Node, term string) []client.Node {
	for _, match := range []func(client.Node) bool{
		func(n client.Node) bool { return n.NodeID == term },
		func(n client.Node) bool { return assignedName(n) == term || n.Tags["Name"] == term },
		func(n client.Node) bool {
			return strings.HasPrefix(n.NodeID, term) || strings.HasPrefix(assignedName(n), term)
		},
		func(n client.Node) bool { return claims(n, term) },
	} {
		found := slices.DeleteFunc(slices.Clone(nodes), func(n client.Node) bool { return !match(n) })
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// assignedName is the name that a node was given, as opposed to what it calls itself.
func assignedName(n client.Node) string {
	if n.NameReported {
		return ""
	}
	return n.Name
}

// claims reports whether term stands for n only by what n calls itself.
func claims(n client.Node, term string) bool {
	return n.NameReported && strings.HasPrefix(n.Name, term) && !strings.HasPrefix(n.NodeID, term)
}

// severalError says that a node was not chosen among several, best first.
type severalError struct {
	title string
	nodes []client.Node
}

// several is the usage error of a node that was named so that several match.
func several(title string, nodes []client.Node) error {
	return &statusError{status: statusUsage, err: &severalError{title, nodes}}
}

// Error lists the nodes below the title, a line each.
func (e *severalError) Error() string {
	var b strings.Builder
	b.WriteString(e.title)
	for _, n := range e.nodes {
		fmt.Fprintf(&b, "\n  %s", nodeLine(n))
	}
	return b.String()
}

// line is the same in one line, by the nodes' ids.
func (e *severalError) line() string {
	ids := make([]string, len(e.nodes))
	for i, n := range e.nodes {
		ids[i] = n.NodeID
	}
	return e.title + " " + strings.Join(ids, ", ")
}

func nodeLine(n client.Node) string {
	line := fmt.Sprintf("%-20s  %-20s  %-12s  %s", client.CleanLine(n.NodeID), orDash(client.CleanLine(n.Name)),
		client.CleanLine(n.State), client.CleanLine(tagText(n.Tags, "Name")))
	switch {
	case closed(n):
		line += "  (not allowed)"
	case onlyAsk(n):
		line += "  (ask)"
	}
	return strings.TrimRight(line, " ")
}
