package agent

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sallyport.dev/internal/datakey"
	"sallyport.dev/wire"
)

// Encryption between agent and client (docs/protocol.md §16): a session whose document
// names a key begins with a handshake in which the client hands in a data key that the
// key has encrypted. The server decrypts it for this node and this session alone.

const (
	// challengeSize is how many random bytes go into the encryption context of the data
	// key, proofSize how many the client has to encrypt.
	challengeSize = 16
	proofSize     = 64

	encryptedText = "This session is encrypted with a KMS key."
)

var errNotEncrypted = errors.New("the client sent what is not encrypted with the session's key")

// encrypted reports whether nothing may be sent in clear. Forwards are not encrypted by
// AWS's programs either: what they carry is.
func (p plan) encrypted() bool { return p.in.KMSKeyID != "" && p.sessionType != typePort }

// decryptInput is what the key service needs to decrypt a data key.
type decryptInput struct {
	CiphertextBlob    []byte            `json:"CiphertextBlob"`
	KeyID             string            `json:"KeyId"`
	EncryptionContext map[string]string `json:"EncryptionContext"`
}

// decryptDataKey has the server decrypt a data key.
func (a *Agent) decryptDataKey(ctx context.Context, in decryptInput) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	var out struct{ Plaintext []byte }
	err := a.eachEndpoint(func(e *endpoint) error {
		sign, err := a.signWith(ctx, e)
		if err != nil {
			return err
		}
		return e.callService(ctx, "kms", "TrentService.Decrypt", sign, in, &out)
	})
	return out.Plaintext, err
}

// shakeEncrypted makes a handshake after which everything is encrypted.
func (s *session) shakeEncrypted(ctx context.Context, parameters wire.SessionTypeParameters, keyID string) error {
	began := time.Now()
	random := make([]byte, challengeSize)
	rand.Read(random) // never fails: crypto/rand ends the process instead
	challenge := base64.StdEncoding.EncodeToString(random)
	asked, err := json.Marshal(wire.KMSEncryptionParameters{KMSKeyID: keyID, Challenge: challenge})
	if err != nil {
		return err
	}
	request := handshakeRequest(parameters)
	request.RequestedClientActions = append(request.RequestedClientActions,
		wire.RequestedAction{ActionType: wire.ActionKMSEncryption, ActionParameters: asked})
	r, err := s.askConsent(ctx, request)
	if err != nil {
		return err
	}
	if err := s.takeKey(ctx, r, keyID, challenge); err != nil {
		return err
	}
	if err := s.proveKey(ctx); err != nil {
		return err
	}
	return s.completeHandshake(began, encryptedText)
}

// takeKey begins to encrypt with the data key in the client's answer. One that was not
// made for this very handshake does not decrypt.
func (s *session) takeKey(ctx context.Context, r wire.HandshakeResponse, keyID, challenge string) error {
	result, err := encryptionResult(r)
	if err != nil {
		return err
	}
	raw, err := s.dataKey(ctx, decryptInput{
		CiphertextBlob: result.KMSCipherTextKey, KeyID: keyID,
		EncryptionContext: wire.DataKeyContext(s.start.SessionID, s.stream.node, challenge),
	})
	if err != nil {
		return fmt.Errorf("fetching data key failed: %w", err)
	}
	key, err := datakey.New(raw)
	clear(raw)
	if err != nil {
		return err
	}
	s.stream.key.Store(key)
	return nil
}

// encryptionResult finds the client's answer to the demand for encryption.
func encryptionResult(r wire.HandshakeResponse) (result wire.KMSEncryptionResult, err error) {
	for _, a := range r.ProcessedClientActions {
		if a.ActionType != wire.ActionKMSEncryption {
			continue
		}
		if json.Unmarshal(a.ActionResult, &result) != nil || len(result.KMSCipherTextKey) == 0 {
			return result, errors.New("the client's data key is not readable")
		}
		if !result.ChallengeAcknowledgement {
			return result, errors.New("the client's data key is not made for this session's challenge: a newer client is needed")
		}
		return result, nil
	}
	return result, errors.New("the client does not encrypt, which the session document demands")
}

// proveKey has the client show that it has the data key.
func (s *session) proveKey(ctx context.Context) error {
	random := make([]byte, proofSize)
	rand.Read(random)
	err := s.sendJSON(wire.PayloadEncChallengeRequest, wire.EncryptionChallenge{Challenge: s.stream.key.Load().Seal(true, random)})
	if err != nil {
		return err
	}
	limit := time.NewTimer(handshakeWait)
	defer limit.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-limit.C:
		return errors.New("the client did not answer: timed out waiting for the encryption challenge")
	case answer := <-s.challenges:
		if subtle.ConstantTimeCompare(answer, random) != 1 {
			return errors.New("the client's answer to the encryption challenge is wrong")
		}
	}
	return nil
}

// challengeResponse takes the client's answer to the challenge. One that cannot be read
// is a wrong one.
func (s *session) challengeResponse(b []byte) {
	key := s.stream.key.Load()
	if key == nil {
		return
	}
	var given wire.EncryptionChallenge
	var answer []byte
	if json.Unmarshal(b, &given) == nil {
		answer, _ = key.Open(false, given.Challenge) // nil if it does not open
	}
	select {
	case s.challenges <- answer:
	default: // one was enough
	}
}

// decrypt returns what the client typed. Before there is a key that is nothing: it came
// too early, in clear. After that nothing else than what is encrypted is taken.
func (s *session) decrypt(b []byte) (typed []byte, ok bool) {
	key := s.stream.key.Load()
	if key == nil {
		return nil, false
	}
	typed, err := key.Open(false, b)
	if err != nil {
		s.cancel(errNotEncrypted)
		return nil, false
	}
	return typed, true
}
