// Package datakey encrypts the payloads of a session's stream with the session's data
// key, as both ends and, where it records, the gateway do (docs/protocol.md §16).
//
// The first half of the key encrypts what the agent sends, the second what the client
// sends, each with AES-256-GCM without additional data. An encrypted payload is a nonce
// of 12 random bytes, the ciphertext, and a tag of 16 bytes.
package datakey

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
)

const (
	// Size is the length of a data key in bytes.
	Size = 64
	// Overhead is how many bytes an encrypted payload is longer than a clear one.
	Overhead = 12 + 16
)

// ErrOpen is returned for a payload that the other end did not encrypt with the key.
var ErrOpen = errors.New("payload is not encrypted with the session's key")

// Key is a session's data key. It is safe for concurrent use.
type Key struct{ agent, client cipher.AEAD }

// New returns the key made of Size bytes, which it does not keep.
func New(key []byte) (*Key, error) {
	if len(key) != Size {
		return nil, fmt.Errorf("data key has %d bytes, must have %d", len(key), Size)
	}
	agent, err := newAEAD(key[:Size/2])
	if err != nil {
		return nil, err
	}
	client, err := newAEAD(key[Size/2:])
	return &Key{agent: agent, client: client}, err
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (k *Key) of(fromAgent bool) cipher.AEAD {
	if fromAgent {
		return k.agent
	}
	return k.client
}

// Seal encrypts a payload of the agent's, or the client's.
func (k *Key) Seal(fromAgent bool, payload []byte) []byte {
	return k.of(fromAgent).Seal(make([]byte, 0, len(payload)+Overhead), nil, payload, nil)
}

// Open decrypts a payload of the agent's, or the client's, or returns ErrOpen.
func (k *Key) Open(fromAgent bool, payload []byte) ([]byte, error) {
	if len(payload) < Overhead {
		return nil, ErrOpen
	}
	clear, err := k.of(fromAgent).Open(make([]byte, 0, len(payload)-Overhead), nil, payload, nil)
	if err != nil {
		return nil, ErrOpen
	}
	return clear, nil
}
