package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/uuid"

	"sallyport.dev/agent"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// lonely is a registered node that only opens channels, signed as agents sign
// (docs/protocol.md §22).
type lonely struct {
	URL, CAFile, Node, StateDir string

	http        *http.Client
	tls         *tls.Config
	credentials aws.Credentials
}

// signIn gets the node's temporary credentials with its key.
func (n *lonely) signIn(ctx context.Context) error {
	roots, err := readRoots(n.CAFile)
	if err != nil {
		return err
	}
	n.tls = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	n.http = &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: n.tls, DisableKeepAlives: true}}
	key, fingerprint, err := readRegistration(n.StateDir)
	if err != nil {
		return err
	}
	r, body, err := n.post(ctx, "/", wire.RequestManagedInstanceRoleToken{Fingerprint: fingerprint})
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "AmazonSSM.RequestManagedInstanceRoleToken")
	if err := n.signWithKey(r, body, key); err != nil {
		return err
	}
	var out wire.RequestManagedInstanceRoleTokenResult
	if err := n.do(r, json.Unmarshal, &out); err != nil {
		return err
	}
	n.credentials = aws.Credentials{AccessKeyID: out.AccessKeyID, SecretAccessKey: out.SecretAccessKey, SessionToken: out.SessionToken}
	return nil
}

// readRegistration reads the key and the fingerprint that an agent has registered.
func readRegistration(dir string) (*rsa.PrivateKey, string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "registration.json"))
	if err != nil {
		return nil, "", err
	}
	var r struct {
		Fingerprint string `json:"fingerprint"`
		PrivateKey  []byte `json:"privateKey"`
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, "", err
	}
	key, err := x509.ParsePKCS8PrivateKey(r.PrivateKey)
	if err != nil {
		return nil, "", err
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, "", fmt.Errorf("the key in %s is not an RSA key", dir)
	}
	return private, r.Fingerprint, nil
}

// post prepares a request whose body is in as JSON.
func (n *lonely) post(ctx context.Context, path string, in any) (*http.Request, []byte, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.URL+path, bytes.NewReader(body))
	return r, body, err
}

// do makes a request and decodes its answer.
func (n *lonely) do(r *http.Request, decode func([]byte, any) error, out any) error {
	res, err := n.http.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s: status %d: %s", r.URL.Path, res.StatusCode, b)
	}
	return decode(b, out)
}

// signWithKey is SigV4 with RSA-PSS in place of the HMAC (docs/protocol.md §22.1).
func (n *lonely) signWithKey(r *http.Request, body []byte, key *rsa.PrivateKey) error {
	const names = "content-type;host;x-amz-date;x-amz-target"
	now := time.Now().UTC()
	date, scope := now.Format("20060102T150405Z"), now.Format("20060102")+"/"+region+"/ssm/aws4_request"
	r.Header.Set("X-Amz-Date", date)
	canonical := fmt.Sprintf("POST\n/\n\ncontent-type:%s\nhost:%s\nx-amz-date:%s\nx-amz-target:%s\n\n%s\n%s",
		r.Header.Get("Content-Type"), r.URL.Host, date, r.Header.Get("X-Amz-Target"), names, hexSum(body))
	text := "AWS4-HMAC-SHA256\n" + date + "\n" + scope + "\n" + hexSum([]byte(canonical))
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: sha256.Size})
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s",
		n.Node, scope, names, base64.StdEncoding.EncodeToString(signature)))
	return nil
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// sign signs a channel's request with the temporary credentials.
func (n *lonely) sign(r *http.Request, body []byte) error {
	return v4.NewSigner().SignHTTP(r.Context(), n.credentials, r, hexSum(body), "ssmmessages", region, time.Now())
}

// controlToken asks for the token of the control channel.
func (n *lonely) controlToken(ctx context.Context) (string, error) {
	r, body, err := n.post(ctx, "/v1/control-channel/"+n.Node, wire.CreateChannel{MessageSchemaVersion: "1.0", RequestID: uuid.NewString()})
	if err != nil {
		return "", err
	}
	if err := n.sign(r, body); err != nil {
		return "", err
	}
	var out wire.CreateChannelResult
	err = n.do(r, xml.Unmarshal, &out)
	return out.TokenValue, err
}

// channel opens a websocket and sends the opening message.
func (n *lonely) channel(ctx context.Context, path, query, token string) (*websocket.Conn, error) {
	url := n.URL + "/v1/" + path + "?" + query
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if err := n.sign(r, nil); err != nil {
		return nil, err
	}
	conn, err := websocket.Dial(ctx, url, websocket.DialOptions{
		Header: r.Header, TLS: n.tls, Timeout: patience, ReadLimit: wire.MaxMessage, WriteTimeout: patience,
	})
	if err != nil {
		return nil, err
	}
	opening, err := json.Marshal(wire.Opening{
		MessageSchemaVersion: "1.0", RequestID: uuid.NewString(), TokenValue: token, ClientInstanceID: n.Node,
		AgentVersion: agent.ProtocolVersion, PlatformType: "linux",
	})
	if err != nil {
		return nil, err
	}
	return conn, conn.Write(websocket.Text, opening)
}
