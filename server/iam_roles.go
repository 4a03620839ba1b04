package server

import (
	"context"
	"errors"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

func iamRoleOperations() []*Operation {
	role := roleKind()
	return []*Operation{
		op("iam", "CreateRole", createRoleResource, createRole),
		op("iam", "GetRole", on[deleteInput](role), getRole, quietly),
		op("iam", "ListRoles", onRolePath, listRoles, quietly),
		op("iam", "UpdateRole", on[updateRoleInput](role), updateRole),
		op("iam", "UpdateRoleDescription", on[describeRoleInput](role), updateRoleDescription),
		op("iam", "UpdateAssumeRolePolicy", on[trustInput](role), updateAssumeRolePolicy),
		op("iam", "DeleteRole", on[deleteInput](role), deleteRole),
		op("iam", "TagRole", tagging(role), tagRole),
		op("iam", "UntagRole", untagging(role), untagRole),
		op("iam", "ListRoleTags", on[entityPageInput](role), listRoleTags, quietly),
		op("iam", "PutRolePermissionsBoundary", settingBoundary(role), putRoleBoundary),
		op("iam", "DeleteRolePermissionsBoundary", on[deleteInput](role), deleteRoleBoundary),
	}
}

type roleShape struct {
	Path                     string         `xml:"Path"`
	RoleName                 string         `xml:"RoleName"`
	RoleID                   string         `xml:"RoleId"`
	Arn                      string         `xml:"Arn"`
	CreateDate               wire.Time      `xml:"CreateDate"`
	AssumeRolePolicyDocument string         `xml:"AssumeRolePolicyDocument"` // percent-encoded
	Description              string         `xml:"Description,omitempty"`
	MaxSessionDuration       int            `xml:"MaxSessionDuration"` // seconds
	PermissionsBoundary      *boundaryShape `xml:"PermissionsBoundary,omitempty"`
	Tags                     []tag          `xml:"Tags>member,omitempty"`
}

func (c *Call) roleShape(r identity.Role) roleShape {
	return roleShape{
		Path: r.Path, RoleName: r.Name, RoleID: r.ID, Arn: c.iamARN("role", r.Path, r.Name),
		CreateDate: wire.Time{Time: r.Created}, AssumeRolePolicyDocument: quoteDocument(r.Trust),
		Description: r.Description, MaxSessionDuration: int(r.MaxDuration / time.Second),
		PermissionsBoundary: boundaryOf(r.Boundary), Tags: tagList(r.Tags),
	}
}

type roleOutput struct {
	Role roleShape `xml:"Role"`
}

type rolesOutput struct {
	Roles memberList[roleShape] `xml:"Roles"`
	pageOutput
}

type createRoleInput struct {
	entityInput
	Path                     string `json:"Path" check:"min=1,max=512,pattern=/([\\x21-\\x7E]+/)?"`
	AssumeRolePolicyDocument string `json:"AssumeRolePolicyDocument" check:"required,digest,min=1,max=131072"`
	Description              string `json:"Description" check:"max=1000,pattern=[\\t\\n\\r\\x20-\\x7E\\xA1-\\xFF]*"`
	MaxSessionDuration       int    `json:"MaxSessionDuration" check:"min=3600,max=43200"`
	PermissionsBoundary      string `json:"PermissionsBoundary" check:"min=20,max=2048"`
	Tags                     []tag  `json:"Tags" check:"max=50"`
}

func createRoleResource(_ context.Context, c *Call, in *createRoleInput) ([]access.Resource, error) {
	return c.creation(roleKind(), in.entityInput, in.Path, in.PermissionsBoundary, in.Tags)
}

const defaultMaxDuration = time.Hour

func createRole(ctx context.Context, c *Call, in *createRoleInput) (*roleOutput, error) {
	if err := checkTrust(in.AssumeRolePolicyDocument); err != nil {
		return nil, err
	}
	if err := c.checkBoundary(ctx, in.PermissionsBoundary); err != nil {
		return nil, err
	}
	tags, err := tagsOf(in.Tags)
	if err != nil {
		return nil, err
	}
	r := identity.Role{
		Name: in.RoleName, ID: identity.NewRoleID(), Path: rootPath(in.Path), Created: c.Origin.Time,
		Description: in.Description, Trust: in.AssumeRolePolicyDocument, Tags: tags,
		Boundary: in.PermissionsBoundary, MaxDuration: defaultMaxDuration,
	}
	if in.MaxSessionDuration != 0 {
		r.MaxDuration = time.Duration(in.MaxSessionDuration) * time.Second
	}
	if err := c.Server.config.Identities.CreateRole(ctx, r); err != nil {
		return nil, roleKind().error(err, in.RoleName)
	}
	return &roleOutput{Role: c.roleShape(r)}, nil
}

func getRole(ctx context.Context, c *Call, in *deleteInput) (*roleOutput, error) {
	r, err := c.Server.config.Identities.Role(ctx, in.RoleName)
	if err != nil {
		return nil, roleKind().error(err, in.RoleName)
	}
	return &roleOutput{Role: c.roleShape(r)}, nil
}

func onRolePath(_ context.Context, c *Call, in *pageInput) ([]access.Resource, error) {
	return []access.Resource{{ARN: c.iamARN("role", rootPath(in.PathPrefix), "")}}, nil
}

func listRoles(ctx context.Context, c *Call, in *pageInput) (*rolesOutput, error) {
	p, err := in.page(c)
	if err != nil {
		return nil, err
	}
	roles, err := c.Server.config.Identities.Roles(ctx, p)
	if err != nil {
		return nil, err
	}
	roles, more := cut(c, *in, roles, func(r identity.Role) string { return r.Name })
	out := &rolesOutput{pageOutput: more}
	for _, r := range roles {
		r.Tags = nil
		out.Roles.add(c.roleShape(r))
	}
	return out, nil
}

type updateRoleInput struct {
	entityInput
	Description        *string `json:"Description" check:"max=1000,pattern=[\\t\\n\\r\\x20-\\x7E\\xA1-\\xFF]*"`
	MaxSessionDuration int     `json:"MaxSessionDuration" check:"min=3600,max=43200"`
}

func updateRole(ctx context.Context, c *Call, in *updateRoleInput) (*nothing, error) {
	_, err := c.changeRole(ctx, in.RoleName, func(r *identity.Role) error {
		if in.Description != nil {
			r.Description = *in.Description
		}
		if in.MaxSessionDuration != 0 {
			r.MaxDuration = time.Duration(in.MaxSessionDuration) * time.Second
		}
		return nil
	})
	return &nothing{}, err
}

type describeRoleInput struct {
	entityInput
	Description *string `json:"Description" check:"required,max=1000,pattern=[\\t\\n\\r\\x20-\\x7E\\xA1-\\xFF]*"`
}

func updateRoleDescription(ctx context.Context, c *Call, in *describeRoleInput) (*roleOutput, error) {
	changed, err := c.changeRole(ctx, in.RoleName, func(r *identity.Role) error {
		r.Description = *in.Description
		return nil
	})
	return &roleOutput{Role: c.roleShape(changed)}, err
}

type trustInput struct {
	entityInput
	PolicyDocument string `json:"PolicyDocument" check:"required,digest,min=1,max=131072"`
}

func updateAssumeRolePolicy(ctx context.Context, c *Call, in *trustInput) (*nothing, error) {
	if err := checkTrust(in.PolicyDocument); err != nil {
		return nil, err
	}
	_, err := c.changeRole(ctx, in.RoleName, func(r *identity.Role) error {
		r.Trust = in.PolicyDocument
		return nil
	})
	return &nothing{}, err
}

// changeRole changes a role and returns it as it is then.
func (c *Call) changeRole(ctx context.Context, name string, change func(*identity.Role) error) (identity.Role, error) {
	var changed identity.Role
	err := c.Server.config.Identities.UpdateRole(ctx, name, func(r *identity.Role) error {
		err := change(r)
		changed = *r
		return err
	})
	return changed, roleKind().error(err, name)
}

// deleteRole deletes a role, ends the sessions that were started through it and cancels
// the commands.
func deleteRole(ctx context.Context, c *Call, in *deleteInput) (*nothing, error) {
	role, err := c.Server.config.Identities.Role(ctx, in.RoleName)
	if err == nil {
		err = c.Server.config.Identities.DeleteRole(ctx, in.RoleName)
	}
	if errors.Is(err, identity.ErrConflict) {
		return nil, deleteConflict("delete and detach the policies of the role")
	}
	if err != nil {
		return nil, roleKind().error(err, in.RoleName)
	}
	throughRole := func(v session.Session) bool { return strings.HasPrefix(v.OwnerID, role.ID+":") }
	return &nothing{}, errors.Join(
		c.endSessions(ctx, session.Filter{}, throughRole, "the role was deleted by "+c.Principal.ARN),
		c.endCommandsThrough(ctx, role.ID))
}

func tagRole(ctx context.Context, c *Call, in *tagInput) (*nothing, error) {
	set, err := tagsOf(in.Tags)
	if err != nil {
		return nil, err
	}
	_, err = c.changeRole(ctx, in.RoleName, func(r *identity.Role) (err error) {
		r.Tags, err = withTags(r.Tags, set)
		return err
	})
	return &nothing{}, err
}

func untagRole(ctx context.Context, c *Call, in *untagInput) (*nothing, error) {
	_, err := c.changeRole(ctx, in.RoleName, func(r *identity.Role) error {
		r.Tags = withoutTags(r.Tags, in.TagKeys)
		return nil
	})
	return &nothing{}, err
}

func listRoleTags(ctx context.Context, c *Call, in *entityPageInput) (*tagsOutput, error) {
	r, err := c.Server.config.Identities.Role(ctx, in.RoleName)
	if err != nil {
		return nil, roleKind().error(err, in.RoleName)
	}
	return tagPage(c, in.pageInput, r.Tags)
}

func putRoleBoundary(ctx context.Context, c *Call, in *boundaryInput) (*nothing, error) {
	if err := c.checkBoundary(ctx, in.PermissionsBoundary); err != nil {
		return nil, err
	}
	return c.changeRoleBoundary(ctx, in.RoleName, in.PermissionsBoundary)
}

func deleteRoleBoundary(ctx context.Context, c *Call, in *deleteInput) (*nothing, error) {
	return c.changeRoleBoundary(ctx, in.RoleName, "")
}

func (c *Call) changeRoleBoundary(ctx context.Context, name, boundary string) (*nothing, error) {
	_, err := c.changeRole(ctx, name, func(r *identity.Role) error {
		r.Boundary = boundary
		return nil
	})
	return &nothing{}, err
}
