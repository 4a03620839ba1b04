package frontdoor

import (
	"context"
	"io"
	"sync"

	"github.com/xtaci/smux"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/client"
	"sallyport.dev/wire"
)

// maxAuthStreams bounds the connections to a forwarded SSH agent at one time.
const maxAuthStreams = 16

// authStreams carries connections from the node to the person's SSH agent: streams of a
// smux connection, whose client is the node's end, become channels to the SSH client.
type authStreams struct {
	ctx    context.Context // of the session
	opener ssh.Conn
	data   *client.DataChannel
	mux    *smux.Session
	in     *io.PipeReader
	out    *io.PipeWriter
}

func newAuthStreams(ctx context.Context, opener ssh.Conn, data *client.DataChannel) (*authStreams, error) {
	a := &authStreams{ctx: ctx, opener: opener, data: data}
	a.in, a.out = io.Pipe()
	config := smux.DefaultConfig()
	config.KeepAliveDisabled = true
	mux, err := smux.Server(a, config)
	if err != nil {
		return nil, err
	}
	a.mux = mux
	return a, nil
}

// take gives the smux connection bytes from the node.
func (a *authStreams) take(p []byte) { a.out.Write(p) }

// Read implements io.Reader for the smux connection.
func (a *authStreams) Read(p []byte) (int, error) { return a.in.Read(p) }

// Write implements io.Writer for the smux connection.
func (a *authStreams) Write(p []byte) (int, error) {
	if err := a.data.Send(a.ctx, wire.PayloadExecStreams, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements io.Closer for the smux connection.
func (a *authStreams) Close() error {
	a.in.CloseWithError(io.ErrClosedPipe)
	return a.out.Close()
}

func (a *authStreams) close() { a.mux.Close() }

// serve carries streams until the smux connection ends, and waits for them.
func (a *authStreams) serve() {
	var streams sync.WaitGroup
	defer streams.Wait()
	defer a.mux.Close()
	places := make(chan struct{}, maxAuthStreams)
	for {
		stream, err := a.mux.AcceptStream()
		if err != nil {
			return
		}
		select {
		case places <- struct{}{}:
		default:
			stream.Close()
			continue
		}
		streams.Go(func() {
			defer func() { <-places }()
			a.carry(stream)
		})
	}
}

func (a *authStreams) carry(stream *smux.Stream) {
	defer stream.Close()
	ch, requests, err := a.opener.OpenChannel("auth-agent@openssh.com", nil)
	if err != nil {
		return
	}
	defer ch.Close()
	var both sync.WaitGroup
	both.Go(func() { ssh.DiscardRequests(requests) })
	both.Go(func() { io.Copy(ch, stream); ch.Close() })
	io.Copy(stream, ch)
	stream.Close()
	ch.Close()
	both.Wait()
}
