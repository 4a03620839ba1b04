package identity_test

import (
	"bufio"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/identity"
	"sallyport.dev/internal/seal"
	"sallyport.dev/internal/vectors"
)

// recorded answers with the key that a transcript says a request was signed with.
type recorded struct {
	sealer identity.Sealer
	sig    *vectors.Sig
}

func (r recorded) AccessKey(_ context.Context, id string) (identity.AccessKey, error) {
	if id != r.sig.KeyID || r.sig.SecretAccessKey == "" {
		return identity.AccessKey{}, identity.ErrNotFound
	}
	return identity.SealAccessKey(r.sealer, id, r.sig.SecretAccessKey, "alice", time.Time{}), nil
}

func (r recorded) Machine(_ context.Context, id string) (identity.Machine, error) {
	if id != r.sig.KeyID || r.sig.PublicKey == "" {
		return identity.Machine{}, identity.ErrNotFound
	}
	return identity.Machine{ID: id, PublicKey: publicKey(r.sig.PublicKey)}, nil
}

func publicKey(text string) *rsa.PublicKey {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		panic(err)
	}
	return key.(*rsa.PublicKey)
}

// request rebuilds a recorded request as net/http would have read it from the wire.
func request(t *testing.T, l vectors.Line) *http.Request {
	t.Helper()
	var b strings.Builder
	b.WriteString(l.RequestLine + "\r\n")
	for _, h := range l.Headers {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("\r\n")
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(b.String())))
	if err != nil {
		t.Fatalf("line %d: %v", l.N, err)
	}
	return r
}

// Every signature of the official programs verifies or fails as its transcript says,
// and the canonical request is spelled as they spell it. Their session tokens are not
// ours, so the HMAC of temporary credentials is checked as that of a key.
func TestOfficialSignatures(t *testing.T) {
	key, err := seal.New(make([]byte, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	checked := map[string]int{}
	for _, tr := range vectors.LoadAll(t, "../wire/testdata/vectors") {
		for _, l := range tr.Lines {
			if l.Sig == nil {
				continue
			}
			r := request(t, l)
			got, err := identity.CanonicalRequest(r, []byte(l.Body))
			if err != nil {
				t.Errorf("%s line %d: %v", tr.Name, l.N, err)
				continue
			}
			if diff := cmp.Diff(l.Sig.CanonicalRequest, got); diff != "" {
				t.Errorf("%s line %d: canonical request (-want +got):\n%s", tr.Name, l.N, diff)
			}
			at, err := time.Parse("20060102T150405Z", l.Sig.Time)
			if err != nil {
				t.Fatal(err)
			}
			source := recorded{key, l.Sig}
			v := identity.NewVerifier(identity.VerifierConfig{
				Keys: source, Machines: source, Sealer: key, Now: func() time.Time { return at },
			})
			err = identity.VerifyIgnoringToken(v, r, []byte(l.Body))
			e := (*identity.AuthError)(nil)
			switch {
			case l.Sig.Valid && err != nil:
				t.Errorf("%s line %d: got %v, want it to verify", tr.Name, l.N, err)
			case !l.Sig.Valid && (!errors.As(err, &e) || e.Failure != identity.BadSignature):
				t.Errorf("%s line %d: got %v, want a bad signature", tr.Name, l.N, err)
			}
			switch {
			case !l.Sig.Valid:
				checked["invalid"]++
			case strings.HasPrefix(l.Sig.Kind, "rsa"):
				checked["rsa"]++
			default:
				checked["hmac"]++
			}
		}
	}
	want := map[string]int{"hmac": 130, "rsa": 4, "invalid": 2}
	if diff := cmp.Diff(want, checked); diff != "" {
		t.Errorf("signatures checked (-want +got):\n%s", diff)
	}
}
