package identity

import (
	"context"
	"net/http"
)

// CanonicalRequest spells a signed request as the verifier does.
func CanonicalRequest(r *http.Request, body []byte) (string, error) {
	sig, err := parseSignature(r)
	if err != nil {
		return "", err
	}
	hash, err := payloadHash(r, body)
	if err != nil {
		return "", err
	}
	return canonicalRequest(r, sig, hash)
}

// VerifyIgnoringToken verifies a request whose session token another server made,
// with the secret that Keys gives for its access key.
func VerifyIgnoringToken(v *Verifier, r *http.Request, body []byte) error {
	sig, err := parseSignature(r)
	if err != nil {
		return err
	}
	sig.token = ""
	_, err = v.verify(context.Background(), r, body, sig)
	return err
}
