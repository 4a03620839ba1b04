package node

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Limits of activations. AWS allows the same.
const (
	MaxRegistrations = 1000
	DefaultLifetime  = 24 * time.Hour
	MaxLifetime      = 30 * 24 * time.Hour
)

// NewActivationID returns a fresh activation id, a lower-case UUID.
func NewActivationID() string { return uuid.NewString() }

// NewCode returns a fresh activation code of 32 characters, 160 bits of them
// random, and the hash to keep of it. Agents refuse codes under 20 characters.
func NewCode() (code string, hash []byte) {
	var b [20]byte
	rand.Read(b[:])
	code = strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
	return code, hashCode(code)
}

// hashCode needs no salt and no stretching: a code is 160 random bits.
func hashCode(code string) []byte {
	sum := sha256.Sum256([]byte(code))
	return sum[:]
}

// CodeMatches reports whether code is the activation's, in constant time. It is
// false for the zero Activation, and takes as long.
func (a Activation) CodeMatches(code string) bool {
	return subtle.ConstantTimeCompare(a.CodeHash, hashCode(code)) == 1
}

// Expired reports whether the activation is over at the given time.
func (a Activation) Expired(at time.Time) bool { return !at.Before(a.Expires) }

// Check tells what is wrong with an activation that is to be created at the given
// time: the limit, the expiry or the fixed ids.
func (a Activation) Check(at time.Time) error {
	if a.Limit < 1 || a.Limit > MaxRegistrations {
		return fmt.Errorf("RegistrationLimit is %d; it must be between 1 and %d", a.Limit, MaxRegistrations)
	}
	if !a.Expires.After(at) {
		return errors.New("ExpirationDate is in the past")
	}
	if a.Expires.Sub(at) > MaxLifetime {
		return errors.New("ExpirationDate is more than 30 days ahead")
	}
	if len(a.NodeIDs) == 0 {
		return nil
	}
	if len(a.NodeIDs) != a.Limit {
		return fmt.Errorf("%d node ids are fixed for a RegistrationLimit of %d; the numbers must be equal", len(a.NodeIDs), a.Limit)
	}
	return checkIDs(a.NodeIDs)
}

func checkIDs(ids []string) error {
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if !ValidID(id) {
			return fmt.Errorf("node id %q must be i- or mi- and 17 lower-case hexadecimal digits", id)
		}
		if seen[id] {
			return fmt.Errorf("node id %q is fixed twice", id)
		}
		seen[id] = true
	}
	return nil
}

// Sizes of RSA keys that nodes may register. The upper bound keeps a verification
// from costing the server what it costs nobody to ask for.
const (
	minKeyBits = 2048
	maxKeyBits = 8192
	maxKeyText = 4096
)

// ErrInvalidPublicKey is returned for a key that a node may not have.
var ErrInvalidPublicKey = errors.New("public key is not valid")

// ParsePublicKey reads a node's public key: standard base64 of the PKIX DER of an
// RSA key of 2048 to 8192 bits. kind must be "Rsa". Errors wrap ErrInvalidPublicKey.
func ParsePublicKey(key, kind string) (*rsa.PublicKey, error) {
	if kind != "Rsa" {
		return nil, fmt.Errorf("%w: PublicKeyType is %q; it must be Rsa", ErrInvalidPublicKey, kind)
	}
	if len(key) > maxKeyText {
		return nil, fmt.Errorf("%w: it is longer than %d characters", ErrInvalidPublicKey, maxKeyText)
	}
	der, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return nil, fmt.Errorf("%w: it is not base64", ErrInvalidPublicKey)
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: it is not PKIX DER", ErrInvalidPublicKey)
	}
	pub, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: it is not an RSA key", ErrInvalidPublicKey)
	}
	if bits := pub.N.BitLen(); bits < minKeyBits || bits > maxKeyBits {
		return nil, fmt.Errorf("%w: it has %d bits; it must have %d to %d", ErrInvalidPublicKey, bits, minKeyBits, maxKeyBits)
	}
	return pub, nil
}

// FingerprintMatches reports whether a machine that shows the node's key is the one
// that registered it. It is false when the key was copied to another machine, in an
// image for instance, whose agent has noticed and made a fingerprint of its own.
func (n Node) FingerprintMatches(fingerprint string) bool {
	return subtle.ConstantTimeCompare([]byte(n.Fingerprint), []byte(fingerprint)) == 1
}
