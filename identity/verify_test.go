package identity_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/internal/seal"
)

const testNode = "mi-0123456789abcdef0"

var testNow = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// machines is nodes by id.
type machines map[string]*rsa.PublicKey

func (m machines) Machine(_ context.Context, id string) (identity.Machine, error) {
	key, ok := m[id]
	if !ok {
		return identity.Machine{}, identity.ErrNotFound
	}
	return identity.Machine{ID: id, PublicKey: key}, nil
}

// noKeys has no access keys.
type noKeys struct{}

func (noKeys) AccessKey(context.Context, string) (identity.AccessKey, error) {
	return identity.AccessKey{}, identity.ErrNotFound
}

func testSealer(t testing.TB) *seal.Key {
	t.Helper()
	key, err := seal.New(make([]byte, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// nodeRequest makes a request signed as agents do; sign makes the signature of a digest.
func nodeRequest(t *testing.T, node, body string, sign func(digest []byte) ([]byte, error)) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, "http://gateway.example:8443/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	stamp := testNow.Format("20060102T150405Z")
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Date", stamp)
	r.Header.Set("X-Amz-Target", "AmazonSSM.RequestManagedInstanceRoleToken")
	hash := func(s string) string { d := sha256.Sum256([]byte(s)); return hex.EncodeToString(d[:]) }
	canonical := "POST\n/\n\ncontent-type:application/x-amz-json-1.1\nhost:gateway.example:8443\nx-amz-date:" + stamp +
		"\nx-amz-target:AmazonSSM.RequestManagedInstanceRoleToken\n\ncontent-type;host;x-amz-date;x-amz-target\n" + hash(body)
	scope := stamp[:8] + "/us-east-1/ssm/aws4_request"
	digest := sha256.Sum256([]byte("AWS4-HMAC-SHA256\n" + stamp + "\n" + scope + "\n" + hash(canonical)))
	signature, err := sign(digest[:])
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+node+"/"+scope+
		", SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature="+base64.StdEncoding.EncodeToString(signature))
	return r
}

func pss(key *rsa.PrivateKey) func([]byte) ([]byte, error) {
	return func(digest []byte) ([]byte, error) {
		return rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest, &rsa.PSSOptions{SaltLength: 32})
	}
}

func TestNodeSignatures(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	known := machines{testNode: &key.PublicKey, "mi-00000000000000001": nil}
	const body = `{"Fingerprint":"f"}`
	plain := func(node string, sign func([]byte) ([]byte, error)) func() *http.Request {
		return func() *http.Request { return nodeRequest(t, node, body, sign) }
	}
	for _, test := range []struct {
		name string
		make func() *http.Request
		want identity.Failure // empty: it verifies
	}{
		{"the node's key", plain(testNode, pss(key)), ""},
		{"another key", plain(testNode, pss(other)), identity.BadSignature},
		{"an unknown node", plain("mi-0123456789abcdef1", pss(key)), identity.UnknownKey},
		{"a node without a key", plain("mi-00000000000000001", pss(key)), identity.UnknownKey},
		{"PKCS #1 v1.5", plain(testNode, func(d []byte) ([]byte, error) {
			return rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, d)
		}), identity.BadSignature},
		{"a short salt", plain(testNode, func(d []byte) ([]byte, error) {
			return rsa.SignPSS(rand.Reader, key, crypto.SHA256, d, &rsa.PSSOptions{SaltLength: 1})
		}), identity.BadSignature},
		{"not base64", func() *http.Request {
			r := nodeRequest(t, testNode, body, pss(key))
			r.Header.Set("Authorization", r.Header.Get("Authorization")+"!")
			return r
		}, identity.Incomplete},
		{"the node's id with an HMAC of nothing", func() *http.Request {
			r := nodeRequest(t, testNode, body, pss(key))
			before, _, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
			r.Header.Set("Authorization", before+"Signature="+strings.Repeat("0", 64))
			return r
		}, identity.BadSignature},
	} {
		v := identity.NewVerifier(identity.VerifierConfig{
			Keys: noKeys{}, Machines: known, Sealer: testSealer(t), Now: func() time.Time { return testNow },
		})
		proof, err := v.Verify(context.Background(), test.make(), []byte(body))
		var got identity.Failure
		if e := (*identity.AuthError)(nil); errors.As(err, &e) {
			got = e.Failure
		} else if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if got != test.want {
			t.Errorf("%s: got %q (%v), want %q", test.name, got, err, test.want)
		}
		if err == nil && (proof.Machine == nil || proof.AccessKeyID != testNode || proof.Service != "ssm") {
			t.Errorf("%s: got %+v", test.name, proof)
		}
	}
	v := identity.NewVerifier(identity.VerifierConfig{
		Keys: noKeys{}, Machines: known, Sealer: testSealer(t), Now: func() time.Time { return testNow },
	})
	if _, err := v.Verify(context.Background(), nodeRequest(t, testNode, body, pss(key)), []byte(body+" ")); err == nil {
		t.Error("a changed body verifies")
	}
}

func TestCanonicalForm(t *testing.T) {
	for _, test := range []struct{ url, want string }{
		{"http://h/", "GET\n/\n\n"},
		{"http://h", "GET\n/\n\n"},
		{"http://h/a%20b", "GET\n/a%2520b\n\n"},
		{"http://h/a/./b/../c//d/", "GET\n/a/c/d/\n\n"},
		{"http://h/v1/data-channel/alice-0a1b?role=publish_subscribe&stream=input", "GET\n/v1/data-channel/alice-0a1b\nrole=publish_subscribe&stream=input\n"},
		{"http://h/?b=2&a=2&a=1&c&d=%7e%2f", "GET\n/\na=1&a=2&b=2&c=&d=~%2F\n"},
	} {
		r, err := http.NewRequest(http.MethodGet, test.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Date", "20261120T120000Z")
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=K/20261120/us-east-1/ssm/aws4_request, SignedHeaders=host;x-amz-date, Signature=0")
		got, err := identity.CanonicalRequest(r, nil)
		if err != nil || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: got %q, %v, want it to begin %q", test.url, got, err, test.want)
		}
	}
}

func TestIssue(t *testing.T) {
	issuer := identity.NewIssuer(testSealer(t))
	if _, err := issuer.Issue(identity.Claims{IssuedAt: testNow, ExpiresAt: testNow}); err == nil {
		t.Error("credentials without life were issued")
	}
	c, err := issuer.Issue(identity.Claims{Kind: identity.KindRole, Name: "Ops", IssuedAt: testNow, ExpiresAt: testNow.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.AccessKeyID, "ASIA") || len(c.AccessKeyID) != 20 || len(c.SecretAccessKey) != 40 {
		t.Errorf("got %s and a secret of %d characters", c.AccessKeyID, len(c.SecretAccessKey))
	}
	if plain, _ := base64.StdEncoding.DecodeString(c.SessionToken); strings.Contains(string(plain), "Ops") {
		t.Error("the token is not sealed")
	}
}

func TestIDs(t *testing.T) {
	for prefix, id := range map[string]string{
		"AIDA": identity.NewUserID(), "AGPA": identity.NewGroupID(), "AROA": identity.NewRoleID(),
		"ANPA": identity.NewPolicyID(), "APKA": identity.NewSSHKeyID(), "AKIA": identity.NewAccessKeyID(),
	} {
		if !strings.HasPrefix(id, prefix) || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
			t.Errorf("got %s", id)
		}
	}
}

// No request makes the verifier fail in another way than it says, or succeed.
func FuzzVerify(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKIA/20261120/us-east-1/ssm/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "20261120T120000Z", "", "")
	f.Add("", "", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20261120%2Fus-east-1%2Fsts%2Faws4_request&X-Amz-Date=20261120T120000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00", "")
	f.Add("AWS4-HMAC-SHA256 Credential=mi-0123456789abcdef0/20261120/us-east-1/ssm/aws4_request, SignedHeaders=host;x-amz-date, Signature=AAAA", "20261120T120000Z", "a=%", "token")
	v := identity.NewVerifier(identity.VerifierConfig{
		Keys: noKeys{}, Machines: machines{}, Sealer: testSealer(f), Now: func() time.Time { return testNow },
	})
	f.Fuzz(func(t *testing.T, authorization, date, query, token string) {
		r, err := http.NewRequest(http.MethodPost, "http://h/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.RawQuery = query
		for name, value := range map[string]string{"Authorization": authorization, "X-Amz-Date": date, "X-Amz-Security-Token": token} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		_, err = v.Verify(context.Background(), r, nil)
		if e := (*identity.AuthError)(nil); !errors.As(err, &e) {
			t.Errorf("got %v", err)
		}
	})
}
