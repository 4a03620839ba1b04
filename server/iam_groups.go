package server

import (
	"context"
	"errors"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

func iamGroupOperations() []*Operation {
	group := groupKind()
	return []*Operation{
		op("iam", "CreateGroup", createGroupResource, createGroup),
		op("iam", "GetGroup", on[entityPageInput](group), getGroup, quietly),
		op("iam", "ListGroups", onGroupPath, listGroups, quietly),
		op("iam", "UpdateGroup", updateGroupResources, updateGroup),
		op("iam", "DeleteGroup", on[deleteInput](group), deleteGroup),
		op("iam", "AddUserToGroup", on[membershipInput](group), addUserToGroup),
		op("iam", "RemoveUserFromGroup", on[membershipInput](group), removeUserFromGroup),
		op("iam", "ListGroupsForUser", on[entityPageInput](userKind()), listGroupsForUser, quietly),
	}
}

type groupShape struct {
	Path       string    `xml:"Path"`
	GroupName  string    `xml:"GroupName"`
	GroupID    string    `xml:"GroupId"`
	Arn        string    `xml:"Arn"`
	CreateDate wire.Time `xml:"CreateDate"`
}

func (c *Call) groupShape(g identity.Group) groupShape {
	return groupShape{
		Path: g.Path, GroupName: g.Name, GroupID: g.ID, Arn: c.iamARN("group", g.Path, g.Name),
		CreateDate: wire.Time{Time: g.Created},
	}
}

type groupOutput struct {
	Group groupShape `xml:"Group"`
}

type groupMembersOutput struct {
	Group groupShape            `xml:"Group"`
	Users memberList[userShape] `xml:"Users"`
	pageOutput
}

type groupsOutput struct {
	Groups memberList[groupShape] `xml:"Groups"`
	pageOutput
}

type createGroupInput struct {
	entityInput
	Path string `json:"Path" check:"min=1,max=512,pattern=/([\\x21-\\x7E]+/)?"`
}

func createGroupResource(_ context.Context, c *Call, in *createGroupInput) ([]access.Resource, error) {
	return c.creation(groupKind(), in.entityInput, in.Path, "", nil)
}

func createGroup(ctx context.Context, c *Call, in *createGroupInput) (*groupOutput, error) {
	g := identity.Group{Name: in.GroupName, ID: identity.NewGroupID(), Path: rootPath(in.Path), Created: c.Origin.Time}
	if err := c.Server.config.Identities.CreateGroup(ctx, g); err != nil {
		return nil, groupKind().error(err, in.GroupName)
	}
	return &groupOutput{Group: c.groupShape(g)}, nil
}

func getGroup(ctx context.Context, c *Call, in *entityPageInput) (*groupMembersOutput, error) {
	p, err := in.page(c)
	if err != nil {
		return nil, err
	}
	g, err := c.Server.config.Identities.Group(ctx, in.GroupName)
	if err != nil {
		return nil, groupKind().error(err, in.GroupName)
	}
	members, err := c.Server.config.Identities.Members(ctx, g.Name, p)
	if err != nil {
		return nil, groupKind().error(err, in.GroupName)
	}
	members, more := cut(c, in.pageInput, members, func(u identity.User) string { return u.Name })
	return &groupMembersOutput{Group: c.groupShape(g), Users: c.userShapes(members), pageOutput: more}, nil
}

func onGroupPath(_ context.Context, c *Call, in *pageInput) ([]access.Resource, error) {
	return []access.Resource{{ARN: c.iamARN("group", rootPath(in.PathPrefix), "")}}, nil
}

func listGroups(ctx context.Context, c *Call, in *pageInput) (*groupsOutput, error) {
	p, err := in.page(c)
	if err != nil {
		return nil, err
	}
	groups, err := c.Server.config.Identities.Groups(ctx, p)
	if err != nil {
		return nil, err
	}
	return c.groupsOutput(*in, groups), nil
}

func (c *Call) groupsOutput(in pageInput, groups []identity.Group) *groupsOutput {
	groups, more := cut(c, in, groups, func(g identity.Group) string { return g.Name })
	out := &groupsOutput{pageOutput: more}
	for _, g := range groups {
		out.Groups.add(c.groupShape(g))
	}
	return out
}

func updateGroupResources(ctx context.Context, c *Call, in *renameInput) ([]access.Resource, error) {
	name, err := in.name(groupKind())
	if err != nil {
		return nil, err
	}
	return c.renaming(ctx, groupKind(), name, in.NewGroupName, in.NewPath)
}

func updateGroup(ctx context.Context, c *Call, in *renameInput) (*nothing, error) {
	err := c.Server.config.Identities.UpdateGroup(ctx, in.GroupName, func(g *identity.Group) error {
		g.Name, g.Path = orElse(in.NewGroupName, g.Name), orElse(in.NewPath, g.Path)
		return nil
	})
	if errors.Is(err, identity.ErrExists) {
		return nil, groupKind().error(err, in.NewGroupName)
	}
	return &nothing{}, groupKind().error(err, in.GroupName)
}

func deleteGroup(ctx context.Context, c *Call, in *deleteInput) (*nothing, error) {
	err := c.Server.config.Identities.DeleteGroup(ctx, in.GroupName)
	if errors.Is(err, identity.ErrConflict) {
		return nil, deleteConflict("remove users from the group, and delete and detach its policies")
	}
	return &nothing{}, groupKind().error(err, in.GroupName)
}

// membershipInput names a group and a user, both of them needed.
type membershipInput struct{ entityInput }

// member finds both ends of a membership, so that an error names the missing one.
func (c *Call) member(ctx context.Context, in entityInput) (group, user string, err error) {
	if user, err = in.name(userKind()); err != nil {
		return "", "", err
	}
	g, err := groupKind().find(ctx, c, in.GroupName)
	if err != nil {
		return "", "", err
	}
	u, err := userKind().find(ctx, c, user)
	return g.owner.Name, u.owner.Name, err
}

func addUserToGroup(ctx context.Context, c *Call, in *membershipInput) (*nothing, error) {
	group, user, err := c.member(ctx, in.entityInput)
	if err != nil {
		return nil, err
	}
	return &nothing{}, groupKind().error(c.Server.config.Identities.AddMember(ctx, group, user), group)
}

func removeUserFromGroup(ctx context.Context, c *Call, in *membershipInput) (*nothing, error) {
	group, user, err := c.member(ctx, in.entityInput)
	if err != nil {
		return nil, err
	}
	err = c.Server.config.Identities.RemoveMember(ctx, group, user)
	if errors.Is(err, identity.ErrNotFound) {
		return nil, noSuchEntity("User %s is not in group %s.", user, group)
	}
	return &nothing{}, err
}

func listGroupsForUser(ctx context.Context, c *Call, in *entityPageInput) (*groupsOutput, error) {
	p, err := in.page(c)
	if err != nil {
		return nil, err
	}
	u, err := userKind().find(ctx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	groups, err := c.Server.config.Identities.GroupsOf(ctx, u.owner.Name, p)
	if err != nil {
		return nil, err
	}
	return c.groupsOutput(in.pageInput, groups), nil
}
