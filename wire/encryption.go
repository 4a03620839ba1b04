package wire

// Encryption of a session's stream between client and agent (docs/protocol.md §16): the
// client has a key service make a data key of DataKeySize bytes, the agent has it
// decrypted there, and the service ties it to the session by an encryption context.

// DataKeySize is the length of a session's data key in bytes: one half encrypts what the
// agent sends, the other what the client sends.
const DataKeySize = 64

// Keys of the encryption context of a session's data key.
const (
	ContextSessionID = "aws:ssm:SessionId"
	ContextTargetID  = "aws:ssm:TargetId" // the node's id
	// ContextChallenge is there where the client acknowledged the agent's Challenge.
	ContextChallenge = "aws:ssm:RandomChallenge"
)

// KMSEncryptionParameters are the parameters of an ActionKMSEncryption request. KMSKeyID
// is as the session's document has it; Challenge is made for this handshake alone.
type KMSEncryptionParameters struct {
	KMSKeyID  string `json:"KMSKeyId"`
	Challenge string `json:"Challenge"`
}

// KMSEncryptionResult is the ActionResult of an ActionKMSEncryption.
// ChallengeAcknowledgement tells that the Challenge is in the key's encryption context,
// so that nobody can hand in a key that was made for an earlier handshake.
type KMSEncryptionResult struct {
	KMSCipherTextKey         []byte `json:"KMSCipherTextKey"`
	KMSCipherTextHash        []byte `json:"KMSCipherTextHash"`
	ChallengeAcknowledgement bool   `json:"ChallengeAcknowledgement,omitempty"`
}

// EncryptionChallenge is the payload of PayloadEncChallengeRequest, random bytes that
// the agent encrypted, and of PayloadEncChallengeResponse, the same bytes as the client
// encrypts them.
type EncryptionChallenge struct {
	Challenge []byte `json:"Challenge"`
}

// DataKeyContext is the encryption context of a session's data key; challenge is empty
// where the client acknowledged none.
func DataKeyContext(session, node, challenge string) map[string]string {
	c := map[string]string{ContextSessionID: session, ContextTargetID: node}
	if challenge != "" {
		c[ContextChallenge] = challenge
	}
	return c
}

// IsEncrypted reports whether payloads of a type are encrypted in a session that is:
// what a session shows, and what is typed. Sizes, flags and handshakes stay clear.
func (p PayloadType) IsEncrypted(fromAgent bool) bool {
	return p == PayloadOutput || fromAgent && (p == PayloadStdErr || p == PayloadExitCode)
}
