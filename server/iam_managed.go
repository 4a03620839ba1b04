package server

import (
	"context"
	"errors"
	"slices"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

// Managed policies and their versions.

func iamManagedOperations() []*Operation {
	return []*Operation{
		op("iam", "CreatePolicy", createPolicyResource, createPolicy),
		op("iam", "GetPolicy", onPolicy[policyInput], getPolicy, quietly),
		op("iam", "ListPolicies", nil, listPolicies, quietly),
		op("iam", "DeletePolicy", onPolicy[policyInput], deletePolicy),
		op("iam", "CreatePolicyVersion", onPolicy[createVersionInput], createPolicyVersion),
		op("iam", "GetPolicyVersion", onPolicy[versionInput], getPolicyVersion, quietly),
		op("iam", "ListPolicyVersions", onPolicy[policyPageInput], listPolicyVersions, quietly),
		op("iam", "SetDefaultPolicyVersion", onPolicy[versionInput], setDefaultPolicyVersion),
		op("iam", "DeletePolicyVersion", onPolicy[versionInput], deletePolicyVersion),
		op("iam", "ListEntitiesForPolicy", onPolicy[policyEntitiesInput], listEntitiesForPolicy, quietly),
		op("iam", "TagPolicy", taggingPolicy, tagPolicy),
		op("iam", "UntagPolicy", untaggingPolicy, untagPolicy),
		op("iam", "ListPolicyTags", onPolicy[policyPageInput], listPolicyTags, quietly),
	}
}

// policyInput names a managed policy.
type policyInput struct {
	PolicyArn string `json:"PolicyArn" check:"required,min=20,max=2048"`
}

func (in policyInput) arn() string { return in.PolicyArn }

// onPolicy authorises on the policy's ARN and tags.
func onPolicy[In interface{ arn() string }](ctx context.Context, c *Call, in *In) ([]access.Resource, error) {
	arn := (*in).arn()
	p, err := c.Server.config.Identities.Policy(ctx, arn)
	if errors.Is(err, identity.ErrNotFound) {
		return []access.Resource{{ARN: arn}}, nil
	}
	if err != nil {
		return nil, err
	}
	return []access.Resource{{ARN: p.ARN, Tags: p.Tags}}, nil
}

func managedError(err error, arn string) error {
	if errors.Is(err, identity.ErrNotFound) {
		return noSuchEntity("Policy %s does not exist.", arn)
	}
	return err
}

type policyShape struct {
	PolicyName       string    `xml:"PolicyName"`
	PolicyID         string    `xml:"PolicyId"`
	Arn              string    `xml:"Arn"`
	Path             string    `xml:"Path"`
	DefaultVersionID string    `xml:"DefaultVersionId"`
	AttachmentCount  int       `xml:"AttachmentCount"`
	IsAttachable     bool      `xml:"IsAttachable"`
	Description      string    `xml:"Description,omitempty"`
	CreateDate       wire.Time `xml:"CreateDate"`
	UpdateDate       wire.Time `xml:"UpdateDate"`
	Tags             []tag     `xml:"Tags>member,omitempty"`
}

func managedShape(p identity.ManagedPolicy) policyShape {
	return policyShape{
		PolicyName: p.Name, PolicyID: p.ID, Arn: p.ARN, Path: p.Path, DefaultVersionID: p.DefaultVersion,
		AttachmentCount: p.Attachments, IsAttachable: true, Description: p.Description,
		CreateDate: wire.Time{Time: p.Created}, UpdateDate: wire.Time{Time: p.Updated}, Tags: tagList(p.Tags),
	}
}

type policyOutput struct {
	Policy policyShape `xml:"Policy"`
}

type createPolicyInput struct {
	PolicyName     string `json:"PolicyName" check:"required,min=1,max=128,pattern=[\\w+=,.@-]+"`
	Path           string `json:"Path" check:"min=1,max=512,pattern=(/[A-Za-z0-9.,+@=_-]+)*/"`
	PolicyDocument string `json:"PolicyDocument" check:"required,digest,min=1,max=131072"`
	Description    string `json:"Description" check:"max=1000"`
	Tags           []tag  `json:"Tags" check:"max=50"`
}

func createPolicyResource(_ context.Context, c *Call, in *createPolicyInput) ([]access.Resource, error) {
	tags, err := tagsOf(in.Tags)
	if err != nil {
		return nil, err
	}
	c.SetRequestTags(tags)
	return []access.Resource{{ARN: c.iamARN("policy", rootPath(in.Path), in.PolicyName)}}, nil
}

func createPolicy(ctx context.Context, c *Call, in *createPolicyInput) (*policyOutput, error) {
	if err := checkPolicy(in.PolicyDocument); err != nil {
		return nil, err
	}
	tags, err := tagsOf(in.Tags)
	if err != nil {
		return nil, err
	}
	p := identity.ManagedPolicy{
		ARN: c.iamARN("policy", rootPath(in.Path), in.PolicyName), Name: in.PolicyName, ID: identity.NewPolicyID(),
		Path: rootPath(in.Path), Description: in.Description, DefaultVersion: "v1",
		Created: c.Origin.Time, Updated: c.Origin.Time, Tags: tags,
	}
	err = c.Server.config.Identities.CreatePolicy(ctx, p, in.PolicyDocument)
	if errors.Is(err, identity.ErrExists) {
		return nil, exception("EntityAlreadyExists", "A policy called %s already exists. Duplicate names are not allowed.", in.PolicyName)
	}
	return &policyOutput{Policy: managedShape(p)}, err
}

func getPolicy(ctx context.Context, c *Call, in *policyInput) (*policyOutput, error) {
	p, err := c.Server.config.Identities.Policy(ctx, in.PolicyArn)
	return &policyOutput{Policy: managedShape(p)}, managedError(err, in.PolicyArn)
}

type listPoliciesInput struct {
	pageInput
	Scope             string `json:"Scope" check:"enum=All|AWS|Local"`
	OnlyAttached      bool   `json:"OnlyAttached"`
	PolicyUsageFilter string `json:"PolicyUsageFilter" check:"enum=PermissionsPolicy|PermissionsBoundary"`
}

type policiesOutput struct {
	Policies memberList[policyShape] `xml:"Policies"`
	pageOutput
}

// listPolicies lists the policies of this deployment. There are none of AWS's here,
// so that the scope AWS is empty.
func listPolicies(ctx context.Context, c *Call, in *listPoliciesInput) (*policiesOutput, error) {
	if in.Scope == "AWS" {
		return &policiesOutput{}, nil
	}
	keep, err := c.usedAs(ctx, in)
	if err != nil {
		return nil, err
	}
	all, err := c.Server.config.Identities.Policies(ctx, identity.Page{PathPrefix: in.PathPrefix})
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(p identity.ManagedPolicy) bool { return !keep(p) })
	page, more, err := pageOf(c, in.pageInput, all, func(p identity.ManagedPolicy) string { return p.ARN })
	out := &policiesOutput{pageOutput: more}
	for _, p := range page {
		p.Tags = nil
		out.Policies.add(managedShape(p))
	}
	return out, err
}

// usedAs tells which policies a listing is limited to by their use.
func (c *Call) usedAs(ctx context.Context, in *listPoliciesInput) (func(identity.ManagedPolicy) bool, error) {
	switch {
	case in.PolicyUsageFilter == "PermissionsBoundary":
		used, err := c.boundaries(ctx)
		return func(p identity.ManagedPolicy) bool { return len(used[p.ARN]) > 0 }, err
	case in.OnlyAttached || in.PolicyUsageFilter == "PermissionsPolicy":
		return func(p identity.ManagedPolicy) bool { return p.Attachments > 0 }, nil
	}
	return func(identity.ManagedPolicy) bool { return true }, nil
}

// boundaries finds which users and roles every policy bounds.
func (c *Call) boundaries(ctx context.Context) (map[string][]identity.Owner, error) {
	used := map[string][]identity.Owner{}
	users, err := c.Server.config.Identities.Users(ctx, identity.Page{})
	if err != nil {
		return nil, err
	}
	for _, u := range users {
		used[u.Boundary] = append(used[u.Boundary], userKind().named(u.Name))
	}
	roles, err := c.Server.config.Identities.Roles(ctx, identity.Page{})
	for _, r := range roles {
		used[r.Boundary] = append(used[r.Boundary], roleKind().named(r.Name))
	}
	delete(used, "")
	return used, err
}

func deletePolicy(ctx context.Context, c *Call, in *policyInput) (*nothing, error) {
	used, err := c.boundaries(ctx)
	if err != nil {
		return nil, err
	}
	if len(used[in.PolicyArn]) > 0 {
		return nil, deleteConflict("remove the policy as a permissions boundary")
	}
	err = c.Server.config.Identities.DeletePolicy(ctx, in.PolicyArn)
	if errors.Is(err, identity.ErrConflict) {
		return nil, deleteConflict("detach the policy and delete its versions other than the default")
	}
	return &nothing{}, managedError(err, in.PolicyArn)
}

type versionShape struct {
	Document         string    `xml:"Document,omitempty"` // percent-encoded
	VersionID        string    `xml:"VersionId"`
	IsDefaultVersion bool      `xml:"IsDefaultVersion"`
	CreateDate       wire.Time `xml:"CreateDate"`
}

func versionOf(v identity.PolicyVersion, withDocument bool) versionShape {
	s := versionShape{VersionID: v.ID, IsDefaultVersion: v.Default, CreateDate: wire.Time{Time: v.Created}}
	if withDocument {
		s.Document = quoteDocument(v.Document)
	}
	return s
}

type versionOutput struct {
	PolicyVersion versionShape `xml:"PolicyVersion"`
}

type createVersionInput struct {
	policyInput
	PolicyDocument string `json:"PolicyDocument" check:"required,digest,min=1,max=131072"`
	SetAsDefault   bool   `json:"SetAsDefault"`
}

func createPolicyVersion(ctx context.Context, c *Call, in *createVersionInput) (*versionOutput, error) {
	if err := checkPolicy(in.PolicyDocument); err != nil {
		return nil, err
	}
	v, err := c.Server.config.Identities.CreatePolicyVersion(ctx, in.PolicyArn, in.PolicyDocument, c.Origin.Time, in.SetAsDefault)
	if errors.Is(err, identity.ErrLimit) {
		return nil, exception("LimitExceeded", "A managed policy can have up to %d versions. Before you create a new version, you must delete an existing version.", maxVersions)
	}
	return &versionOutput{PolicyVersion: versionOf(v, false)}, managedError(err, in.PolicyArn)
}

type versionInput struct {
	policyInput
	VersionID string `json:"VersionId" check:"required,pattern=v[1-9][0-9]*"`
}

func versionError(err error, in *versionInput) error {
	if errors.Is(err, identity.ErrNotFound) {
		return noSuchEntity("Policy %s version %s does not exist or is not attachable.", in.PolicyArn, in.VersionID)
	}
	return err
}

func getPolicyVersion(ctx context.Context, c *Call, in *versionInput) (*versionOutput, error) {
	v, err := c.Server.config.Identities.PolicyVersion(ctx, in.PolicyArn, in.VersionID)
	return &versionOutput{PolicyVersion: versionOf(v, true)}, versionError(err, in)
}

type policyPageInput struct {
	policyInput
	pageInput
}

type versionsOutput struct {
	Versions memberList[versionShape] `xml:"Versions"`
	pageOutput
}

func listPolicyVersions(ctx context.Context, c *Call, in *policyPageInput) (*versionsOutput, error) {
	if _, err := c.Server.config.Identities.Policy(ctx, in.PolicyArn); err != nil {
		return nil, managedError(err, in.PolicyArn)
	}
	// A policy has at most five versions: they make one page.
	versions, err := c.Server.config.Identities.PolicyVersions(ctx, in.PolicyArn)
	out := &versionsOutput{}
	for _, v := range versions {
		out.Versions.add(versionOf(v, false))
	}
	return out, err
}

func setDefaultPolicyVersion(ctx context.Context, c *Call, in *versionInput) (*nothing, error) {
	return &nothing{}, versionError(c.Server.config.Identities.SetDefaultPolicyVersion(ctx, in.PolicyArn, in.VersionID), in)
}

func deletePolicyVersion(ctx context.Context, c *Call, in *versionInput) (*nothing, error) {
	err := c.Server.config.Identities.DeletePolicyVersion(ctx, in.PolicyArn, in.VersionID)
	if errors.Is(err, identity.ErrConflict) {
		return nil, deleteConflict("make another version the default")
	}
	return &nothing{}, versionError(err, in)
}

// Whom a policy is attached to.

type policyEntitiesInput struct {
	policyPageInput
	EntityFilter      string `json:"EntityFilter" check:"enum=User|Role|Group|LocalManagedPolicy|AWSManagedPolicy"`
	PolicyUsageFilter string `json:"PolicyUsageFilter" check:"enum=PermissionsPolicy|PermissionsBoundary"`
}

type policyEntitiesOutput struct {
	PolicyGroups memberList[policyGroup] `xml:"PolicyGroups"`
	PolicyUsers  memberList[policyUser]  `xml:"PolicyUsers"`
	PolicyRoles  memberList[policyRole]  `xml:"PolicyRoles"`
	pageOutput
}

type policyGroup struct {
	GroupName string `xml:"GroupName"`
	GroupID   string `xml:"GroupId"`
}

type policyUser struct {
	UserName string `xml:"UserName"`
	UserID   string `xml:"UserId"`
}

type policyRole struct {
	RoleName string `xml:"RoleName"`
	RoleID   string `xml:"RoleId"`
}

func listEntitiesForPolicy(ctx context.Context, c *Call, in *policyEntitiesInput) (*policyEntitiesOutput, error) {
	owners, err := c.policyUsers(ctx, in)
	if err != nil {
		return nil, err
	}
	page, more, err := pageOf(c, in.pageInput, owners, func(o identity.Owner) string { return string(o.Kind) + "/" + o.Name })
	if err != nil {
		return nil, err
	}
	out := &policyEntitiesOutput{pageOutput: more}
	for _, o := range page {
		if err := out.add(ctx, c, o, in.PathPrefix); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (c *Call) policyUsers(ctx context.Context, in *policyEntitiesInput) ([]identity.Owner, error) {
	if _, err := c.Server.config.Identities.Policy(ctx, in.PolicyArn); err != nil {
		return nil, managedError(err, in.PolicyArn)
	}
	var owners []identity.Owner
	if in.PolicyUsageFilter != "PermissionsBoundary" {
		attached, err := c.Server.config.Identities.PolicyOwners(ctx, in.PolicyArn)
		if err != nil {
			return nil, err
		}
		owners = append(owners, attached...)
	}
	if in.PolicyUsageFilter != "PermissionsPolicy" {
		used, err := c.boundaries(ctx)
		if err != nil {
			return nil, err
		}
		owners = append(owners, used[in.PolicyArn]...)
	}
	owners = slices.DeleteFunc(owners, func(o identity.Owner) bool {
		return in.EntityFilter != "" && !strings.EqualFold(in.EntityFilter, string(o.Kind))
	})
	return unique(owners), nil
}

func unique(owners []identity.Owner) []identity.Owner {
	seen := map[identity.Owner]bool{}
	return slices.DeleteFunc(owners, func(o identity.Owner) bool {
		again := seen[o]
		seen[o] = true
		return again
	})
}

func (out *policyEntitiesOutput) add(ctx context.Context, c *Call, o identity.Owner, prefix string) error {
	k := map[identity.OwnerKind]entityKind{
		identity.OwnerUser: userKind(), identity.OwnerGroup: groupKind(), identity.OwnerRole: roleKind(),
	}[o.Kind]
	e, err := k.load(ctx, c.Server.config.Identities, o.Name)
	if errors.Is(err, identity.ErrNotFound) || !strings.HasPrefix(e.path, prefix) {
		return nil
	}
	if err != nil {
		return err
	}
	switch o.Kind {
	case identity.OwnerUser:
		out.PolicyUsers.add(policyUser{e.owner.Name, e.id})
	case identity.OwnerGroup:
		out.PolicyGroups.add(policyGroup{e.owner.Name, e.id})
	default:
		out.PolicyRoles.add(policyRole{e.owner.Name, e.id})
	}
	return nil
}

// Tags of managed policies.

type tagPolicyInput struct {
	policyInput
	Tags []tag `json:"Tags" check:"required,max=50"`
}

type untagPolicyInput struct {
	policyInput
	TagKeys []string `json:"TagKeys" check:"required,max=50" each:"min=1,max=128"`
}

func taggingPolicy(ctx context.Context, c *Call, in *tagPolicyInput) ([]access.Resource, error) {
	tags, err := tagsOf(in.Tags)
	if err != nil {
		return nil, err
	}
	c.SetRequestTags(tags)
	return onPolicy(ctx, c, in)
}

func untaggingPolicy(ctx context.Context, c *Call, in *untagPolicyInput) ([]access.Resource, error) {
	c.SetContext("aws:TagKeys", in.TagKeys...)
	return onPolicy(ctx, c, in)
}

func tagPolicy(ctx context.Context, c *Call, in *tagPolicyInput) (*nothing, error) {
	set, err := tagsOf(in.Tags)
	if err != nil {
		return nil, err
	}
	err = c.Server.config.Identities.TagPolicy(ctx, in.PolicyArn, func(old identity.Tags) (identity.Tags, error) {
		return withTags(old, set)
	})
	return &nothing{}, managedError(tagError(err), in.PolicyArn)
}

func untagPolicy(ctx context.Context, c *Call, in *untagPolicyInput) (*nothing, error) {
	err := c.Server.config.Identities.TagPolicy(ctx, in.PolicyArn, func(old identity.Tags) (identity.Tags, error) {
		return withoutTags(old, in.TagKeys), nil
	})
	return &nothing{}, managedError(err, in.PolicyArn)
}

func listPolicyTags(ctx context.Context, c *Call, in *policyPageInput) (*tagsOutput, error) {
	p, err := c.Server.config.Identities.Policy(ctx, in.PolicyArn)
	if err != nil {
		return nil, managedError(err, in.PolicyArn)
	}
	return tagPage(c, in.pageInput, p.Tags)
}
