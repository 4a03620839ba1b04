package cli

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/smithy-go"

	"sallyport.dev/client"
)

const (
	// runPoll is between looks at a command, runPollAWS where AWS counts calls.
	runPoll    = 300 * time.Millisecond
	runPollAWS = 2 * time.Second
	runPage    = 50 // nodes per answer
	// runPatience is how long a server may be away while a command is watched.
	runPatience = 2 * time.Minute
)

// runWatch asks how far a command is.
type runWatch struct {
	p    *program
	api  *client.API
	id   string
	view *runView

	since int64 // revision, of Sallyport
	aws   bool
	told  map[string]bool // nodes whose end was shown, of AWS
	lost  time.Time       // since when the server is away
}

// runEnd is the end of a command.
type runEnd struct {
	status, details string
}

// poll looks once, and returns the end if it has come, or else how long to wait. An
// error is one that waiting does not mend.
func (w *runWatch) poll(ctx context.Context) (*runEnd, time.Duration, error) {
	end, more, err := w.look(ctx)
	switch {
	case err == nil:
		w.lost = time.Time{}
	case isRefusal(err), ctx.Err() != nil:
		return nil, 0, err
	case w.lost.IsZero():
		w.lost = time.Now()
	case time.Since(w.lost) > runPatience:
		return nil, 0, err
	}
	switch {
	case more:
		return end, 0, nil
	case w.aws:
		return end, runPollAWS, nil
	}
	return end, runPoll, nil
}

// isRefusal reports whether a service refused, and not because it is busy or unwell.
func isRefusal(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorFault() == smithy.FaultServer {
		return false
	}
	switch api.ErrorCode() {
	case "InternalServerError", "ServiceUnavailable", "ThrottlingException", "RequestTimeout":
		return false
	}
	return true
}

func (w *runWatch) look(ctx context.Context) (end *runEnd, more bool, err error) {
	if w.aws {
		return w.lookAWS(ctx)
	}
	out, err := w.api.GetCommand(ctx, client.GetCommandInput{CommandID: w.id, Since: w.since, MaxResults: runPage})
	if errors.Is(err, client.ErrNotSallyport) {
		w.aws, w.told = true, map[string]bool{}
		return w.lookAWS(ctx)
	}
	if err != nil {
		return nil, false, err
	}
	w.since = out.Revision
	w.view.total = out.Command.TargetCount
	for _, n := range out.Nodes {
		w.view.node(n)
	}
	w.view.draw()
	if client.Ended(out.Command.Status) && !out.More {
		end = &runEnd{out.Command.Status, out.Command.StatusDetails}
	}
	return end, out.More, nil
}

// lookAWS does with AWS's operations what GetCommand does in one.
func (w *runWatch) lookAWS(ctx context.Context) (end *runEnd, more bool, err error) {
	list, err := w.api.SSM.ListCommands(ctx, &ssm.ListCommandsInput{CommandId: &w.id})
	if err != nil {
		return nil, false, err
	}
	pages := ssm.NewListCommandInvocationsPaginator(w.api.SSM, &ssm.ListCommandInvocationsInput{CommandId: &w.id, Details: true})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, false, err
		}
		for _, i := range page.CommandInvocations {
			if err := w.invocation(ctx, i); err != nil {
				return nil, false, err
			}
		}
	}
	for _, c := range list.Commands {
		w.view.total = int(c.TargetCount)
		if client.Ended(string(c.Status)) {
			end = &runEnd{string(c.Status), aws.ToString(c.StatusDetails)}
		}
	}
	w.view.draw()
	return end, false, nil
}

func (w *runWatch) invocation(ctx context.Context, i types.CommandInvocation) error {
	n := client.CommandNode{NodeID: aws.ToString(i.InstanceId), NodeName: aws.ToString(i.InstanceName),
		Status: string(i.Status), StatusDetails: aws.ToString(i.StatusDetails), Trace: aws.ToString(i.TraceOutput)}
	if w.told[n.NodeID] {
		return nil
	}
	if w.told[n.NodeID] = client.Ended(n.Status); w.told[n.NodeID] {
		for _, plugin := range i.CommandPlugins {
			s, err := w.step(ctx, n.NodeID, plugin)
			if err != nil {
				delete(w.told, n.NodeID)
				return err
			}
			n.Steps = append(n.Steps, s)
		}
	}
	w.view.node(n)
	return nil
}

// step asks for the outputs of one step.
func (w *runWatch) step(ctx context.Context, node string, plugin types.CommandPlugin) (client.CommandStep, error) {
	out, err := w.api.SSM.GetCommandInvocation(ctx, &ssm.GetCommandInvocationInput{
		CommandId: &w.id, InstanceId: &node, PluginName: plugin.Name,
	})
	if err != nil {
		return client.CommandStep{}, err
	}
	return client.CommandStep{
		Name: aws.ToString(plugin.Name), Status: string(plugin.Status), ExitStatus: int(out.ResponseCode),
		Started: timeOf(plugin.ResponseStartDateTime), Ended: timeOf(plugin.ResponseFinishDateTime),
		StandardOutput: aws.ToString(out.StandardOutputContent), StandardError: aws.ToString(out.StandardErrorContent),
	}, nil
}

func timeOf(t *time.Time) client.Time { return client.Time{Time: aws.ToTime(t)} }
