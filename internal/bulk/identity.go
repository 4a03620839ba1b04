package bulk

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Identity is the key and certificate of one end in one session. Nobody vouches for the
// certificate: the ends know each other's by its fingerprint.
type Identity struct {
	cert        tls.Certificate
	fingerprint string
}

// NewIdentity makes an identity.
func NewIdentity() (*Identity, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	sum := sha256.Sum256(der)
	return &Identity{
		cert:        tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private},
		fingerprint: hex.EncodeToString(sum[:]),
	}, nil
}

// Fingerprint is the SHA-256 of the certificate's DER, in hexadecimal.
func (i *Identity) Fingerprint() string { return i.fingerprint }

var errPeer = errors.New("the peer is not who the session's handshake named")

// config returns the TLS configuration for a peer with the given fingerprint.
func (i *Identity) config(peer string) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{i.cert},
		ClientAuth:   tls.RequireAnyClientCert,
		// What is verified instead of a chain is the certificate itself, below.
		InsecureSkipVerify:          true,
		VerifyConnection:            func(s tls.ConnectionState) error { return verify(s, peer) },
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
}

func verify(s tls.ConnectionState, peer string) error {
	if len(s.PeerCertificates) == 0 {
		return errPeer
	}
	sum := sha256.Sum256(s.PeerCertificates[0].Raw)
	if subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), []byte(peer)) != 1 {
		return errPeer
	}
	return nil
}

// ValidFingerprint reports whether s can be a fingerprint.
func ValidFingerprint(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && hex.EncodeToString(b) == s
}
