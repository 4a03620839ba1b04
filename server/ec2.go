package server

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sort"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/wire"
)

// The small part of EC2 that people and scripts find nodes by. All nodes are
// instances here, mi-… ones too, which EC2 proper does not list.

func ec2Operations() []*Operation {
	return []*Operation{
		op("ec2", "DescribeInstances", nil, describeInstances, quietly),
		op("ec2", "DescribeTags", nil, describeTags, quietly),
		op("ec2", "CreateTags", createTagsResources, createTags),
		op("ec2", "DeleteTags", deleteTagsResources, deleteTags),
		op("ec2", "DescribeRegions", nil, describeRegions, quietly),
	}
}

// dryRun is the answer to a call that was allowed and only tried.
func dryRun() error {
	return exception("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
}

// itemList is a list in the answers of ec2, which is there even if it is empty.
type itemList[T any] struct {
	Item []T `xml:"item"`
}

func (l *itemList[T]) add(t T) { l.Item = append(l.Item, t) }

type ec2Filter struct {
	Name  string   `json:"Name" check:"required,min=1,max=256"`
	Value []string `json:"Value" check:"max=200" each:"max=1024"`
}

type describeInstancesInput struct {
	Filter     []ec2Filter `json:"Filter" check:"max=50"`
	InstanceID []string    `json:"InstanceId" check:"max=1000" each:"max=64"`
	MaxResults int         `json:"MaxResults" check:"min=5,max=1000"`
	NextToken  string      `json:"NextToken" check:"max=1024"`
	DryRun     bool        `json:"DryRun"`
}

type ec2Tag struct {
	Key   string `json:"Key" xml:"key" check:"required,min=1,max=128,pattern=[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]+"`
	Value string `json:"Value" xml:"value" check:"max=256,pattern=[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@,]*"`
}

type instanceState struct {
	Code int    `xml:"code"`
	Name string `xml:"name"`
}

type instancePlacement struct {
	AvailabilityZone string `xml:"availabilityZone,omitempty"`
}

type instanceShape struct {
	InstanceID       string            `xml:"instanceId"`
	ImageID          string            `xml:"imageId"`
	State            instanceState     `xml:"instanceState"`
	PrivateDNSName   string            `xml:"privateDnsName"`
	DNSName          string            `xml:"dnsName"`
	InstanceType     string            `xml:"instanceType"`
	LaunchTime       wire.Time         `xml:"launchTime"`
	Placement        instancePlacement `xml:"placement"`
	PrivateIPAddress string            `xml:"privateIpAddress,omitempty"`
	Tags             itemList[ec2Tag]  `xml:"tagSet"`
	PlatformDetails  string            `xml:"platformDetails,omitempty"`
}

type reservation struct {
	ReservationID string                  `xml:"reservationId"`
	OwnerID       string                  `xml:"ownerId"`
	Groups        itemList[string]        `xml:"groupSet"`
	Instances     itemList[instanceShape] `xml:"instancesSet"`
}

type describeInstancesOutput struct {
	Reservations itemList[reservation] `xml:"reservationSet"`
	NextToken    string                `xml:"nextToken,omitempty"`
}

func describeInstances(ctx context.Context, c *Call, in *describeInstancesInput) (*describeInstancesOutput, error) {
	if in.DryRun {
		return nil, dryRun()
	}
	if len(in.InstanceID) > 0 && in.MaxResults > 0 {
		return nil, exception("InvalidParameterCombination", "The parameter instancesSet cannot be used with the parameter maxResults.")
	}
	if err := c.checkInstances(ctx, in.InstanceID); err != nil {
		return nil, err
	}
	match, err := ec2Matcher(in.Filter)
	if err != nil {
		return nil, err
	}
	nodes, next, err := c.pageOfNodes(ctx, in.InstanceID, match, 1000).page(c, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &describeInstancesOutput{NextToken: next}
	for _, n := range nodes {
		out.Reservations.add(c.reservation(n))
	}
	return out, nil
}

// checkInstances refuses ids that are no ids, and ids of no node.
func (c *Call) checkInstances(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if !node.ValidID(id) {
			return exception("InvalidInstanceID.Malformed", "Invalid id: %q", truncate(id, 64))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	found, err := c.Server.config.Nodes.Nodes(ctx, node.Filter{IDs: ids})
	if err != nil {
		return err
	}
	missing := map[string]bool{}
	for _, id := range ids {
		missing[id] = true
	}
	for _, n := range found {
		delete(missing, n.ID)
	}
	for _, id := range ids {
		if missing[id] {
			return exception("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
		}
	}
	return nil
}

func ec2Matcher(filters []ec2Filter) (node.Matcher, error) {
	var conditions []node.Condition
	for _, f := range filters {
		conditions = append(conditions, node.Condition{Key: f.Name, Values: f.Value, Operator: node.Like})
	}
	match, err := node.EC2().Compile(conditions)
	if unknown := (*node.ErrUnknownKey)(nil); errors.As(err, &unknown) {
		return nil, exception("InvalidParameterValue", "The filter '%s' is invalid", truncate(unknown.Key, 100))
	}
	return match, err
}

// reservation wraps a node as EC2 lists instances: here every instance has a
// reservation of its own, named after it.
func (c *Call) reservation(n node.Node) reservation {
	state := instanceState{80, "stopped"}
	if n.RunState(c.Origin.Time) == "running" {
		state = instanceState{16, "running"}
	}
	instance := instanceShape{
		InstanceID: n.ID, State: state, PrivateDNSName: n.ComputerName, LaunchTime: wire.Time{Time: n.Registered},
		Placement: instancePlacement{n.AvailabilityZone}, PrivateIPAddress: n.IPAddress,
		PlatformDetails: strings.TrimSpace(n.PlatformName + " " + n.PlatformVersion),
	}
	for _, key := range n.Tags.Keys() {
		instance.Tags.add(ec2Tag{key, n.Tags[key]})
	}
	r := reservation{
		ReservationID: "r-" + n.ID[strings.IndexByte(n.ID, '-')+1:], OwnerID: c.Server.config.Realm.Account,
	}
	r.Instances.add(instance)
	return r
}

// Tags.

type createTagsInput struct {
	ResourceID []string `json:"ResourceId" check:"required,min=1,max=100" each:"max=64"`
	Tag        []ec2Tag `json:"Tag" check:"required,min=1,max=50"`
	DryRun     bool     `json:"DryRun"`
}

// deleteTagsInput: tags with a value are only deleted if they have it, as in EC2.
type deleteTagsInput struct {
	ResourceID []string `json:"ResourceId" check:"required,min=1,max=100" each:"max=64"`
	Tag        []struct {
		Key   string  `json:"Key" check:"required,min=1,max=128"`
		Value *string `json:"Value" check:"max=256"`
	} `json:"Tag" check:"max=50"`
	DryRun bool `json:"DryRun"`
}

type returnOutput struct {
	Return bool `xml:"return"`
}

// instanceResources authorises on every node that is named, each with its own tags.
func (c *Call) instanceResources(ctx context.Context, ids []string) ([]access.Resource, error) {
	if len(ids) == 0 {
		return []access.Resource{{ARN: "*"}}, nil
	}
	var resources []access.Resource
	for _, id := range ids {
		if !node.ValidID(id) {
			return nil, exception("InvalidID", "The ID '%s' is not valid: only nodes have tags here", truncate(id, 64))
		}
		r, err := c.nodeResource(ctx, id)
		if err != nil {
			return nil, err
		}
		resources = append(resources, r)
	}
	return resources, nil
}

func ec2Tags(list []ec2Tag) (identity.Tags, error) {
	tags := identity.Tags{}
	for _, t := range list {
		if strings.HasPrefix(strings.ToLower(t.Key), "aws:") {
			return nil, exception("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
		}
		for present := range tags {
			if strings.EqualFold(present, t.Key) {
				return nil, exception("InvalidParameterValue", "Tag key '%s' is given twice", t.Key)
			}
		}
		tags[t.Key] = t.Value
	}
	return tags, nil
}

func createTagsResources(ctx context.Context, c *Call, in *createTagsInput) ([]access.Resource, error) {
	tags, err := ec2Tags(in.Tag)
	if err != nil {
		return nil, err
	}
	c.SetRequestTags(tags)
	return c.instanceResources(ctx, in.ResourceID)
}

// deleteTagsResources makes aws:TagKeys the tags that will go: those named, or all
// where none is.
func deleteTagsResources(ctx context.Context, c *Call, in *deleteTagsInput) ([]access.Resource, error) {
	resources, err := c.instanceResources(ctx, in.ResourceID)
	keys := map[string]bool{}
	for _, t := range in.Tag {
		keys[t.Key] = true
	}
	if len(in.Tag) == 0 {
		for _, r := range resources {
			for key := range r.Tags {
				keys[key] = true
			}
		}
	}
	c.SetContext("aws:TagKeys", slices.Sorted(maps.Keys(keys))...)
	return resources, err
}

func createTags(ctx context.Context, c *Call, in *createTagsInput) (*returnOutput, error) {
	set, err := ec2Tags(in.Tag)
	if err != nil {
		return nil, err
	}
	return c.changeInstances(ctx, in.ResourceID, in.DryRun, func(old identity.Tags) (identity.Tags, error) {
		return withTags(old, set)
	})
}

func deleteTags(ctx context.Context, c *Call, in *deleteTagsInput) (*returnOutput, error) {
	return c.changeInstances(ctx, in.ResourceID, in.DryRun, func(old identity.Tags) (identity.Tags, error) {
		if len(in.Tag) == 0 {
			return identity.Tags{}, nil
		}
		var keys []string
		for _, t := range in.Tag {
			if t.Value == nil || old[t.Key] == *t.Value {
				keys = append(keys, t.Key)
			}
		}
		return withoutTags(old, keys), nil
	})
}

// changeInstances changes the tags of nodes that all exist, one after the other.
func (c *Call) changeInstances(ctx context.Context, ids []string, try bool, change func(identity.Tags) (identity.Tags, error)) (*returnOutput, error) {
	if err := c.checkInstances(ctx, ids); err != nil {
		return nil, err
	}
	if try {
		return nil, dryRun()
	}
	for _, id := range ids {
		if err := c.changeNodeTags(ctx, id, change); err != nil {
			return nil, ec2TagError(err)
		}
	}
	return &returnOutput{Return: true}, nil
}

func ec2TagError(err error) error {
	var sameKey *tagCaseError
	switch {
	case errors.Is(err, errTooManyTags):
		return exception("TagLimitExceeded", "A node may have at most %d tags", maxTags)
	case errors.As(err, &sameKey):
		return exception("InvalidParameterValue", "%v", sameKey)
	}
	return err
}

type describeTagsInput struct {
	Filter     []ec2Filter `json:"Filter" check:"max=50"`
	MaxResults int         `json:"MaxResults" check:"min=5,max=1000"`
	NextToken  string      `json:"NextToken" check:"max=1024"`
	DryRun     bool        `json:"DryRun"`
}

type tagDescription struct {
	ResourceID   string `xml:"resourceId"`
	ResourceType string `xml:"resourceType"`
	Key          string `xml:"key"`
	Value        string `xml:"value"`
}

type describeTagsOutput struct {
	Tags      itemList[tagDescription] `xml:"tagSet"`
	NextToken string                   `xml:"nextToken,omitempty"`
}

func describeTags(ctx context.Context, c *Call, in *describeTagsInput) (*describeTagsOutput, error) {
	if in.DryRun {
		return nil, dryRun()
	}
	match, err := tagMatcher(in.Filter)
	if err != nil {
		return nil, err
	}
	nodes, err := c.Server.config.Nodes.Nodes(ctx, node.Filter{})
	if err != nil {
		return nil, err
	}
	page, next, err := pages[tagDescription]{
		fetch: func(after string, n int) ([]tagDescription, error) {
			return firstAfter(tagsOfNodes(nodes), after, n, tagDescription.place), nil
		},
		key: tagDescription.place, keep: match, size: 1000,
	}.page(c, in.NextToken, in.MaxResults)
	return &describeTagsOutput{Tags: itemList[tagDescription]{page}, NextToken: next}, err
}

// firstAfter gives the first n entries of an ordered list whose keys come after one.
func firstAfter[T any](list []T, after string, n int, key func(T) string) []T {
	start := sort.Search(len(list), func(i int) bool { return key(list[i]) > after })
	return list[start:min(start+n, len(list))]
}

// place orders tags in a listing.
func (t tagDescription) place() string { return t.ResourceID + "/" + t.Key }

func tagsOfNodes(nodes []node.Node) []tagDescription {
	var all []tagDescription
	for _, n := range nodes {
		for _, key := range n.Tags.Keys() {
			all = append(all, tagDescription{n.ID, "instance", key, n.Tags[key]})
		}
	}
	return all
}

// tagMatcher compiles the filters of DescribeTags.
func tagMatcher(filters []ec2Filter) (func(tagDescription) (bool, error), error) {
	for _, f := range filters {
		switch {
		case f.Name == "key", f.Name == "value", f.Name == "resource-id", f.Name == "resource-type", strings.HasPrefix(f.Name, "tag:"):
		default:
			return nil, exception("InvalidParameterValue", "The filter '%s' is invalid", truncate(f.Name, 100))
		}
	}
	return func(t tagDescription) (bool, error) {
		return !slices.ContainsFunc(filters, func(f ec2Filter) bool { return !t.meets(f) }), nil
	}, nil
}

func (t tagDescription) meets(f ec2Filter) bool {
	attribute := map[string]string{
		"key": t.Key, "value": t.Value, "resource-id": t.ResourceID, "resource-type": t.ResourceType,
	}[f.Name]
	if key, ok := strings.CutPrefix(f.Name, "tag:"); ok {
		if key != t.Key {
			return false
		}
		attribute = t.Value
	}
	return node.MatchesAny(attribute, f.Value)
}

type describeRegionsInput struct {
	RegionName []string `json:"RegionName" check:"max=100" each:"max=64"`
	DryRun     bool     `json:"DryRun"`
}

type region struct {
	Name        string `xml:"regionName"`
	Endpoint    string `xml:"regionEndpoint"`
	OptInStatus string `xml:"optInStatus"`
}

type describeRegionsOutput struct {
	Regions itemList[region] `xml:"regionInfo"`
}

// describeRegions lists the one region that the deployment stands for.
func describeRegions(_ context.Context, c *Call, in *describeRegionsInput) (*describeRegionsOutput, error) {
	if in.DryRun {
		return nil, dryRun()
	}
	home := c.Server.config.Realm.Region
	for _, name := range in.RegionName {
		if name != home {
			return nil, exception("InvalidParameterValue", "Invalid region names: [%s]", truncate(name, 64))
		}
	}
	out := &describeRegionsOutput{}
	out.Regions.add(region{home, c.Host, "opt-in-not-required"})
	return out, nil
}
