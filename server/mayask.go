package server

import (
	"context"
	"slices"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/document"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/policy"
)

// What people may ask for, where it is shown beside what they may do.

// offers are the policies that the caller would have if all were granted that they may
// ask for.
type offers struct{ sources []policy.Source }

// offered works out the caller's offers once for a listing. That flows cannot be read
// keeps nobody from what policies allow.
func (c *Call) offered(ctx context.Context) *offers {
	engine := c.Server.config.Access
	if c.offers != nil || engine == nil || c.Principal.IsNode() {
		if c.offers == nil {
			c.offers = &offers{}
		}
		return c.offers
	}
	sources, err := engine.Offered(ctx, c.Principal, "cli")
	if err != nil {
		c.Server.log.Error("reading what a person may ask for", "principal", c.Principal.ARN, "error", err)
		sources = nil
	}
	c.offers = &offers{sources}
	return c.offers
}

// mayAsk reports whether a flow that the caller may ask would give some session on a node.
func (c *Call) mayAsk(ctx context.Context, n node.Node) (bool, error) {
	o := c.offered(ctx)
	if len(o.sources) == 0 {
		return false, nil
	}
	q := access.Query{Principal: c.Principal, Action: actionStartSession, Origin: c.Origin}
	return c.Server.checker.PossibleWith(ctx, q, c.Server.nodeResource(n), o.sources)
}

// mayStartOrAsk reports whether the caller may start some session on a node, or ask for
// one.
func (c *Call) mayStartOrAsk(ctx context.Context, n node.Node) (bool, error) {
	q := access.Query{Principal: c.Principal, Action: actionStartSession, Origin: c.Origin}
	may, err := c.Server.checker.PossibleStart(ctx, q, c.Server.nodeResource(n))
	if may || err != nil {
		return may, err
	}
	return c.mayAsk(ctx, n)
}

// sentDocument is a document that runs commands, as policies see it; nil for others.
func (c *Call) sentDocument(ctx context.Context, name string) (*access.Resource, error) {
	if name == "" {
		return nil, nil
	}
	doc, err := c.documentResource(ctx, name)
	if err != nil {
		return nil, err
	}
	builtin, ok := document.Builtin(name)
	if ok && builtin.Type == document.TypeCommand || slices.Contains(doc.Context[keyDocumentType], document.TypeCommand) {
		return &doc, nil
	}
	return nil, nil
}

// wouldSend reports whether the caller could send a document to a node if they had more
// policies. An error is no.
func (c *Call) wouldSend(ctx context.Context, doc access.Resource, n node.Node, more []policy.Source) bool {
	if _, name, ok := strings.Cut(doc.ARN, ":document/"); ok {
		c.SetContext(access.KeyDocumentName, name)
	}
	q := access.Query{
		Principal: c.Principal, Action: "ssm:SendCommand", Resources: []access.Resource{doc, c.Server.nodeResource(n)},
		Context: c.Context, Origin: c.Origin, NoAudit: true,
	}
	d, err := c.Server.checker.DecideWith(ctx, q, more)
	if err != nil {
		c.Server.log.Error("deciding what a flow would help with", "principal", c.Principal.ARN, "error", err)
	}
	return err == nil && d.Allowed
}

const (
	// explainedRequests bounds the requests of an explanation, and explainedSince tells
	// how long ago those may have ended.
	explainedRequests = 10
	explainedSince    = 24 * time.Hour
)

// explainAsking adds to an explanation what grants and requests have to do with it.
func (c *Call) explainAsking(ctx context.Context, in *explainAccessInput, subject identity.Principal, allowed bool, out *explainAccessOutput) error {
	engine := c.Server.config.Access
	if engine == nil || subject.IsNode() {
		return nil
	}
	if err := c.explainRequests(ctx, engine, subject, out); err != nil || allowed {
		return err
	}
	helps, err := c.explainHelps(ctx, engine, in, subject, out.NodeID)
	if err != nil {
		return err
	}
	out.Flows = showHelps(helps)
	return nil
}

// explainRequests adds what a person holds, has asked for and held lately.
func (c *Call) explainRequests(ctx context.Context, engine *grant.Engine, subject identity.Principal, out *explainAccessOutput) error {
	recent, err := engine.Recent(ctx, subject.RootID(), 4*explainedRequests)
	if err != nil {
		return err
	}
	since := c.Server.config.Now().Add(-explainedSince)
	for _, r := range recent {
		if r.State.Over() && r.EndedAt.Before(since) || len(out.Requests) == explainedRequests {
			continue
		}
		shown, err := c.showRequest(ctx, engine, r)
		if err != nil {
			return err
		}
		out.Requests = append(out.Requests, *shown)
	}
	return nil
}

// explainHelps are the flows that would allow what is not allowed: sessions on a node, or
// taking a role.
func (c *Call) explainHelps(ctx context.Context, engine *grant.Engine, in *explainAccessInput, subject identity.Principal, nodeID string) ([]grant.Help, error) {
	if nodeID != "" {
		n, err := c.visibleNode(ctx, nodeID)
		if err != nil || n.Registered.IsZero() {
			return nil, err
		}
		name, err := c.Server.documentName(in.Document)
		if err != nil {
			return nil, err
		}
		return engine.Helps(ctx, subject, n, name, in.RunAs, "cli")
	}
	_, role, ok := strings.Cut(in.Resource, ":role/")
	if !ok || !strings.EqualFold(in.Action, "sts:AssumeRole") {
		return nil, nil
	}
	offered, err := engine.Offers(ctx, subject, "cli")
	var helps []grant.Help
	for _, o := range offered {
		for _, t := range o.Flow.Targets {
			if t.Kind == flow.TargetRole && t.Role == role[strings.LastIndexByte(role, '/')+1:] {
				helps = append(helps, grant.Help{Offer: o, Target: t})
			}
		}
	}
	return helps, err
}

// showHelps are flows with those of their targets that help.
func showHelps(helps []grant.Help) []accessFlow {
	var flows []accessFlow
	for _, h := range helps {
		i := slices.IndexFunc(flows, func(f accessFlow) bool { return f.Name == h.Offer.Flow.Name })
		if i < 0 {
			flows = append(flows, showOffer(h.Offer, []flow.Target{h.Target}))
			continue
		}
		flows[i].Targets = append(flows[i].Targets, showTarget(h.Target))
	}
	return flows
}
