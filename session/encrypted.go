package session

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"sallyport.dev/internal/datakey"
	"sallyport.dev/wire"
)

// Sessions that their ends encrypt (docs/encryption.md). The gateway sees to it that
// nothing is shown or typed in clear, and where it records it follows with the session's
// data key: what it cannot read ends the session.

// handshakeState is how far the ends have come.
type handshakeState int

const (
	handshakeNone      handshakeState = iota
	handshakeAsked                    // the agent asked for a data key
	handshakeAgreed                   // the client gave one
	handshakeCompleted                // and the agent took it
)

// encrypted follows the encryption of one session. Its mutex is a leaf.
type encrypted struct {
	follows bool // the gateway decrypts, to record

	mu        sync.Mutex
	state     handshakeState
	challenge string       // of the agent's request
	key       *datakey.Key // once agreed, where follows
}

func newEncrypted(o Options) *encrypted {
	if !o.Encrypted {
		return nil
	}
	return &encrypted{follows: o.Record}
}

// sealOwn encrypts a line of the gateway's own as the agent would. It reports false where
// it cannot: before there is a key, and where the gateway does not know it.
func (e *encrypted) sealOwn(text []byte) ([]byte, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.key == nil || e.state != handshakeCompleted {
		return nil, false
	}
	return e.key.Seal(true, text), true
}

func (e *encrypted) at() (handshakeState, *datakey.Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state, e.key
}

// advance moves on from one state to the next; false if the session is elsewhere.
func (e *encrypted) advance(from handshakeState, also func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state != from {
		return false
	}
	e.state++
	if also != nil {
		also()
	}
	return true
}

// Errors of sessions that are to be encrypted.
var (
	errClear      = errors.New("the node went on without encrypting")
	errKeyOrder   = errors.New("the handshake is out of its order")
	errOtherKey   = errors.New("the node asked for another key than the session's document names")
	errUnreadable = errors.New("what is sent is not encrypted with the session's data key")
)

// notEncrypted is the cause of a session that would have gone on in clear.
func notEncrypted(err error) *Cause {
	return &Cause{
		Reason: ReasonNotEncrypted, Detail: err.Error(), Failed: true,
		Terminal: "The session's document demands encryption between client and node, which one of them does not do, so the session was ended.",
	}
}

// unfollowed is the cause of a session that cannot be recorded because the gateway cannot
// decrypt it.
func unfollowed(err error) *Cause {
	c := recordingLost(err)
	c.Terminal = "The session is encrypted and the server cannot follow it, so that it cannot be recorded any more; it has ended."
	return c
}

// tapEncrypted is tap for a session that its ends encrypt.
func (s *live) tapEncrypted(fromAgent bool, h wire.Header, data []byte, now time.Time) (passed []byte, ok bool) {
	m, err := wire.Decode(data)
	if err != nil {
		s.log.Warn("message with a bad digest", "error", err)
		return nil, false
	}
	pass, cause := s.followEncrypted(fromAgent, m, &h)
	if cause != nil {
		s.end(cause)
		return nil, false
	}
	if !pass {
		return emptied(m), true
	}
	if s.encrypted.follows && s.isMoreTimeKey(fromAgent, h) {
		s.g.start(s.askMoreTime)
		return emptied(m), true
	}
	if !s.speaksEncrypted(fromAgent, h) {
		if s.strange.CompareAndSwap(false, true) {
			s.log.Warn("messages without a place in the session are emptied", "from_agent", fromAgent, "payload_type", h.PayloadType)
		}
		return emptied(m), true
	}
	if err := s.record(fromAgent, h, now); err != nil {
		s.end(recordingLost(err))
		return nil, false
	}
	return data, true
}

// emptied is a message of which only the number is left. It has no type, since neither
// end knows an empty payload of encrypted ones.
func emptied(m *wire.Message) []byte {
	m.PayloadType, m.Payload = wire.PayloadNone, nil
	return m.Encode()
}

// followEncrypted sees to the order of the handshake and decrypts h's payload where it is
// to be recorded. It reports whether the message may pass as it is.
func (s *live) followEncrypted(fromAgent bool, m *wire.Message, h *wire.Header) (pass bool, cause *Cause) {
	switch {
	case h.PayloadType.IsEncrypted(fromAgent):
		return s.openPayload(fromAgent, h)
	case fromAgent && h.PayloadType == wire.PayloadHandshakeRequest:
		return true, s.askedForKey(m.Payload)
	case fromAgent && h.PayloadType == wire.PayloadHandshakeComplete:
		if !s.encrypted.advance(handshakeAgreed, nil) {
			return false, notEncrypted(errClear)
		}
	case !fromAgent && h.PayloadType == wire.PayloadHandshakeResponse:
		return s.gaveKey(m.Payload)
	}
	return true, nil
}

// openPayload decrypts what is shown or typed. What a client types before the handshake
// is dropped: agents do that, too, and it is in clear.
func (s *live) openPayload(fromAgent bool, h *wire.Header) (pass bool, cause *Cause) {
	state, key := s.encrypted.at()
	switch {
	case fromAgent && state != handshakeCompleted:
		return false, notEncrypted(errClear)
	case state < handshakeAgreed:
		return false, nil
	case !s.encrypted.follows && len(h.Payload) < datakey.Overhead:
		return false, notEncrypted(errUnreadable)
	case !s.encrypted.follows:
		return true, nil
	}
	payload, err := key.Open(fromAgent, h.Payload)
	if err != nil {
		return false, unfollowed(errUnreadable)
	}
	h.Payload = payload
	return true, nil
}

// askedForKey looks at the agent's handshake: it must be the first, of the session's own
// type, and ask for the key that the session's document names.
func (s *live) askedForKey(payload []byte) *Cause {
	var request wire.HandshakeRequest
	if json.Unmarshal(payload, &request) != nil {
		return notEncrypted(errClear)
	}
	if !s.isOwnKind(payload) {
		return anotherKind()
	}
	var asked *wire.KMSEncryptionParameters
	for _, a := range request.RequestedClientActions {
		if a.ActionType != wire.ActionKMSEncryption {
			continue
		}
		var p wire.KMSEncryptionParameters
		if asked != nil || json.Unmarshal(a.ActionParameters, &p) != nil {
			return notEncrypted(errKeyOrder)
		}
		asked = &p
	}
	switch {
	case asked == nil:
		return notEncrypted(errClear)
	case asked.KMSKeyID != s.opts.KMSKeyID:
		return notEncrypted(errOtherKey)
	case !s.encrypted.advance(handshakeNone, func() { s.encrypted.challenge = asked.Challenge }):
		return notEncrypted(errKeyOrder)
	}
	return nil
}

// dataKeyTimeout bounds the decryption of a data key.
const dataKeyTimeout = 10 * time.Second

// gaveKey takes the data key out of the client's answer. An answer that refuses passes:
// the agent ends the session and tells why. A second answer does not: the agent could
// take another key from it.
func (s *live) gaveKey(payload []byte) (pass bool, cause *Cause) {
	if state, _ := s.encrypted.at(); state != handshakeAsked {
		return false, nil
	}
	result, refused, ok := encryptionAnswer(payload)
	switch {
	case refused:
		return true, nil
	case !ok:
		return false, notEncrypted(errors.New("the client did not answer the demand for encryption"))
	}
	var key *datakey.Key
	if s.encrypted.follows {
		var err error
		if key, err = s.openDataKey(result); err != nil {
			return false, unfollowed(err)
		}
	}
	s.encrypted.advance(handshakeAsked, func() { s.encrypted.key = key })
	return true, nil
}

func (s *live) openDataKey(result wire.KMSEncryptionResult) (*datakey.Key, error) {
	ctx, cancel := context.WithTimeout(s.g.ctx, dataKeyTimeout)
	defer cancel()
	challenge := ""
	if result.ChallengeAcknowledgement {
		challenge = s.encrypted.challenge // not changed after it was asked for
	}
	raw, err := s.g.cfg.DataKey(ctx, s.row, result.KMSCipherTextKey, wire.DataKeyContext(s.row.ID, s.row.NodeID, challenge))
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return datakey.New(raw)
}

// encryptionAnswer reads a client's answer: refused if any of its actions did not
// succeed, ok if there is one data key in it.
func encryptionAnswer(payload []byte) (result wire.KMSEncryptionResult, refused, ok bool) {
	var response wire.HandshakeResponse
	if json.Unmarshal(payload, &response) != nil {
		return result, false, false
	}
	for _, a := range response.ProcessedClientActions {
		if a.ActionStatus != wire.ActionSuccess {
			refused = true
		}
		if a.ActionType != wire.ActionKMSEncryption || a.ActionStatus != wire.ActionSuccess {
			continue
		}
		if ok || json.Unmarshal(a.ActionResult, &result) != nil || len(result.KMSCipherTextKey) == 0 {
			return result, refused, false
		}
		ok = true
	}
	return result, refused, ok
}

// speaksEncrypted is speaks for a session that its ends encrypt: its handshake goes on
// for a round, and what cannot be read cannot be judged.
func (s *live) speaksEncrypted(fromAgent bool, h wire.Header) bool {
	switch h.PayloadType {
	case wire.PayloadEncChallengeRequest:
		return fromAgent
	case wire.PayloadEncChallengeResponse:
		return !fromAgent
	case wire.PayloadExitCode:
		if !s.encrypted.follows {
			return fromAgent && s.row.SessionType == "NonInteractiveCommands"
		}
	}
	return s.speaks(fromAgent, h)
}
