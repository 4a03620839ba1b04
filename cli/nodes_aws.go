package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/smithy-go"

	"sallyport.dev/client"
)

// fallback is what to report when a server is no Sallyport server, and is asked as AWS
// then: what AWS says, unless it is no AWS either.
func fallback(notSallyport, err error) error {
	var api smithy.APIError
	if err == nil || errors.As(err, &api) || notSallyport == nil {
		return err
	}
	var operation *smithy.OperationError
	if errors.As(notSallyport, &operation) { // of an endpoint that answered
		return notSallyport
	}
	return err
}

// awsNodes asks AWS: SSM for the nodes, and EC2 for names and tags, of which SSM tells
// nothing. Tags select all the same where EC2 may not be asked: SSM does that.
func (p *program) awsNodes(ctx context.Context, api *client.API, terms []string, notSallyport error) ([]client.Node, error) {
	var filters []types.InstanceInformationStringFilter
	var texts []string
	for _, t := range terms {
		if k, v, ok := strings.Cut(t, "="); ok {
			filters = append(filters, types.InstanceInformationStringFilter{Key: aws.String("tag:" + k), Values: []string{v}})
		} else {
			texts = append(texts, t)
		}
	}
	all, err := describeNodes(ctx, api, filters)
	if err != nil {
		return nil, fallback(notSallyport, err)
	}
	p.nameInstances(ctx, api, all)
	var nodes []client.Node
	for _, n := range all {
		if holdAll(n, texts) {
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

func describeNodes(ctx context.Context, api *client.API, filters []types.InstanceInformationStringFilter) ([]client.Node, error) {
	pages := ssm.NewDescribeInstanceInformationPaginator(api.SSM, &ssm.DescribeInstanceInformationInput{Filters: filters})
	var nodes []client.Node
	for range maxPages {
		if !pages.HasMorePages() {
			break
		}
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, i := range page.InstanceInformationList {
			nodes = append(nodes, awsNode(i))
		}
	}
	return nodes, nil
}

// nameInstances adds the names and tags that EC2 has. Who may not ask EC2 goes without.
func (p *program) nameInstances(ctx context.Context, api *client.API, nodes []client.Node) {
	if len(nodes) == 0 {
		return
	}
	instances, err := api.Instances(ctx)
	if err != nil {
		p.logger().Debug("asking EC2 for names and tags", "error", err)
		return
	}
	tags := map[string]map[string]string{}
	for _, i := range instances {
		tags[i.ID] = i.Tags
	}
	for i, n := range nodes {
		if t := tags[n.NodeID]; t != nil {
			nodes[i].Tags = t
			if t["Name"] != "" {
				nodes[i].Name, nodes[i].NameReported = t["Name"], false
			}
		}
	}
}

func awsNode(i types.InstanceInformation) client.Node {
	n := client.Node{
		NodeID:       aws.ToString(i.InstanceId),
		Name:         aws.ToString(i.Name),
		State:        "notconnected",
		PlatformName: aws.ToString(i.PlatformName),
		PlatformType: string(i.PlatformType),
		AgentVersion: aws.ToString(i.AgentVersion),
		ComputerName: aws.ToString(i.ComputerName),
	}
	if i.LastPingDateTime != nil {
		n.LastPing.Time = *i.LastPingDateTime
	}
	if n.Name == "" {
		n.Name, n.NameReported = n.ComputerName, n.ComputerName != ""
	}
	if i.PingStatus == types.PingStatusOnline {
		n.State = client.StateConnected
	}
	return n
}
