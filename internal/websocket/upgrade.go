package websocket

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gobwas/ws"
)

// handshakeTimeout bounds the writing of the answer to an upgrade request.
const handshakeTimeout = 10 * time.Second

// IsUpgrade reports whether r asks for a websocket.
func IsUpgrade(r *http.Request) bool {
	return headerContains(r.Header, "Connection", "upgrade") && headerContains(r.Header, "Upgrade", "websocket")
}

// Upgrade takes over the connection of r as a websocket. On an error it has answered
// r. The handler should return and leave the connection to another goroutine: what
// the HTTP server holds for a request is then freed.
func Upgrade(w http.ResponseWriter, r *http.Request, opts Options) (*Conn, error) {
	conn, rw, _, err := ws.HTTPUpgrader{Timeout: handshakeTimeout}.Upgrade(r, w)
	if err != nil {
		return nil, fmt.Errorf("upgrading to websocket: %w", err)
	}
	conn.SetDeadline(time.Time{})
	return newConn(conn, buffered(conn, rw.Reader), false, opts), nil
}

// buffered returns a reader of what r has buffered, then of conn, that does not keep r.
func buffered(conn net.Conn, r *bufio.Reader) io.Reader {
	n := r.Buffered()
	if n == 0 {
		return conn
	}
	early, _ := r.Peek(n)
	return &earlyReader{early: bytes.Clone(early), conn: conn}
}

// earlyReader reads what came with the handshake before the rest.
type earlyReader struct {
	early []byte
	conn  net.Conn
}

func (r *earlyReader) Read(p []byte) (int, error) {
	if len(r.early) == 0 {
		return r.conn.Read(p)
	}
	n := copy(p, r.early)
	if r.early = r.early[n:]; len(r.early) == 0 {
		r.early = nil
	}
	return n, nil
}
