package server

import (
	"context"
	"encoding/json"
	"net/netip"
	"regexp"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/node"
	"sallyport.dev/wire"
)

// What agents report, and what they ask for besides channels and messages.

func agentReportOperations() []*Operation {
	return []*Operation{
		op("ssm", "UpdateInstanceInformation", onReporter, updateInstanceInformation, forAgents),
		op("ssm", "ListInstanceAssociations", onSelf[associationsInput], listInstanceAssociations, forAgents),
		op("ssm", "ListAssociations", nil, listAssociations, forAgents),
		op("sallyport", "ReportAuthorizedKeys", nil, reportAuthorizedKeys, forAgents),
		op("ssm", "PutInventory", onSelf[inventoryInput], putInventory, forAgents),
		op("ssm", "PutComplianceItems", onSelf[complianceInput], putCompliance, forAgents),
	}
}

// onSelf names the node that an agent's request is about, which the server compares
// with the caller.
func onSelf[In interface{ node() string }](_ context.Context, c *Call, in *In) ([]access.Resource, error) {
	return c.self((*in).node()), nil
}

// self is the node with an id, or the caller where an agent names none.
func (c *Call) self(id string) []access.Resource {
	if id == "" {
		return []access.Resource{{ARN: c.Principal.ARN}}
	}
	return []access.Resource{{ARN: c.Server.config.Realm.Node(truncate(id, 128))}}
}

func onReporter(_ context.Context, c *Call, in *wire.UpdateInstanceInformation) ([]access.Resource, error) {
	return c.self(in.InstanceID), nil
}

// updateInstanceInformation notes what an agent reports. It never refuses a report
// for its content: an agent whose first one is refused sleeps for minutes while it
// looks healthy (docs/protocol.md §7). What makes no sense is left out. The row is
// written when there is something new, at most once a minute otherwise.
func updateInstanceInformation(ctx context.Context, c *Call, in *wire.UpdateInstanceInformation) (*nothing, error) {
	n, err := c.Server.config.Nodes.Node(ctx, c.Principal.Name)
	if err != nil {
		return nil, err
	}
	r := reportOf(in)
	if !n.Stale(r, c.Origin.Time) {
		return &nothing{}, nil
	}
	return &nothing{}, c.Server.config.Nodes.UpdateNode(ctx, n.ID, func(n *node.Node) error {
		n.Apply(r, c.Origin.Time)
		return nil
	})
}

var agentVersionPattern = regexp.MustCompile(`^[0-9]{1,6}(\.[0-9]{1,6}){2,3}$`)

// hostNamePattern is that of host names of any system: nothing that could pass for
// another name, or for more than one.
var hostNamePattern = regexp.MustCompile(`^[0-9A-Za-z_]([0-9A-Za-z._-]{0,253}[0-9A-Za-z_])?$`)

func reportOf(in *wire.UpdateInstanceInformation) node.Report {
	return node.Report{
		AgentName:        cleanFact(in.AgentName, 128),
		AgentVersion:     matching(agentVersionPattern, in.AgentVersion),
		AgentStatus:      cleanFact(in.AgentStatus, 64),
		PlatformType:     platformType(in.PlatformType),
		PlatformName:     cleanFact(in.PlatformName, 120),
		PlatformVersion:  cleanFact(in.PlatformVersion, 120),
		ComputerName:     matching(hostNamePattern, in.ComputerName),
		IPAddress:        address(in.IPAddress),
		AvailabilityZone: cleanFact(in.AvailabilityZone, 64),
	}
}

func matching(pattern *regexp.Regexp, s string) string {
	if !pattern.MatchString(s) {
		return ""
	}
	return s
}

// platformType spells a platform as the API does, whatever case the agent used.
func platformType(s string) string {
	for _, known := range []string{"Linux", "Windows", "MacOS"} {
		if strings.EqualFold(s, known) {
			return known
		}
	}
	return ""
}

func address(s string) string {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return ""
	}
	return addr.WithZone("").String()
}

type associationsInput struct {
	InstanceID string `json:"InstanceId" check:"max=128"`
}

func (in associationsInput) node() string { return in.InstanceID }

type associationsOutput struct {
	Associations []struct{} `json:"Associations"`
}

// listInstanceAssociations answers that no State Manager association concerns the
// node: there is no State Manager. Without an answer the official agent logs errors.
func listInstanceAssociations(context.Context, *Call, *associationsInput) (*associationsOutput, error) {
	return &associationsOutput{Associations: []struct{}{}}, nil
}

func listAssociations(context.Context, *Call, *noInput) (*associationsOutput, error) {
	return &associationsOutput{Associations: []struct{}{}}, nil
}

type inventoryInput struct {
	InstanceID string          `json:"InstanceId" check:"required,max=128"`
	Items      json.RawMessage `json:"Items"`
}

func (in inventoryInput) node() string { return in.InstanceID }

// putInventory takes what command documents with aws:softwareInventory send at the
// end and keeps nothing: the step fails without an answer, and nodes' facts are those
// of UpdateInstanceInformation.
func putInventory(context.Context, *Call, *inventoryInput) (*nothing, error) { return &nothing{}, nil }

type complianceInput struct {
	ResourceID   string `json:"ResourceId" check:"required,max=128"`
	ResourceType string `json:"ResourceType" check:"required,max=64"`
}

func (in complianceInput) node() string { return in.ResourceID }

// putCompliance is putInventory for the compliance of patches and associations.
func putCompliance(context.Context, *Call, *complianceInput) (*nothing, error) {
	return &nothing{}, nil
}

// reportAuthorizedKeys notes which keys let people into the node past the server. What a
// node says of itself is cleaned, and believed no further than that.
func reportAuthorizedKeys(ctx context.Context, c *Call, in *wire.ReportAuthorizedKeys) (*nothing, error) {
	k := node.Keys{NodeID: c.Principal.Name, Reported: c.Origin.Time, More: in.More}
	for _, key := range in.Keys {
		k.Keys = append(k.Keys, node.Key{
			Login: cleanFact(key.Login, 64), File: cleanFact(key.File, 512), Fingerprint: cleanFact(key.Fingerprint, 64),
			Type: cleanFact(key.Type, 64), Comment: cleanFact(key.Comment, 128), Authority: key.Authority,
		})
	}
	return &nothing{}, c.Server.config.Nodes.SetKeys(ctx, k)
}
