package wire

// What Sallyport's own programs add to AWS's protocol (docs/protocol.md §28). AWS's
// programs ignore all of it, and ours do without where the other end is AWS's.

// Bulk lets the ends of a Port session open connections of their own beside the data
// channel, end to end encrypted, which the gateway splices. The tokens are secret and
// name the session and the end that they are for.
type Bulk struct {
	AgentToken  string `json:"AgentToken"`
	ClientToken string `json:"ClientToken"` // passed on by the agent in its handshake
}

// BulkOffer is the agent's part of the agreement on bulk connections, in the
// SessionTypeParameters of its handshake. Certificate is the SHA-256, in hexadecimal,
// of the DER of the certificate that the agent shows in them.
type BulkOffer struct {
	Token       string `json:"Token"`
	Certificate string `json:"Certificate"`
}

// PortAnswer is what our client says to our agent in the handshake of a Port session,
// as the ActionResult of the SessionType action. Where the agent offered Streams
// (StreamsVersion) and the client answers with the same, the session's bytes are those
// of our own multiplexer, whatever the document's type; else they are as AWS has it.
type PortAnswer struct {
	Streams int         `json:"Streams,omitempty"`
	Bulk    *BulkAnswer `json:"Bulk,omitempty"`
}

// StreamsVersion is the version of our multiplexer (docs/protocol.md §28).
const StreamsVersion = 1

// BulkAnswer is the client's part of the agreement on bulk connections, in its
// PortAnswer.
type BulkAnswer struct {
	Certificate string `json:"Certificate"`
}

// ForwardRules are the server's rules for the addresses that a Port session may reach,
// as CIDR prefixes; the node checks them after resolving, along with its own. Where
// Allow is not empty, an address must be in one of its prefixes.
type ForwardRules struct {
	Deny  []string `json:"Deny,omitempty"`
	Allow []string `json:"Allow,omitempty"`
}

// Exec tells the agent to run a session's program as an SSH server would: with input,
// output and errors apart, its exit status or signal reported, and no handshake. The
// document's session type says whether there is a terminal (Standard_Stream,
// InteractiveCommands) or not (NonInteractiveCommands).
type Exec struct {
	// Command is a line for the user's login shell; empty for that shell itself.
	Command string `json:"Command,omitempty"`
	// Words has Command split into words and run without a shell, as a session of type
	// NonInteractiveCommands without an Exec does.
	Words bool `json:"Words,omitempty"`
	// Subsystem is sftp for file transfer, served by the agent itself; else empty.
	Subsystem string `json:"Subsystem,omitempty"`
	// Environment are variables that the gateway's allow-list has let through.
	Environment map[string]string `json:"Environment,omitempty"`
	// Terminal is nil where there is none.
	Terminal *ExecTerminal `json:"Terminal,omitempty"`
	// ForwardAgent offers the program an SSH_AUTH_SOCK. Each connection to it is a
	// smux stream, opened by the agent, of which PayloadExecStreams carries the bytes.
	ForwardAgent bool `json:"ForwardAgent,omitempty"`
}

// ExecTerminal is the terminal of an Exec. Modes are encoded as RFC 4254 §8 has it.
type ExecTerminal struct {
	Term  string `json:"Term"`
	Cols  uint32 `json:"Cols"`
	Rows  uint32 `json:"Rows"`
	Modes []byte `json:"Modes,omitempty"`
}

// Payload types of our own, in sessions with an Exec only.
const (
	// PayloadExecControl is an ExecControl as JSON.
	PayloadExecControl PayloadType = 0x53500001
	// PayloadExecStreams are bytes of a smux connection: the agent's end is its client.
	PayloadExecStreams PayloadType = 0x53500002
)

// Operations of an ExecControl.
const (
	// ExecNoOutput, client to agent: nobody takes output any more; a program on pipes gets
	// a broken one.
	ExecNoOutput = "no-output"
	ExecEOF      = "eof"    // client to agent: no more input
	ExecSignal   = "signal" // client to agent: Signal is its name without SIG
	ExecExit     = "exit"   // agent to client, after all output: Status, or Signal
)

// ExecControl is what the ends of an Exec tell each other besides data.
type ExecControl struct {
	Op     string `json:"Op"`
	Signal string `json:"Signal,omitempty"`
	Core   bool   `json:"Core,omitempty"`
	Status int    `json:"Status,omitempty"`
}

// ReportAuthorizedKeys is what an agent reports of the node's authorized_keys files
// (docs/protocol.md §28.16). More tells that there are more than it could report.
type ReportAuthorizedKeys struct {
	Keys []AuthorizedKey `json:"Keys" check:"max=1000"`
	More bool            `json:"More,omitempty"`
}

// AuthorizedKey is a key that lets in who has it, past the server.
type AuthorizedKey struct {
	Login       string `json:"Login" check:"max=256"`
	File        string `json:"File" check:"max=4096"`
	Fingerprint string `json:"Fingerprint" check:"max=128"` // SHA256:…
	Type        string `json:"Type" check:"max=128"`
	Comment     string `json:"Comment,omitempty" check:"max=65536"`
	// Authority tells that it signs certificates which let in.
	Authority bool `json:"Authority,omitempty"`
}
