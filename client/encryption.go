package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/smithy-go"

	"sallyport.dev/internal/datakey"
	"sallyport.dev/wire"
)

// Encryption between client and agent (docs/protocol.md §16). An agent whose session
// document names a key asks for it in its handshake; the client has the key service make
// a data key, and from then on what is typed leaves encrypted, and what is shown must
// have come so.

// dataKeyPatience bounds the making of a data key: the agent waits 15 s for its
// handshake.
const dataKeyPatience = 10 * time.Second

// DataKey is a session's data key, in clear and as the key service has encrypted it.
type DataKey struct{ Clear, Encrypted []byte }

// DataKeyFunc has a key make a data key with an encryption context.
type DataKeyFunc func(ctx context.Context, keyID string, encryptionContext map[string]string) (DataKey, error)

// DataKey has the key service make a data key: the server's own one with the credentials
// that sessions are started with, or AWS's where there is no endpoint.
func (a *API) DataKey(ctx context.Context, keyID string, encryptionContext map[string]string) (DataKey, error) {
	in := struct {
		KeyID             string            `json:"KeyId"`
		NumberOfBytes     int               `json:"NumberOfBytes"`
		EncryptionContext map[string]string `json:"EncryptionContext"`
	}{keyID, wire.DataKeySize, encryptionContext}
	var out struct {
		CiphertextBlob []byte
		Plaintext      []byte
	}
	body, err := json.Marshal(in)
	if err != nil {
		return DataKey{}, err
	}
	status, answer, err := a.postTo(ctx, a.keyEndpoint(), "kms", "TrentService.GenerateDataKey", body)
	if err == nil && status != http.StatusOK {
		err = answerError(status, answer)
	}
	if err == nil {
		err = json.Unmarshal(answer, &out)
	}
	if err != nil {
		return DataKey{}, &smithy.OperationError{ServiceID: "kms", OperationName: "GenerateDataKey", Err: err}
	}
	return DataKey{out.Plaintext, out.CiphertextBlob}, nil
}

// keyEndpoint is where keys are: at the server, or at AWS where there is no endpoint.
func (a *API) keyEndpoint() string {
	if a.endpoint != "" {
		return a.endpoint
	}
	domain := "amazonaws.com"
	if strings.HasPrefix(a.cfg.Region, "cn-") {
		domain += ".cn"
	}
	return "https://kms." + a.cfg.Region + "." + domain
}

// agreeEncryption has a data key made as the agent asks, and begins to encrypt with it.
// It returns what the agent is to know.
func (d *DataChannel) agreeEncryption(parameters json.RawMessage) (result json.RawMessage, err error) {
	var asked wire.KMSEncryptionParameters
	if err := json.Unmarshal(parameters, &asked); err != nil {
		return nil, errors.New("unreadable parameters of the encryption")
	}
	switch {
	case d.key.Load() != nil || d.handler != nil:
		return nil, errors.New("the session's encryption is not agreed on twice")
	case d.cfg.Stream.Target == "":
		return nil, errors.New("the session is to be encrypted, but nobody told on which node it is; please use a newer AWS CLI")
	}
	ctx, cancel := context.WithTimeout(d.ctx, dataKeyPatience)
	defer cancel()
	made, err := d.cfg.DataKey(ctx, asked.KMSKeyID, wire.DataKeyContext(d.cfg.Stream.SessionID, d.cfg.Stream.Target, asked.Challenge))
	if err != nil {
		return nil, fmt.Errorf("making a data key with %s to encrypt the session: %w", Clean(asked.KMSKeyID), err)
	}
	key, err := datakey.New(made.Clear)
	clear(made.Clear)
	if err != nil {
		return nil, err
	}
	d.key.Store(key)
	return json.Marshal(wire.KMSEncryptionResult{KMSCipherTextKey: made.Encrypted, ChallengeAcknowledgement: asked.Challenge != ""})
}

// answerChallenge shows the agent that both ends have the same key.
func (d *DataChannel) answerChallenge(payload []byte) error {
	key := d.key.Load()
	if key == nil || d.handler != nil {
		return nil // none of this session: nobody is to have texts encrypted by us
	}
	var asked wire.EncryptionChallenge
	if err := json.Unmarshal(payload, &asked); err != nil {
		return fmt.Errorf("decoding encryption challenge: %w", err)
	}
	random, err := key.Open(true, asked.Challenge)
	if err != nil {
		return fmt.Errorf("reading the node's encryption challenge: %w", err)
	}
	b, err := json.Marshal(wire.EncryptionChallenge{Challenge: key.Seal(false, random)})
	if err != nil {
		panic(err)
	}
	d.trySend(wire.PayloadEncChallengeResponse, b, true)
	return nil
}

// decrypt returns the payload of a message of the agent's in clear. In a session that is
// encrypted nothing else is taken.
func (d *DataChannel) decrypt(m *wire.Message) ([]byte, error) {
	key := d.key.Load()
	if key == nil || !m.PayloadType.IsEncrypted(true) {
		return m.Payload, nil
	}
	payload, err := key.Open(true, m.Payload)
	if err != nil {
		return nil, fmt.Errorf("what the node sent is not to be trusted: %w", err)
	}
	return payload, nil
}

// encrypt returns a payload as it is sent.
func (d *DataChannel) encrypt(pt wire.PayloadType, payload []byte) []byte {
	if key := d.key.Load(); key != nil && pt.IsEncrypted(false) {
		return key.Seal(false, payload)
	}
	return payload
}
