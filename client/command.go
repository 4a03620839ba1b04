package client

import (
	"context"
)

// Command is a document that runs on many nodes, as GetCommand tells of it.
type Command struct {
	CommandID             string `json:"CommandId"`
	DocumentName          string `json:"DocumentName"`
	Comment               string `json:"Comment,omitempty"`
	Status                string `json:"Status"`
	StatusDetails         string `json:"StatusDetails"`
	TargetCount           int    `json:"TargetCount"`
	CompletedCount        int    `json:"CompletedCount"`
	ErrorCount            int    `json:"ErrorCount"`
	DeliveryTimedOutCount int    `json:"DeliveryTimedOutCount"`
	RequestedDateTime     Time   `json:"RequestedDateTime,omitzero"`
}

// Ended reports whether a command, or what it came to on a node, is over: Status is
// AWS's.
func Ended(status string) bool {
	switch status {
	case "Success", "Cancelled", "TimedOut", "Failed":
		return true
	}
	return false
}

// CommandNode is what a command came to on one node. Steps are there once it has ended.
type CommandNode struct {
	NodeID        string        `json:"NodeId"`
	NodeName      string        `json:"NodeName,omitempty"`
	Status        string        `json:"Status"`
	StatusDetails string        `json:"StatusDetails"`
	Trace         string        `json:"Trace,omitempty"` // what the agent says of the whole
	Sent          Time          `json:"Sent,omitzero"`
	Started       Time          `json:"Started,omitzero"`
	Ended         Time          `json:"Ended,omitzero"`
	Steps         []CommandStep `json:"Steps,omitempty"`
}

// CommandStep is what one step of the document came to.
type CommandStep struct {
	Name           string `json:"Name"`
	Plugin         string `json:"Plugin,omitempty"`
	Status         string `json:"Status"`
	ExitStatus     int    `json:"ExitStatus"`
	Started        Time   `json:"Started,omitzero"`
	Ended          Time   `json:"Ended,omitzero"`
	StandardOutput string `json:"StandardOutput,omitempty"`
	StandardError  string `json:"StandardError,omitempty"`
}

// GetCommandInput asks for a command and for the nodes that changed since an earlier
// answer, whose Revision is Since.
type GetCommandInput struct {
	CommandID  string `json:"CommandId"`
	Since      int64  `json:"Since,omitempty"`
	MaxResults int    `json:"MaxResults,omitempty"`
}

// GetCommandOutput is the answer. More tells that there is more already.
type GetCommandOutput struct {
	Command     Command       `json:"Command"`
	CancelledBy string        `json:"CancelledBy,omitempty"` // ARN
	Owner       string        `json:"Owner"`                 // ARN
	Ended       Time          `json:"Ended,omitzero"`
	Nodes       []CommandNode `json:"Nodes"`
	Revision    int64         `json:"Revision"`
	More        bool          `json:"More,omitempty"`
}

// GetCommand answers how far a command is.
func (a *API) GetCommand(ctx context.Context, in GetCommandInput) (*GetCommandOutput, error) {
	return call[GetCommandOutput](ctx, a, "GetCommand", in)
}
