package server

import (
	"context"
	"slices"
	"strings"

	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

// The account as a whole.

// iamOperations are the rows of the service iam.
func iamOperations() []*Operation {
	return slices.Concat(
		iamUserOperations(),
		iamGroupOperations(),
		iamRoleOperations(),
		iamKeyOperations(),
		iamSSHOperations(),
		iamMFAOperations(),
		iamOwnerOperations(),
		iamManagedOperations(),
		iamSimulateOperations(),
		[]*Operation{
			op("iam", "GetAccountSummary", nil, getAccountSummary, quietly),
			op("iam", "ListAccountAliases", nil, listAccountAliases, quietly),
			op("iam", "GetAccountAuthorizationDetails", nil, getAuthorizationDetails, quietly),
		},
	)
}

type noInput struct{}

type summaryEntry struct {
	Key   string `xml:"key"`
	Value int    `xml:"value"`
}

type summaryOutput struct {
	SummaryMap []summaryEntry `xml:"SummaryMap>entry"`
}

func getAccountSummary(ctx context.Context, c *Call, _ *noInput) (*summaryOutput, error) {
	store := c.Server.config.Identities
	users, err := store.Users(ctx, identity.Page{})
	if err != nil {
		return nil, err
	}
	groups, err := store.Groups(ctx, identity.Page{})
	if err != nil {
		return nil, err
	}
	roles, err := store.Roles(ctx, identity.Page{})
	if err != nil {
		return nil, err
	}
	policies, err := store.Policies(ctx, identity.Page{})
	if err != nil {
		return nil, err
	}
	return &summaryOutput{[]summaryEntry{
		{"Users", len(users)}, {"Groups", len(groups)}, {"Roles", len(roles)}, {"Policies", len(policies)},
		{"AccessKeysPerUserQuota", maxAccessKeys},
		{"AttachedPoliciesPerUserQuota", maxAttached},
		{"AttachedPoliciesPerGroupQuota", maxAttached},
		{"AttachedPoliciesPerRoleQuota", maxAttached},
		{"PolicySizeQuota", maxPolicyChars},
		{"VersionsPerPolicyQuota", maxVersions},
	}}, nil
}

type aliasesOutput struct {
	AccountAliases memberList[string] `xml:"AccountAliases"`
	pageOutput
}

// listAccountAliases answers that there are none: console URLs do not carry them here.
func listAccountAliases(context.Context, *Call, *pageInput) (*aliasesOutput, error) {
	return &aliasesOutput{}, nil
}

// Everything at once.

type authorizationDetailsInput struct {
	pageInput
	Filter []string `json:"Filter" check:"max=5" each:"enum=User|Role|Group|LocalManagedPolicy|AWSManagedPolicy"`
}

type policyDetail struct {
	PolicyName     string `xml:"PolicyName"`
	PolicyDocument string `xml:"PolicyDocument"`
}

type userDetail struct {
	userShape
	UserPolicyList          memberList[policyDetail]   `xml:"UserPolicyList"`
	GroupList               memberList[string]         `xml:"GroupList"`
	AttachedManagedPolicies memberList[attachedPolicy] `xml:"AttachedManagedPolicies"`
}

type groupDetail struct {
	groupShape
	GroupPolicyList         memberList[policyDetail]   `xml:"GroupPolicyList"`
	AttachedManagedPolicies memberList[attachedPolicy] `xml:"AttachedManagedPolicies"`
}

type roleDetail struct {
	Path                     string                     `xml:"Path"`
	RoleName                 string                     `xml:"RoleName"`
	RoleID                   string                     `xml:"RoleId"`
	Arn                      string                     `xml:"Arn"`
	CreateDate               wire.Time                  `xml:"CreateDate"`
	AssumeRolePolicyDocument string                     `xml:"AssumeRolePolicyDocument"`
	InstanceProfileList      memberList[string]         `xml:"InstanceProfileList"` // always empty
	RolePolicyList           memberList[policyDetail]   `xml:"RolePolicyList"`
	AttachedManagedPolicies  memberList[attachedPolicy] `xml:"AttachedManagedPolicies"`
	PermissionsBoundary      *boundaryShape             `xml:"PermissionsBoundary,omitempty"`
	Tags                     []tag                      `xml:"Tags>member"`
}

type managedDetail struct {
	policyShape
	PolicyVersionList memberList[versionShape] `xml:"PolicyVersionList"`
}

type authorizationDetailsOutput struct {
	UserDetailList  memberList[userDetail]    `xml:"UserDetailList"`
	GroupDetailList memberList[groupDetail]   `xml:"GroupDetailList"`
	RoleDetailList  memberList[roleDetail]    `xml:"RoleDetailList"`
	Policies        memberList[managedDetail] `xml:"Policies"`
	pageOutput
}

// detail is one entry of the details: its place in their order, and how to add it.
type detail struct {
	key string
	add func(context.Context, *Call, *authorizationDetailsOutput) error
}

func getAuthorizationDetails(ctx context.Context, c *Call, in *authorizationDetailsInput) (*authorizationDetailsOutput, error) {
	var all []detail
	for kind, list := range map[string]func(context.Context, *Call) ([]detail, error){
		"User": userDetails, "Group": groupDetails, "Role": roleDetails, "LocalManagedPolicy": managedDetails,
	} {
		if len(in.Filter) > 0 && !slices.Contains(in.Filter, kind) {
			continue
		}
		found, err := list(ctx, c)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	page, more, err := pageOf(c, in.pageInput, all, func(d detail) string { return d.key })
	if err != nil {
		return nil, err
	}
	out := &authorizationDetailsOutput{pageOutput: more}
	for _, d := range page {
		if err := d.add(ctx, c, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ownedPolicies gives the inline and the attached policies of an owner.
func (c *Call) ownedPolicies(ctx context.Context, o identity.Owner) (details memberList[policyDetail], attached memberList[attachedPolicy], err error) {
	inline, err := c.Server.config.Identities.InlinePolicies(ctx, o)
	if err != nil {
		return details, attached, err
	}
	for _, p := range inline {
		details.add(policyDetail{p.Name, quoteDocument(p.Document)})
	}
	managed, err := c.Server.config.Identities.AttachedPolicies(ctx, o)
	return details, attachedShapes(managed), err
}

func userDetails(ctx context.Context, c *Call) ([]detail, error) {
	users, err := c.Server.config.Identities.Users(ctx, identity.Page{})
	var all []detail
	for _, u := range users {
		all = append(all, detail{"User/" + u.Name, func(ctx context.Context, c *Call, out *authorizationDetailsOutput) (err error) {
			d := userDetail{userShape: c.userShape(u)}
			if d.UserPolicyList, d.AttachedManagedPolicies, err = c.ownedPolicies(ctx, userKind().named(u.Name)); err != nil {
				return err
			}
			groups, err := c.Server.config.Identities.GroupsOf(ctx, u.Name, identity.Page{})
			for _, g := range groups {
				d.GroupList.add(g.Name)
			}
			out.UserDetailList.add(d)
			return err
		}})
	}
	return all, err
}

func groupDetails(ctx context.Context, c *Call) ([]detail, error) {
	groups, err := c.Server.config.Identities.Groups(ctx, identity.Page{})
	var all []detail
	for _, g := range groups {
		all = append(all, detail{"Group/" + g.Name, func(ctx context.Context, c *Call, out *authorizationDetailsOutput) (err error) {
			d := groupDetail{groupShape: c.groupShape(g)}
			d.GroupPolicyList, d.AttachedManagedPolicies, err = c.ownedPolicies(ctx, groupKind().named(g.Name))
			out.GroupDetailList.add(d)
			return err
		}})
	}
	return all, err
}

func roleDetails(ctx context.Context, c *Call) ([]detail, error) {
	roles, err := c.Server.config.Identities.Roles(ctx, identity.Page{})
	var all []detail
	for _, r := range roles {
		all = append(all, detail{"Role/" + r.Name, func(ctx context.Context, c *Call, out *authorizationDetailsOutput) (err error) {
			s := c.roleShape(r)
			d := roleDetail{
				Path: s.Path, RoleName: s.RoleName, RoleID: s.RoleID, Arn: s.Arn, CreateDate: s.CreateDate,
				AssumeRolePolicyDocument: s.AssumeRolePolicyDocument, PermissionsBoundary: s.PermissionsBoundary, Tags: s.Tags,
			}
			d.RolePolicyList, d.AttachedManagedPolicies, err = c.ownedPolicies(ctx, roleKind().named(r.Name))
			out.RoleDetailList.add(d)
			return err
		}})
	}
	return all, err
}

func managedDetails(ctx context.Context, c *Call) ([]detail, error) {
	policies, err := c.Server.config.Identities.Policies(ctx, identity.Page{})
	var all []detail
	for _, p := range policies {
		all = append(all, detail{"Policy/" + strings.ToLower(p.ARN), func(ctx context.Context, c *Call, out *authorizationDetailsOutput) error {
			d := managedDetail{policyShape: managedShape(p)}
			versions, err := c.Server.config.Identities.PolicyVersions(ctx, p.ARN)
			for _, v := range versions {
				d.PolicyVersionList.add(versionOf(v, true))
			}
			out.Policies.add(d)
			return err
		}})
	}
	return all, err
}
