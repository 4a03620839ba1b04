package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/wire"
)

// Activations, which let machines register.

func ssmActivationOperations() []*Operation {
	return []*Operation{
		op("ssm", "CreateActivation", createActivationResources, createActivation),
		op("ssm", "DescribeActivations", nil, describeActivations, quietly),
		op("ssm", "DeleteActivation", nil, deleteActivation),
	}
}

type registrationMetadata struct {
	Key   string `json:"Key" check:"required,min=1,max=128"`
	Value string `json:"Value" check:"required,min=1,max=2048"`
}

// createActivationInput: RegistrationMetadata with the key NodeIds fixes the ids that
// registrations get, in order, separated by commas or spaces; several such items are
// joined. Ids may then be i-… as well.
type createActivationInput struct {
	Description          string                 `json:"Description" check:"max=256"`
	DefaultInstanceName  string                 `json:"DefaultInstanceName" check:"max=256,pattern=[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*"`
	IamRole              string                 `json:"IamRole" check:"required,max=64"`
	RegistrationLimit    int                    `json:"RegistrationLimit" check:"min=1,max=1000"`
	ExpirationDate       wire.Time              `json:"ExpirationDate"`
	Tags                 []tag                  `json:"Tags" check:"max=50"`
	RegistrationMetadata []registrationMetadata `json:"RegistrationMetadata" check:"max=50"`
}

// metadataNodeIDs is the key of RegistrationMetadata that fixes node ids.
const metadataNodeIDs = "NodeIds"

func (in *createActivationInput) nodeIDs() ([]string, error) {
	var ids []string
	for _, m := range in.RegistrationMetadata {
		if m.Key != metadataNodeIDs {
			return nil, ssmError("InvalidParameters", "RegistrationMetadata has the key %q; only %s is known.", m.Key, metadataNodeIDs)
		}
		ids = append(ids, strings.FieldsFunc(m.Value, func(r rune) bool { return r == ',' || r == ' ' })...)
	}
	return ids, nil
}

// createActivationResources authorises on the nodes whose ids are fixed: who may only
// enrol some nodes must not enrol a machine under another's id. Otherwise the
// resource is *, as in AWS. The tags that nodes will get are aws:RequestTag/KEY.
func createActivationResources(_ context.Context, c *Call, in *createActivationInput) ([]access.Resource, error) {
	tags, err := nodeTags(in.Tags)
	if err != nil {
		return nil, err
	}
	c.SetRequestTags(tags)
	ids, err := in.nodeIDs()
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return []access.Resource{{ARN: "*"}}, nil
	}
	if len(ids) > node.MaxRegistrations {
		return nil, ssmError("InvalidParameters", "%d node ids are fixed; at most %d are allowed.", len(ids), node.MaxRegistrations)
	}
	var resources []access.Resource
	for _, id := range ids {
		resources = append(resources, access.Resource{ARN: c.Server.config.Realm.Node(id)})
	}
	return resources, nil
}

type createActivationOutput struct {
	ActivationID   string `json:"ActivationId"`
	ActivationCode string `json:"ActivationCode"`
}

func (out *createActivationOutput) made() string { return out.ActivationID }

func createActivation(ctx context.Context, c *Call, in *createActivationInput) (*createActivationOutput, error) {
	a, err := in.activation(c.Origin.Time)
	if err != nil {
		return nil, err
	}
	if err := a.Check(c.Origin.Time); err != nil {
		return nil, ssmError("InvalidParameters", "%v.", err)
	}
	if err := c.checkFree(ctx, a.NodeIDs); err != nil {
		return nil, err
	}
	code, hash := node.NewCode()
	a.CodeHash = hash
	if err := c.Server.config.Nodes.CreateActivation(ctx, a); err != nil {
		return nil, err
	}
	return &createActivationOutput{ActivationID: a.ID, ActivationCode: code}, nil
}

func (in *createActivationInput) activation(now time.Time) (node.Activation, error) {
	ids, err := in.nodeIDs()
	if err != nil {
		return node.Activation{}, err
	}
	tags, err := nodeTags(in.Tags)
	a := node.Activation{
		ID: node.NewActivationID(), Description: in.Description, DefaultName: in.DefaultInstanceName,
		IAMRole: in.IamRole, Limit: orDefault(in.RegistrationLimit, max(1, len(ids))),
		Expires: in.ExpirationDate.Time, Created: now, Tags: tags, NodeIDs: ids,
	}
	if a.Expires.IsZero() {
		a.Expires = now.Add(node.DefaultLifetime)
	}
	return a, err
}

// checkFree refuses ids that nodes have: a registration would not replace them.
func (c *Call) checkFree(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	taken, err := c.Server.config.Nodes.Nodes(ctx, node.Filter{IDs: ids})
	if err != nil {
		return err
	}
	if len(taken) > 0 {
		return ssmError("InvalidParameters", "The node %s is registered; deregister it before its id is given out again.", taken[0].ID)
	}
	return nil
}

type activationFilter struct {
	FilterKey    string   `json:"FilterKey" check:"enum=ActivationIds|DefaultInstanceName|IamRole"`
	FilterValues []string `json:"FilterValues" check:"max=100" each:"max=256"`
}

type describeActivationsInput struct {
	Filters    []activationFilter `json:"Filters" check:"max=10"`
	MaxResults int                `json:"MaxResults" check:"min=1,max=50"`
	NextToken  string             `json:"NextToken" check:"max=1024"`
}

type activationShape struct {
	ActivationID        string    `json:"ActivationId"`
	Description         string    `json:"Description,omitempty"`
	DefaultInstanceName string    `json:"DefaultInstanceName,omitempty"`
	IamRole             string    `json:"IamRole,omitempty"`
	RegistrationLimit   int       `json:"RegistrationLimit"`
	RegistrationsCount  int       `json:"RegistrationsCount"`
	ExpirationDate      wire.Time `json:"ExpirationDate"`
	Expired             bool      `json:"Expired"`
	CreatedDate         wire.Time `json:"CreatedDate"`
	Tags                []tag     `json:"Tags,omitempty"`
}

type describeActivationsOutput struct {
	ActivationList []activationShape `json:"ActivationList"`
	NextToken      string            `json:"NextToken,omitempty"`
}

func (f activationFilter) holds(a node.Activation) bool {
	attribute := map[string]string{
		"ActivationIds": a.ID, "DefaultInstanceName": a.DefaultName, "IamRole": a.IAMRole,
	}[f.FilterKey]
	return slices.Contains(f.FilterValues, attribute)
}

func describeActivations(ctx context.Context, c *Call, in *describeActivationsInput) (*describeActivationsOutput, error) {
	page, next, err := pages[node.Activation]{
		fetch: func(after string, n int) ([]node.Activation, error) {
			return c.Server.config.Nodes.Activations(ctx, after, n)
		},
		key: func(a node.Activation) string { return a.ID },
		keep: func(a node.Activation) (bool, error) {
			return !slices.ContainsFunc(in.Filters, func(f activationFilter) bool { return !f.holds(a) }), nil
		},
		size: 50,
	}.page(c, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &describeActivationsOutput{ActivationList: []activationShape{}, NextToken: next}
	for _, a := range page {
		out.ActivationList = append(out.ActivationList, c.activationShape(a))
	}
	return out, nil
}

func (c *Call) activationShape(a node.Activation) activationShape {
	return activationShape{
		ActivationID: a.ID, Description: a.Description, DefaultInstanceName: a.DefaultName, IamRole: a.IAMRole,
		RegistrationLimit: a.Limit, RegistrationsCount: a.Count, ExpirationDate: wire.Time{Time: a.Expires},
		Expired: a.Expired(c.Origin.Time), CreatedDate: wire.Time{Time: a.Created}, Tags: tagList(a.Tags),
	}
}

type deleteActivationInput struct {
	ActivationID string `json:"ActivationId" check:"required,max=36"`
}

// deleteActivation takes an activation back. Nodes that it registered stay.
func deleteActivation(ctx context.Context, c *Call, in *deleteActivationInput) (*nothing, error) {
	err := c.Server.config.Nodes.DeleteActivation(ctx, in.ActivationID)
	if errors.Is(err, node.ErrNotFound) || errors.Is(err, node.ErrInvalidActivation) || errors.Is(err, identity.ErrNotFound) {
		return nil, ssmError("InvalidActivation", "There is no activation %s.", in.ActivationID)
	}
	return &nothing{}, err
}
