package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/command"
	"sallyport.dev/wire"
)

// What became of commands.

// Bounds of outputs in AWS's shapes, in characters.
const (
	maxStandardOutput = 24000
	maxStandardError  = 8000
	maxPluginOutput   = 2500
)

type shownCommand struct {
	CommandID              string              `json:"CommandId"`
	DocumentName           string              `json:"DocumentName"`
	DocumentVersion        string              `json:"DocumentVersion"`
	Comment                string              `json:"Comment"`
	ExpiresAfter           wire.Time           `json:"ExpiresAfter"`
	Parameters             map[string][]string `json:"Parameters"`
	InstanceIDs            []string            `json:"InstanceIds"`
	Targets                []command.Target    `json:"Targets"`
	RequestedDateTime      wire.Time           `json:"RequestedDateTime"`
	Status                 command.Status      `json:"Status"`
	StatusDetails          string              `json:"StatusDetails"`
	OutputS3BucketName     string              `json:"OutputS3BucketName"`
	OutputS3KeyPrefix      string              `json:"OutputS3KeyPrefix"`
	MaxConcurrency         string              `json:"MaxConcurrency"`
	MaxErrors              string              `json:"MaxErrors"`
	TargetCount            int                 `json:"TargetCount"`
	CompletedCount         int                 `json:"CompletedCount"`
	ErrorCount             int                 `json:"ErrorCount"`
	DeliveryTimedOutCount  int                 `json:"DeliveryTimedOutCount"`
	ServiceRole            string              `json:"ServiceRole"`
	CloudWatchOutputConfig struct {
		CloudWatchLogGroupName  string `json:"CloudWatchLogGroupName"`
		CloudWatchOutputEnabled bool   `json:"CloudWatchOutputEnabled"`
	} `json:"CloudWatchOutputConfig"`
	TimeoutSeconds int `json:"TimeoutSeconds"`
}

func showCommand(c command.Command) shownCommand {
	return shownCommand{
		CommandID: c.ID, DocumentName: c.Document, DocumentVersion: c.DocumentVersion, Comment: c.Comment,
		ExpiresAfter: wire.Time{Time: c.Expires()}, Parameters: c.Parameters,
		InstanceIDs: append([]string{}, c.NodeIDs...), Targets: append([]command.Target{}, c.Targets...),
		RequestedDateTime: wire.Time{Time: c.Requested}, Status: c.Status, StatusDetails: c.Details,
		MaxConcurrency: c.MaxConcurrency, MaxErrors: c.MaxErrors, TargetCount: c.TargetCount,
		CompletedCount: c.CompletedCount, ErrorCount: c.ErrorCount, DeliveryTimedOutCount: c.DeliveryTimedOutCount,
		TimeoutSeconds: int(c.Delivery / time.Second),
	}
}

type commandFilter struct {
	Key   string `json:"key" check:"required,enum=InvokedAfter|InvokedBefore|Status|ExecutionStage|DocumentName"`
	Value string `json:"value" check:"required,min=1,max=128"`
}

type listCommandsInput struct {
	CommandID  string          `json:"CommandId" check:"min=36,max=36"`
	InstanceID string          `json:"InstanceId" check:"pattern=(i-(\\w{8}|\\w{17}))|(mi-\\w{17})"`
	MaxResults int             `json:"MaxResults" check:"min=1,max=50"`
	NextToken  string          `json:"NextToken" check:"max=1024"`
	Filters    []commandFilter `json:"Filters" check:"min=1,max=5"`
}

// commandConditions are filters read.
type commandConditions struct {
	active        *bool
	status        string
	document      string
	after, before time.Time
}

func readCommandFilters(filters []commandFilter) (c commandConditions, err error) {
	for _, f := range filters {
		switch f.Key {
		case "InvokedAfter":
			c.after, err = invokedTime(f)
		case "InvokedBefore":
			c.before, err = invokedTime(f)
		case "Status":
			c.status = f.Value
		case "DocumentName":
			c.document = f.Value
		case "ExecutionStage":
			executing := f.Value == "Executing"
			if c.active = &executing; !executing && f.Value != "Complete" {
				err = ssmError("InvalidFilterKey", "The execution stage must be Executing or Complete, not %q.", f.Value)
			}
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

func invokedTime(f commandFilter) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, f.Value)
	if err != nil {
		return t, ssmError("InvalidFilterKey", "%s must be a time such as 2026-07-01T00:00:00Z, not %q.", f.Key, f.Value)
	}
	return t, nil
}

type listCommandsOutput struct {
	Commands  []shownCommand `json:"Commands"`
	NextToken string         `json:"NextToken,omitempty"`
}

func listCommands(ctx context.Context, c *Call, in *listCommandsInput) (*listCommandsOutput, error) {
	if _, err := c.runner(); err != nil {
		return nil, err
	}
	conditions, err := readCommandFilters(in.Filters)
	if err != nil {
		return nil, err
	}
	f := command.Filter{NodeID: in.InstanceID, Active: conditions.active, Status: conditions.status,
		Document: conditions.document, RequestedAfter: conditions.after, RequestedBefore: conditions.before}
	if in.CommandID != "" {
		f.IDs = []string{strings.ToLower(in.CommandID)}
	}
	found, next, err := pages[command.Command]{
		size: 50,
		fetch: func(after string, n int) ([]command.Command, error) {
			f.After, f.Limit = after, n
			return c.Server.config.Commands.Commands(ctx, f)
		},
		key: func(cmd command.Command) string { return cmd.ID },
	}.page(c, in.NextToken, in.MaxResults)
	if errors.Is(err, command.ErrNotFound) {
		return nil, c.badToken()
	}
	if err != nil {
		return nil, err
	}
	if in.CommandID != "" && len(found) == 0 && len(in.Filters) == 0 && in.InstanceID == "" {
		return nil, ssmError("InvalidCommandId", "There is no command %q.", in.CommandID)
	}
	out := &listCommandsOutput{Commands: []shownCommand{}, NextToken: next}
	for _, cmd := range found {
		out.Commands = append(out.Commands, showCommand(cmd))
	}
	return out, nil
}

type listInvocationsInput struct {
	listCommandsInput
	Details bool `json:"Details"`
}

type shownPlugin struct {
	Name                   string         `json:"Name"`
	Status                 command.Status `json:"Status"`
	StatusDetails          string         `json:"StatusDetails"`
	ResponseCode           int            `json:"ResponseCode"`
	ResponseStartDateTime  wire.Time      `json:"ResponseStartDateTime,omitzero"`
	ResponseFinishDateTime wire.Time      `json:"ResponseFinishDateTime,omitzero"`
	Output                 string         `json:"Output"`
	StandardOutputURL      string         `json:"StandardOutputUrl"`
	StandardErrorURL       string         `json:"StandardErrorUrl"`
}

type shownInvocation struct {
	CommandID         string         `json:"CommandId"`
	InstanceID        string         `json:"InstanceId"`
	InstanceName      string         `json:"InstanceName"`
	Comment           string         `json:"Comment"`
	DocumentName      string         `json:"DocumentName"`
	DocumentVersion   string         `json:"DocumentVersion"`
	RequestedDateTime wire.Time      `json:"RequestedDateTime"`
	Status            command.Status `json:"Status"`
	StatusDetails     string         `json:"StatusDetails"`
	TraceOutput       string         `json:"TraceOutput"`
	StandardOutputURL string         `json:"StandardOutputUrl"`
	StandardErrorURL  string         `json:"StandardErrorUrl"`
	CommandPlugins    []shownPlugin  `json:"CommandPlugins"`
	ServiceRole       string         `json:"ServiceRole"`
}

type listInvocationsOutput struct {
	CommandInvocations []shownInvocation `json:"CommandInvocations"`
	NextToken          string            `json:"NextToken,omitempty"`
}

// listCommandInvocations lists what commands came to on nodes. Who sent the one asked
// for needs no policy.
func listCommandInvocations(ctx context.Context, c *Call, in *listInvocationsInput) (*listInvocationsOutput, error) {
	if err := c.checkListInvocations(ctx, in); err != nil {
		return nil, err
	}
	conditions, err := readCommandFilters(in.Filters)
	if err != nil {
		return nil, err
	}
	f := command.InvocationFilter{CommandID: strings.ToLower(in.CommandID), NodeID: in.InstanceID, Status: conditions.status,
		Document: conditions.document, RequestedAfter: conditions.after, RequestedBefore: conditions.before, Steps: in.Details}
	p := pages[command.Invocation]{
		size: 50,
		fetch: func(after string, n int) ([]command.Invocation, error) {
			f.AfterCommand, f.AfterNode, _ = strings.Cut(after, "/")
			f.Limit = n
			return c.Server.config.Commands.Invocations(ctx, f)
		},
		key: func(i command.Invocation) string { return i.CommandID + "/" + i.NodeID },
	}
	if a := conditions.active; a != nil {
		p.keep = func(i command.Invocation) (bool, error) { return i.Status.Final() != *a, nil }
	}
	found, next, err := p.page(c, in.NextToken, in.MaxResults)
	if errors.Is(err, command.ErrNoInvocation) {
		return nil, c.badToken()
	}
	if err != nil {
		return nil, err
	}
	return c.showInvocations(ctx, found, next, in.Details)
}

func (c *Call) checkListInvocations(ctx context.Context, in *listInvocationsInput) error {
	if in.CommandID != "" {
		_, err := c.checkedCommand(ctx, in.CommandID)
		return err
	}
	if err := c.Check(ctx, access.Resource{ARN: "*"}); err != nil {
		return err
	}
	_, err := c.runner()
	return err
}

func (c *Call) showInvocations(ctx context.Context, found []command.Invocation, next string, details bool) (*listInvocationsOutput, error) {
	out := &listInvocationsOutput{CommandInvocations: []shownInvocation{}, NextToken: next}
	commands := map[string]command.Command{}
	for _, i := range found {
		cmd, known := commands[i.CommandID]
		if !known {
			var err error
			cmd, err = c.Server.config.Commands.Command(ctx, i.CommandID)
			if err != nil && !errors.Is(err, command.ErrNotFound) { // deleted just now
				return nil, err
			}
			commands[i.CommandID] = cmd
		}
		out.CommandInvocations = append(out.CommandInvocations, showInvocation(cmd, i, details))
	}
	return out, nil
}

func showInvocation(c command.Command, i command.Invocation, details bool) shownInvocation {
	s := shownInvocation{
		CommandID: i.CommandID, InstanceID: i.NodeID, InstanceName: i.NodeName, Comment: c.Comment,
		DocumentName: c.Document, DocumentVersion: c.DocumentVersion, RequestedDateTime: wire.Time{Time: i.Requested},
		Status: i.Status, StatusDetails: i.Details, TraceOutput: i.Trace, CommandPlugins: []shownPlugin{},
	}
	if !details {
		return s
	}
	for _, step := range i.Steps {
		s.CommandPlugins = append(s.CommandPlugins, shownPlugin{
			Name: step.Name, Status: step.Status, StatusDetails: string(step.Status), ResponseCode: step.Code,
			ResponseStartDateTime: wire.Time{Time: step.Started}, ResponseFinishDateTime: wire.Time{Time: step.Ended},
			Output: firstRunes(step.Output, maxPluginOutput),
		})
	}
	return s
}

func firstRunes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	if r := []rune(s); len(r) > n {
		return string(r[:n])
	}
	return s
}

type getCommandInvocationInput struct {
	CommandID  string `json:"CommandId" check:"required,min=36,max=36"`
	InstanceID string `json:"InstanceId" check:"required,pattern=(i-(\\w{8}|\\w{17}))|(mi-\\w{17})"`
	PluginName string `json:"PluginName" check:"min=4,max=500"`
}

type getCommandInvocationOutput struct {
	CommandID              string         `json:"CommandId"`
	InstanceID             string         `json:"InstanceId"`
	Comment                string         `json:"Comment"`
	DocumentName           string         `json:"DocumentName"`
	DocumentVersion        string         `json:"DocumentVersion"`
	PluginName             string         `json:"PluginName,omitempty"`
	ResponseCode           int            `json:"ResponseCode"`
	ExecutionStartDateTime string         `json:"ExecutionStartDateTime"`
	ExecutionElapsedTime   string         `json:"ExecutionElapsedTime"`
	ExecutionEndDateTime   string         `json:"ExecutionEndDateTime"`
	Status                 command.Status `json:"Status"`
	StatusDetails          string         `json:"StatusDetails"`
	StandardOutputContent  string         `json:"StandardOutputContent"`
	StandardOutputURL      string         `json:"StandardOutputUrl"`
	StandardErrorContent   string         `json:"StandardErrorContent"`
	StandardErrorURL       string         `json:"StandardErrorUrl"`
	CloudWatchOutputConfig struct {
		CloudWatchLogGroupName  string `json:"CloudWatchLogGroupName"`
		CloudWatchOutputEnabled bool   `json:"CloudWatchOutputEnabled"`
	} `json:"CloudWatchOutputConfig"`
}

func getCommandInvocation(ctx context.Context, c *Call, in *getCommandInvocationInput) (*getCommandInvocationOutput, error) {
	cmd, err := c.checkedCommand(ctx, in.CommandID)
	if err != nil {
		return nil, err
	}
	i, err := c.Server.config.Commands.Invocation(ctx, cmd.ID, in.InstanceID)
	if errors.Is(err, command.ErrNoInvocation) {
		return nil, ssmError("InvocationDoesNotExist", "The command was not sent to %s.", in.InstanceID)
	}
	if err != nil {
		return nil, err
	}
	step, err := stepNamed(i, in.PluginName)
	if err != nil {
		return nil, err
	}
	out := &getCommandInvocationOutput{
		CommandID: cmd.ID, InstanceID: i.NodeID, Comment: cmd.Comment, DocumentName: cmd.Document,
		DocumentVersion: cmd.DocumentVersion, ResponseCode: -1, Status: i.Status, StatusDetails: i.Details,
	}
	out.tell(step)
	if step == nil && i.Status.Final() { // no step says why
		out.StandardErrorContent = firstRunes(i.Trace, maxStandardError)
	}
	return out, nil
}

// tell fills in what a step came to.
func (o *getCommandInvocationOutput) tell(s *command.Step) {
	if s == nil {
		return
	}
	o.PluginName = s.Name
	if s.Status.Final() {
		o.ResponseCode = s.Code
	}
	o.ExecutionStartDateTime, o.ExecutionEndDateTime = isoTime(s.Started), isoTime(s.Ended)
	if !s.Started.IsZero() && !s.Ended.IsZero() {
		o.ExecutionElapsedTime = fmt.Sprintf("PT%gS", s.Ended.Sub(s.Started).Round(time.Millisecond).Seconds())
	}
	o.StandardOutputContent = firstRunes(s.Stdout, maxStandardOutput)
	o.StandardErrorContent = firstRunes(s.Stderr, maxStandardError)
}

func isoTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// stepNamed finds a step by its name, or by its plugin's where only one has that; with
// no name, the only step. It is nil as long as no step has begun.
func stepNamed(i command.Invocation, name string) (*command.Step, error) {
	var found []*command.Step
	for n := range i.Steps {
		s := &i.Steps[n]
		if s.Name == name {
			return s, nil
		}
		if name == "" || strings.EqualFold(s.Plugin, name) {
			found = append(found, s)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(i.Steps) == 0:
		return nil, nil
	}
	return nil, ssmError("InvalidPluginName", "The document has %d steps that could be meant; name one of them as PluginName.", max(len(found), len(i.Steps)))
}
