package wire

import "encoding/json"

// Run Command over the control channel (docs/protocol.md §25). The outer payload of
// an agent_job is a ControlTask with a JobID; its Content is a Command or a
// CommandCancel.

// Topics of jobs and of their replies; a job's topic may go on after these.
const (
	TopicSendCommand   = "aws.ssm.sendCommand"
	TopicCancelCommand = "aws.ssm.cancelCommand"
)

// JobID returns the id of the job that runs a command on a node.
func JobID(commandID, nodeID string) string { return "aws.ssm." + commandID + "." + nodeID }

// Command is the Content of a job that runs a document. CloudWatchOutputEnabled is
// the word "true" or "false".
type Command struct {
	CommandID               string                     `json:"CommandId"`
	DocumentName            string                     `json:"DocumentName"`
	DocumentContent         json.RawMessage            `json:"DocumentContent"`
	Parameters              map[string]json.RawMessage `json:"Parameters"`
	OutputS3BucketName      string                     `json:"OutputS3BucketName"`
	OutputS3KeyPrefix       string                     `json:"OutputS3KeyPrefix"`
	CloudWatchLogGroupName  string                     `json:"CloudWatchLogGroupName"`
	CloudWatchOutputEnabled string                     `json:"CloudWatchOutputEnabled"`
}

// CommandCancel is the Content of a job that cancels another, which it names by JobID.
type CommandCancel struct {
	CancelMessageID string `json:"CancelMessageId"`
}

// Status codes of a JobAck.
const (
	JobSuccessful            = "200"
	JobProcessorClosed       = "51401"
	JobProcessorFull         = "51402" // try again later
	JobUnexpectedDocument    = "51403"
	JobTranslationFailed     = "51404"
	JobDuplicateCommand      = "51405" // seen within 30 minutes
	JobInvalidDocument       = "51406"
	JobContainerNotSupported = "51407"
	JobParseError            = "51408" // a failed JobReply follows
	JobUnexpectedError       = "51499"
)

// JobAck is the payload of agent_job_ack, the agent's answer to every agent_job.
type JobAck struct {
	JobID                 string `json:"jobId"`
	AcknowledgedMessageID string `json:"acknowledgedMessageId"` // of the agent_job message
	CreatedDate           string `json:"createdDate"`           // of that message, ISO 8601 with milliseconds
	StatusCode            string `json:"statusCode"`
	ErrorMessage          string `json:"errorMessage"` // the status code's name
}

// JobReply is the payload of agent_job_reply: Content is a string that holds a
// JobOutcome. Replies may arrive out of order: a final status stays.
type JobReply struct {
	SchemaVersion int    `json:"schemaVersion"`
	JobID         string `json:"jobId"`
	Content       string `json:"content"`
	Topic         string `json:"topic"`
}

// JobReplyAck is the payload of agent_job_reply_ack, the server's answer to every
// JobReply, without which the agent sends it again.
type JobReplyAck struct {
	JobID                 string `json:"jobId"`
	AcknowledgedMessageID string `json:"acknowledgedMessageId"` // of the agent_job_reply message
}

// JobOutcome says how far a command has come on a node.
type JobOutcome struct {
	AdditionalInfo      JobInfo              `json:"additionalInfo"`
	DocumentStatus      string               `json:"documentStatus"` // InProgress, Success, Failed, Cancelled, TimedOut, …
	DocumentTraceOutput string               `json:"documentTraceOutput"`
	RuntimeStatus       map[string]JobPlugin `json:"runtimeStatus"` // by step; null before the first
}

// JobInfo is the frame of a JobOutcome. DateTime is ISO 8601.
type JobInfo struct {
	Agent                   JobAgent       `json:"agent"`
	DateTime                string         `json:"dateTime"`
	RunID                   string         `json:"runId"`
	RuntimeStatusCounts     map[string]int `json:"runtimeStatusCounts"`
	AbleToOpenMGSConnection *bool          `json:"ableToOpenMGSConnection,omitempty"`
}

// JobAgent names the agent that ran a command.
type JobAgent struct {
	Lang      string `json:"lang"`
	Name      string `json:"name"`
	OS        string `json:"os"`
	OSVersion string `json:"osver"`
	Version   string `json:"ver"`
}

// JobPlugin is the outcome of one step. Output joins both streams; times are ISO 8601.
type JobPlugin struct {
	Status             string `json:"status"`
	Code               int    `json:"code"` // exit status
	Name               string `json:"name"` // plugin: aws:runShellScript
	Output             string `json:"output"`
	StartDateTime      string `json:"startDateTime"`
	EndDateTime        string `json:"endDateTime"`
	OutputS3BucketName string `json:"outputS3BucketName"`
	OutputS3KeyPrefix  string `json:"outputS3KeyPrefix"`
	StepName           string `json:"stepName"`
	StandardOutput     string `json:"standardOutput"`
	StandardError      string `json:"standardError"`
}
