package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/identity"
)

// What the IAM operations have in common: the entities that they name, how those are
// authorised, pages, tags, and errors as IAM words them.

// entityKind is one of the three kinds of IAM entities that own policies. Operations
// that exist for each kind (PutUserPolicy, PutGroupPolicy, PutRolePolicy) are rows
// made from one function with a kind each.
type entityKind struct {
	owner identity.OwnerKind
	word  string // as in the names of operations
	limit int    // characters that a new name may have
}

func userKind() entityKind  { return entityKind{identity.OwnerUser, "User", 64} }
func groupKind() entityKind { return entityKind{identity.OwnerGroup, "Group", 128} }
func roleKind() entityKind  { return entityKind{identity.OwnerRole, "Role", 64} }

// entityInput names a user, group or role: the member of the operation's kind counts.
type entityInput struct {
	UserName  string `json:"UserName" check:"min=1,max=128,pattern=[\\w+=,.@-]+"`
	GroupName string `json:"GroupName" check:"min=1,max=128,pattern=[\\w+=,.@-]+"`
	RoleName  string `json:"RoleName" check:"min=1,max=64,pattern=[\\w+=,.@-]+"`
}

// name returns the member of kind k, which must be there.
func (in entityInput) name(k entityKind) (string, error) {
	name := map[identity.OwnerKind]string{
		identity.OwnerUser: in.UserName, identity.OwnerGroup: in.GroupName, identity.OwnerRole: in.RoleName,
	}[k.owner]
	if name == "" {
		return "", missingMember(strings.ToLower(k.word) + "Name")
	}
	return name, nil
}

// entity is what the operations need of any of the kinds.
type entity struct {
	owner    identity.Owner // with the name as it is stored
	path, id string
	tags     identity.Tags
	boundary string
}

// find returns an entity by name. Its error is IAM's NoSuchEntity where there is none.
func (k entityKind) find(ctx context.Context, c *Call, name string) (entity, error) {
	e, err := k.load(ctx, c.Server.config.Identities, name)
	return e, k.error(err, name)
}

func (k entityKind) load(ctx context.Context, store identity.Store, name string) (entity, error) {
	switch k.owner {
	case identity.OwnerUser:
		u, err := store.User(ctx, name)
		return entity{k.named(u.Name), u.Path, u.ID, u.Tags, u.Boundary}, err
	case identity.OwnerGroup:
		g, err := store.Group(ctx, name)
		return entity{k.named(g.Name), g.Path, g.ID, nil, ""}, err
	default:
		r, err := store.Role(ctx, name)
		return entity{k.named(r.Name), r.Path, r.ID, r.Tags, r.Boundary}, err
	}
}

func (k entityKind) named(name string) identity.Owner {
	return identity.Owner{Kind: k.owner, Name: name}
}

// resource is what an operation on the named entity is authorised on: its ARN with
// its path and the name as it is stored, whatever case the caller wrote, and its tags
// and boundary. Where there is no such entity it is the ARN that one would have at
// the root, so that only those learn of its absence who might have touched it.
func (k entityKind) resource(ctx context.Context, c *Call, name string) (access.Resource, error) {
	e, err := k.load(ctx, c.Server.config.Identities, name)
	if errors.Is(err, identity.ErrNotFound) {
		return access.Resource{ARN: c.iamARN(string(k.owner), "/", name)}, nil
	}
	if err != nil {
		return access.Resource{}, err
	}
	r := access.Resource{ARN: c.iamARN(string(k.owner), e.path, e.owner.Name), Tags: e.tags}
	if e.boundary != "" {
		r.Context = map[string][]string{"iam:PermissionsBoundary": {e.boundary}}
	}
	return r, nil
}

// ref makes the entity that an input names accessible whatever else it holds.
func (in entityInput) ref() entityInput { return in }

// on authorises an operation on the entity that its input names.
func on[In interface{ ref() entityInput }](k entityKind) func(context.Context, *Call, *In) ([]access.Resource, error) {
	return func(ctx context.Context, c *Call, in *In) ([]access.Resource, error) {
		name, err := (*in).ref().name(k)
		if err != nil {
			return nil, err
		}
		return one(k.resource(ctx, c, name))
	}
}

// one makes a list of a single resource.
func one(r access.Resource, err error) ([]access.Resource, error) {
	if err != nil {
		return nil, err
	}
	return []access.Resource{r}, nil
}

// iamARN is the ARN of an IAM resource of this deployment.
func (c *Call) iamARN(kind, path, name string) string {
	return c.Server.config.Realm.IAM(kind, path, name)
}

// userOrCaller is the user that an operation is about whose UserName may be left out:
// then it is the caller, who must be a user.
func (c *Call) userOrCaller(name string) (string, error) {
	if name != "" {
		return name, nil
	}
	if c.Principal.Kind != identity.KindUser {
		return "", exception("ValidationError", "Must specify userName when calling with non-User credentials")
	}
	return c.Principal.Name, nil
}

// userRefInput names a user, or by leaving the name out the caller.
type userRefInput struct {
	UserName string `json:"UserName" check:"min=1,max=128,pattern=[\\w+=,.@-]+"`
}

func (in *userRefInput) user() *string { return &in.UserName }

// onUserOrCaller authorises an operation on the named user or, without a name, on
// the caller, whose name it fills in for run.
func onUserOrCaller[In any, P interface {
	*In
	user() *string
}](ctx context.Context, c *Call, in P) ([]access.Resource, error) {
	name, err := c.userOrCaller(*in.user())
	if err != nil {
		return nil, err
	}
	*in.user() = name
	return one(userKind().resource(ctx, c, name))
}

// error words a store's error about the named entity as IAM does.
func (k entityKind) error(err error, name string) error {
	switch err = tagError(err); {
	case err == nil:
		return nil
	case errors.Is(err, identity.ErrNotFound):
		return noSuchEntity("The %s with name %s cannot be found.", strings.ToLower(k.word), name)
	case errors.Is(err, identity.ErrExists):
		return exception("EntityAlreadyExists", "%s with name %s already exists.", k.word, name)
	default:
		return err
	}
}

func noSuchEntity(format string, args ...any) error {
	return exception("NoSuchEntity", format, args...)
}

func deleteConflict(what string) error {
	return exception("DeleteConflict", "Cannot delete entity, must %s first.", what)
}

func overQuota(quota string, limit int) error {
	return exception("LimitExceeded", "Cannot exceed quota for %s: %d", quota, limit)
}

func invalidInput(format string, args ...any) error {
	return exception("InvalidInput", format, args...)
}

func validationError(format string, args ...any) error {
	return exception("ValidationError", format, args...)
}

// missingMember is the answer to a request without a member that it needs.
func missingMember(name string) error {
	return validationError("1 validation error detected: Value null at '%s' failed to satisfy constraint: Member must not be null", name)
}

// checkName refuses names that are too long for what is being created; their
// characters have been checked with the shape.
func (k entityKind) checkName(name, member string) error {
	if len(name) > k.limit {
		return validationError("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must have length less than or equal to %d", name, member, k.limit)
	}
	return nil
}

// Pages.

// pageInput is the paging of IAM listings.
type pageInput struct {
	Marker     string `json:"Marker" check:"min=1,max=4096"`
	MaxItems   int    `json:"MaxItems" check:"min=1,max=1000"`
	PathPrefix string `json:"PathPrefix" check:"min=1,max=512,pattern=/[\\x21-\\x7F]*"`
}

const defaultMaxItems = 100

// page asks the store for one entry more than the page holds, which tells whether
// there is another page.
func (in pageInput) page(c *Call) (identity.Page, error) {
	after, err := c.openPageToken(in.Marker)
	if err != nil {
		return identity.Page{}, err
	}
	return identity.Page{After: after, Limit: in.size() + 1, PathPrefix: in.PathPrefix}, nil
}

func (in pageInput) size() int {
	if in.MaxItems == 0 {
		return defaultMaxItems
	}
	return in.MaxItems
}

// memberList is a list in the answers of iam, which is there even if it is empty.
type memberList[T any] struct {
	Member []T `xml:"member"`
}

func (l *memberList[T]) add(t T) { l.Member = append(l.Member, t) }

// pageOutput ends the answer of a listing.
type pageOutput struct {
	IsTruncated bool   `xml:"IsTruncated"`
	Marker      string `xml:"Marker,omitempty"`
}

// cut takes the page off what page asked for; name gives what a marker holds.
func cut[T any](c *Call, in pageInput, found []T, name func(T) string) ([]T, pageOutput) {
	if len(found) <= in.size() {
		return found, pageOutput{}
	}
	found = found[:in.size()]
	last := name(found[len(found)-1])
	return found, pageOutput{IsTruncated: true, Marker: c.pageToken(last)}
}

// pageOf cuts a page from a whole listing, in the order of names.
func pageOf[T any](c *Call, in pageInput, all []T, name func(T) string) ([]T, pageOutput, error) {
	after, err := c.openPageToken(in.Marker)
	if err != nil {
		return nil, pageOutput{}, err
	}
	slices.SortFunc(all, func(a, b T) int { return strings.Compare(name(a), name(b)) })
	if in.Marker != "" {
		all = slices.DeleteFunc(all, func(t T) bool { return name(t) <= after })
	}
	page, out := cut(c, in, all, name)
	return page, out, nil
}

// Tags.

// tag is a tag in the shapes of every service but ec2. Values may hold commas, which
// AWS's may not: they separate the values of a tag that has several.
type tag struct {
	Key   string `json:"Key" xml:"Key" check:"required,min=1,max=128,pattern=[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]+"`
	Value string `json:"Value" xml:"Value" check:"max=256,pattern=[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@,]*"`
}

// maxTags is how many tags anything may have.
const maxTags = 50

// tagsOf reads tags that a caller sets. Keys differ in more than case, and do not
// start with aws:, which is kept for tags that the system sets.
func tagsOf(list []tag) (identity.Tags, error) {
	tags, seen := identity.Tags{}, map[string]bool{}
	for _, t := range list {
		folded := strings.ToLower(t.Key)
		if strings.HasPrefix(folded, "aws:") {
			return nil, validationError("Tag key %q is not allowed: keys that begin with aws: are reserved for the system", t.Key)
		}
		if seen[folded] {
			return nil, invalidInput("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		seen[folded] = true
		tags[t.Key] = t.Value
	}
	return tags, nil
}

// withTags returns old overlaid by set. A key that differs from an old one only in
// case is refused: condition keys ignore case, so that both would be the same tag to
// policies, and conditions on aws:TagKeys, which do not, could be stepped around.
func withTags(old, set identity.Tags) (identity.Tags, error) {
	merged := maps.Clone(old)
	if merged == nil {
		merged = identity.Tags{}
	}
	for key, value := range set {
		for present := range old {
			if present != key && strings.EqualFold(present, key) {
				return nil, &tagCaseError{present, key}
			}
		}
		merged[key] = value
	}
	if len(merged) > maxTags {
		return nil, errTooManyTags
	}
	return merged, nil
}

// tagCaseError refuses a tag key that differs from a present one only in case.
type tagCaseError struct{ present, key string }

func (e *tagCaseError) Error() string {
	return fmt.Sprintf("tag key %q differs only in case from %q, which is there already", e.key, e.present)
}

var errTooManyTags = fmt.Errorf("more than %d tags", maxTags)

// tagError words an error of withTags as IAM does.
func tagError(err error) error {
	var sameKey *tagCaseError
	switch {
	case errors.Is(err, errTooManyTags):
		return overQuota("TagsPerResource", maxTags)
	case errors.As(err, &sameKey):
		return invalidInput("%v", sameKey)
	}
	return err
}

func withoutTags(old identity.Tags, keys []string) identity.Tags {
	left := maps.Clone(old)
	for _, key := range keys {
		delete(left, key)
	}
	return left
}

// tagList gives tags in the order of keys.
func tagList(tags map[string]string) []tag {
	list := make([]tag, 0, len(tags))
	for _, k := range identity.Tags(tags).Keys() {
		list = append(list, tag{Key: k, Value: tags[k]})
	}
	return list
}

type tagsOutput struct {
	Tags memberList[tag] `xml:"Tags"`
	pageOutput
}

func tagPage(c *Call, in pageInput, tags identity.Tags) (*tagsOutput, error) {
	page, more, err := pageOf(c, in, tagList(tags), func(t tag) string { return t.Key })
	if err != nil {
		return nil, err
	}
	return &tagsOutput{Tags: memberList[tag]{page}, pageOutput: more}, nil
}

// quoteDocument encodes a policy as IAM's answers carry it.
func quoteDocument(document string) string { return url.PathEscape(document) }

// boundaryShape is a permissions boundary in answers.
type boundaryShape struct {
	PermissionsBoundaryType string `xml:"PermissionsBoundaryType"`
	PermissionsBoundaryArn  string `xml:"PermissionsBoundaryArn"`
}

func boundaryOf(arn string) *boundaryShape {
	if arn == "" {
		return nil
	}
	return &boundaryShape{PermissionsBoundaryType: "Policy", PermissionsBoundaryArn: arn}
}

// checkBoundary refuses a boundary that is no managed policy of this deployment.
func (c *Call) checkBoundary(ctx context.Context, arn string) error {
	if arn == "" {
		return nil
	}
	_, err := c.Server.config.Identities.Policy(ctx, arn)
	return policyError(err, arn)
}

func policyError(err error, arn string) error {
	if errors.Is(err, identity.ErrNotFound) {
		return noSuchEntity("Policy %s does not exist or is not attachable.", arn)
	}
	return err
}
