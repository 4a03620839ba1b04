package wire

import "encoding/json"

// Opening is the first, unframed text message on every channel (docs/protocol.md §11).
// The client sends ClientID and ClientVersion, an agent's data channel sends
// ClientInstanceID, a control channel AgentVersion and PlatformType.
type Opening struct {
	MessageSchemaVersion string  `json:"MessageSchemaVersion"`
	RequestID            string  `json:"RequestId"`
	TokenValue           string  `json:"TokenValue"`
	ClientID             string  `json:"ClientId,omitempty"`
	ClientInstanceID     string  `json:"ClientInstanceId,omitempty"`
	ClientVersion        string  `json:"ClientVersion,omitempty"`
	Cookie               *string `json:"Cookie,omitempty"`
	AgentVersion         string  `json:"AgentVersion,omitempty"`
	PlatformType         string  `json:"PlatformType,omitempty"`
	// Features are what our own agent understands besides AWS's protocol (§28).
	Features []string `json:"SallyportFeatures,omitempty"`
}

// Acknowledge is the payload of an acknowledge message (docs/protocol.md §5.1).
// Receivers use only the sequence number; there is one acknowledgement per message,
// never a cumulative one.
type Acknowledge struct {
	MessageType    string `json:"AcknowledgedMessageType"`
	MessageID      string `json:"AcknowledgedMessageId"`
	SequenceNumber int64  `json:"AcknowledgedMessageSequenceNumber"`
	IsSequential   bool   `json:"IsSequentialMessage"`
}

// SessionState is the payload of agent_session_state (docs/protocol.md §5.2):
// "Connected" or "Terminating".
type SessionState struct {
	SchemaVersion int    `json:"SchemaVersion"`
	SessionState  string `json:"SessionState"`
	SessionID     string `json:"SessionId"`
}

// ChannelClosed ends a session at either end (docs/protocol.md §5.3). Output is
// shown to the person. ExitStatus is ours: the exit status of the session's program
// where the agent reported one; AWS's programs ignore it.
type ChannelClosed struct {
	MessageType   string `json:"MessageType"`
	MessageID     string `json:"MessageId"`
	DestinationID string `json:"DestinationId"`
	SessionID     string `json:"SessionId"`
	SchemaVersion int    `json:"SchemaVersion"`
	CreatedDate   string `json:"CreatedDate"`
	Output        string `json:"Output,omitempty"`
	ExitStatus    *int   `json:"ExitStatus,omitempty"`
}

// TerminalSize is the payload of a Size message (docs/protocol.md §5).
type TerminalSize struct {
	Cols uint32 `json:"cols"`
	Rows uint32 `json:"rows"`
}

// Flag values carried in a Flag payload as a big-endian uint32 (docs/protocol.md §5.4).
const (
	FlagDisconnectToPort   uint32 = 1
	FlagTerminateSession   uint32 = 2
	FlagConnectToPortError uint32 = 3
)

// Handshake action types and statuses (docs/protocol.md §15).
const (
	ActionSessionType   = "SessionType"
	ActionKMSEncryption = "KMSEncryption"

	ActionSuccess     = 1
	ActionFailed      = 2
	ActionUnsupported = 3
)

// HandshakeRequest is sent by the agent as payload type HandshakeRequest.
type HandshakeRequest struct {
	AgentVersion           string            `json:"AgentVersion"`
	RequestedClientActions []RequestedAction `json:"RequestedClientActions"`
}

// RequestedAction asks the client to take on a session type or an encryption key.
type RequestedAction struct {
	ActionType       string          `json:"ActionType"`
	ActionParameters json.RawMessage `json:"ActionParameters"`
}

// SessionTypeParameters are the parameters of an ActionSessionType request.
// Streams and Bulk are ours: see PortAnswer and BulkOffer.
type SessionTypeParameters struct {
	SessionType string          `json:"SessionType"`
	Properties  json.RawMessage `json:"Properties"`
	Streams     int             `json:"Streams,omitempty"`
	Bulk        *BulkOffer      `json:"Bulk,omitempty"`
}

// HandshakeResponse answers a HandshakeRequest, one processed action per request.
type HandshakeResponse struct {
	ClientVersion          string            `json:"ClientVersion"`
	ProcessedClientActions []ProcessedAction `json:"ProcessedClientActions"`
	Errors                 []string          `json:"Errors"`
}

// ProcessedAction reports what the client made of one requested action.
type ProcessedAction struct {
	ActionType   string          `json:"ActionType"`
	ActionStatus int             `json:"ActionStatus"`
	ActionResult json.RawMessage `json:"ActionResult"`
	Error        string          `json:"Error"`
}

// HandshakeComplete ends the handshake. HandshakeTimeToComplete is in nanoseconds.
type HandshakeComplete struct {
	HandshakeTimeToComplete int64  `json:"HandshakeTimeToComplete"`
	CustomerMessage         string `json:"CustomerMessage"`
}

// ControlTask is the outer payload of interactive_shell and agent_job
// (docs/protocol.md §24, §25): Content is a string that holds JSON.
type ControlTask struct {
	Content       string `json:"Content"`
	TaskID        string `json:"TaskId,omitempty"`
	JobID         string `json:"JobId,omitempty"`
	Topic         string `json:"Topic"`
	SchemaVersion int    `json:"SchemaVersion"`
}

// StartSession is the Content of an interactive_shell task: everything the agent
// needs to run one session. DataChannelToken and what follows it are ours: an agent
// that knows the token opens the data channel without first asking for one; AWS's
// agent ignores them. RunAsRoot says that policy lets the session run as root, where
// RunAsUser names it.
type StartSession struct {
	SessionID        string                     `json:"SessionId"`
	DocumentName     string                     `json:"DocumentName"`
	DocumentContent  json.RawMessage            `json:"DocumentContent"`
	Parameters       map[string]json.RawMessage `json:"Parameters"`
	RunAsUser        string                     `json:"RunAsUser"`
	SessionOwner     string                     `json:"SessionOwner"`
	DataChannelToken string                     `json:"DataChannelToken,omitempty"`
	RunAsRoot        bool                       `json:"RunAsRoot,omitempty"`
	Bulk             *Bulk                      `json:"Bulk,omitempty"`
	Forward          *ForwardRules              `json:"Forward,omitempty"`
	Exec             *Exec                      `json:"Exec,omitempty"`
	// Reattach is after how many seconds without its data channel the session is over for
	// the server, so that the agent need not keep it any longer; 0 for not known.
	Reattach int `json:"Reattach,omitempty"`
	// Trace is the traceparent (W3C Trace Context) of the request that the session is
	// for, so that the agent's log can name it.
	Trace string `json:"Trace,omitempty"`
}

// TaskComplete reports the end of a session on the control channel
// (docs/protocol.md §24.2).
// FinalTaskStatus is Success, Failed or Cancelled. ExitStatus is ours (see ChannelClosed).
type TaskComplete struct {
	SchemaVersion    int    `json:"SchemaVersion"`
	TaskID           string `json:"TaskId"`
	Topic            string `json:"Topic"`
	FinalTaskStatus  string `json:"FinalTaskStatus"`
	IsRoutingFailure bool   `json:"IsRoutingFailure"`
	AwsAccountID     string `json:"AwsAccountId"`
	InstanceID       string `json:"InstanceId"`
	Output           string `json:"Output"`
	S3Bucket         string `json:"S3Bucket"`
	S3UrlSuffix      string `json:"S3UrlSuffix"`
	CwlGroup         string `json:"CwlGroup"`
	CwlStream        string `json:"CwlStream"`
	RetryNumber      int    `json:"RetryNumber"`
	ExitStatus       *int   `json:"ExitStatus,omitempty"`
}

// TaskAcknowledge answers a TaskComplete; MessageID is the id of its frame.
type TaskAcknowledge struct {
	SchemaVersion int    `json:"SchemaVersion"`
	MessageID     string `json:"MessageId"`
	TaskID        string `json:"TaskId"`
	Topic         string `json:"Topic"`
}
