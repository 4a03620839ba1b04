package identity

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Keys finds long-lived access keys. AccessKey returns ErrNotFound, wrapped, for an
// unknown id.
type Keys interface {
	AccessKey(ctx context.Context, id string) (AccessKey, error)
}

// Proof is what a valid signature proves. Exactly one of Key, Claims and Machine is set.
type Proof struct {
	AccessKeyID string // or the node's id, where Machine is set
	Service     string // of the scope, as signed
	Region      string
	Key         *AccessKey // a user's long-lived key
	Claims      *Claims    // temporary credentials
	Machine     *Machine   // a node's own RSA key
}

// VerifierConfig is what a Verifier needs.
type VerifierConfig struct {
	Keys     Keys
	Machines Machines // nil if nodes do not sign
	Sealer   Sealer
	Now      func() time.Time
	Skew     time.Duration // greatest difference of clocks; 0 is 5 minutes
	Regions  []string      // accepted in scopes; empty for any
}

// Verifier checks the signatures of requests: AWS Signature Version 4 with HMAC, in
// the Authorization header or in the query (presigned), and the RSA-PSS form of node
// agents (docs/protocol.md §22.1).
//
// The host, the date, X-Amz-Target and X-Amz-Security-Token must be signed where they
// are present: everything that steers the request. Other headers may be unsigned
// (agents send X-Amz-Content-Sha256 so) and mean nothing to the server. Each of the
// headers that authentication reads may occur once only.
//
// The hash of the payload is always that of the body received: UNSIGNED-PAYLOAD and
// the aws-chunked STREAMING- forms, which only S3 knows, are refused.
type Verifier struct {
	config VerifierConfig
}

// NewVerifier returns a Verifier.
func NewVerifier(c VerifierConfig) *Verifier {
	if c.Skew == 0 {
		c.Skew = 5 * time.Minute
	}
	return &Verifier{c}
}

const (
	messageUnknownKey = "The security token included in the request is invalid."
	messageExpired    = "The security token included in the request is expired"
	messageMismatch   = "The request signature we calculated does not match the signature you provided. " +
		"Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)

// Verify checks the signature of r, whose body was body. Errors are *AuthError where
// the request is at fault; others mean that it could not be checked.
func (v *Verifier) Verify(ctx context.Context, r *http.Request, body []byte) (Proof, error) {
	sig, err := parseSignature(r)
	if err != nil {
		return Proof{}, err
	}
	proof, err := v.verify(ctx, r, body, sig)
	if e := (*AuthError)(nil); errors.As(err, &e) {
		e.AccessKeyID = sig.keyID
	}
	return proof, err
}

func (v *Verifier) verify(ctx context.Context, r *http.Request, body []byte, sig *signature) (Proof, error) {
	if err := v.checkTime(sig); err != nil {
		return Proof{}, err
	}
	if len(v.config.Regions) > 0 && !slices.Contains(v.config.Regions, sig.region) {
		return Proof{}, authError(WrongScope, "Credential should be scoped to a valid region, not '%s'. The region is '%s'.",
			sig.region, strings.Join(v.config.Regions, "' or '"))
	}
	hash, err := payloadHash(r, body)
	if err != nil {
		return Proof{}, err
	}
	canonical, err := canonicalRequest(r, sig, hash)
	if err != nil {
		return Proof{}, err
	}
	proof := Proof{AccessKeyID: sig.keyID, Service: sig.service, Region: sig.region}
	err = v.prove(ctx, sig, sig.stringToSign(canonical), &proof)
	return proof, err
}

// checkTime compares the signature's clock with ours.
func (v *Verifier) checkTime(sig *signature) error {
	now := v.config.Now().UTC()
	if sig.time.After(now.Add(v.config.Skew)) {
		return authError(OutOfTime, "Signature not yet current: %s is still later than %s (%s + %s.)",
			stamp(sig.time), stamp(now.Add(v.config.Skew)), stamp(now), minutes(v.config.Skew))
	}
	if sig.presigned {
		if until := sig.time.Add(sig.expires); now.After(until) {
			return authError(OutOfTime, "Signature expired: %s is now earlier than %s (presigned for %s.)",
				stamp(until), stamp(now), sig.expires)
		}
		return nil
	}
	if earliest := now.Add(-v.config.Skew); sig.time.Before(earliest) {
		return authError(OutOfTime, "Signature expired: %s is now earlier than %s (%s - %s.)",
			stamp(sig.time), stamp(earliest), stamp(now), minutes(v.config.Skew))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(timeFormat) }

func minutes(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return d.String()
}

// payloadHash returns the hex SHA-256 of the body, after comparing it with what the
// request says of it.
func payloadHash(r *http.Request, body []byte) (string, error) {
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	said := r.Header.Values("X-Amz-Content-Sha256")
	if len(said) > 1 {
		return "", authError(Incomplete, "X-Amz-Content-Sha256 is given %d times; once is allowed.", len(said))
	}
	if len(said) == 1 && said[0] != "" && !strings.EqualFold(said[0], hash) {
		return "", authError(RefusedByHash, "X-Amz-Content-Sha256 must be the hexadecimal SHA-256 of the body; "+
			"unsigned and streamed payloads are not accepted.")
	}
	return hash, nil
}

// nodeID is the form of credential ids that stand for a node's own key.
var nodeID = regexp.MustCompile(`^m?i-[0-9a-f]{8,17}$`)

func (v *Verifier) prove(ctx context.Context, sig *signature, text string, p *Proof) error {
	switch {
	case nodeID.MatchString(sig.keyID):
		return v.proveMachine(ctx, sig, text, p)
	case sig.token != "":
		return v.proveTemporary(sig, text, p)
	}
	return v.proveKey(ctx, sig, text, p)
}

// proveMachine checks the RSA-PSS signature of a node's own key.
func (v *Verifier) proveMachine(ctx context.Context, sig *signature, text string, p *Proof) error {
	if v.config.Machines == nil || sig.presigned || sig.token != "" {
		return authError(UnknownKey, "%s", messageUnknownKey)
	}
	m, err := v.config.Machines.Machine(ctx, sig.keyID)
	if errors.Is(err, ErrNotFound) || err == nil && m.PublicKey == nil {
		return authError(UnknownKey, "%s", messageUnknownKey)
	}
	if err != nil {
		return fmt.Errorf("looking up node %s: %w", sig.keyID, err)
	}
	raw, err := base64.StdEncoding.DecodeString(sig.value)
	if err != nil {
		return authError(Incomplete, "The signature of a node must be standard base64.")
	}
	digest := sha256.Sum256([]byte(text))
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
	if rsa.VerifyPSS(m.PublicKey, crypto.SHA256, digest[:], raw, options) != nil {
		return authError(BadSignature, "%s", messageMismatch)
	}
	p.Machine = &m
	return nil
}

// proveTemporary checks a signature with the secret that the session token holds.
func (v *Verifier) proveTemporary(sig *signature, text string, p *Proof) error {
	c, err := openToken(v.config.Sealer, sig.keyID, sig.token)
	if err != nil {
		return authError(InvalidToken, "%s", messageUnknownKey)
	}
	if err := sig.checkHMAC(c.Secret, text); err != nil {
		return err
	}
	if !v.config.Now().Before(c.ExpiresAt) {
		return authError(ExpiredToken, "%s", messageExpired)
	}
	p.Claims = &c.Claims
	return nil
}

func (v *Verifier) proveKey(ctx context.Context, sig *signature, text string, p *Proof) error {
	key, err := v.config.Keys.AccessKey(ctx, sig.keyID)
	if errors.Is(err, ErrNotFound) {
		return authError(UnknownKey, "%s", messageUnknownKey)
	}
	if err != nil {
		return fmt.Errorf("looking up access key: %w", err)
	}
	secret, err := openAccessKey(v.config.Sealer, key)
	if err != nil {
		return err
	}
	if err := sig.checkHMAC(secret, text); err != nil {
		return err
	}
	if !key.Active {
		return authError(UnknownKey, "%s", messageUnknownKey)
	}
	p.Key = &key
	return nil
}

// checkHMAC compares the signature with the one that secret gives, in constant time.
func (s *signature) checkHMAC(secret, text string) error {
	want := hex.EncodeToString(mac(s.signingKey(secret), text))
	if subtle.ConstantTimeCompare([]byte(want), []byte(s.value)) != 1 {
		return authError(BadSignature, "%s", messageMismatch)
	}
	return nil
}

func (s *signature) signingKey(secret string) []byte {
	key := mac([]byte("AWS4"+secret), s.date)
	for _, part := range []string{s.region, s.service, "aws4_request"} {
		key = mac(key, part)
	}
	return key
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
