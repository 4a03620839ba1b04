package cli

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

// maxPages bounds how many pages of anything are asked for.
const maxPages = 10000

func (p *program) newNodesCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "nodes [KEY=VALUE | TEXT]...",
		Short: "List nodes and whether you may connect",
		Long: `List the nodes that you may see: state, tags, and whether you may start a shell.

KEY=VALUE selects by tag, TEXT by a part of name or id; all must hold. CONNECT tells
whether you may start a shell: yes, no, or other, which is no shell, but perhaps another
session, such as a tunnel or a file transfer; ask means that there is a flow which you may
ask for it (sallyport connect does). Nodes with no are shown with --all only.`,
		Example: `  sallyport nodes
  sallyport nodes Team=payments front
  sallyport nodes --all --json`,
		ValidArgsFunction: p.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := p.nodes(cmd.Context(), args)
			if err != nil {
				return err
			}
			if len(nodes) == 0 && len(args) > 0 {
				p.say("no node that you may see matches %s", client.CleanLine(strings.Join(args, " ")))
			}
			return p.printNodes(nodes, all)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "show nodes that you may not connect to, too")
	return cmd
}

// jsonNode is the contract of "nodes --json": a list of these.
type jsonNode struct {
	ID           string            `json:"id"`
	Name         string            `json:"name,omitempty"`
	NameReported bool              `json:"name_reported,omitempty"` // by the node itself
	State        string            `json:"state"`
	Tags         map[string]string `json:"tags"`
	Platform     string            `json:"platform,omitempty"`
	AgentVersion string            `json:"agent_version,omitempty"`
	MayConnect   *bool             `json:"may_connect,omitempty"`
	MayStart     bool              `json:"may_start,omitempty"` // some session, a shell or other
	MayAsk       bool              `json:"may_ask,omitempty"`   // a flow would give some session
	Reason       string            `json:"reason,omitempty"`
}

func (p *program) printNodes(nodes []client.Node, all bool) error {
	hidden := 0
	if !all {
		shown := slices.DeleteFunc(slices.Clone(nodes), closed)
		nodes, hidden = shown, len(nodes)-len(shown)
	}
	if p.flags.json {
		list := make([]jsonNode, 0, len(nodes))
		for _, n := range nodes {
			list = append(list, jsonNode{ID: n.NodeID, Name: n.Name, NameReported: n.NameReported, State: n.State, Tags: orEmpty(n.Tags),
				Platform: n.PlatformName, AgentVersion: n.AgentVersion, MayConnect: n.MayConnect, MayStart: n.MayStart, MayAsk: n.MayAsk, Reason: n.Reason})
		}
		return p.writeJSON(list)
	}
	rows := [][]string{{"NAME", "ID", "STATE", "CONNECT", "TAGS"}}
	for _, n := range nodes {
		rows = append(rows, []string{orDash(n.Name), n.NodeID, n.State, mayText(n), tagText(n.Tags, "Name")})
	}
	if err := p.writeTable(rows); err != nil {
		return err
	}
	refused := func(n client.Node) bool { return n.MayConnect != nil && !*n.MayConnect }
	asks := func(n client.Node) bool { return refused(n) && n.MayAsk }
	switch {
	case slices.ContainsFunc(nodes, asks):
		p.hint("sallyport connect NODE asks for those with ask")
	case slices.ContainsFunc(nodes, refused):
		p.hint("sallyport why connect NODE tells why not")
	}
	if hidden > 0 {
		p.say("%d more that you may not connect to; --all shows them", hidden)
	}
	return nil
}

func mayText(n client.Node) string {
	switch {
	case n.MayConnect == nil:
		return "?"
	case *n.MayConnect:
		return "yes"
	case n.MayStart:
		return "other"
	case n.MayAsk:
		return "ask"
	}
	return "no"
}

// closed reports whether a person is known to have no session to start on a node, and
// none to ask for.
func closed(n client.Node) bool { return onlyAsk(n) && !n.MayAsk }

// onlyAsk reports whether a person is known to have no session to start on a node.
func onlyAsk(n client.Node) bool { return n.MayConnect != nil && !*n.MayConnect && !n.MayStart }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// nodes returns the nodes for which all terms hold, best first: those that can be
// connected to, then by name.
func (p *program) nodes(ctx context.Context, terms []string) ([]client.Node, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := allNodes(ctx, api, terms)
	if errors.Is(err, client.ErrNotSallyport) {
		nodes, err = p.awsNodes(ctx, api, terms, err)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(nodes, compareNodes)
	return nodes, nil
}

func compareNodes(a, b client.Node) int {
	if x, y := rank(a), rank(b); x != y {
		return x - y
	}
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return strings.Compare(a.NodeID, b.NodeID)
}

// rank orders nodes by how good the chance to connect is.
func rank(n client.Node) int {
	r := 0
	if n.MayConnect != nil && !*n.MayConnect {
		r += 2
	}
	if onlyAsk(n) {
		r += 2
	}
	if closed(n) {
		r += 2
	}
	if !n.Connected() {
		r++
	}
	return r
}

func allNodes(ctx context.Context, api *client.API, terms []string) ([]client.Node, error) {
	in := client.ListNodesInput{Filters: nodeFilters(terms)}
	var nodes []client.Node
	for range maxPages {
		out, err := api.ListNodes(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, n := range out.Nodes {
			if holdAll(n, terms) {
				nodes = append(nodes, n)
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == "" {
			return nodes, nil
		}
	}
	return nodes, nil
}

// nodeFilters lets the server do the selecting where it is exact: tags with one value.
func nodeFilters(terms []string) []client.Filter {
	var filters []client.Filter
	for _, t := range terms {
		if k, v, ok := strings.Cut(t, "="); ok {
			filters = append(filters, client.Filter{Key: "tag:" + k, Values: []string{v}})
		}
	}
	return filters
}

// holdAll reports whether every term holds for n.
func holdAll(n client.Node, terms []string) bool {
	for _, t := range terms {
		if !holds(n, t) {
			return false
		}
	}
	return true
}

func holds(n client.Node, term string) bool {
	k, want, ok := strings.Cut(term, "=")
	if !ok {
		term = strings.ToLower(term)
		return strings.Contains(strings.ToLower(n.Name), term) || strings.Contains(n.NodeID, term)
	}
	v, ok := n.Tags[k]
	if !ok {
		return false
	}
	for part := range strings.SplitSeq(v, ",") { // a tag may hold several values
		if strings.TrimSpace(part) == want {
			return true
		}
	}
	return v == want
}
