package agent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/xtaci/smux"

	"sallyport.dev/agent/shell"
	"sallyport.dev/wire"
)

// maxAuthConns is how many programs of a session may talk to the SSH agent at once;
// further ones wait.
const maxAuthConns = 32

// authSocket is a unix socket behind which, on the client's side, an SSH agent answers.
type authSocket struct {
	path   string
	socket *shell.Socket
	mux    *smux.Session
	slots  chan struct{}
	wg     sync.WaitGroup
}

// openAuthSocket makes the socket for u's programs and serves it until it is closed.
func (s *session) openAuthSocket(u shell.User) (*authSocket, error) {
	mux, err := smux.Client(&authLink{Reader: s.exec.auth.reader(), session: s}, muxConfig())
	if err != nil {
		return nil, err
	}
	socket, err := s.opts.ListenAuth(u)
	if err != nil {
		mux.Close()
		return nil, err
	}
	a := &authSocket{path: socket.Path(), socket: socket, mux: mux, slots: make(chan struct{}, maxAuthConns)}
	a.wg.Go(a.accept)
	return a, nil
}

// muxConfig is what both ends of PayloadExecStreams use: version 1, and no keep-alives,
// as the data channel knows whether the other end is there.
func muxConfig() *smux.Config {
	cfg := smux.DefaultConfig()
	cfg.KeepAliveDisabled = true
	return cfg
}

// authLink carries the smux connection in messages of the data channel.
type authLink struct {
	io.Reader
	session *session
}

func (l *authLink) Write(b []byte) (int, error) {
	if !l.session.stream.Send(wire.PayloadExecStreams, b) {
		return 0, errors.New("the data channel is closed")
	}
	return len(b), nil
}

func (l *authLink) Close() error {
	l.session.exec.auth.close()
	return nil
}

func (a *authSocket) accept() {
	for {
		conn, err := a.socket.Accept()
		if err != nil {
			return
		}
		a.slots <- struct{}{}
		a.wg.Go(func() {
			defer func() { <-a.slots }()
			a.carry(conn)
		})
	}
}

// carry connects a program with the SSH agent until either closes.
func (a *authSocket) carry(conn net.Conn) {
	defer conn.Close()
	stream, err := a.mux.OpenStream()
	if err != nil {
		return
	}
	var up sync.WaitGroup
	up.Go(func() {
		io.Copy(stream, conn)
		stream.Close()
	})
	io.Copy(conn, stream)
	conn.Close()
	stream.Close()
	up.Wait()
}

// close ends all connections and removes the socket.
func (a *authSocket) close() error {
	err := errors.Join(a.socket.Close(), a.mux.Close())
	a.wg.Wait()
	if err != nil {
		return fmt.Errorf("closing the SSH agent's socket: %w", err)
	}
	return nil
}
