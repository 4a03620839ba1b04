package server

import (
	"context"
	"errors"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// Users and groups.

func iamUserOperations() []*Operation {
	user := userKind()
	return []*Operation{
		op("iam", "CreateUser", createUserResource, createUser),
		op("iam", "GetUser", onUserOrCaller[getUserInput], getUser, quietly),
		op("iam", "ListUsers", onUserPath, listUsers, quietly),
		op("iam", "UpdateUser", updateUserResources, updateUser),
		op("iam", "DeleteUser", on[deleteInput](user), deleteUser),
		op("iam", "TagUser", tagging(user), tagUser),
		op("iam", "UntagUser", untagging(user), untagUser),
		op("iam", "ListUserTags", on[entityPageInput](user), listUserTags, quietly),
		op("iam", "PutUserPermissionsBoundary", settingBoundary(user), putUserBoundary),
		op("iam", "DeleteUserPermissionsBoundary", on[deleteInput](user), deleteUserBoundary),
	}
}

// deleteInput is the input of operations that need nothing but a name.
type deleteInput struct{ entityInput }

// entityPageInput lists something of one entity.
type entityPageInput struct {
	entityInput
	pageInput
}

// nothing is the output of operations that answer nothing.
type nothing struct{}

type userShape struct {
	Path                string         `xml:"Path"`
	UserName            string         `xml:"UserName"`
	UserID              string         `xml:"UserId"`
	Arn                 string         `xml:"Arn"`
	CreateDate          wire.Time      `xml:"CreateDate"`
	PermissionsBoundary *boundaryShape `xml:"PermissionsBoundary,omitempty"`
	Tags                []tag          `xml:"Tags>member,omitempty"`
}

func (c *Call) userShape(u identity.User) userShape {
	return userShape{
		Path: u.Path, UserName: u.Name, UserID: u.ID, Arn: c.iamARN("user", u.Path, u.Name),
		CreateDate: wire.Time{Time: u.Created}, PermissionsBoundary: boundaryOf(u.Boundary), Tags: tagList(u.Tags),
	}
}

// userShapes leaves out tags, as listings do.
func (c *Call) userShapes(users []identity.User) (shapes memberList[userShape]) {
	for _, u := range users {
		u.Tags = nil
		shapes.add(c.userShape(u))
	}
	return shapes
}

type userOutput struct {
	User userShape `xml:"User"`
}

type usersOutput struct {
	Users memberList[userShape] `xml:"Users"`
	pageOutput
}

type createUserInput struct {
	entityInput
	Path                string `json:"Path" check:"min=1,max=512,pattern=/([\\x21-\\x7E]+/)?"`
	PermissionsBoundary string `json:"PermissionsBoundary" check:"min=20,max=2048"`
	Tags                []tag  `json:"Tags" check:"max=50"`
}

// createUserResource authorises on the ARN that the user will have, its boundary and
// its tags.
func createUserResource(ctx context.Context, c *Call, in *createUserInput) ([]access.Resource, error) {
	return c.creation(userKind(), in.entityInput, in.Path, in.PermissionsBoundary, in.Tags)
}

// creation authorises making an entity: on the ARN that it will have, with the
// boundary and the tags that it will get.
func (c *Call) creation(k entityKind, ref entityInput, path, boundary string, list []tag) ([]access.Resource, error) {
	name, err := ref.name(k)
	if err != nil {
		return nil, err
	}
	tags, err := tagsOf(list)
	if err != nil {
		return nil, err
	}
	c.SetRequestTags(tags)
	if boundary != "" {
		c.SetContext("iam:PermissionsBoundary", boundary)
	}
	return []access.Resource{{ARN: c.iamARN(string(k.owner), rootPath(path), name)}}, nil
}

func rootPath(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

func createUser(ctx context.Context, c *Call, in *createUserInput) (*userOutput, error) {
	user := userKind()
	if err := user.checkName(in.UserName, "userName"); err != nil {
		return nil, err
	}
	if err := c.checkBoundary(ctx, in.PermissionsBoundary); err != nil {
		return nil, err
	}
	tags, err := tagsOf(in.Tags)
	if err != nil {
		return nil, err
	}
	u := identity.User{
		Name: in.UserName, ID: identity.NewUserID(), Path: rootPath(in.Path),
		Created: c.Origin.Time, Tags: tags, Boundary: in.PermissionsBoundary,
	}
	if err := c.Server.config.Identities.CreateUser(ctx, u); err != nil {
		return nil, user.error(err, in.UserName)
	}
	return &userOutput{User: c.userShape(u)}, nil
}

type getUserInput struct{ userRefInput }

func getUser(ctx context.Context, c *Call, in *getUserInput) (*userOutput, error) {
	u, err := c.Server.config.Identities.User(ctx, in.UserName)
	if err != nil {
		return nil, userKind().error(err, in.UserName)
	}
	return &userOutput{User: c.userShape(u)}, nil
}

// onUserPath authorises a listing on the path that it is limited to, as IAM does.
func onUserPath(_ context.Context, c *Call, in *pageInput) ([]access.Resource, error) {
	return []access.Resource{{ARN: c.iamARN("user", rootPath(in.PathPrefix), "")}}, nil
}

func listUsers(ctx context.Context, c *Call, in *pageInput) (*usersOutput, error) {
	p, err := in.page(c)
	if err != nil {
		return nil, err
	}
	users, err := c.Server.config.Identities.Users(ctx, p)
	if err != nil {
		return nil, err
	}
	users, more := cut(c, *in, users, func(u identity.User) string { return u.Name })
	return &usersOutput{Users: c.userShapes(users), pageOutput: more}, nil
}

type renameInput struct {
	entityInput
	NewPath      string `json:"NewPath" check:"min=1,max=512,pattern=/([\\x21-\\x7E]+/)?"`
	NewUserName  string `json:"NewUserName" check:"min=1,max=64,pattern=[\\w+=,.@-]+"`
	NewGroupName string `json:"NewGroupName" check:"min=1,max=128,pattern=[\\w+=,.@-]+"`
}

// renaming authorises a change of name or path on both the old and the new ARN, as
// IAM does: who may only touch /staff/ moves nobody in or out of it.
func (c *Call) renaming(ctx context.Context, k entityKind, name, newName, newPath string) ([]access.Resource, error) {
	old, err := k.resource(ctx, c, name)
	if err != nil || newName == "" && newPath == "" {
		return one(old, err)
	}
	e, err := k.load(ctx, c.Server.config.Identities, name)
	if errors.Is(err, identity.ErrNotFound) {
		return one(old, nil)
	}
	if err != nil {
		return nil, err
	}
	changed := old
	changed.ARN = c.iamARN(string(k.owner), orElse(newPath, e.path), orElse(newName, e.owner.Name))
	return []access.Resource{old, changed}, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func updateUserResources(ctx context.Context, c *Call, in *renameInput) ([]access.Resource, error) {
	name, err := in.name(userKind())
	if err != nil {
		return nil, err
	}
	return c.renaming(ctx, userKind(), name, in.NewUserName, in.NewPath)
}

func updateUser(ctx context.Context, c *Call, in *renameInput) (*nothing, error) {
	err := c.Server.config.Identities.UpdateUser(ctx, in.UserName, func(u *identity.User) error {
		u.Name, u.Path = orElse(in.NewUserName, u.Name), orElse(in.NewPath, u.Path)
		return nil
	})
	if errors.Is(err, identity.ErrExists) {
		return nil, userKind().error(err, in.NewUserName)
	}
	return &nothing{}, userKind().error(err, in.UserName)
}

// deleteUser deletes a user and ends their sessions, those that they started through
// roles included.
func deleteUser(ctx context.Context, c *Call, in *deleteInput) (*nothing, error) {
	user, err := c.Server.config.Identities.User(ctx, in.UserName)
	if err == nil {
		err = c.Server.config.Identities.DeleteUser(ctx, in.UserName)
	}
	if errors.Is(err, identity.ErrConflict) {
		return nil, deleteConflict("delete access keys and SSH public keys, delete and detach policies, and remove the user from its groups")
	}
	if err != nil {
		return nil, userKind().error(err, in.UserName)
	}
	return &nothing{}, errors.Join(
		c.endGrants(ctx, user.ID, "the user was deleted by "+c.Principal.ARN),
		c.endSessions(ctx, session.Filter{RootID: user.ID}, anySession, "the user was deleted by "+c.Principal.ARN),
		c.endCommands(ctx, user.ID))
}

// Tags.

type tagInput struct {
	entityInput
	Tags []tag `json:"Tags" check:"required,max=50"`
}

type untagInput struct {
	entityInput
	TagKeys []string `json:"TagKeys" check:"required,max=50" each:"min=1,max=128"`
}

// tagging authorises setting tags: on the entity as it is, the new tags being
// aws:RequestTag/KEY.
func tagging(k entityKind) func(context.Context, *Call, *tagInput) ([]access.Resource, error) {
	return func(ctx context.Context, c *Call, in *tagInput) ([]access.Resource, error) {
		tags, err := tagsOf(in.Tags)
		if err != nil {
			return nil, err
		}
		c.SetRequestTags(tags)
		return on[tagInput](k)(ctx, c, in)
	}
}

func untagging(k entityKind) func(context.Context, *Call, *untagInput) ([]access.Resource, error) {
	return func(ctx context.Context, c *Call, in *untagInput) ([]access.Resource, error) {
		c.SetContext("aws:TagKeys", in.TagKeys...)
		return on[untagInput](k)(ctx, c, in)
	}
}

func tagUser(ctx context.Context, c *Call, in *tagInput) (*nothing, error) {
	set, err := tagsOf(in.Tags)
	if err != nil {
		return nil, err
	}
	err = c.Server.config.Identities.UpdateUser(ctx, in.UserName, func(u *identity.User) error {
		u.Tags, err = withTags(u.Tags, set)
		return err
	})
	return &nothing{}, userKind().error(err, in.UserName)
}

func untagUser(ctx context.Context, c *Call, in *untagInput) (*nothing, error) {
	err := c.Server.config.Identities.UpdateUser(ctx, in.UserName, func(u *identity.User) error {
		u.Tags = withoutTags(u.Tags, in.TagKeys)
		return nil
	})
	return &nothing{}, userKind().error(err, in.UserName)
}

func listUserTags(ctx context.Context, c *Call, in *entityPageInput) (*tagsOutput, error) {
	u, err := c.Server.config.Identities.User(ctx, in.UserName)
	if err != nil {
		return nil, userKind().error(err, in.UserName)
	}
	return tagPage(c, in.pageInput, u.Tags)
}

// Boundaries.

type boundaryInput struct {
	entityInput
	PermissionsBoundary string `json:"PermissionsBoundary" check:"required,min=20,max=2048"`
}

// settingBoundary authorises a boundary on the entity, iam:PermissionsBoundary being
// the new one.
func settingBoundary(k entityKind) func(context.Context, *Call, *boundaryInput) ([]access.Resource, error) {
	return func(ctx context.Context, c *Call, in *boundaryInput) ([]access.Resource, error) {
		resources, err := on[boundaryInput](k)(ctx, c, in)
		if err != nil {
			return nil, err
		}
		delete(resources[0].Context, "iam:PermissionsBoundary") // the present one
		c.SetContext("iam:PermissionsBoundary", in.PermissionsBoundary)
		return resources, nil
	}
}

func putUserBoundary(ctx context.Context, c *Call, in *boundaryInput) (*nothing, error) {
	if err := c.checkBoundary(ctx, in.PermissionsBoundary); err != nil {
		return nil, err
	}
	return c.changeUserBoundary(ctx, in.UserName, in.PermissionsBoundary)
}

func deleteUserBoundary(ctx context.Context, c *Call, in *deleteInput) (*nothing, error) {
	return c.changeUserBoundary(ctx, in.UserName, "")
}

func (c *Call) changeUserBoundary(ctx context.Context, name, boundary string) (*nothing, error) {
	err := c.Server.config.Identities.UpdateUser(ctx, name, func(u *identity.User) error {
		u.Boundary = boundary
		return nil
	})
	return &nothing{}, userKind().error(err, name)
}
