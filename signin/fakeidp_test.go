package signin_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"
)

// fakeProvider is an OpenID provider that lets everybody in as who it was told, and lies
// where a test wants it to.
type fakeProvider struct {
	*httptest.Server
	t      *testing.T
	client string // id
	key    *rsa.PrivateKey
	now    func() time.Time

	mu     sync.Mutex
	claims map[string]any // of whoever signs in next
	codes  map[string]asked
	// lie changes what it says: the claims of the ID token, how it is signed, what is
	// appended to the redirect, and the claims at the user-info endpoint.
	lie      func(idToken map[string]any)
	sign     func(header, body string) string
	iss      string
	userInfo func(sub string) map[string]any
	tokens   int // asked for
}

// providerKey is made once: that takes a while.
var providerKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

type asked struct {
	nonce, challenge, redirect string
	claims                     map[string]any
}

func newFakeProvider(t *testing.T, client string, now func() time.Time) *fakeProvider {
	p := &fakeProvider{t: t, client: client, key: providerKey(), now: now, codes: map[string]asked{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("/authorize", p.authorize)
	mux.HandleFunc("/token", p.token)
	mux.HandleFunc("/keys", p.keys)
	mux.HandleFunc("/me", p.me)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (p *fakeProvider) discovery(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	doc := map[string]any{
		"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
		"id_token_signing_alg_values_supported": []string{"none", "HS256", "RS256"}, // it would take anything
	}
	if p.iss != "" {
		doc["authorization_response_iss_parameter_supported"] = true
	}
	if p.userInfo != nil {
		doc["userinfo_endpoint"] = p.URL + "/me"
	}
	answerJSON(w, doc)
}

func (p *fakeProvider) authorize(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	code := rand.Text()
	p.codes[code] = asked{q.Get("nonce"), q.Get("code_challenge"), q.Get("redirect_uri"), maps.Clone(p.claims)}
	back := url.Values{"code": {code}, "state": {q.Get("state")}}
	if p.iss != "" {
		back.Set("iss", p.iss)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusSeeOther)
}

func (p *fakeProvider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens++
	a, ok := p.codes[r.FormValue("code")]
	delete(p.codes, r.FormValue("code"))
	sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	if !ok || a.redirect != r.FormValue("redirect_uri") || base64.RawURLEncoding.EncodeToString(sum[:]) != a.challenge {
		w.WriteHeader(http.StatusBadRequest)
		answerJSON(w, map[string]string{"error": "invalid_grant"})
		return
	}
	claims := map[string]any{
		"iss": p.URL, "aud": p.client, "nonce": a.nonce, "iat": p.now().Unix(), "exp": p.now().Add(5 * time.Minute).Unix(),
	}
	maps.Copy(claims, a.claims)
	if p.lie != nil {
		p.lie(claims)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		p.t.Error(err)
	}
	sign := p.sign
	if sign == nil {
		sign = signRS256(p.key)
	}
	answerJSON(w, map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "id_token": sign("", b64(body)), "expires_in": 60})
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func signRS256(key *rsa.PrivateKey) func(header, body string) string {
	return func(_, body string) string {
		text := b64([]byte(`{"alg":"RS256","kid":"k"}`)) + "." + body
		sum := sha256.Sum256([]byte(text))
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			panic(err)
		}
		return text + "." + b64(sig)
	}
}

func signHS256(secret []byte) func(header, body string) string {
	return func(_, body string) string {
		text := b64([]byte(`{"alg":"HS256","kid":"k"}`)) + "." + body
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(text))
		return text + "." + b64(mac.Sum(nil))
	}
}

func (p *fakeProvider) keys(w http.ResponseWriter, _ *http.Request) {
	answerJSON(w, map[string]any{"keys": []any{map[string]string{
		"kty": "RSA", "kid": "k", "alg": "RS256", "use": "sig",
		"n": b64(p.key.N.Bytes()), "e": b64(big.NewInt(int64(p.key.E)).Bytes()),
	}}})
}

func (p *fakeProvider) me(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sub, _ := p.claims["sub"].(string)
	answerJSON(w, p.userInfo(sub))
}

// become makes the next person who signs in be these claims.
func (p *fakeProvider) become(claims map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claims = claims
}
