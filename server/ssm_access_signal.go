package server

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"

	"sallyport.dev/grant"
	"sallyport.dev/wire"
)

// What AWS's guide has approvers do on the command line: look at the request as an
// OpsItem, which names an automation, and send that a signal.

// The id of that automation is the request's, and the beginning of its hash: a signal is
// about what was looked at.
var executionPattern = regexp.MustCompile(`^([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})$`)

func executionID(r grant.Request) string {
	h := r.Hash
	if len(h) < 20 {
		return ""
	}
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + r.ID[len("oi-"):]
}

// seenRequest returns a request to those who see it as sallyport:GetAccessRequest, and to
// whom a policy lets see it.
func (c *Call) seenRequest(ctx context.Context, engine *grant.Engine, id string) (grant.Request, error) {
	resource := c.opsItem(id)
	r, err := engine.Request(ctx, id)
	if errors.Is(err, grant.ErrNotFound) {
		if err := c.CheckOwn(ctx, resource); err != nil {
			return r, err
		}
		return r, ssmError("OpsItemNotFoundException", "There is no access request %s.", id)
	}
	if err != nil {
		return r, err
	}
	visible, err := c.visible(ctx, engine, r)
	switch {
	case err != nil:
		return r, err
	case visible:
		return r, c.CheckOwn(ctx, resource)
	}
	return r, c.Check(ctx, resource)
}

type getOpsItemInput struct {
	OpsItemID string `json:"OpsItemId" check:"required,pattern=oi-[0-9a-f]{12}"`
}

type opsItemData struct {
	Value string `json:"Value"`
	Type  string `json:"Type"`
}

type opsItem struct {
	CreatedBy        string                 `json:"CreatedBy"`
	OpsItemType      string                 `json:"OpsItemType"`
	CreatedTime      wire.Time              `json:"CreatedTime"`
	Description      string                 `json:"Description"`
	Status           string                 `json:"Status"`
	OpsItemID        string                 `json:"OpsItemId"`
	Title            string                 `json:"Title"`
	Source           string                 `json:"Source"`
	OperationalData  map[string]opsItemData `json:"OperationalData"`
	PlannedStartTime wire.Time              `json:"PlannedStartTime,omitzero"`
	PlannedEndTime   wire.Time              `json:"PlannedEndTime,omitzero"`
	OpsItemArn       string                 `json:"OpsItemArn"`
}

type getOpsItemOutput struct {
	OpsItem opsItem `json:"OpsItem"`
}

// accessFacts are what the OpsItem of a request says under accessRequestKey.
type accessFacts struct {
	AutomationExecutionID string   `json:"automationExecutionId"`
	Requester             string   `json:"requester"`
	Policy                string   `json:"approvalPolicy"`
	Nodes                 []string `json:"nodes"`
	Seconds               int64    `json:"accessDuration"`
	Hash                  string   `json:"hash"`
}

const accessRequestKey = "/aws/accessrequest"

func getOpsItem(ctx context.Context, c *Call, in *getOpsItemInput) (*getOpsItemOutput, error) {
	engine, err := c.engine()
	if err != nil {
		return nil, err
	}
	r, err := c.seenRequest(ctx, engine, in.OpsItemID)
	if err != nil {
		return nil, err
	}
	facts := accessFacts{
		AutomationExecutionID: executionID(r), Requester: r.Frozen.Principal, Policy: r.Frozen.Flow.Label,
		Seconds: int64(r.Frozen.Duration.Seconds()), Hash: r.Hash,
	}
	for _, n := range r.Frozen.Nodes {
		facts.Nodes = append(facts.Nodes, n.ID)
	}
	value, err := json.Marshal(facts)
	if err != nil {
		return nil, err
	}
	return &getOpsItemOutput{opsItem{
		CreatedBy: r.Frozen.Principal, OpsItemType: accessRequestKey, CreatedTime: wire.Time{Time: r.Frozen.Created},
		Description: r.Frozen.Reason, Status: accessStatus(r, r.Holds(c.Origin.Time)), OpsItemID: r.ID,
		Title: "Access request of " + r.Frozen.Person.Name, Source: "Sallyport",
		OperationalData:  map[string]opsItemData{accessRequestKey: {Value: string(value), Type: "SearchableString"}},
		PlannedStartTime: wire.Time{Time: r.ActivatedAt}, PlannedEndTime: wire.Time{Time: r.EndsAt},
		OpsItemArn: c.opsItem(r.ID).ARN,
	}}, nil
}

type sendSignalInput struct {
	AutomationExecutionID string              `json:"AutomationExecutionId" check:"required,min=36,max=36"`
	SignalType            string              `json:"SignalType" check:"required,enum=Approve|Reject|Deny|StartStep|StopStep|Resume|Revoke"`
	Payload               map[string][]string `json:"Payload" check:"max=10" keys:"min=1,max=50" each:"max=512"`
}

// sendAutomationSignal decides on an access request: Approve, Reject (or Deny, which
// AWS's guide writes) and Revoke.
func sendAutomationSignal(ctx context.Context, c *Call, in *sendSignalInput) (*nothing, error) {
	engine, err := c.engine()
	if err != nil {
		return nil, err
	}
	m := executionPattern.FindStringSubmatch(in.AutomationExecutionID)
	missing := ssmError("AutomationExecutionNotFoundException", "There is no automation %s: only access requests have one here.", truncate(in.AutomationExecutionID, 36))
	if m == nil {
		c.checked = true
		return nil, missing
	}
	if err := c.CheckOwn(ctx, c.opsItem("oi-"+m[5])); err != nil {
		return nil, err
	}
	r, err := engine.Request(ctx, "oi-"+m[5])
	if errors.Is(err, grant.ErrNotFound) || err == nil && executionID(r) != in.AutomationExecutionID {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	return &nothing{}, c.signal(ctx, engine, r, in)
}

func (c *Call) signal(ctx context.Context, engine *grant.Engine, r grant.Request, in *sendSignalInput) (err error) {
	comment := ""
	if said := in.Payload["Comment"]; len(said) > 0 {
		comment = said[0]
	}
	switch in.SignalType {
	case "Approve":
		_, err = engine.Decide(ctx, c.apiActor(), r.ID, r.Hash, true, comment)
	case "Reject", "Deny":
		_, err = engine.Decide(ctx, c.apiActor(), r.ID, r.Hash, false, comment)
	case "Revoke":
		_, err = engine.Revoke(ctx, c.apiActor(), r.ID, comment, false)
	default:
		return ssmError("InvalidAutomationSignalException", "The signal %s means nothing to an access request: want Approve, Reject or Revoke.", in.SignalType)
	}
	if errors.Is(err, grant.ErrState) {
		return ssmError("InvalidAutomationSignalException", "Access request %s is %s.", r.ID, r.State)
	}
	return accessError(err, nil)
}
