package server

import (
	"context"

	"sallyport.dev/command"
	"sallyport.dev/wire"
)

// A command as it goes on, with all that is kept of its outputs.

type getCommandInput struct {
	CommandID string `json:"CommandId" check:"required,min=36,max=36"`
	// Since leaves out nodes of which an earlier answer told the same.
	Since      int64 `json:"Since" check:"min=0"`
	MaxResults int   `json:"MaxResults" check:"min=1,max=100"`
}

type getCommandOutput struct {
	Command     shownCommand  `json:"Command"`
	CancelledBy string        `json:"CancelledBy,omitempty"`
	Owner       string        `json:"Owner"`
	Ended       wire.Time     `json:"Ended,omitzero"`
	Nodes       []commandNode `json:"Nodes"`
	// Revision is what to ask for next as Since; More tells that there is more already.
	Revision int64 `json:"Revision"`
	More     bool  `json:"More,omitempty"`
}

// commandNode is what a command came to on one node.
type commandNode struct {
	NodeID        string         `json:"NodeId"`
	NodeName      string         `json:"NodeName,omitempty"`
	Status        command.Status `json:"Status"`
	StatusDetails string         `json:"StatusDetails"`
	Trace         string         `json:"Trace,omitempty"`
	Sent          wire.Time      `json:"Sent,omitzero"`
	Started       wire.Time      `json:"Started,omitzero"`
	Ended         wire.Time      `json:"Ended,omitzero"`
	Steps         []commandStep  `json:"Steps,omitempty"` // once the node has ended
}

type commandStep struct {
	Name           string         `json:"Name"`
	Plugin         string         `json:"Plugin"`
	Status         command.Status `json:"Status"`
	ExitStatus     int            `json:"ExitStatus"`
	Started        wire.Time      `json:"Started,omitzero"`
	Ended          wire.Time      `json:"Ended,omitzero"`
	StandardOutput string         `json:"StandardOutput,omitempty"`
	StandardError  string         `json:"StandardError,omitempty"`
}

// pageOfCommand bounds the nodes of one answer: each may have some 400 KB of outputs.
const pageOfCommand = 20

// getCommand tells of a command and of the nodes that changed since an earlier answer,
// in the order in which they did. Who sent it needs no policy.
func getCommand(ctx context.Context, c *Call, in *getCommandInput) (*getCommandOutput, error) {
	cmd, err := c.checkedCommand(ctx, in.CommandID)
	if err != nil {
		return nil, err
	}
	limit := min(orDefault(in.MaxResults, pageOfCommand), 100)
	changed, err := c.Server.config.Commands.Invocations(ctx, command.InvocationFilter{
		CommandID: cmd.ID, ByRevision: true, Since: in.Since, Steps: true, Limit: limit + 1,
	})
	if err != nil {
		return nil, err
	}
	out := &getCommandOutput{
		Command: showCommand(cmd), CancelledBy: cmd.CancelledBy, Owner: cmd.Owner, Ended: wire.Time{Time: cmd.Ended},
		Nodes: []commandNode{}, Revision: in.Since, More: len(changed) > limit,
	}
	for _, i := range changed[:min(limit, len(changed))] {
		out.Nodes = append(out.Nodes, showNode(i))
		out.Revision = i.Revision
	}
	return out, nil
}

func showNode(i command.Invocation) commandNode {
	n := commandNode{
		NodeID: i.NodeID, NodeName: i.NodeName, Status: i.Status, StatusDetails: i.Details, Trace: i.Trace,
		Sent: wire.Time{Time: i.Sent}, Started: wire.Time{Time: i.Started}, Ended: wire.Time{Time: i.Ended},
	}
	if !i.Status.Final() {
		return n
	}
	for _, s := range i.Steps {
		n.Steps = append(n.Steps, commandStep{
			Name: s.Name, Plugin: s.Plugin, Status: s.Status, ExitStatus: s.Code,
			Started: wire.Time{Time: s.Started}, Ended: wire.Time{Time: s.Ended},
			StandardOutput: s.Stdout, StandardError: s.Stderr,
		})
	}
	return n
}
