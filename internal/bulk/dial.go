package bulk

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/hex"
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

// Headers of the request that opens a connection, and of its answer.
const (
	Protocol      = "sallyport-bulk" // in Upgrade
	ProofHeader   = "Sallyport-Bulk-Proof"
	BindingHeader = "Sallyport-Bulk-Binding"
	// RawHeader in the answer says that both sides leave the TLS of the request.
	RawHeader = "Sallyport-Bulk-Raw"
)

const (
	dialTimeout  = 20 * time.Second
	keepAlive    = 15 * time.Second
	maxErrorBody = 1 << 10
	// deadAfter is how long a peer may leave what was sent unacknowledged.
	deadAfter = 30 * time.Second
)

// RefusedError is a server's refusal to open a connection.
type RefusedError struct {
	Status int
	Text   string
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("server refused a bulk connection with status %d: %s", e.Status, e.Text)
}

// Permanent reports whether asking again is pointless: the server does not know the
// protocol, or not the session.
func (e *RefusedError) Permanent() bool {
	return e.Status/100 != 5 && e.Status != http.StatusTooManyRequests
}

// Dialer reaches the gateway.
type Dialer struct {
	URL    string // http, https, ws or wss; of the session's bulk connections
	TLS    *tls.Config
	Header http.Header // sent along
	// Proxy chooses a proxy, as http.Transport.Proxy does.
	Proxy func(*http.Request) (*url.URL, error)
	// Control sets options of the socket, as net.Dialer.Control does.
	Control func(network, address string, c syscall.RawConn) error
}

// URLBeside returns the URL of bulk connections for that of a data channel.
func URLBeside(dataChannel, session string) (string, error) {
	u, err := url.Parse(dataChannel)
	if err != nil {
		return "", fmt.Errorf("parsing the data channel's URL: %w", err)
	}
	before, _, found := strings.Cut(u.Path, "/v1/data-channel/")
	if !found {
		return "", errors.New("the data channel's URL is not Sallyport's")
	}
	u.Path, u.RawQuery, u.RawPath = before+"/v1/bulk/"+session, "", ""
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	}
	return u.String(), nil
}

// dialled is an open connection to the gateway.
type dialled struct {
	net.Conn          // for TLS between the ends
	socket   net.Conn // under everything
	raw      bool     // the outer TLS was left
}

// dial opens a connection to the gateway. Unless inside is set it leaves the outer TLS
// where the gateway agrees, which it does where both see the same TLS session.
func (d *Dialer) dial(ctx context.Context, p *Prover, inside bool) (*dialled, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.URL, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range d.Header {
		r.Header[k] = v
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", Protocol)
	if d.Proxy != nil {
		proxy, err := d.Proxy(r)
		if err != nil {
			return nil, fmt.Errorf("choosing a proxy: %w", err)
		}
		if proxy != nil {
			return d.proxied(r, p)
		}
	}
	return d.direct(r, p, inside)
}

// direct dials the server itself.
func (d *Dialer) direct(r *http.Request, p *Prover, inside bool) (*dialled, error) {
	dialer := net.Dialer{KeepAlive: keepAlive, Control: d.Control}
	socket, err := dialer.DialContext(r.Context(), "tcp", address(r.URL))
	if err != nil {
		return nil, err
	}
	c, err := d.upgrade(r, p, socket, inside)
	if err != nil {
		socket.Close()
		return nil, err
	}
	return c, nil
}

func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[u.Scheme]
	}
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// upgrade makes a bulk connection of a fresh one.
func (d *Dialer) upgrade(r *http.Request, p *Prover, socket net.Conn, inside bool) (*dialled, error) {
	stop := context.AfterFunc(r.Context(), func() { socket.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	exact := &exactConn{Conn: socket}
	conn, binding := socket, ""
	if r.URL.Scheme == "https" {
		t := tls.Client(exact, d.config(r.URL.Hostname()))
		if err := t.HandshakeContext(r.Context()); err != nil {
			return nil, err
		}
		if !inside {
			binding = Binding(t.ConnectionState())
		}
		conn = t
	}
	br, raw, err := ask(r, p, conn, binding)
	if err != nil {
		return nil, err
	}
	if !stop() {
		return nil, r.Context().Err()
	}
	if raw {
		if binding == "" || br.Buffered() > 0 || !exact.between() {
			return nil, errors.New("server left TLS where it was not agreed")
		}
		conn = socket
	} else if br.Buffered() > 0 {
		conn = &begunConn{Conn: conn, r: br}
	}
	return &dialled{Conn: conn, socket: socket, raw: raw}, nil
}

func (d *Dialer) config(host string) *tls.Config {
	c := &tls.Config{}
	if d.TLS != nil {
		c = d.TLS.Clone()
	}
	if c.ServerName == "" {
		c.ServerName = host
	}
	c.NextProtos = []string{"http/1.1"}
	c.DynamicRecordSizingDisabled = true
	return c
}

// Binding is a value that only the two ends of one TLS session know, or empty where
// the session has none.
func Binding(s tls.ConnectionState) string {
	b, err := s.ExportKeyingMaterial("EXPORTER-sallyport-bulk", nil, 32)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(b)
}

// ask sends the request and reads the answer.
func ask(r *http.Request, p *Prover, conn net.Conn, binding string) (br *bufio.Reader, raw bool, err error) {
	prove(r, p, binding)
	if err := r.Write(conn); err != nil {
		return nil, false, err
	}
	br = bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, r)
	if err != nil {
		return nil, false, err
	}
	return br, resp.Header.Get(RawHeader) != "", check(resp)
}

func prove(r *http.Request, p *Prover, binding string) {
	if binding != "" {
		r.Header.Set(BindingHeader, binding)
	}
	r.Header.Set(ProofHeader, p.Next(binding))
}

// check reads a refusal.
func check(resp *http.Response) error {
	if resp.StatusCode == http.StatusSwitchingProtocols && strings.EqualFold(resp.Header.Get("Upgrade"), Protocol) {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	resp.Body.Close()
	return &RefusedError{Status: resp.StatusCode, Text: strings.TrimSpace(string(text))}
}

// proxied goes through a proxy, and stays inside the outer TLS: proxies may look at
// what passes them.
func (d *Dialer) proxied(r *http.Request, p *Prover) (*dialled, error) {
	dialer := net.Dialer{KeepAlive: keepAlive, Control: d.Control}
	t := &http.Transport{
		Proxy:              d.Proxy,
		TLSClientConfig:    d.config(r.URL.Hostname()),
		DisableCompression: true,
		TLSNextProto:       map[string]func(string, *tls.Conn) http.RoundTripper{},
		DialContext:        dialer.DialContext,
	}
	var conn net.Conn
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { conn = info.Conn }}
	prove(r, p, "")
	resp, err := t.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err != nil {
		return nil, err
	}
	if err := check(resp); err != nil {
		t.CloseIdleConnections()
		return nil, err
	}
	return &dialled{Conn: &begunConn{Conn: conn, r: resp.Body}, socket: Under(conn)}, nil
}

// begunConn reads from a reader that has read ahead.
type begunConn struct {
	net.Conn
	r io.Reader
}

// Read implements net.Conn.
func (c *begunConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// Under returns the socket beneath a connection.
func Under(c net.Conn) net.Conn {
	for {
		t, ok := c.(*tls.Conn)
		if !ok {
			return c
		}
		c = t.NetConn()
	}
}
