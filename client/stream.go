package client

// Stream is what StartSession and ResumeSession hand out: where the data channel of
// a session is, and the single-use token that opens it.
type Stream struct {
	SessionID string `json:"SessionId"`
	Token     string `json:"TokenValue"`
	URL       string `json:"StreamUrl"`
	// Input says that the session's command takes input: RunExec runs it, and nothing
	// else can. The server answers so only to those who asked.
	Input bool `json:"Input"`
	// Target is the node that was asked for. Only sessions that client and agent encrypt
	// need it.
	Target string `json:"-"`
}
