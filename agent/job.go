package agent

import (
	"encoding/json"
	"strings"
	"time"

	"sallyport.dev/wire"
)

// jobAck answers an agent_job at once (docs/protocol.md §25).
type jobAck struct {
	JobID                 string `json:"jobId"`
	AcknowledgedMessageID string `json:"acknowledgedMessageId"`
	CreatedDate           string `json:"createdDate"`
	StatusCode            string `json:"statusCode"`
	ErrorMessage          string `json:"errorMessage"`
}

// jobReply reports on a job; Content is a string that holds a jobOutcome.
type jobReply struct {
	SchemaVersion int    `json:"schemaVersion"`
	JobID         string `json:"jobId"`
	Content       string `json:"content"`
	Topic         string `json:"topic"`
}

type jobReplyAck struct {
	AcknowledgedMessageID string `json:"acknowledgedMessageId"`
}

type jobOutcome struct {
	AdditionalInfo      jobInfo        `json:"additionalInfo"`
	DocumentStatus      string         `json:"documentStatus"`
	DocumentTraceOutput string         `json:"documentTraceOutput"`
	RuntimeStatus       map[string]any `json:"runtimeStatus"`
}

type jobInfo struct {
	Agent               jobAgent       `json:"agent"`
	DateTime            string         `json:"dateTime"`
	RunID               string         `json:"runId"`
	RuntimeStatusCounts map[string]int `json:"runtimeStatusCounts"`
}

type jobAgent struct {
	Lang  string `json:"lang"`
	Name  string `json:"name"`
	OS    string `json:"os"`
	OSVer string `json:"osver"`
	Ver   string `json:"ver"`
}

const (
	jobTime    = "2006-01-02T15:04:05.000Z"
	topicSend  = "aws.ssm.sendCommand"
	noCommands = "this agent runs sessions only: it does not run command documents"
)

// refuseJob answers an agent_job with what is true of this agent: it does not know
// the document's type. The command then fails at once instead of timing out.
func (a *Agent) refuseJob(m *wire.Message) {
	var task wire.ControlTask
	if err := json.Unmarshal(m.Payload, &task); err != nil || task.JobID == "" || len(task.JobID) > maxJobID {
		a.log.Warn("dropping a job that cannot be parsed")
		return
	}
	now := a.cfg.now().UTC()
	a.outbox.addOnce(wire.NewJSON(wire.TypeAgentJobAck, now, jobAck{
		JobID:                 task.JobID,
		AcknowledgedMessageID: m.ID.String(),
		CreatedDate:           time.UnixMilli(int64(m.CreatedDate)).UTC().Format(jobTime),
		StatusCode:            "51403",
		ErrorMessage:          "UnexpectedDocumentType",
	}))
	if !strings.HasPrefix(task.Topic, topicSend) {
		return
	}
	reply := a.failedJob(task.JobID, now)
	a.outbox.add(wire.TypeAgentJobReply, func(int) any { return reply })
}

const maxJobID = 512

func (a *Agent) failedJob(id string, now time.Time) jobReply {
	name, version := osRelease("/etc/os-release", "/usr/lib/os-release")
	content, err := json.Marshal(jobOutcome{
		AdditionalInfo: jobInfo{
			Agent:               jobAgent{Lang: "en-US", Name: Name, OS: name, OSVer: version, Ver: ProtocolVersion},
			DateTime:            now.Format(jobTime),
			RuntimeStatusCounts: map[string]int{"Failed": 1},
		},
		DocumentStatus:      "Failed",
		DocumentTraceOutput: noCommands,
		RuntimeStatus:       map[string]any{},
	})
	if err != nil {
		panic("agent: encoding a job outcome: " + err.Error())
	}
	return jobReply{SchemaVersion: 1, JobID: id, Content: string(content), Topic: topicSend}
}
