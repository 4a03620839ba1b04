// Package seal encrypts small secrets with a master key, each purpose under a key
// of its own, so that what was sealed for one use can never be opened as another.
//
// A sealed value is one version byte (1), a 24-byte random nonce, and the
// XChaCha20-Poly1305 ciphertext with its 16-byte tag: 41 bytes more than the
// plaintext. The key of a purpose is HKDF-SHA256 of the master key with the purpose
// as info; the version byte and the caller's context are authenticated with it.
package seal

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
)

// KeySize is the length of a master key in bytes.
const KeySize = 32

// Overhead is how many bytes a sealed value is longer than its plaintext.
const Overhead = 1 + chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead

const version = 1

// ErrOpen is returned for every value that cannot be opened: cut short, altered,
// sealed under another master key, for another purpose or in another context. It
// does not say which, since the difference only helps an attacker.
var ErrOpen = errors.New("sealed value does not open")

// Key is a master key. It is safe for concurrent use.
type Key struct {
	master [KeySize]byte
	aeads  sync.Map // purpose -> cipher.AEAD; purposes are constants, so few
}

// New returns the master key made of 32 random bytes.
func New(raw []byte) (*Key, error) {
	if len(raw) != KeySize {
		return nil, fmt.Errorf("master key has %d bytes, must have %d", len(raw), KeySize)
	}
	k := new(Key)
	copy(k.master[:], raw)
	return k, nil
}

// Generate returns a new random master key's bytes.
func Generate() []byte {
	raw := make([]byte, KeySize)
	rand.Read(raw) // never fails: crypto/rand ends the process instead
	return raw
}

// Seal encrypts plaintext for a purpose (a constant such as "access-key"). Open
// must be given the same context (such as the id of the row that holds the value).
func (k *Key) Seal(purpose string, plaintext, context []byte) []byte {
	out := make([]byte, 1+chacha20poly1305.NonceSizeX, len(plaintext)+Overhead)
	out[0] = version
	nonce := out[1:]
	rand.Read(nonce)
	return k.aead(purpose).Seal(out, nonce, plaintext, authenticated(context))
}

// Open decrypts what Seal made for the same purpose and context; every failure is
// ErrOpen.
func (k *Key) Open(purpose string, sealed, context []byte) ([]byte, error) {
	if len(sealed) < Overhead || sealed[0] != version {
		return nil, ErrOpen
	}
	nonce := sealed[1 : 1+chacha20poly1305.NonceSizeX]
	plain, err := k.aead(purpose).Open(nil, nonce, sealed[1+len(nonce):], authenticated(context))
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

func authenticated(context []byte) []byte {
	return append([]byte{version}, context...)
}

func (k *Key) aead(purpose string) cipher.AEAD {
	if a, ok := k.aeads.Load(purpose); ok {
		return a.(cipher.AEAD)
	}
	key, err := hkdf.Key(sha256.New, k.master[:], nil, "sallyport/seal/"+purpose, chacha20poly1305.KeySize)
	if err != nil {
		panic("seal: deriving a key: " + err.Error()) // only for absurd lengths
	}
	a, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic("seal: " + err.Error()) // only for a wrong key length
	}
	k.aeads.Store(purpose, a)
	return a
}

// Mark returns 8 bytes that tell keys apart and tell nothing else of them.
func (k *Key) Mark(purpose string) []byte {
	mark, err := hkdf.Key(sha256.New, k.master[:], nil, "sallyport/mark/"+purpose, 8)
	if err != nil {
		panic("seal: " + err.Error()) // only for lengths that HKDF cannot give
	}
	return mark
}

// String keeps the key out of logs and error texts.
func (k *Key) String() string { return "seal.Key(secret)" }

// GoString keeps the key out of %#v.
func (k *Key) GoString() string { return k.String() }
