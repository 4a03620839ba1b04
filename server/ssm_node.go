package server

import (
	"context"
	"errors"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/node"
	"sallyport.dev/wire"
)

// Nodes as SSM shows them.

func ssmNodeOperations() []*Operation {
	return []*Operation{
		op("ssm", "DescribeInstanceInformation", nil, describeInstanceInformation, quietly),
		op("ssm", "DescribeInstanceProperties", nil, describeInstanceProperties, quietly),
		op("ssm", "DeregisterManagedInstance", onNode, deregisterManagedInstance),
	}
}

// ssmError is a refusal of an SSM operation.
func ssmError(code, format string, args ...any) error {
	return exception(code, format, args...)
}

// informationFilter is the older form of filters, with small first letters.
type informationFilter struct {
	Key      string   `json:"key" check:"required,min=1,max=163"`
	ValueSet []string `json:"valueSet" check:"required,min=1,max=100" each:"min=1,max=1024"`
}

type stringFilter struct {
	Key    string   `json:"Key" check:"required,min=1,max=163"`
	Values []string `json:"Values" check:"required,min=1,max=100" each:"min=1,max=1024"`
}

type instanceInformationInput struct {
	InstanceInformationFilterList []informationFilter `json:"InstanceInformationFilterList" check:"max=50"`
	Filters                       []stringFilter      `json:"Filters" check:"max=50"`
	MaxResults                    int                 `json:"MaxResults" check:"min=5,max=50"`
	NextToken                     string              `json:"NextToken" check:"max=1024"`
}

type instanceInformation struct {
	InstanceID       string    `json:"InstanceId"`
	PingStatus       string    `json:"PingStatus"`
	LastPingDateTime wire.Time `json:"LastPingDateTime,omitzero"`
	AgentVersion     string    `json:"AgentVersion,omitempty"`
	PlatformType     string    `json:"PlatformType,omitempty"`
	PlatformName     string    `json:"PlatformName,omitempty"`
	PlatformVersion  string    `json:"PlatformVersion,omitempty"`
	ActivationID     string    `json:"ActivationId,omitempty"`
	IamRole          string    `json:"IamRole,omitempty"`
	RegistrationDate wire.Time `json:"RegistrationDate,omitzero"`
	ResourceType     string    `json:"ResourceType"`
	Name             string    `json:"Name,omitempty"`
	IPAddress        string    `json:"IPAddress,omitempty"`
	ComputerName     string    `json:"ComputerName,omitempty"`
	SourceID         string    `json:"SourceId,omitempty"`
	SourceType       string    `json:"SourceType,omitempty"`
}

type instanceInformationOutput struct {
	InstanceInformationList []instanceInformation `json:"InstanceInformationList"`
	NextToken               string                `json:"NextToken,omitempty"`
}

func describeInstanceInformation(ctx context.Context, c *Call, in *instanceInformationInput) (*instanceInformationOutput, error) {
	if len(in.InstanceInformationFilterList) > 0 && len(in.Filters) > 0 {
		return nil, ssmError("ValidationException", "Use either Filters or InstanceInformationFilterList, not both.")
	}
	var conditions []node.Condition
	for _, f := range in.InstanceInformationFilterList {
		conditions = append(conditions, node.Condition{Key: f.Key, Values: f.ValueSet})
	}
	for _, f := range in.Filters {
		conditions = append(conditions, node.Condition{Key: f.Key, Values: f.Values})
	}
	nodes, next, err := c.findNodes(ctx, conditions, in.NextToken, in.MaxResults, 50)
	if err != nil {
		return nil, err
	}
	out := &instanceInformationOutput{InstanceInformationList: []instanceInformation{}, NextToken: next}
	for _, n := range nodes {
		out.InstanceInformationList = append(out.InstanceInformationList, c.information(n))
	}
	return out, nil
}

func orDefault(n, other int) int {
	if n == 0 {
		return other
	}
	return n
}

func (c *Call) information(n node.Node) instanceInformation {
	return instanceInformation{
		InstanceID: n.ID, PingStatus: string(n.Ping(c.Origin.Time)), LastPingDateTime: wire.Time{Time: n.LastPing},
		AgentVersion: n.AgentVersion, PlatformType: n.PlatformType, PlatformName: n.PlatformName,
		PlatformVersion: n.PlatformVersion, ActivationID: n.ActivationID, IamRole: n.IAMRole,
		RegistrationDate: wire.Time{Time: n.Registered}, ResourceType: n.ResourceType(), Name: n.Name,
		IPAddress: n.IPAddress, ComputerName: n.ComputerName, SourceID: n.ID, SourceType: n.SourceType(),
	}
}

// findNodes gives a page of at most size nodes that meet SSM conditions, and the token
// of the next page.
func (c *Call) findNodes(ctx context.Context, conditions []node.Condition, token string, limit, size int) ([]node.Node, string, error) {
	match, err := node.SSM().Compile(conditions)
	if unknown := (*node.ErrUnknownKey)(nil); errors.As(err, &unknown) {
		return nil, "", ssmError("InvalidFilterKey", "The filter key %q is not valid.", unknown.Key)
	}
	if err != nil {
		return nil, "", err
	}
	ids, err := wantedIDs(conditions)
	if err != nil {
		return nil, "", err
	}
	return c.pageOfNodes(ctx, ids, match, size).page(c, token, limit)
}

// wantedIDs takes the ids out of conditions, so that the store looks up those and
// reads no others. Ids that no node can have are refused.
func wantedIDs(conditions []node.Condition) ([]string, error) {
	for _, condition := range conditions {
		if condition.Key != "InstanceIds" || condition.Operator != "" && condition.Operator != node.Equal {
			continue
		}
		for _, id := range condition.Values {
			if !node.ValidID(id) {
				return nil, ssmError("InvalidInstanceId", "The instance id %q is not valid: it must be i- or mi- and hexadecimal digits.", id)
			}
		}
		return condition.Values, nil
	}
	return nil, nil
}

// pageOfNodes lists nodes in the order of their ids: those with the given ids, or all
// where none is given, as far as they match.
func (c *Call) pageOfNodes(ctx context.Context, ids []string, match node.Matcher, size int) pages[node.Node] {
	return pages[node.Node]{
		fetch: func(after string, n int) ([]node.Node, error) {
			return c.Server.config.Nodes.Nodes(ctx, node.Filter{IDs: ids, After: after, Limit: n})
		},
		key:  func(n node.Node) string { return n.ID },
		keep: func(n node.Node) (bool, error) { return match(n, c.Origin.Time), nil },
		size: size,
	}
}

type propertyStringFilter struct {
	Key      string   `json:"Key" check:"required,min=1,max=163"`
	Values   []string `json:"Values" check:"required,min=1,max=40" each:"min=1,max=1024"`
	Operator string   `json:"Operator" check:"enum=Equal|NotEqual|BeginWith|LessThan|GreaterThan"`
}

type instancePropertiesInput struct {
	InstancePropertyFilterList []informationFilter    `json:"InstancePropertyFilterList" check:"max=40"`
	FiltersWithOperator        []propertyStringFilter `json:"FiltersWithOperator" check:"max=40"`
	MaxResults                 int                    `json:"MaxResults" check:"min=5,max=1000"`
	NextToken                  string                 `json:"NextToken" check:"max=1024"`
}

type instanceProperty struct {
	instanceInformation
	InstanceState string    `json:"InstanceState"`
	InstanceRole  string    `json:"InstanceRole,omitempty"`
	LaunchTime    wire.Time `json:"LaunchTime,omitzero"`
}

type instancePropertiesOutput struct {
	InstanceProperties []instanceProperty `json:"InstanceProperties"`
	NextToken          string             `json:"NextToken,omitempty"`
}

func describeInstanceProperties(ctx context.Context, c *Call, in *instancePropertiesInput) (*instancePropertiesOutput, error) {
	var conditions []node.Condition
	for _, f := range in.InstancePropertyFilterList {
		conditions = append(conditions, node.Condition{Key: f.Key, Values: f.ValueSet})
	}
	for _, f := range in.FiltersWithOperator {
		conditions = append(conditions, node.Condition{Key: f.Key, Values: f.Values, Operator: node.Operator(f.Operator)})
	}
	conditions, err := c.withoutDocuments(ctx, conditions)
	if err != nil {
		return nil, err
	}
	nodes, next, err := c.findNodes(ctx, conditions, in.NextToken, in.MaxResults, 1000)
	if err != nil {
		return nil, err
	}
	out := &instancePropertiesOutput{InstanceProperties: []instanceProperty{}, NextToken: next}
	for _, n := range nodes {
		out.InstanceProperties = append(out.InstanceProperties, instanceProperty{
			instanceInformation: c.information(n), InstanceState: n.RunState(c.Origin.Time),
			InstanceRole: n.IAMRole, LaunchTime: wire.Time{Time: n.Registered},
		})
	}
	return out, nil
}

// withoutDocuments takes conditions on DocumentName away: every document can be used
// on every node, so that the condition only asks for the document to exist.
func (c *Call) withoutDocuments(ctx context.Context, conditions []node.Condition) ([]node.Condition, error) {
	var left []node.Condition
	for _, condition := range conditions {
		if condition.Key != "DocumentName" {
			left = append(left, condition)
			continue
		}
		for _, name := range condition.Values {
			if _, err := c.findDocument(ctx, name, ""); err != nil {
				return nil, err
			}
		}
	}
	return left, nil
}

// deregisterInput: the id of a node, or its ARN, since the AWS CLI lets no id of less
// than 20 characters pass, which i-… ids have.
type deregisterInput struct {
	InstanceID string `json:"InstanceId" check:"required,min=10,max=124,pattern=(arn:aws:(ec2|ssm):[a-z0-9-]+:[0-9]{12}:(instance|managed-instance)/)?m?i-[0-9a-f]+"`
}

func (in *deregisterInput) node() string {
	return in.InstanceID[strings.LastIndexByte(in.InstanceID, '/')+1:]
}

// onNode authorises on the node that the input names, with its tags. One that does
// not exist is authorised by its ARN alone, so that only those learn of its absence
// who might have touched it.
func onNode[In any, P interface {
	*In
	node() string
}](ctx context.Context, c *Call, in P) ([]access.Resource, error) {
	return one(c.nodeResource(ctx, in.node()))
}

func (c *Call) nodeResource(ctx context.Context, id string) (access.Resource, error) {
	c.Node = id
	r := access.Resource{ARN: c.Server.config.Realm.Node(id)}
	n, err := c.Server.config.Nodes.Node(ctx, id)
	if err != nil && !errors.Is(err, node.ErrNotFound) {
		return access.Resource{}, err
	}
	r.Tags = n.Tags
	return r, nil
}

// deregisterManagedInstance forgets a node, whether its id is mi- or i-: its key and
// its credentials stop working at once, its channels and sessions are ended.
func deregisterManagedInstance(ctx context.Context, c *Call, in *deregisterInput) (*nothing, error) {
	id := in.node()
	if strings.Contains(in.InstanceID, "/") && in.InstanceID != c.Server.config.Realm.Node(id) {
		return nil, ssmError("InvalidInstanceId", "The instance %s is not of this account and region.", in.InstanceID)
	}
	err := c.Server.config.Nodes.DeleteNode(ctx, id)
	if errors.Is(err, node.ErrNotFound) {
		return nil, ssmError("InvalidInstanceId", "The instance %s is not registered.", id)
	}
	if err != nil {
		return nil, err
	}
	if c.Server.nodeRemoved == nil {
		return &nothing{}, nil
	}
	return &nothing{}, c.Server.nodeRemoved(ctx, id)
}

// cleanFact makes a text that an agent reports fit for terminals and columns: without
// control characters, at most so many characters. Cutting is kinder than refusing: an
// agent whose first report is refused sleeps for minutes (docs/protocol.md §7).
func cleanFact(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7F && r < 0xA0 || r == '\u2028' || r == '\u2029' || r == '\uFFFD' || r >= '\u202A' && r <= '\u202E' || r >= '\u2066' && r <= '\u2069' {
			return -1
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit])
	}
	return s
}
