package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/policy"
	"sallyport.dev/wire"
)

func stsOperations() []*Operation {
	return []*Operation{
		op("sts", "GetCallerIdentity", nil, getCallerIdentity, forEveryone, quietly),
		op("sts", "GetSessionToken", nil, getSessionToken, forEveryone),
		op("sts", "AssumeRole", nil, assumeRole, checksItself),
	}
}

type getCallerIdentityOutput struct {
	UserID  string `xml:"UserId"`
	Account string `xml:"Account"`
	Arn     string `xml:"Arn"`
}

func getCallerIdentity(_ context.Context, c *Call, _ *struct{}) (*getCallerIdentityOutput, error) {
	return &getCallerIdentityOutput{
		UserID: c.Principal.UserID, Account: c.Server.config.Realm.Account, Arn: c.Principal.ARN,
	}, nil
}

// stsCredentials are temporary credentials as STS gives them out.
type stsCredentials struct {
	AccessKeyID     string    `xml:"AccessKeyId"`
	SecretAccessKey string    `xml:"SecretAccessKey"`
	SessionToken    string    `xml:"SessionToken"`
	Expiration      wire.Time `xml:"Expiration"`
}

// issue gives out temporary credentials and records their key's id, by which what is
// done with them is found in the audit log.
func (c *Call) issue(ctx context.Context, claims identity.Claims, life time.Duration) (stsCredentials, error) {
	claims.IssuedAt = c.Origin.Time
	claims.ExpiresAt = c.Origin.Time.Add(life).Truncate(time.Second)
	cred, err := c.Server.issuer.Issue(claims)
	if err != nil {
		return stsCredentials{}, err
	}
	details := map[string]string{
		"issued_access_key_id": cred.AccessKeyID, "expires": cred.Expires.UTC().Format(time.RFC3339), "access_key_id": c.Principal.AccessKeyID,
		"role_session_name": claims.SessionName, "source_identity": claims.SourceIdentity, "root_id": claims.Root,
		"factor": claims.Factor, "sign_in": claims.SignIn,
	}
	maps.DeleteFunc(details, func(_, v string) bool { return v == "" })
	err = c.record(ctx, audit.Record{
		Event: audit.EventChange, Principal: c.Principal.ARN, Resources: []string{c.issuedTo(claims)},
		Reason: "credentials issued", Details: details,
	})
	return stsCredentials{cred.AccessKeyID, cred.SecretAccessKey, cred.SessionToken, wire.Time{Time: cred.Expires}}, err
}

// issuedTo is the ARN of the principal that credentials are for.
func (c *Call) issuedTo(claims identity.Claims) string {
	if claims.Kind == identity.KindRole {
		return c.Server.config.Realm.AssumedRole(claims.Name, claims.SessionName)
	}
	return c.Principal.ARN
}

const (
	defaultRoleLife    = time.Hour
	longestChainedLife = time.Hour
	defaultUserLife    = 12 * time.Hour
	// packedLimit is what session policies and tags may come to, in bytes, for
	// PackedPolicySize; AWS's own limit is not public.
	packedLimit = 8192
)

type getSessionTokenInput struct {
	DurationSeconds int64  `json:"DurationSeconds" check:"min=900,max=129600"`
	SerialNumber    string `json:"SerialNumber" check:"min=9,max=256"`
	TokenCode       string `json:"TokenCode" check:"secret,min=6,max=6"`
}

type getSessionTokenOutput struct {
	Credentials stsCredentials `xml:"Credentials"`
}

// getSessionToken gives a user temporary credentials in place of long-lived keys.
func getSessionToken(ctx context.Context, c *Call, in *getSessionTokenInput) (*getSessionTokenOutput, error) {
	if c.Principal.Kind != identity.KindUser || c.Principal.Temporary() {
		return nil, exception("AccessDenied", "Cannot call GetSessionToken with session credentials")
	}
	if err := c.secondFactor(ctx, in.SerialNumber, in.TokenCode); err != nil {
		return nil, err
	}
	life := defaultUserLife
	if in.DurationSeconds > 0 {
		life = time.Duration(in.DurationSeconds) * time.Second
	}
	claims := identity.Claims{Kind: identity.KindUser, Name: c.Principal.Name, ID: c.Principal.UserID}
	claims.MFA, claims.MFAAt, claims.Factor = c.Principal.MFA, c.Principal.MFAAt, c.Principal.Factor
	cred, err := c.issue(ctx, claims, life)
	return &getSessionTokenOutput{cred}, err
}

type stsTag struct {
	Key   string `json:"Key" check:"required,min=1,max=128,pattern=[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]+"`
	Value string `json:"Value" check:"required,max=256,pattern=[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*"`
}

type policyDescriptor struct {
	ARN string `json:"arn" check:"required,min=20,max=2048"`
}

type assumeRoleInput struct {
	RoleARN           string             `json:"RoleArn" check:"required,min=20,max=2048"`
	RoleSessionName   string             `json:"RoleSessionName" check:"required,min=2,max=64,pattern=[\\w+=,.@-]*"`
	DurationSeconds   int64              `json:"DurationSeconds" check:"min=900,max=43200"`
	ExternalID        string             `json:"ExternalId" check:"secret,min=2,max=1224,pattern=[\\w+=,.@:\\/-]*"`
	Policy            string             `json:"Policy" check:"digest,min=1,max=2048"`
	PolicyARNs        []policyDescriptor `json:"PolicyArns" check:"max=10"`
	Tags              []stsTag           `json:"Tags" check:"max=50"`
	TransitiveTagKeys []string           `json:"TransitiveTagKeys" check:"max=50" each:"min=1,max=128"`
	SourceIdentity    string             `json:"SourceIdentity" check:"min=2,max=64,pattern=[\\w+=,.@-]*"`
	SerialNumber      string             `json:"SerialNumber" check:"min=9,max=256"`
	TokenCode         string             `json:"TokenCode" check:"secret,min=6,max=6"`
}

type assumedRoleUser struct {
	AssumedRoleID string `xml:"AssumedRoleId"`
	Arn           string `xml:"Arn"`
}

type assumeRoleOutput struct {
	Credentials      stsCredentials  `xml:"Credentials"`
	AssumedRoleUser  assumedRoleUser `xml:"AssumedRoleUser"`
	PackedPolicySize int             `xml:"PackedPolicySize,omitempty"`
	SourceIdentity   string          `xml:"SourceIdentity,omitempty"`
}

// assumeRole gives temporary credentials of a role to whom its trust policy allows.
func assumeRole(ctx context.Context, c *Call, in *assumeRoleInput) (*assumeRoleOutput, error) {
	if err := c.checkChain(ctx, in); err != nil {
		return nil, err
	}
	if err := c.secondFactor(ctx, in.SerialNumber, in.TokenCode); err != nil {
		return nil, err
	}
	tags, err := c.sessionTags(in)
	if err != nil {
		return nil, err
	}
	claims := identity.Claims{
		Kind: identity.KindRole, SessionName: in.RoleSessionName, Source: c.Principal.ARN,
		Tags: tags, Transitive: c.transitiveKeys(in), SourceIdentity: c.Principal.SourceIdentity,
		Root: c.Principal.Root, SignIn: c.Principal.SignIn, Granted: c.Principal.Granted,
		MFA: c.Principal.MFA, MFAAt: c.Principal.MFAAt, Factor: c.Principal.Factor,
	}
	if c.Principal.Kind == identity.KindUser {
		claims.Root = c.Principal.UserID
	}
	if in.SourceIdentity != "" {
		claims.SourceIdentity = in.SourceIdentity
	}
	role, err := c.checkAssume(ctx, in, claims)
	if err != nil {
		return nil, err
	}
	claims.Name, claims.ID = role.Name, role.ID
	if claims.Granted, err = c.grantedRoles(ctx, in.RoleARN, role, claims); err != nil {
		return nil, err
	}
	life, err := c.roleLife(in, role)
	if err != nil {
		return nil, err
	}
	packed, err := c.sessionPolicies(ctx, in, &claims)
	if err != nil {
		return nil, err
	}
	cred, err := c.issue(ctx, claims, life)
	return &assumeRoleOutput{
		Credentials: cred,
		AssumedRoleUser: assumedRoleUser{
			AssumedRoleID: role.ID + ":" + in.RoleSessionName,
			Arn:           c.Server.config.Realm.AssumedRole(role.Name, in.RoleSessionName),
		},
		PackedPolicySize: packed, SourceIdentity: claims.SourceIdentity,
	}, err
}

// checkChain refuses what no chain of roles may do: begin with a machine, which has no
// person behind it, or go on under another source identity.
func (c *Call) checkChain(ctx context.Context, in *assumeRoleInput) error {
	have, because := c.Principal.SourceIdentity, ""
	switch {
	case c.Principal.IsNode():
		because = "because nodes assume no roles"
	case have != "" && in.SourceIdentity != "" && in.SourceIdentity != have:
		because = "because the source identity of a session cannot be changed"
	default:
		return nil
	}
	c.checked = true
	return c.Server.checker.Refuse(ctx, c.query("sts:AssumeRole", []access.Resource{{ARN: in.RoleARN}}), because)
}

// checkAssume finds the role and authorises assuming it with the given session. A
// role that does not exist is refused in the same words as one that does not trust.
func (c *Call) checkAssume(ctx context.Context, in *assumeRoleInput, claims identity.Claims) (identity.Role, error) {
	c.assumeContext(in, claims)
	resource := access.Resource{ARN: in.RoleARN}
	role, err := c.roleByARN(ctx, in.RoleARN)
	if errors.Is(err, identity.ErrNotFound) {
		c.checked = true
		return role, c.Server.checker.Refuse(ctx, c.query("sts:AssumeRole", []access.Resource{resource}),
			"because no trust policy allows the sts:AssumeRole action")
	}
	if err != nil {
		return role, err
	}
	trust, err := policy.ParseTrust([]byte(role.Trust))
	if err != nil {
		return role, fmt.Errorf("trust policy of role %s: %v", role.Name, err)
	}
	resource.Tags = role.Tags
	for _, action := range assumeActions(claims) {
		c.checked = true
		if _, err := c.Server.checker.CheckAssume(ctx, c.query(action, []access.Resource{resource}), trust); err != nil {
			return role, err
		}
	}
	return role, checkTagCase(role.Tags, claims.Tags)
}

// assumeActions lists what must be allowed for a session.
func assumeActions(claims identity.Claims) []string {
	actions := []string{"sts:AssumeRole"}
	if len(claims.Tags) > 0 {
		actions = append(actions, "sts:TagSession")
	}
	if claims.SourceIdentity != "" {
		actions = append(actions, "sts:SetSourceIdentity")
	}
	return actions
}

// assumeContext fills the condition keys of AssumeRole.
func (c *Call) assumeContext(in *assumeRoleInput, claims identity.Claims) {
	c.SetRequestTags(claims.Tags)
	c.SetContext("sts:RoleSessionName", in.RoleSessionName)
	if in.ExternalID != "" {
		c.SetContext("sts:ExternalId", in.ExternalID)
	}
	if claims.SourceIdentity != "" {
		c.SetContext("sts:SourceIdentity", claims.SourceIdentity)
	}
	if len(claims.Transitive) > 0 {
		c.SetContext("sts:TransitiveTagKeys", claims.Transitive...)
	}
}

// roleByARN finds a role by its ARN, path and all. It returns identity.ErrNotFound
// for any ARN that is not that of a role here.
func (c *Call) roleByARN(ctx context.Context, arn string) (identity.Role, error) {
	name := arn[strings.LastIndexByte(arn, '/')+1:]
	role, err := c.Server.config.Identities.Role(ctx, name)
	if err == nil && c.Server.config.Realm.IAM("role", role.Path, role.Name) != arn {
		err = identity.ErrNotFound
	}
	return role, err
}

// roleLife is how long a session of the role lives.
func (c *Call) roleLife(in *assumeRoleInput, role identity.Role) (time.Duration, error) {
	life := min(defaultRoleLife, role.MaxDuration)
	if in.DurationSeconds > 0 {
		life = time.Duration(in.DurationSeconds) * time.Second
	}
	if life > role.MaxDuration {
		return 0, exception("ValidationError",
			"The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	if c.Principal.Kind == identity.KindRole && life > longestChainedLife {
		return 0, exception("ValidationError",
			"The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	}
	return life, nil
}

// sessionTags joins the tags of the request with those that pass on from the calling
// session.
func (c *Call) sessionTags(in *assumeRoleInput) (identity.Tags, error) {
	tags := identity.Tags{}
	for _, key := range c.Principal.Transitive {
		if value, ok := c.Principal.SessionTags[key]; ok {
			tags[key] = value
		}
	}
	inherited := maps.Clone(tags)
	given := map[string]bool{}
	for _, t := range in.Tags {
		folded := strings.ToLower(t.Key)
		if given[folded] {
			return nil, exception("InvalidParameterValue", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		given[folded] = true
		if strings.HasPrefix(folded, "aws:") {
			return nil, exception("InvalidParameterValue", "The tag key '%s' begins with aws:, which is reserved.", t.Key)
		}
		if hasFold(inherited, t.Key) {
			return nil, exception("InvalidParameterValue",
				"One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.")
		}
		tags[t.Key] = t.Value
	}
	for _, key := range in.TransitiveTagKeys {
		if _, ok := tags[key]; !ok {
			return nil, exception("InvalidParameterValue", "The transitive tag key '%s' is not among the session's tags.", key)
		}
	}
	if len(tags) > 50 {
		return nil, exception("InvalidParameterValue", "A session has at most 50 tags; these are %d.", len(tags))
	}
	return tags, nil
}

// checkTagCase refuses session tags that differ from the role's own only in case:
// policies would see one tag with the values of both.
func checkTagCase(role, session identity.Tags) error {
	for key := range session {
		for own := range role {
			if own != key && strings.EqualFold(own, key) {
				return exception("InvalidParameterValue", "The tag key '%s' differs only in case from a tag key of the role.", key)
			}
		}
	}
	return nil
}

func hasFold(tags identity.Tags, key string) bool {
	for k := range tags {
		if strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}

func (c *Call) transitiveKeys(in *assumeRoleInput) []string {
	keys := slices.Concat(c.Principal.Transitive, in.TransitiveTagKeys)
	slices.Sort(keys)
	return slices.Compact(keys)
}

// sessionPolicies checks the session policies and puts them into the claims. It
// returns how much of their allowance they use with the tags, in percent.
func (c *Call) sessionPolicies(ctx context.Context, in *assumeRoleInput, claims *identity.Claims) (int, error) {
	size := len(in.Policy)
	if in.Policy != "" {
		if _, err := policy.Parse([]byte(in.Policy)); err != nil {
			return 0, err
		}
		claims.Policies = []string{in.Policy}
	}
	for _, p := range in.PolicyARNs {
		if _, err := c.Server.config.Identities.Policy(ctx, p.ARN); errors.Is(err, identity.ErrNotFound) {
			return 0, exception("InvalidParameterValue", "The policy %s does not exist.", p.ARN)
		} else if err != nil {
			return 0, err
		}
		claims.PolicyARNs = append(claims.PolicyARNs, p.ARN)
		size += len(p.ARN)
	}
	for key, value := range claims.Tags {
		size += len(key) + len(value)
	}
	if size > packedLimit {
		return 0, exception("PackedPolicyTooLarge", "Session policies and tags use %d of %d bytes.", size, packedLimit)
	}
	return (size*100 + packedLimit - 1) / packedLimit, nil
}
