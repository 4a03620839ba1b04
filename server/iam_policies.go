package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// Inline policies, and the attachment of managed ones, of users, groups and roles.

// iamOwnerOperations makes the rows that exist once per kind of owner.
func iamOwnerOperations() []*Operation {
	var rows []*Operation
	for _, k := range []entityKind{userKind(), groupKind(), roleKind()} {
		rows = append(rows,
			op("iam", "Put"+k.word+"Policy", on[putPolicyInput](k), k.putPolicy),
			op("iam", "Get"+k.word+"Policy", on[inlinePolicyInput](k), k.getPolicy, quietly),
			op("iam", "List"+k.word+"Policies", on[entityPageInput](k), k.listPolicies, quietly),
			op("iam", "Delete"+k.word+"Policy", on[inlinePolicyInput](k), k.deletePolicy),
			op("iam", "Attach"+k.word+"Policy", attaching(k), k.attachPolicy),
			op("iam", "Detach"+k.word+"Policy", attaching(k), k.detachPolicy),
			op("iam", "ListAttached"+k.word+"Policies", on[entityPageInput](k), k.listAttached, quietly),
		)
	}
	return rows
}

// Limits of policies.
const (
	// maxPolicyChars bounds a policy's text without white space, and that of all
	// inline policies of one identity together: what IAM grants a role.
	maxPolicyChars = 10240
	maxAttached    = 20
	maxVersions    = 5
)

// checkPolicy parses an identity policy strictly; what is wrong is told with line and
// column.
func checkPolicy(document string) error {
	_, err := policy.Parse([]byte(document))
	return malformed(document, err)
}

// checkTrust is checkPolicy for the trust policy of a role.
func checkTrust(document string) error {
	_, err := policy.ParseTrust([]byte(document))
	return malformed(document, err)
}

func malformed(document string, err error) error {
	if err != nil {
		return exception("MalformedPolicyDocument", "Syntax error in policy: %v", err)
	}
	if policyChars(document) > maxPolicyChars {
		return overQuota("PolicySize", maxPolicyChars)
	}
	return nil
}

func policyChars(document string) int {
	n := 0
	for _, r := range document {
		if !unicode.IsSpace(r) {
			n++
		}
	}
	return n
}

type inlinePolicyInput struct {
	entityInput
	PolicyName string `json:"PolicyName" check:"required,min=1,max=128,pattern=[\\w+=,.@-]+"`
}

type putPolicyInput struct {
	entityInput
	PolicyName     string `json:"PolicyName" check:"required,min=1,max=128,pattern=[\\w+=,.@-]+"`
	PolicyDocument string `json:"PolicyDocument" check:"required,digest,min=1,max=131072"`
}

func (k entityKind) putPolicy(ctx context.Context, c *Call, in *putPolicyInput) (*nothing, error) {
	e, err := k.find(ctx, c, k.nameIn(in.entityInput))
	if err != nil {
		return nil, err
	}
	if err := checkPolicy(in.PolicyDocument); err != nil {
		return nil, err
	}
	others, err := c.Server.config.Identities.InlinePolicies(ctx, e.owner)
	if err != nil {
		return nil, err
	}
	total := policyChars(in.PolicyDocument)
	for _, p := range others {
		if p.Name != in.PolicyName {
			total += policyChars(p.Document)
		}
	}
	if total > maxPolicyChars {
		return nil, overQuota("PolicySize", maxPolicyChars)
	}
	p := identity.InlinePolicy{Owner: e.owner, Name: in.PolicyName, Document: in.PolicyDocument}
	return &nothing{}, k.error(c.Server.config.Identities.PutInlinePolicy(ctx, p), e.owner.Name)
}

// nameIn is name for run, whose input was checked when the call was authorised.
func (k entityKind) nameIn(in entityInput) string {
	name, _ := in.name(k)
	return name
}

// inlinePolicyOutput carries a policy and the owner's name under its kind's member.
type inlinePolicyOutput struct {
	UserName       string `xml:"UserName,omitempty"`
	GroupName      string `xml:"GroupName,omitempty"`
	RoleName       string `xml:"RoleName,omitempty"`
	PolicyName     string `xml:"PolicyName"`
	PolicyDocument string `xml:"PolicyDocument"` // percent-encoded
}

func (k entityKind) getPolicy(ctx context.Context, c *Call, in *inlinePolicyInput) (*inlinePolicyOutput, error) {
	e, err := k.find(ctx, c, k.nameIn(in.entityInput))
	if err != nil {
		return nil, err
	}
	p, err := c.Server.config.Identities.InlinePolicy(ctx, e.owner, in.PolicyName)
	if err != nil {
		return nil, k.inlineError(err, in.PolicyName)
	}
	out := &inlinePolicyOutput{PolicyName: p.Name, PolicyDocument: quoteDocument(p.Document)}
	switch k.owner {
	case identity.OwnerUser:
		out.UserName = e.owner.Name
	case identity.OwnerGroup:
		out.GroupName = e.owner.Name
	default:
		out.RoleName = e.owner.Name
	}
	return out, nil
}

func (k entityKind) inlineError(err error, name string) error {
	if errors.Is(err, identity.ErrNotFound) {
		return noSuchEntity("The %s policy with name %s cannot be found.", strings.ToLower(k.word), name)
	}
	return err
}

type policyNamesOutput struct {
	PolicyNames memberList[string] `xml:"PolicyNames"`
	pageOutput
}

func (k entityKind) listPolicies(ctx context.Context, c *Call, in *entityPageInput) (*policyNamesOutput, error) {
	e, err := k.find(ctx, c, k.nameIn(in.entityInput))
	if err != nil {
		return nil, err
	}
	policies, err := c.Server.config.Identities.InlinePolicies(ctx, e.owner)
	if err != nil {
		return nil, err
	}
	page, more, err := pageOf(c, in.pageInput, policies, func(p identity.InlinePolicy) string { return p.Name })
	out := &policyNamesOutput{pageOutput: more}
	for _, p := range page {
		out.PolicyNames.add(p.Name)
	}
	return out, err
}

func (k entityKind) deletePolicy(ctx context.Context, c *Call, in *inlinePolicyInput) (*nothing, error) {
	e, err := k.find(ctx, c, k.nameIn(in.entityInput))
	if err != nil {
		return nil, err
	}
	err = c.Server.config.Identities.DeleteInlinePolicy(ctx, e.owner, in.PolicyName)
	return &nothing{}, k.inlineError(err, in.PolicyName)
}

// Attachments.

type attachInput struct {
	entityInput
	PolicyArn string `json:"PolicyArn" check:"required,min=20,max=2048"`
}

// attaching authorises on the entity, iam:PolicyARN being the policy.
func attaching(k entityKind) func(context.Context, *Call, *attachInput) ([]access.Resource, error) {
	return func(ctx context.Context, c *Call, in *attachInput) ([]access.Resource, error) {
		c.SetContext("iam:PolicyARN", in.PolicyArn)
		return on[attachInput](k)(ctx, c, in)
	}
}

func (k entityKind) attachPolicy(ctx context.Context, c *Call, in *attachInput) (*nothing, error) {
	e, err := k.find(ctx, c, k.nameIn(in.entityInput))
	if err != nil {
		return nil, err
	}
	err = c.Server.config.Identities.AttachPolicy(ctx, e.owner, in.PolicyArn, maxAttached)
	if errors.Is(err, identity.ErrLimit) {
		return nil, overQuota("PoliciesPer"+k.word, maxAttached)
	}
	return &nothing{}, policyError(err, in.PolicyArn)
}

func (k entityKind) detachPolicy(ctx context.Context, c *Call, in *attachInput) (*nothing, error) {
	e, err := k.find(ctx, c, k.nameIn(in.entityInput))
	if err != nil {
		return nil, err
	}
	err = c.Server.config.Identities.DetachPolicy(ctx, e.owner, in.PolicyArn)
	if errors.Is(err, identity.ErrNotFound) {
		return nil, noSuchEntity("Policy %s was not found.", in.PolicyArn)
	}
	return &nothing{}, err
}

type attachedPolicy struct {
	PolicyName string `xml:"PolicyName"`
	PolicyArn  string `xml:"PolicyArn"`
}

type attachedOutput struct {
	AttachedPolicies memberList[attachedPolicy] `xml:"AttachedPolicies"`
	pageOutput
}

func (k entityKind) listAttached(ctx context.Context, c *Call, in *entityPageInput) (*attachedOutput, error) {
	e, err := k.find(ctx, c, k.nameIn(in.entityInput))
	if err != nil {
		return nil, err
	}
	policies, err := c.Server.config.Identities.AttachedPolicies(ctx, e.owner)
	if err != nil {
		return nil, err
	}
	policies = slices.DeleteFunc(policies, func(p identity.ManagedPolicy) bool {
		return !strings.HasPrefix(p.Path, in.PathPrefix)
	})
	page, more, err := pageOf(c, in.pageInput, policies, func(p identity.ManagedPolicy) string { return p.ARN })
	return &attachedOutput{AttachedPolicies: attachedShapes(page), pageOutput: more}, err
}

func attachedShapes(policies []identity.ManagedPolicy) (shapes memberList[attachedPolicy]) {
	for _, p := range policies {
		shapes.add(attachedPolicy{p.Name, p.ARN})
	}
	return shapes
}
