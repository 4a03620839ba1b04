package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

const (
	requestTimeout = 15 * time.Second
	maxAnswer      = 256 << 10 // bytes of an HTTP answer
)

// endpoint is one server that the agent may talk to.
type endpoint struct {
	base  *url.URL
	tls   *tls.Config // nil for plain HTTP
	proxy func(*http.Request) (*url.URL, error)
	http  *http.Client
}

// newEndpoints makes the endpoints of a checked configuration.
func newEndpoints(cfg Config) ([]*endpoint, error) {
	roots, err := loadRoots(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	pin, err := parsePin(cfg.CASHA256)
	if err != nil {
		return nil, err
	}
	var all []*endpoint
	for _, s := range cfg.Servers {
		u, err := parseServer(s)
		if err != nil {
			return nil, err
		}
		all = append(all, newEndpoint(u, tlsConfig(u.Hostname(), roots, pin), cfg.Proxy))
	}
	return all, nil
}

func newEndpoint(u *url.URL, t *tls.Config, proxy func(*http.Request) (*url.URL, error)) *endpoint {
	return &endpoint{base: u, tls: t, proxy: proxy, http: &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			Proxy:           proxy,
			TLSClientConfig: t,
			MaxIdleConns:    1,
			IdleConnTimeout: 20 * time.Second,
			// HTTP/2 would cost memory for a call every five minutes.
			TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func loadRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file: %s holds no PEM certificate", file)
	}
	return pool, nil
}

// parsePin reads the SHA-256 of a certificate or public key, as tools write it: with
// or without "sha256:" and colons.
func parsePin(s string) ([]byte, error) {
	s = strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(s)), "sha256:"), ":", "")
	if s == "" {
		return nil, nil
	}
	pin, err := hex.DecodeString(s)
	if err != nil || len(pin) != sha256.Size {
		return nil, fmt.Errorf("ca_sha256: %q is not 64 hexadecimal digits", s)
	}
	return pin, nil
}

func tlsConfig(host string, roots *x509.CertPool, pin []byte) *tls.Config {
	t := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	if pin == nil {
		return t
	}
	if roots != nil { // the chain is verified as usual and must contain the pin as well
		t.VerifyConnection = func(cs tls.ConnectionState) error { return pinned(cs.VerifiedChains, pin) }
		return t
	}
	// The pinned certificate comes with the chain and becomes its only root, so
	// the usual verification, which knows no root, is replaced, not left out.
	t.InsecureSkipVerify = true
	t.VerifyConnection = func(cs tls.ConnectionState) error { return verifyPinned(cs.PeerCertificates, host, pin) }
	return t
}

var errPin = errors.New("the server's certificates do not include the authority that ca_sha256 names")

func pinned(chains [][]*x509.Certificate, pin []byte) error {
	for _, chain := range chains {
		for _, c := range chain {
			if matchesPin(c, pin) {
				return nil
			}
		}
	}
	return errPin
}

func verifyPinned(chain []*x509.Certificate, host string, pin []byte) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, c := range chain {
		if c.IsCA && matchesPin(c, pin) {
			roots.AddCert(c)
			found = true
		} else {
			between.AddCert(c)
		}
	}
	if !found {
		return errPin
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between})
	return err
}

func matchesPin(c *x509.Certificate, pin []byte) bool {
	whole, key := sha256.Sum256(c.Raw), sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return bytes.Equal(whole[:], pin) || bytes.Equal(key[:], pin)
}

// apiError is a refusal by the server.
type apiError struct {
	status        int
	code, message string
}

func (e *apiError) Error() string {
	if e.code == "" {
		return fmt.Sprintf("status %d: %s", e.status, e.message)
	}
	return e.code + ": " + e.message
}

// hasCode reports whether err is a refusal with the given code.
func hasCode(err error, code string) bool {
	var e *apiError
	return errors.As(err, &e) && strings.Contains(e.code, code)
}

// refused reports whether err is the server's answer rather than a failure to reach
// it, and one that new credentials may change.
func refused(err error) bool {
	var e *apiError
	if errors.As(err, &e) {
		return e.status == http.StatusBadRequest || e.status == http.StatusUnauthorized || e.status == http.StatusForbidden
	}
	var s *websocket.StatusError
	return errors.As(err, &s) && (s.Code == http.StatusUnauthorized || s.Code == http.StatusForbidden)
}

// signer signs a request.
type signer func(r *http.Request, body []byte, service string) error

// call makes a JSON 1.1 call of the ssm service; sign is nil for an anonymous one.
func (e *endpoint) call(ctx context.Context, op string, sign signer, in, out any) error {
	return e.callService(ctx, "ssm", "AmazonSSM."+op, sign, in, out)
}

// callService makes a JSON 1.1 call of a service; target is X-Amz-Target.
func (e *endpoint) callService(ctx context.Context, service, target string, sign signer, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	_, op, _ := strings.Cut(target, ".")
	h := http.Header{"Content-Type": {"application/x-amz-json-1.1"}, "X-Amz-Target": {target}}
	answer, err := e.post(ctx, "/", h, body, http.StatusOK, service, sign)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s: reading the answer: %w", op, err)
	}
	return nil
}

// channelToken asks for the token of a channel: kind is control-channel or data-channel.
func (e *endpoint) channelToken(ctx context.Context, kind, id string, sign signer) (string, error) {
	body, err := json.Marshal(wire.CreateChannel{MessageSchemaVersion: "1.0", RequestID: uuid.NewString()})
	if err != nil {
		return "", err
	}
	h := http.Header{"Content-Type": {"application/json"}}
	answer, err := e.post(ctx, "/v1/"+kind+"/"+id, h, body, http.StatusCreated, "ssmmessages", sign)
	if err != nil {
		return "", fmt.Errorf("creating %s: %w", kind, err)
	}
	var out struct { // the root element's name is not checked: it differs by channel
		TokenValue string
	}
	if err := xml.Unmarshal(answer, &out); err != nil || out.TokenValue == "" {
		return "", fmt.Errorf("creating %s: the answer has no token", kind)
	}
	return out.TokenValue, nil
}

func (e *endpoint) post(ctx context.Context, path string, h http.Header, body []byte, want int, service string, sign signer) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.base.String()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header = h
	r.Header.Set("User-Agent", Name)
	if sign != nil {
		if err := sign(r, body, service); err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
	}
	resp, err := e.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		return nil, readError(resp.StatusCode, answer)
	}
	return answer, nil
}

func readError(status int, body []byte) error {
	var e struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &e) != nil || e.Type == "" {
		text := strings.TrimSpace(string(body[:min(len(body), 1024)]))
		return &apiError{status: status, message: text}
	}
	_, code, found := strings.Cut(e.Type, "#")
	if !found {
		code = e.Type
	}
	return &apiError{status: status, code: code, message: e.Message}
}

// dial opens a channel's websocket and sends its opening message.
func (e *endpoint) dial(ctx context.Context, path, query string, sign signer, opening wire.Opening) (*websocket.Conn, error) {
	u := *e.base
	u.Path, u.RawQuery = path, query
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if err := sign(r, nil, "ssmmessages"); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	conn, err := websocket.Dial(ctx, u.String(), websocket.DialOptions{
		Header: r.Header, TLS: e.tls, Proxy: e.proxy, Timeout: requestTimeout,
		Control: deadSocket, ReadLimit: wire.MaxMessage, ReadTimeout: pingEvery + pongWait, WriteTimeout: writeWait,
	})
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(opening)
	if err == nil {
		err = conn.Write(websocket.Text, b)
	}
	if err != nil {
		conn.Abort()
		return nil, fmt.Errorf("opening channel: %w", err)
	}
	return conn, nil
}
