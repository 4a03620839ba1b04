package grant

import (
	"cmp"
	"context"
	"maps"
	"path"
	"slices"

	"sallyport.dev/flow"
	"sallyport.dev/identity"
	"sallyport.dev/node"
)

// Offer is a flow that a person may ask, with its form made for them.
type Offer struct {
	Flow    *flow.Flow
	Fields  []flow.Field // allowed values filled in
	Problem string       // of the flow's code, if it has any
}

// Offers returns the flows that a person may ask.
func (e *Engine) Offers(ctx context.Context, p identity.Principal, channel string) ([]Offer, error) {
	who, because, err := e.behind(ctx, p)
	if err != nil || because != "" {
		return nil, err
	}
	set, err := e.Flows(ctx)
	if err != nil {
		return nil, err
	}
	v := &view{e: e, set: set}
	var all []Offer
	for _, name := range slices.Sorted(maps.Keys(set.Flows)) {
		f := set.Flows[name]
		if v.mayAsk(ctx, f, name, channel, who) == nil {
			all = append(all, v.offer(ctx, f, who))
		}
	}
	return all, nil
}

// offer fills in the values that the flow's code allows a person.
func (v *view) offer(ctx context.Context, f *flow.Flow, who flow.Person) Offer {
	o := Offer{Flow: f, Fields: f.Form()}
	for i := range o.Fields {
		field := &o.Fields[i]
		if field.Options == "" || f.Code == nil {
			continue
		}
		options, err := f.Code.Options(ctx, v.codeEnv(v.e.now()), field.Options, who)
		if err != nil {
			o.Problem = field.Options + ": " + clip(err.Error(), 500)
			continue
		}
		field.Allowed = options
	}
	return o
}

// Help is a flow whose target would allow what was refused.
type Help struct {
	Offer  Offer
	Target flow.Target
}

// Helps returns the offers that would let a person start sessions on a node; the most
// fitting first: a target that has the node by its id, by its name, by tags, then roles
// and groups. document is empty for the default one, login for none in particular.
func (e *Engine) Helps(ctx context.Context, p identity.Principal, n node.Node, document, login, channel string) ([]Help, error) {
	offers, err := e.Offers(ctx, p, channel)
	if err != nil {
		return nil, err
	}
	var all []Help
	for _, o := range offers {
		for _, t := range o.Flow.Targets {
			helps, err := e.helps(ctx, p, o.Flow, t, n, document, login)
			if err != nil {
				return nil, err
			}
			if helps {
				all = append(all, Help{o, t})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Help) int { return cmp.Compare(a.rank(n), b.rank(n)) })
	return all, nil
}

// rank orders targets by how closely they fit a node; break-glass comes last.
func (h Help) rank(n node.Node) int {
	rank := 0
	switch t := h.Target; {
	case t.Kind == flow.TargetRole:
		rank = 4
	case t.Kind == flow.TargetGroup:
		rank = 5
	case slices.Contains(t.Nodes.IDs, n.ID):
	case len(t.Nodes.Names) > 0:
		rank = 1
	case len(t.Nodes.Tags) > 0:
		rank = 2
	default:
		rank = 3
	}
	if h.Offer.Flow.BreakGlass != nil {
		rank += 10
	}
	return rank
}

// helps reports whether a target would let a principal start the session.
func (e *Engine) helps(ctx context.Context, p identity.Principal, f *flow.Flow, t flow.Target, n node.Node, document, login string) (bool, error) {
	request := Request{ID: "oi-000000000000", Frozen: Frozen{Flow: flow.Flow{Name: f.Name}, Targets: []flow.Target{t}}}
	if t.Kind == flow.TargetNodes {
		if !t.Nodes.Has(seen(n)) || !hasDocument(t.Nodes, document) || login != "" && t.Nodes.Login != "" && login != t.Nodes.Login {
			return false, nil
		}
		if fits, err := e.fits(ctx, p, f, seen(n)); err != nil || !fits {
			return false, err
		}
		request.Frozen.Nodes = []flow.Node{seen(n)}
		login = orElse(login, t.Nodes.Login)
	}
	if outside(t) {
		return false, nil
	}
	own, err := e.policies(request)
	if err != nil {
		return false, err
	}
	sources, err := e.addSources(ctx, nil, held{request, own})
	if err != nil || len(sources) == 0 {
		return false, err
	}
	if e.config.Policies == nil {
		return t.Kind == flow.TargetNodes, nil
	}
	return e.config.Policies.Would(ctx, p, n, document, login, sources)
}

func hasDocument(n *flow.Nodes, document string) bool {
	if document == "" {
		document = "SSM-SessionManagerRunShell"
	}
	patterns := n.Documents
	if len(patterns) == 0 {
		patterns = Documents()
	}
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(pattern, document) // names of documents have no slashes
		return err == nil && ok
	})
}

// Fitter is what Rules may be beside: they tell whether a flow that would give a node may
// be asked for it at all, so that nobody is sent to one that refuses.
type Fitter interface {
	Fits(ctx context.Context, f *flow.Flow, who flow.Person, n flow.Node) (bool, error)
}

func (e *Engine) fits(ctx context.Context, p identity.Principal, f *flow.Flow, n flow.Node) (bool, error) {
	rules, ok := e.config.Rules.(Fitter)
	if !ok {
		return true, nil
	}
	who, because, err := e.behind(ctx, p)
	if err != nil || because != "" {
		return false, err
	}
	return rules.Fits(ctx, f, who, n)
}
