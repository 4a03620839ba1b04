package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/approval"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
)

// Just-in-time node access as AWS has it: asked for under approval documents, used with
// the credentials of an access token (docs/approval-documents.md).

func ssmAccessOperations() []*Operation {
	return []*Operation{
		op("ssm", "StartAccessRequest", nil, startAccessRequest, checksItself),
		op("ssm", "GetAccessToken", nil, getAccessToken, checksItself),
		op("ssm", "GetOpsItem", nil, getOpsItem, checksItself, quietly),
		op("ssm", "SendAutomationSignal", nil, sendAutomationSignal, checksItself),
	}
}

type startAccessRequestInput struct {
	Reason  string          `json:"Reason" check:"required,min=1,max=256"`
	Targets []commandTarget `json:"Targets" check:"required,min=1,max=5"`
	Tags    []tag           `json:"Tags" check:"max=50"`
}

type startAccessRequestOutput struct {
	AccessRequestID string `json:"AccessRequestId"`
}

// engine returns what carries requests.
func (c *Call) engine() (*grant.Engine, error) {
	if c.Server.config.Access == nil || c.Server.config.Approval == nil {
		return nil, ssmError("ValidationException", "This server gives no access just in time.")
	}
	return c.Server.config.Access, nil
}

// apiActor is who takes a step of a request by this call.
func (c *Call) apiActor() grant.Actor { return c.actor("api") }

// startAccessRequest asks for access to nodes: one request for all of them, under the
// approval document that is theirs. The nodes are those that the targets select now;
// the request names them and grows no more.
func startAccessRequest(ctx context.Context, c *Call, in *startAccessRequestInput) (*startAccessRequestOutput, error) {
	engine, err := c.engine()
	if err != nil {
		return nil, err
	}
	nodes, err := c.requestedNodes(ctx, in.Targets)
	if err != nil {
		return nil, err
	}
	values, err := c.accessValues(in)
	if err != nil {
		return nil, err
	}
	if err := c.CheckOwn(ctx, c.nodeResources(nodes)...); err != nil {
		return nil, err
	}
	r, err := c.askForNodes(ctx, engine, nodes, values)
	if err != nil {
		return nil, accessError(err, nodes)
	}
	return &startAccessRequestOutput{AccessRequestID: r.ID}, nil
}

// requestedNodes finds the nodes that targets select.
func (c *Call) requestedNodes(ctx context.Context, targets []commandTarget) ([]flow.Node, error) {
	for _, t := range targets {
		if t.Key == "InstanceIds" && slices.Contains(t.Values, "*") {
			return nil, ssmError("ValidationException", "Name the nodes: access to all of them cannot be requested at once.")
		}
	}
	found, err := c.targetNodes(ctx, targets)
	if err != nil {
		return nil, err
	}
	var nodes []flow.Node
	for _, n := range found {
		nodes = append(nodes, flow.Node{ID: n.ID, Name: n.AssignedName(), Tags: n.Tags})
	}
	for _, t := range targets {
		for _, id := range t.Values {
			if t.Key == "InstanceIds" && !slices.ContainsFunc(found, func(n node.Node) bool { return n.ID == id }) {
				return nil, noPolicy(id)
			}
		}
	}
	if len(nodes) == 0 {
		return nil, ssmError("ResourceNotFoundException", "The targets select no node to which access can be requested.")
	}
	return nodes, nil
}

// noPolicy is also what is said of nodes that do not exist.
func noPolicy(id string) error {
	return ssmError("ResourceNotFoundException", "%s", sentence(&approval.NoPolicyError{Node: truncate(id, 100)}))
}

func (c *Call) nodeResources(nodes []flow.Node) []access.Resource {
	var all []access.Resource
	for _, n := range nodes {
		all = append(all, access.Resource{ARN: c.Server.config.Realm.Node(n.ID), Tags: n.Tags})
	}
	return all
}

// accessValues fills the form of the documents' flows.
func (c *Call) accessValues(in *startAccessRequestInput) (flow.Values, error) {
	tags, err := nodeTags(in.Tags)
	if err != nil {
		return nil, err
	}
	c.SetRequestTags(tags)
	values := flow.Values{flow.FieldReason: {in.Reason}}
	for _, key := range tags.Keys() {
		values[approval.FieldTags] = append(values[approval.FieldTags], key+"="+tags[key])
	}
	return values, nil
}

// askForNodes asks under the auto-approval policy where that approves, else under the
// document for the nodes.
func (c *Call) askForNodes(ctx context.Context, engine *grant.Engine, nodes []flow.Node, values flow.Values) (grant.Request, error) {
	ask := grant.Ask{Values: values}
	for _, n := range nodes {
		ask.Nodes = append(ask.Nodes, n.ID)
	}
	auto, err := c.approvesItself(ctx, engine, ask)
	if err != nil {
		return grant.Request{}, err
	}
	ask.Flow = approval.AutoFlow
	if !auto {
		if ask.Flow, ask.Targets, err = c.Server.config.Approval.Manual(ctx, nodes); err != nil {
			return grant.Request{}, err
		}
	}
	return engine.Ask(ctx, c.apiActor(), ask)
}

// approvesItself tries what would become of a request under the auto-approval policy.
func (c *Call) approvesItself(ctx context.Context, engine *grant.Engine, ask grant.Ask) (bool, error) {
	flows, err := engine.Flows(ctx)
	if err != nil || flows.Flows[approval.AutoFlow] == nil {
		return false, err
	}
	ask.Flow, ask.Explain = approval.AutoFlow, true
	r, err := engine.Ask(ctx, c.apiActor(), ask)
	if refused := (*grant.RefusedError)(nil); errors.As(err, &refused) {
		return false, nil // people may still say yes, or the question itself is refused again
	}
	return err == nil && (r.State == grant.Approved || r.State == grant.Active), err
}

// accessError words what keeps somebody from a request.
func accessError(err error, nodes []flow.Node) error {
	if none := (*approval.NoPolicyError)(nil); errors.As(err, &none) {
		return noPolicy(none.Node)
	}
	if conflict := (*approval.ConflictError)(nil); errors.As(err, &conflict) {
		return ssmError("ValidationException", "%s.", strings.ToUpper(conflict.Problem[:1])+conflict.Problem[1:])
	}
	if field := (*flow.FieldError)(nil); errors.As(err, &field) {
		return ssmError("ValidationException", "%s.", sentence(field))
	}
	if refused := (*grant.RefusedError)(nil); errors.As(err, &refused) {
		if refused.TooMany {
			return ssmError("ServiceQuotaExceededException", "The request was refused %s.", refused.Because)
		}
		return ssmError("AccessDeniedException", "The request was refused %s.", refused.Because)
	}
	return err
}

type accessRequestInput struct {
	AccessRequestID string `json:"AccessRequestId" check:"required,pattern=oi-[0-9a-f]{12}"`
}

// opsItem is the ARN that AWS authorises access requests by.
func (c *Call) opsItem(id string) access.Resource {
	realm := c.Server.config.Realm
	return access.Resource{ARN: "arn:aws:ssm:" + realm.Region + ":" + realm.Account + ":opsitem/" + id}
}

// accessStatus is the state of a request in AWS's words.
func accessStatus(r grant.Request, held bool) string {
	switch r.State {
	case grant.Pending, grant.Approved:
		return string(r.State)
	case grant.Active:
		if held {
			return "Approved"
		}
	case grant.Denied:
		return "Rejected"
	case grant.Revoked, grant.Released, grant.Cancelled:
		return "Revoked"
	}
	return "Expired" // Expired, Lapsed and Ended, and what has just come to its end
}

// ownRequest returns a request of the caller's. Others' are refused.
func (c *Call) ownRequest(ctx context.Context, engine *grant.Engine, id string) (grant.Request, error) {
	r, err := engine.Request(ctx, id)
	if errors.Is(err, grant.ErrNotFound) {
		if err := c.CheckOwn(ctx, c.opsItem(id)); err != nil {
			return r, err
		}
		return r, ssmError("ResourceNotFoundException", "There is no access request %s.", id)
	}
	if err != nil {
		return r, err
	}
	if c.Principal.IsNode() || r.Frozen.Person.ID != c.Principal.RootID() {
		c.checked = true
		return r, c.Server.checker.Refuse(ctx, c.query(c.Operation.Action, []access.Resource{c.opsItem(id)}),
			"because the access request is somebody else's")
	}
	return r, c.CheckOwn(ctx, c.opsItem(id))
}

// requestNodes are the nodes that a request gives access to: those that it names, else
// those that its targets select now.
func (c *Call) requestNodes(ctx context.Context, r grant.Request) ([]flow.Node, error) {
	selected := func(n flow.Node) bool {
		return slices.ContainsFunc(r.Frozen.Targets, func(t flow.Target) bool { return t.Nodes.Has(n) })
	}
	var filter node.Filter
	for _, n := range r.Frozen.Nodes {
		filter.IDs = append(filter.IDs, n.ID)
	}
	all, err := c.Server.config.Nodes.Nodes(ctx, filter)
	if err != nil {
		return nil, err
	}
	var nodes []flow.Node
	for _, n := range all {
		if one := (flow.Node{ID: n.ID, Name: n.AssignedName(), Tags: n.Tags}); selected(one) {
			nodes = append(nodes, one)
		}
	}
	if len(nodes) > maxTokenNodes {
		return nil, fmt.Errorf("access request %s gives %d nodes: %w", r.ID, len(nodes), identity.ErrLimit)
	}
	return nodes, nil
}
