package client

import (
	"context"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/aws/smithy-go"
)

// SimulateInput asks IAM's simulator whether a user or role may do an action.
type SimulateInput struct {
	Source    string // ARN of the user or role
	Action    string
	Resources []string // ARNs
	Context   map[string]string
}

// Simulated is the simulator's verdict on one resource.
type Simulated struct {
	Resource string   `xml:"EvalResourceName"`
	Decision string   `xml:"EvalDecision"` // allowed, explicitDeny, implicitDeny
	Missing  []string `xml:"MissingContextValues>member"`
}

// Simulate asks IAM's policy simulator, which is the only one that tells on AWS. Why by
// hand: see Instances.
func (a *API) Simulate(ctx context.Context, in SimulateInput) ([]Simulated, error) {
	endpoint, region := a.iamEndpoint()
	status, answer, err := a.postForm(ctx, "iam", endpoint, region, in.form())
	if err == nil && status != http.StatusOK {
		err = queryError(status, answer)
	}
	if err != nil {
		return nil, &smithy.OperationError{ServiceID: "IAM", OperationName: "SimulatePrincipalPolicy", Err: err}
	}
	var out struct {
		Results []Simulated `xml:"SimulatePrincipalPolicyResult>EvaluationResults>member"`
	}
	if err := xml.Unmarshal(answer, &out); err != nil {
		return nil, fmt.Errorf("decoding the answer of SimulatePrincipalPolicy: %w", err)
	}
	return out.Results, nil
}

func (in SimulateInput) form() string {
	form := url.Values{
		"Action": {"SimulatePrincipalPolicy"}, "Version": {"2010-05-08"},
		"PolicySourceArn": {in.Source}, "ActionNames.member.1": {in.Action},
	}
	for i, r := range in.Resources {
		form.Set(fmt.Sprintf("ResourceArns.member.%d", i+1), r)
	}
	for i, key := range slices.Sorted(maps.Keys(in.Context)) {
		entry := fmt.Sprintf("ContextEntries.member.%d.", i+1)
		form.Set(entry+"ContextKeyName", key)
		form.Set(entry+"ContextKeyType", "string")
		form.Set(entry+"ContextKeyValues.member.1", in.Context[key])
	}
	return form.Encode()
}

// iamEndpoint is where IAM is, and the region that it is signed for: AWS has one for the
// whole partition.
func (a *API) iamEndpoint() (endpoint, region string) {
	if url := os.Getenv("AWS_ENDPOINT_URL_IAM"); url != "" {
		return url, a.cfg.Region
	}
	switch {
	case a.cfg.BaseEndpoint != nil:
		return *a.cfg.BaseEndpoint, a.cfg.Region
	case strings.HasPrefix(a.cfg.Region, "cn-"):
		return "https://iam.cn-north-1.amazonaws.com.cn", "cn-north-1"
	}
	return "https://iam.amazonaws.com", "us-east-1"
}
