package agent

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	signLabel = "AWS4-HMAC-SHA256" // also, by AWS's choice, of RSA signatures
	dateForm  = "20060102T150405Z"
)

// scope is what a signature is good for.
type scope struct {
	at              time.Time
	region, service string
}

func (s scope) String() string {
	return s.at.UTC().Format("20060102") + "/" + s.region + "/" + s.service + "/aws4_request"
}

// signed lists the headers that signatures cover, where a request has them. (The host
// always.) Small and fixed, so that no proxy's change to another header breaks one.
var signed = []string{"Content-Type", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Target"}

// signHMAC signs r with temporary credentials (SigV4).
func signHMAC(r *http.Request, body []byte, s scope, c credentials) {
	r.Header.Set("X-Amz-Date", s.at.UTC().Format(dateForm))
	if c.token != "" {
		r.Header.Set("X-Amz-Security-Token", c.token)
	}
	text, names := stringToSign(r, body, s)
	key := []byte("AWS4" + c.secret)
	for _, part := range strings.Split(s.String(), "/") {
		key = hmacSHA256(key, part)
	}
	authorize(r, c.id, s, names, hex.EncodeToString(hmacSHA256(key, text)))
}

// signRSA signs r as the node itself: RSA-PSS over the SigV4 string to sign, with the
// node's id in place of an access key (docs/protocol.md §22.1).
func signRSA(r *http.Request, body []byte, s scope, node string, key *rsa.PrivateKey) error {
	r.Header.Set("X-Amz-Date", s.at.UTC().Format(dateForm))
	text, names := stringToSign(r, body, s)
	digest := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: sha256.Size})
	if err != nil {
		return err
	}
	authorize(r, node, s, names, base64.StdEncoding.EncodeToString(sig))
	return nil
}

func authorize(r *http.Request, id string, s scope, names, signature string) {
	r.Header.Set("Authorization", signLabel+" Credential="+id+"/"+s.String()+
		", SignedHeaders="+names+", Signature="+signature)
}

func hmacSHA256(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func stringToSign(r *http.Request, body []byte, s scope) (text, names string) {
	canonical, names := canonicalRequest(r, body)
	sum := sha256.Sum256([]byte(canonical))
	return signLabel + "\n" + s.at.UTC().Format(dateForm) + "\n" + s.String() + "\n" + hex.EncodeToString(sum[:]), names
}

// canonicalRequest writes r in SigV4's canonical form and returns the names of the
// signed headers. The agent's own queries have one parameter per name, sorted.
func canonicalRequest(r *http.Request, body []byte) (text, names string) {
	headers := []string{"host"}
	for _, h := range signed {
		if r.Header.Get(h) != "" {
			headers = append(headers, strings.ToLower(h))
		}
	}
	slices.Sort(headers)
	names = strings.Join(headers, ";")
	sum := sha256.Sum256(body)
	var b strings.Builder
	b.WriteString(r.Method + "\n" + escapePath(r.URL.EscapedPath()) + "\n" + r.URL.RawQuery + "\n")
	for _, h := range headers {
		v := r.Header.Get(h)
		if h == "host" {
			v = r.URL.Host
		}
		b.WriteString(h + ":" + strings.TrimSpace(v) + "\n")
	}
	b.WriteString("\n" + names + "\n" + hex.EncodeToString(sum[:]))
	return b.String(), names
}

// escapePath escapes a path as it goes over the wire once more, as SigV4 wants it of
// every service but S3.
func escapePath(p string) string {
	if p == "" {
		return "/"
	}
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(p) {
		c := p[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~/", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	return b.String()
}
