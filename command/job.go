package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"sallyport.dev/wire"
)

// MaxJob bounds what is sent to an agent, in bytes: the document and its parameters.
const MaxJob = 256 << 10

// job is what an agent is told to run c on a node (docs/protocol.md §25).
func (c Command) job(node, region string) (wire.ControlTask, error) {
	content, err := json.Marshal(wire.Command{
		CommandID: c.ID, DocumentName: c.Document, DocumentContent: c.Content,
		Parameters: c.Values, CloudWatchOutputEnabled: "false",
	})
	if err != nil {
		return wire.ControlTask{}, fmt.Errorf("encoding command: %w", err)
	}
	return task(c.ID, node, wire.TopicSendCommand+"."+region, content), nil
}

// Size is how many bytes c takes on its way to an agent.
func (c Command) Size() (int, error) {
	t, err := c.job("mi-00000000000000000", "")
	return len(t.Content), err
}

// cancelJob is what an agent is told to stop running c. Its id is always the same, so
// that agents know one that comes twice.
func (c Command) cancelJob(node, region string) wire.ControlTask {
	id := uuid.NewSHA1(uuid.NameSpaceOID, []byte("cancel "+c.ID)).String()
	content, _ := json.Marshal(wire.CommandCancel{CancelMessageID: wire.JobID(c.ID, node)}) // a string always encodes
	return task(id, node, wire.TopicCancelCommand+"."+region, content)
}

func task(id, node, topic string, content []byte) wire.ControlTask {
	return wire.ControlTask{Content: string(content), JobID: wire.JobID(id, node), Topic: topic, SchemaVersion: 1}
}

// errForeign marks an agent's message about a job that is not its node's.
var errForeign = errors.New("job is not this node's")

// commandOf returns the command that a job of the node runs.
func commandOf(jobID, node string) (string, error) {
	rest, ok := strings.CutPrefix(jobID, "aws.ssm.")
	id, of, found := strings.Cut(rest, ".")
	if !ok || !found || of != node {
		return "", fmt.Errorf("%q from %s: %w", clip(jobID, maxName), node, errForeign)
	}
	if err := uuid.Validate(id); err != nil || len(id) != 36 {
		return "", fmt.Errorf("%q from %s: %w", clip(jobID, maxName), node, errForeign)
	}
	return strings.ToLower(id), nil
}
