package websocket

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// DialOptions say how to reach the server. The zero value dials directly, with the
// system's roots.
type DialOptions struct {
	Header http.Header // sent with the upgrade request
	TLS    *tls.Config
	// Proxy chooses an HTTP, HTTPS or SOCKS5 proxy, as http.Transport.Proxy does.
	Proxy func(*http.Request) (*url.URL, error)
	// Timeout bounds dialling and handshakes; 30 s unless set.
	Timeout time.Duration
	// Control sets options of the socket before it connects, as net.Dialer.Control does.
	Control func(network, address string, c syscall.RawConn) error

	ReadLimit    int64         // see Options
	ReadTimeout  time.Duration // see Options
	WriteTimeout time.Duration // see Options
}

// StatusError is an answer to the upgrade request other than 101.
type StatusError struct {
	Code int
	Body string // at most 4 KiB of it
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("websocket refused: status %d %s: %s", e.Code, http.StatusText(e.Code), strings.TrimSpace(e.Body))
}

const (
	dialTimeout  = 30 * time.Second
	maxErrorBody = 4 << 10
	acceptGUID   = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455 §1.3
)

// Dial connects to a ws, wss, http or https URL. A refusal by the server is a
// *StatusError. ctx bounds the dialling only.
func Dial(ctx context.Context, rawURL string, o DialOptions) (*Conn, error) {
	if o.Timeout == 0 {
		o.Timeout = dialTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	req, key, err := upgradeRequest(ctx, rawURL, o.Header)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { conn = info.Conn }}
	t := transport(o)
	resp, err := t.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	if err != nil {
		return nil, fmt.Errorf("dialling %s: %w", req.URL.Host, err)
	}
	src, err := checkUpgrade(resp, key)
	if err != nil {
		resp.Body.Close()
		t.CloseIdleConnections()
		return nil, err
	}
	return newConn(conn, src, true, Options{ReadLimit: o.ReadLimit, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout}), nil
}

func upgradeRequest(ctx context.Context, rawURL string, h http.Header) (*http.Request, string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, "", fmt.Errorf("parsing websocket URL: %w", err)
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	case "http", "https":
	default:
		return nil, "", fmt.Errorf("websocket URL scheme %q: allowed are ws, wss, http and https", u.Scheme)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, "", fmt.Errorf("making websocket request: %w", err)
	}
	if h != nil {
		req.Header = h.Clone()
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
		req.Header.Del("Host")
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", key)
	return req, key, nil
}

// transport returns a transport for one connection. http.Transport brings proxies of
// all kinds, and gives up the connection when the answer is 101.
func transport(o DialOptions) *http.Transport {
	config := &tls.Config{}
	if o.TLS != nil {
		config = o.TLS.Clone()
	}
	config.NextProtos = []string{"http/1.1"}
	// Full records from the start: these connections carry bulk as well as keys.
	config.DynamicRecordSizingDisabled = true
	return &http.Transport{
		Proxy:               o.Proxy,
		TLSClientConfig:     config,
		DisableCompression:  true,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
		TLSHandshakeTimeout: o.Timeout,
		DialContext:         (&net.Dialer{Timeout: o.Timeout, KeepAlive: 15 * time.Second, Control: o.Control}).DialContext,
	}
}

// checkUpgrade returns the stream of an accepted upgrade.
func checkUpgrade(resp *http.Response, key string) (io.Reader, error) {
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		return nil, &StatusError{Code: resp.StatusCode, Body: string(body)}
	}
	sum := sha1.Sum([]byte(key + acceptGUID))
	if resp.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) ||
		!headerContains(resp.Header, "Upgrade", "websocket") {
		return nil, errors.New("websocket handshake: the server's answer does not match the request")
	}
	if resp.Header.Get("Sec-WebSocket-Extensions") != "" {
		return nil, errors.New("websocket handshake: the server chose an extension that was not offered")
	}
	return resp.Body, nil
}

// headerContains reports whether a comma-separated header has a token, in any case.
func headerContains(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}
