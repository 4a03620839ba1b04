package server

import (
	"context"
	"errors"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/document"
	"sallyport.dev/identity"
	"sallyport.dev/node"
)

// Tags of nodes and documents.

func ssmTagOperations() []*Operation {
	return []*Operation{
		op("ssm", "AddTagsToResource", addTagsResource, addTagsToResource),
		op("ssm", "RemoveTagsFromResource", removeTagsResource, removeTagsFromResource),
		op("ssm", "ListTagsForResource", onTagged[listTagsInput], listTagsForResource, quietly),
	}
}

// tagged names what tags are on: a node (ManagedInstance, with an mi-… or i-… id) or
// a document (Document, with its name).
type tagged struct {
	ResourceType string `json:"ResourceType" check:"required,enum=Document|ManagedInstance|MaintenanceWindow|Parameter|PatchBaseline|OpsItem|OpsMetadata|Automation|Association"`
	ResourceID   string `json:"ResourceId" check:"required,min=1,max=512"`
}

func (t tagged) target() tagged { return t }

// resource finds what a tag operation is authorised on: anything, where it names what
// there is none of here.
func (t tagged) resource(ctx context.Context, c *Call) (access.Resource, error) {
	switch t.ResourceType {
	case "ManagedInstance":
		if !node.ValidID(t.ResourceID) {
			return access.Resource{}, ssmError("InvalidResourceId", "The resource id %q is not that of a node: it must be mi- or i- and hexadecimal digits.", t.ResourceID)
		}
		return c.nodeResource(ctx, t.ResourceID)
	case "Document":
		return c.documentResource(ctx, t.ResourceID)
	}
	return access.Resource{ARN: "*"}, nil
}

// check refuses kinds of resources that do not exist here.
func (t tagged) check() error {
	if t.ResourceType != "ManagedInstance" && t.ResourceType != "Document" {
		return ssmError("InvalidResourceType", "The resource type %q is not valid here: it must be ManagedInstance or Document.", t.ResourceType)
	}
	return nil
}

func onTagged[In interface{ target() tagged }](ctx context.Context, c *Call, in *In) ([]access.Resource, error) {
	return one((*in).target().resource(ctx, c))
}

// change applies a change to the tags, which it is given as they are.
func (t tagged) change(ctx context.Context, c *Call, change func(identity.Tags) (identity.Tags, error)) error {
	if err := t.check(); err != nil {
		return err
	}
	var err error
	if t.ResourceType == "Document" {
		err = c.Server.config.Documents.TagDocument(ctx, t.ResourceID, func(old map[string]string) (map[string]string, error) {
			return change(old)
		})
	} else {
		err = c.changeNodeTags(ctx, t.ResourceID, change)
	}
	return t.error(err)
}

func (c *Call) changeNodeTags(ctx context.Context, id string, change func(identity.Tags) (identity.Tags, error)) error {
	err := c.Server.config.Nodes.UpdateNode(ctx, id, func(n *node.Node) error {
		tags, err := change(n.Tags)
		n.Tags = tags
		return err
	})
	if err == nil {
		c.Server.nodeTagged(ctx, id)
	}
	return err
}

func (t tagged) error(err error) error {
	var sameKey *tagCaseError
	switch {
	case errors.Is(err, node.ErrNotFound), errors.Is(err, document.ErrNotFound):
		return ssmError("InvalidResourceId", "There is no %s %s.", t.ResourceType, t.ResourceID)
	case errors.Is(err, errTooManyTags):
		return ssmError("TooManyTagsError", "A resource may have at most %d tags.", maxTags)
	case errors.As(err, &sameKey):
		return ssmError("ValidationException", "%v.", sameKey)
	}
	return err
}

// nodeTags reads the tags that a caller sets on a node, a document or an activation.
func nodeTags(list []tag) (identity.Tags, error) {
	tags := identity.Tags{}
	for _, t := range list {
		if strings.HasPrefix(strings.ToLower(t.Key), "aws:") {
			return nil, ssmError("ValidationException", "Tag key %q is not allowed: keys that begin with aws: are reserved for the system.", t.Key)
		}
		for present := range tags {
			if strings.EqualFold(present, t.Key) {
				return nil, ssmError("ValidationException", "Tag key %q is given twice.", t.Key)
			}
		}
		tags[t.Key] = t.Value
	}
	return tags, nil
}

type addTagsInput struct {
	tagged
	Tags []tag `json:"Tags" check:"required,max=50"`
}

type removeTagsInput struct {
	tagged
	TagKeys []string `json:"TagKeys" check:"required,max=50" each:"min=1,max=128"`
}

type listTagsInput struct{ tagged }

func addTagsResource(ctx context.Context, c *Call, in *addTagsInput) ([]access.Resource, error) {
	tags, err := nodeTags(in.Tags)
	if err != nil {
		return nil, err
	}
	c.SetRequestTags(tags)
	return onTagged(ctx, c, in)
}

func removeTagsResource(ctx context.Context, c *Call, in *removeTagsInput) ([]access.Resource, error) {
	c.SetContext("aws:TagKeys", in.TagKeys...)
	return onTagged(ctx, c, in)
}

func addTagsToResource(ctx context.Context, c *Call, in *addTagsInput) (*nothing, error) {
	set, err := nodeTags(in.Tags)
	if err != nil {
		return nil, err
	}
	return &nothing{}, in.change(ctx, c, func(old identity.Tags) (identity.Tags, error) { return withTags(old, set) })
}

func removeTagsFromResource(ctx context.Context, c *Call, in *removeTagsInput) (*nothing, error) {
	return &nothing{}, in.change(ctx, c, func(old identity.Tags) (identity.Tags, error) {
		return withoutTags(old, in.TagKeys), nil
	})
}

type listTagsOutput struct {
	TagList []tag `json:"TagList"`
}

func listTagsForResource(ctx context.Context, c *Call, in *listTagsInput) (*listTagsOutput, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	if in.ResourceType == "Document" {
		d, _, err := c.Server.config.Documents.Document(ctx, in.ResourceID, document.VersionDefault)
		return &listTagsOutput{tagList(d.Tags)}, in.error(err)
	}
	n, err := c.Server.config.Nodes.Node(ctx, in.ResourceID)
	return &listTagsOutput{tagList(n.Tags)}, in.error(err)
}
