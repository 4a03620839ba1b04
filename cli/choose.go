package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

// pickFlags are ways to name a node besides arguments.
type pickFlags struct {
	name, id   string
	list, last bool
}

// addPickFlags adds them under the names that aws-connect has, too.
func (p *program) addPickFlags(cmd *cobra.Command, pick *pickFlags) {
	f := cmd.Flags()
	f.StringVarP(&pick.name, "name", "n", "", "`name` of the node, its tag Name")
	f.StringVarP(&pick.id, "id", "x", "", "`id` of the node")
	f.BoolVarP(&pick.list, "select", "s", false, "choose from a list of the nodes that match")
	f.BoolVar(&pick.last, "last", false, "the node of last time, as -")
	f.StringVarP(&p.flags.profile, "profile", "p", "", "profile of the AWS configuration files")
	f.StringVarP(&p.flags.region, "region", "r", "", "region to sign for")
	cmd.RegisterFlagCompletionFunc("name", p.completeNodes)
	cmd.RegisterFlagCompletionFunc("id", cobra.NoFileCompletions)
	cmd.RegisterFlagCompletionFunc("profile", completeProfiles)
}

// given reports whether the flags name a node, so that no argument does.
func (f pickFlags) given() bool { return f.name != "" || f.id != "" || f.last }

// choose finds the one node that arguments or flags name, or lets a person choose; path
// is where in the menu it was, if that was asked.
func (p *program) choose(ctx context.Context, terms []string, f pickFlags) (n client.Node, path []string, err error) {
	if err := f.check(terms); err != nil {
		return n, nil, err
	}
	switch {
	case f.id != "":
		n = client.Node{NodeID: f.id, Name: f.id}
	case f.last || len(terms) == 1 && terms[0] == "-":
		n, err = p.lastNode(ctx)
	case f.list:
		n, err = p.chooseFromList(ctx, append(slices.Clone(terms), nonEmpty(f.name)...))
	case f.name != "":
		n, err = p.resolve(ctx, []string{f.name})
	case len(terms) > 0:
		n, err = p.resolve(ctx, terms)
	default:
		n, path, err = p.menu(ctx)
	}
	if err == nil && !nodeID.MatchString(n.NodeID) {
		return n, nil, fmt.Errorf("the server told of a node %q: want an id such as i-0123456789abcdef0", client.CleanLine(n.NodeID))
	}
	return n, path, err
}

// check refuses what names a node twice, or not at all.
func (f pickFlags) check(terms []string) error {
	switch {
	case slices.Contains(terms, ""):
		return usagef("the node's name is empty; sallyport nodes shows them")
	case f.id != "" && !nodeID.MatchString(f.id):
		return usagef("-x %q: want an id such as i-0123456789abcdef0", f.id)
	case f.id != "" && f.name != "", f.last && (f.name != "" || f.id != "" || f.list), f.id != "" && f.list:
		return usagef("-n, -x and --last name different nodes: give one")
	case f.given() && len(terms) > 0 && !f.list:
		return usagef("%q: a flag names the node already; a command follows --", terms[0])
	}
	return nil
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// lastNode is the node that was connected to last, in this deployment.
func (p *program) lastNode(ctx context.Context) (client.Node, error) {
	if _, err := p.api(ctx); err != nil { // tells which deployment it is
		return client.Node{}, err
	}
	c, ok := p.last()
	if !ok {
		return client.Node{}, usagef("there is no last time here; name a node, as sallyport nodes shows them")
	}
	p.say("%s (%s)", client.CleanLine(cmp.Or(c.Name, c.NodeID)), c.NodeID)
	return client.Node{NodeID: c.NodeID, Name: c.Name}, nil
}

// chooseFromList lets a person choose among the nodes for which all terms hold.
func (p *program) chooseFromList(ctx context.Context, terms []string) (client.Node, error) {
	if !p.interactive() {
		return client.Node{}, usagef("-s: choosing needs a terminal on standard input and standard error; name a node instead")
	}
	nodes, err := p.nodes(ctx, nil)
	if err != nil {
		return client.Node{}, err
	}
	nodes = slices.DeleteFunc(nodes, func(n client.Node) bool { return !listed(n, terms) })
	if len(nodes) == 0 {
		return client.Node{}, noneMatches(terms)
	}
	i, err := p.pickFrom(&picker{title: "Which node?", lines: nodeLines(nodes), cursor: p.lastAmong(nodes)})
	if err != nil {
		return client.Node{}, notChosen(err)
	}
	return nodes[i], nil
}

// listed reports whether every term holds for n, where a text may be a tag's key, too.
func listed(n client.Node, terms []string) bool {
	for _, t := range terms {
		if _, key := n.Tags[t]; !key && !holds(n, t) {
			return false
		}
	}
	return true
}

// lastAmong is where the node of last time is, 0 if it is not among them.
func (p *program) lastAmong(nodes []client.Node) int {
	c, _ := p.last()
	return max(slices.IndexFunc(nodes, func(n client.Node) bool { return n.NodeID == c.NodeID }), 0)
}

func nodeLines(nodes []client.Node) []string {
	lines := make([]string, len(nodes))
	for i, n := range nodes {
		lines[i] = nodeLine(n)
	}
	return lines
}

func noneMatches(terms []string) error {
	if len(terms) == 0 {
		return &statusError{status: statusRefused, err: errors.New("there is no node that you may see")}
	}
	return &statusError{status: statusRefused, err: fmt.Errorf("no node that you may see matches %s", strings.Join(terms, " "))}
}

func notChosen(err error) error {
	return &statusError{status: statusRefused, err: fmt.Errorf("choosing a node: %w", err)}
}
