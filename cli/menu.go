package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

func (p *program) newMenuCommand() *cobra.Command {
	var flags connectFlags
	cmd := &cobra.Command{
		Use:   "menu",
		Short: "Find a node step by step, and connect to it",
		Long: `Find a node step by step, and open a shell on it.

Each step is a tag: first its values with the number of nodes, then, of the one you
choose, the next tag, and last the nodes. What you type narrows the list, and finds nodes
of later steps, too. The left arrow goes back. It begins where you were last time.

Which tags, in which words, is set in config.hcl (docs/using.md):

  menu {
    dimension "Platform" {}
    dimension "Environment" { missing = "not sorted yet" }
  }`,
		Example: "  sallyport menu",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.connect(cmd.Context(), nil, nil, flags)
		},
	}
	flags.action = "shell"
	f := cmd.Flags()
	f.StringVar(&flags.reason, "reason", "", "why, for the audit log (256 characters)")
	f.StringVarP(&flags.login, "login", "l", "", "`user` to be on the node, where policy lets you choose; not on AWS")
	return cmd
}

// menu lets a person drill down to a node. path holds the values that were chosen.
func (p *program) menu(ctx context.Context) (client.Node, []string, error) {
	if !p.interactive() {
		return client.Node{}, nil, usagef("the menu needs a terminal on standard input and standard error; name a node, as sallyport nodes shows them")
	}
	s, err := p.settings()
	if err != nil {
		return client.Node{}, nil, err
	}
	nodes, err := p.nodes(ctx, nil)
	if err != nil {
		return client.Node{}, nil, err
	}
	if told, err := p.connected.GetStatus(ctx); err == nil {
		s.adopt(told)
	}
	nodes = slices.DeleteFunc(nodes, func(n client.Node) bool { return n.MayConnect != nil && !*n.MayConnect && !n.MayAsk })
	if len(nodes) == 0 {
		return client.Node{}, nil, &statusError{status: statusRefused, err: errors.New("there is no node that you may connect to")}
	}
	last, _ := p.last()
	m := &menu{dimensions: borne(s.dimensions(), nodes), nodes: nodes, last: last, pick: p.pickFrom}
	n, path, err := m.run()
	if err != nil {
		return n, nil, notChosen(err)
	}
	return n, path, nil
}

// borne leaves out the dimensions that no node bears: they divide nothing.
func borne(dimensions []dimension, nodes []client.Node) []dimension {
	return slices.DeleteFunc(slices.Clone(dimensions), func(d dimension) bool {
		return !slices.ContainsFunc(nodes, func(n client.Node) bool { return n.Tags[d.Key] != "" })
	})
}

// menu is one drill-down.
type menu struct {
	dimensions []dimension
	nodes      []client.Node
	last       choice
	pick       func(*picker) (int, error)
}

// entry is a line of a step: a value, and the nodes under it.
type entry struct {
	value string
	nodes []client.Node
}

// run asks step by step. Going back from a step returns to the one before.
func (m *menu) run() (client.Node, []string, error) {
	under := [][]client.Node{m.nodes}
	var path []string
	for {
		step := len(path)
		if step == len(m.dimensions) {
			n, err := m.choose(under[step], path)
			if !errors.Is(err, errBack) {
				return n, path, err
			}
			under, path = under[:step], path[:step-1]
			continue
		}
		e, n, err := m.descend(m.dimensions[step], under[step], path)
		switch {
		case errors.Is(err, errBack):
			under, path = under[:step], path[:step-1]
		case err != nil || n != nil:
			return orNode(n), path, err
		default:
			under, path = append(under, e.nodes), append(path, e.value)
		}
	}
}

func orNode(n *client.Node) client.Node {
	if n == nil {
		return client.Node{}
	}
	return *n
}

// descend asks for the value of a dimension; a node if one was found by typing.
func (m *menu) descend(d dimension, nodes []client.Node, path []string) (entry, *client.Node, error) {
	entries := entriesOf(d, nodes)
	lines := make([]string, 0, len(entries)+len(nodes))
	cursor := 0
	for i, e := range entries {
		lines = append(lines, fmt.Sprintf("%-24s  %s", client.CleanLine(e.value), count(len(e.nodes), "node")))
		if len(m.last.Path) > len(path) && slices.Equal(m.last.Path[:len(path)], path) && m.last.Path[len(path)] == e.value {
			cursor = i
		}
	}
	i, err := m.pick(&picker{
		title: title(d.title()+"?", path), lines: append(lines, nodeLines(nodes)...),
		always: len(entries), cursor: cursor, steps: len(path) > 0,
	})
	switch {
	case err != nil:
		return entry{}, nil, err
	case i >= len(entries):
		return entry{}, &nodes[i-len(entries)], nil
	}
	return entries[i], nil, nil
}

// choose asks for the node.
func (m *menu) choose(nodes []client.Node, path []string) (client.Node, error) {
	cursor := slices.IndexFunc(nodes, func(n client.Node) bool { return n.NodeID == m.last.NodeID })
	i, err := m.pick(&picker{title: title("Which node?", path), lines: nodeLines(nodes), cursor: max(cursor, 0), steps: len(path) > 0})
	if err != nil {
		return client.Node{}, err
	}
	return nodes[i], nil
}

// title is what a step asks, behind what was chosen before.
func title(question string, path []string) string {
	if len(path) == 0 {
		return client.CleanLine(question)
	}
	return client.CleanLine(strings.Join(path, " / ") + " / " + question)
}

// entriesOf sorts nodes by the values of a tag: those that the dimension orders first,
// then by the alphabet, nodes that bear none last. A node with several values is under
// each.
func entriesOf(d dimension, nodes []client.Node) []entry {
	by := map[string][]client.Node{}
	var missing []client.Node
	for _, n := range nodes {
		values := slices.DeleteFunc(tagValues(n.Tags[d.Key]), func(v string) bool { return v == "" })
		for _, v := range slices.Compact(slices.Sorted(slices.Values(values))) {
			by[v] = append(by[v], n)
		}
		if len(values) == 0 {
			missing = append(missing, n)
		}
	}
	var entries []entry
	for _, v := range d.Order {
		if by[v] != nil {
			entries = append(entries, entry{value: v, nodes: by[v]})
			delete(by, v)
		}
	}
	for _, v := range slices.Sorted(maps.Keys(by)) {
		entries = append(entries, entry{value: v, nodes: by[v]})
	}
	if len(missing) > 0 {
		entries = append(entries, entry{value: d.missing(), nodes: missing})
	}
	return entries
}

// count is "1 node", "2 nodes".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
