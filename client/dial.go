package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

const (
	dialTimeout  = 20 * time.Second
	writeTimeout = 20 * time.Second
)

// Dialer returns a ChannelConfig.Dial that opens websockets with the given trust,
// through the proxy that the environment names.
func Dialer(trust *tls.Config, userAgent string) func(context.Context, string) (Link, error) {
	return func(ctx context.Context, url string) (Link, error) {
		if err := secure("the session's URL", url); err != nil {
			return nil, err
		}
		conn, err := websocket.Dial(ctx, url, websocket.DialOptions{
			Header:       http.Header{"User-Agent": {userAgent}},
			TLS:          trust,
			Proxy:        http.ProxyFromEnvironment,
			Timeout:      dialTimeout,
			ReadLimit:    wire.MaxMessage,
			WriteTimeout: writeTimeout,
		})
		var status *websocket.StatusError
		if errors.As(err, &status) {
			return nil, &RefusedError{Status: status.Code, Text: Clean(status.Body)}
		}
		if err != nil {
			return nil, err
		}
		return socket{conn}, nil
	}
}

// socket is a Link over a websocket.
type socket struct{ conn *websocket.Conn }

func (s socket) Read() (bool, []byte, error) {
	kind, p, err := s.conn.Read()
	return kind == websocket.Text, p, err
}

func (s socket) Write(text bool, p []byte) error {
	if text {
		return s.conn.Write(websocket.Text, p)
	}
	return s.conn.Write(websocket.Binary, p)
}

func (s socket) Ping() error     { return s.conn.Ping([]byte("keepalive")) }
func (s socket) OnPong(f func()) { s.conn.OnPong(func([]byte) { f() }) }
func (s socket) Close() error    { return s.conn.Close() }
