package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/access"
	"sallyport.dev/command"
	"sallyport.dev/document"
	"sallyport.dev/node"
)

// Run Command: commands sent and cancelled. What became of them is in
// ssm_command_list.go.

func ssmCommandOperations() []*Operation {
	return []*Operation{
		op("ssm", "SendCommand", nil, sendCommand, checksItself),
		op("ssm", "CancelCommand", nil, cancelCommand, checksItself, toEnd),
		op("ssm", "ListCommands", nil, listCommands, quietly),
		op("ssm", "ListCommandInvocations", nil, listCommandInvocations, checksItself),
		op("ssm", "GetCommandInvocation", nil, getCommandInvocation, checksItself),
	}
}

// Defaults of SendCommand, AWS's.
const (
	defaultDelivery       = time.Hour
	defaultMaxConcurrency = "50"
	defaultMaxErrors      = "0"
	// maxCommandNodes bounds the nodes of one command.
	maxCommandNodes = 10000
)

type commandTarget struct {
	Key    string   `json:"Key" check:"required,min=1,max=163"`
	Values []string `json:"Values" check:"required,max=50" each:"min=1,max=256"`
}

// switchable is what AWS lets commands do with other services; here it must be off.
type switchable struct {
	CloudWatchOutputEnabled bool   `json:"CloudWatchOutputEnabled"`
	NotificationArn         string `json:"NotificationArn"`
	NotificationType        string `json:"NotificationType"`
}

type sendCommandInput struct {
	InstanceIDs      []string            `json:"InstanceIds" check:"max=50" each:"pattern=(i-(\\w{8}|\\w{17}))|(mi-\\w{17})"`
	Targets          []commandTarget     `json:"Targets" check:"max=5"`
	DocumentName     string              `json:"DocumentName" check:"required,pattern=[a-zA-Z0-9_\\-.:/]{3,128}"`
	DocumentVersion  string              `json:"DocumentVersion" check:"pattern=[$]LATEST|[$]DEFAULT|[1-9][0-9]{0,8}"`
	DocumentHash     string              `json:"DocumentHash" check:"max=256"`
	DocumentHashType string              `json:"DocumentHashType" check:"enum=Sha256|Sha1"`
	TimeoutSeconds   *int                `json:"TimeoutSeconds" check:"min=30,max=2592000"`
	Comment          string              `json:"Comment" check:"max=100"`
	Parameters       map[string][]string `json:"Parameters" keys:"min=1,max=255" each:"max=65535"`
	MaxConcurrency   string              `json:"MaxConcurrency" check:"min=1,max=7,pattern=[1-9][0-9]*|[1-9][0-9]%|[1-9]%|100%"`
	MaxErrors        string              `json:"MaxErrors" check:"min=1,max=7,pattern=[1-9][0-9]*|[0]|[1-9][0-9]%|[0-9]%|100%"`

	// What follows names services that are not here.
	OutputS3BucketName     string          `json:"OutputS3BucketName" check:"max=63"`
	ServiceRoleArn         string          `json:"ServiceRoleArn" check:"max=2048"`
	NotificationConfig     *switchable     `json:"NotificationConfig"`
	CloudWatchOutputConfig *switchable     `json:"CloudWatchOutputConfig"`
	AlarmConfiguration     json.RawMessage `json:"AlarmConfiguration"`
}

type commandOutput struct {
	Command shownCommand `json:"Command"`
}

func (o *commandOutput) made() string { return o.Command.CommandID }

// sendCommand authorises the document and every node, and begins to run it there.
func sendCommand(ctx context.Context, c *Call, in *sendCommandInput) (*commandOutput, error) {
	all, err := c.checkCommand(ctx, in)
	if err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	r, err := c.runner()
	if err != nil {
		return nil, err
	}
	cmd, err := c.newCommand(ctx, in)
	if err != nil {
		return nil, err
	}
	if cmd, err = r.Send(ctx, cmd, all); err != nil {
		return nil, err
	}
	// Who was disabled meanwhile may have been before the command was stored.
	if err := c.Server.resolver.Check(ctx, c.Principal); err != nil {
		return nil, errors.Join(err, r.Cancel(context.WithoutCancel(ctx), cmd.ID, nil, c.Principal.ARN))
	}
	return &commandOutput{showCommand(cmd)}, nil
}

// runner returns what runs commands.
func (c *Call) runner() (*command.Runner, error) {
	if c.Server.config.Runner == nil || c.Server.config.Commands == nil {
		return nil, errors.New("this server runs no commands")
	}
	return c.Server.config.Runner, nil
}

// check refuses what makes no sense, and what is not here: a command that silently
// kept its output, or told nobody, would be worse.
func (in *sendCommandInput) check() error {
	switch {
	case len(in.InstanceIDs) == 0 && len(in.Targets) == 0:
		return ssmError("InvalidInstanceId", "Name the nodes: give InstanceIds or Targets.")
	case len(in.InstanceIDs) > 0 && len(in.Targets) > 0:
		return ssmError("ValidationException", "Give InstanceIds or Targets, not both.")
	case hasDuplicates(in.InstanceIDs):
		return ssmError("DuplicateInstanceId", "An instance id is given twice.")
	case in.OutputS3BucketName != "":
		return ssmError("InvalidOutputFolder", "The server keeps outputs of commands as agents report them, which may cut them: it writes none to S3 (OutputS3BucketName).")
	case in.ServiceRoleArn != "":
		return ssmError("InvalidRole", "There are no notifications here, so that no role can send them (ServiceRoleArn).")
	case in.NotificationConfig != nil && *in.NotificationConfig != switchable{}:
		return ssmError("InvalidNotificationConfig", "There are no notifications here (NotificationConfig).")
	case in.CloudWatchOutputConfig != nil && in.CloudWatchOutputConfig.CloudWatchOutputEnabled:
		return ssmError("ValidationException", "The server keeps outputs of commands as agents report them, which may cut them: it writes none to CloudWatch Logs (CloudWatchOutputConfig).")
	case in.AlarmConfiguration != nil:
		return ssmError("ValidationException", "There are no alarms here (AlarmConfiguration).")
	case in.DocumentHashType == "Sha1":
		return ssmError("ValidationException", "Sha1 is not supported for DocumentHashType; use Sha256.")
	}
	return nil
}

func hasDuplicates(ids []string) bool {
	seen := map[string]bool{}
	for _, id := range ids {
		if seen[id] {
			return true
		}
		seen[id] = true
	}
	return false
}

// checkCommand authorises a command and returns its invocations. Of nodes named by id
// all must be allowed, or nothing is sent. Of those that targets select, the ones that
// are refused get nothing but the status AccessDenied, as at AWS, unless all are.
func (c *Call) checkCommand(ctx context.Context, in *sendCommandInput) ([]command.Invocation, error) {
	c.checked = true
	c.tellParameters(in.Parameters)
	doc, err := c.documentResource(ctx, in.DocumentName)
	if err != nil {
		return nil, err
	}
	if _, name, ok := strings.Cut(doc.ARN, ":document/"); ok {
		c.SetContext(access.KeyDocumentName, name)
	}
	if len(in.InstanceIDs) > 0 {
		return c.checkNamed(ctx, doc, in.InstanceIDs)
	}
	return c.checkTargets(ctx, doc, in.Targets)
}

// maxParameters is how much of the parameters goes into an audit record, in bytes; of
// more, their hash does as well.
const maxParameters = 7 << 10

// tellParameters puts the values of parameters into the audit record: what was run is
// evidence.
func (c *Call) tellParameters(parameters map[string][]string) {
	details := c.inputDetails()
	if details == nil || len(parameters) == 0 {
		return
	}
	b, _ := json.Marshal(parameters) // strings always encode
	if len(b) > maxParameters {
		details["ParametersDigest"] = digestOf(string(b))
		b = []byte(strings.ToValidUTF8(string(b[:maxParameters]), "") + "…")
	}
	details["Parameters"] = string(b)
}

func (c *Call) checkNamed(ctx context.Context, doc access.Resource, ids []string) ([]command.Invocation, error) {
	resources := []access.Resource{doc}
	var all []command.Invocation
	missing := ""
	for _, id := range ids {
		n, err := c.Server.config.Nodes.Node(ctx, id)
		if errors.Is(err, node.ErrNotFound) {
			n, missing = node.Node{ID: id}, id
		} else if err != nil {
			return nil, err
		}
		resources = append(resources, c.Server.nodeResource(n))
		all = append(all, command.Invocation{NodeID: n.ID, NodeName: n.DisplayName()})
	}
	if len(ids) == 1 {
		c.Node = ids[0]
	}
	if err := c.Check(ctx, resources...); err != nil {
		return nil, err
	}
	if missing != "" {
		return nil, ssmError("InvalidInstanceId", "Instances [[%s]] are not registered.", missing)
	}
	return all, nil
}

func (c *Call) checkTargets(ctx context.Context, doc access.Resource, targets []commandTarget) ([]command.Invocation, error) {
	found, err := c.targetNodes(ctx, targets)
	if err != nil {
		return nil, err
	}
	allowed, refused := []access.Resource{doc}, []access.Resource(nil)
	all := make([]command.Invocation, 0, len(found))
	for _, n := range found {
		r := c.Server.nodeResource(n)
		may, err := c.Allows(ctx, c.Operation.Action, r)
		if err != nil {
			return nil, err
		}
		i := command.Invocation{NodeID: n.ID, NodeName: n.DisplayName()}
		if may {
			allowed = append(allowed, r)
		} else {
			refused = append(refused, r)
			i.Status, i.Details = command.Failed, command.AccessDenied
		}
		all = append(all, i)
	}
	if len(refused) == len(found) { // all, or there are none
		allowed = append(allowed, refused...)
		refused = nil
	}
	if err := c.Check(ctx, allowed...); err != nil {
		return nil, err
	}
	return all, c.recordRefused(ctx, refused)
}

// recordRefused writes into the audit log which nodes of a command were refused: one
// record that names them.
func (c *Call) recordRefused(ctx context.Context, refused []access.Resource) error {
	if len(refused) == 0 {
		return nil
	}
	err := c.Check(ctx, refused...)
	if denied := (*access.DeniedError)(nil); errors.As(err, &denied) {
		return nil
	}
	return err
}

// targetNodes finds the nodes that targets select, as they are now.
func (c *Call) targetNodes(ctx context.Context, targets []commandTarget) ([]node.Node, error) {
	if len(targets) == 0 {
		return nil, nil
	}
	var conditions []node.Condition
	for _, t := range targets {
		tag := strings.HasPrefix(t.Key, "tag:") && len(t.Key) > len("tag:")
		if !tag && t.Key != "tag-key" && t.Key != "InstanceIds" {
			return nil, ssmError("ValidationException", "The target key %q is not valid: it must be InstanceIds, tag:KEY or tag-key.", truncate(t.Key, 100))
		}
		if len(t.Values) == 0 {
			return nil, ssmError("ValidationException", "The target %q has no values.", truncate(t.Key, 100))
		}
		conditions = append(conditions, node.Condition{Key: t.Key, Values: t.Values})
	}
	match, err := node.SSM().Compile(conditions)
	if err != nil {
		return nil, err
	}
	ids, err := wantedIDs(conditions)
	if err != nil {
		return nil, err
	}
	all, err := c.Server.config.Nodes.Nodes(ctx, node.Filter{IDs: ids})
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(all, func(n node.Node) bool { return !match(n, c.Origin.Time) })
	if len(found) > maxCommandNodes {
		return nil, ssmError("ValidationException", "The targets select %d nodes; a command may have %d.", len(found), maxCommandNodes)
	}
	return found, nil
}

// newCommand makes the command out of its document and parameters.
func (c *Call) newCommand(ctx context.Context, in *sendCommandInput) (command.Command, error) {
	d, err := c.commandDocument(ctx, in)
	if err != nil {
		return command.Command{}, err
	}
	values, err := d.Fill(in.Parameters)
	if bad := (*document.ParameterError)(nil); errors.As(err, &bad) {
		return command.Command{}, ssmError("InvalidParameters", "%s", sentence(bad))
	}
	if err != nil {
		return command.Command{}, err
	}
	delivery := defaultDelivery
	if in.TimeoutSeconds != nil {
		delivery = time.Duration(*in.TimeoutSeconds) * time.Second
	}
	cmd := command.Command{
		ID: uuid.NewString(), Document: d.Name, DocumentVersion: orElse(in.DocumentVersion, "$DEFAULT"), Comment: in.Comment,
		Content: d.Content(), Parameters: in.Parameters, Values: values,
		NodeIDs: in.InstanceIDs, Targets: targetsOf(in.Targets),
		MaxConcurrency: orElse(in.MaxConcurrency, defaultMaxConcurrency), MaxErrors: orElse(in.MaxErrors, defaultMaxErrors),
		Delivery: delivery, Execution: command.ExecutionOf(d.Content(), values),
		Owner: c.Principal.ARN, OwnerID: c.Principal.UserID, OwnerName: c.Principal.Name, RootID: c.Principal.RootID(),
		SourceIP: c.Origin.SourceIP, Authority: c.commandAuthority().encode(),
	}
	size, err := cmd.Size()
	if err == nil && size > command.MaxJob {
		err = ssmError("MaxDocumentSizeExceeded", "The document and its parameters take %d bytes; %d are allowed.", size, command.MaxJob)
	}
	return cmd, err
}

func targetsOf(in []commandTarget) (out []command.Target) {
	for _, t := range in {
		out = append(out, command.Target{Key: t.Key, Values: t.Values})
	}
	return out
}

// commandDocument finds the document of a command.
func (c *Call) commandDocument(ctx context.Context, in *sendCommandInput) (*document.Document, error) {
	d, err := c.findDocument(ctx, in.DocumentName, in.DocumentVersion)
	if err != nil {
		return nil, err
	}
	if d.parsed.Type != document.TypeCommand {
		return nil, ssmError("InvalidDocument", "Document %s is of type %s; commands need one of type Command.", d.stored.Name, d.parsed.Type)
	}
	sum := sha256.Sum256([]byte(d.version.Content))
	if in.DocumentHash != "" && !strings.EqualFold(in.DocumentHash, hex.EncodeToString(sum[:])) {
		return nil, ssmError("InvalidDocument", "The content of document %s has another hash than DocumentHash.", d.stored.Name)
	}
	return d.parsed, nil
}

type cancelCommandInput struct {
	CommandID   string   `json:"CommandId" check:"required,min=36,max=36"`
	InstanceIDs []string `json:"InstanceIds" check:"max=50" each:"pattern=(i-(\\w{8}|\\w{17}))|(mi-\\w{17})"`
}

// cancelCommand stops a command. Who sent it needs no policy for that.
func cancelCommand(ctx context.Context, c *Call, in *cancelCommandInput) (*struct{}, error) {
	cmd, err := c.checkedCommand(ctx, in.CommandID)
	if err != nil {
		return nil, err
	}
	r, err := c.runner()
	if err != nil {
		return nil, err
	}
	if hasDuplicates(in.InstanceIDs) {
		return nil, ssmError("DuplicateInstanceId", "An instance id is given twice.")
	}
	for _, id := range in.InstanceIDs {
		_, err := c.Server.config.Commands.Invocation(ctx, cmd.ID, id)
		if errors.Is(err, command.ErrNoInvocation) {
			return nil, ssmError("InvalidInstanceId", "The command was not sent to %s.", id)
		}
		if err != nil {
			return nil, err
		}
	}
	return &struct{}{}, r.Cancel(context.WithoutCancel(ctx), cmd.ID, in.InstanceIDs, c.Principal.ARN)
}

// checkedCommand finds a command and checks the operation's action, for which its
// sender needs no policy. One that does not exist is like somebody else's until the
// caller may act on those.
func (c *Call) checkedCommand(ctx context.Context, id string) (command.Command, error) {
	everything := access.Resource{ARN: "*"}
	if _, err := c.runner(); err != nil {
		return command.Command{}, errors.Join(c.Check(ctx, everything), err)
	}
	cmd, err := c.Server.config.Commands.Command(ctx, strings.ToLower(id))
	if err != nil && !errors.Is(err, command.ErrNotFound) {
		return cmd, err
	}
	c.Document = cmd.Document
	if err == nil && c.sent(cmd) {
		c.quiet = !c.Operation.ending
		return cmd, c.CheckOwn(ctx, everything)
	}
	if denied := c.Check(ctx, everything); denied != nil {
		return cmd, denied
	}
	if err != nil {
		return cmd, ssmError("InvalidCommandId", "There is no command %q.", id)
	}
	return cmd, nil
}

// sent reports whether the caller sent a command. The name of a role session is the
// caller's choice, so that the same person must be behind it as well.
func (c *Call) sent(cmd command.Command) bool {
	return cmd.OwnerID == c.Principal.UserID && cmd.RootID == c.Principal.RootID()
}

// endCommands cancels the commands that a user is behind, who may not run any now.
func (c *Call) endCommands(ctx context.Context, rootID string) error {
	if c.Server.config.Runner == nil {
		return nil
	}
	return c.Server.config.Runner.CancelOf(context.WithoutCancel(ctx), rootID, c.Principal.ARN)
}

// endCommandsThrough cancels the commands that were sent through a role.
func (c *Call) endCommandsThrough(ctx context.Context, roleID string) error {
	if c.Server.config.Runner == nil {
		return nil
	}
	return c.Server.config.Runner.CancelThrough(context.WithoutCancel(ctx), roleID, c.Principal.ARN)
}
