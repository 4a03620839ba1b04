package frontdoor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/client"
	"sallyport.dev/server"
)

// Documents of forwards.
const (
	documentPort   = "AWS-StartPortForwardingSession"
	documentRemote = "AWS-StartPortForwardingSessionToRemoteHost"
	documentSocket = "Sallyport-StartPortForwardingSessionToNodeSocket"
)

// target is where a forward leads, as the client named it. Each is a session of its
// own, authorised as such.
type target struct {
	host   string // "" for the node itself
	port   uint32
	socket string // on the node, in the place of both
}

// start is the session that leads to the target.
func (t target) start() (document string, parameters map[string][]string) {
	switch {
	case t.socket != "":
		return documentSocket, map[string][]string{"unixSocket": {t.socket}}
	case t.host == "":
		return documentPort, map[string][]string{"portNumber": {t.portText()}}
	}
	return documentRemote, map[string][]string{"host": {t.host}, "portNumber": {t.portText()}}
}

func (t target) portText() string { return strconv.FormatUint(uint64(t.port), 10) }

// String names the target to people.
func (t target) String() string {
	switch {
	case t.socket != "":
		return t.socket
	case t.host == "":
		return "localhost:" + t.portText()
	}
	return t.host + ":" + t.portText()
}

// targetOf reads a host as clients send it: several names are the node itself.
func targetOf(host string, port uint32) target {
	switch strings.ToLower(strings.TrimSuffix(host, ".")) {
	case "localhost", "127.0.0.1", "::1", "":
		host = ""
	}
	return target{host: host, port: port}
}

// forward is an open session to one target, which connections share.
type forward struct {
	client *client.Forward
	ready  chan struct{} // closed when the session has started, or err is set
	err    error
	done   chan struct{} // closed when the session has ended, after reason is set
	reason string        // why the node or the server ended it, if they said so

	// Guarded by the connection's mu.
	cancel  context.CancelCauseFunc // nil until the session has started
	users   int
	idle    *time.Timer
	dropped bool
}

const (
	// openPatience bounds the opening of one connection through a forward.
	openPatience = time.Minute
	maxHost      = 255
	maxSocket    = 107
)

// serveDirect serves a channel of type direct-tcpip (RFC 4254 §7.2).
func (c *connection) serveDirect(nc ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if ssh.Unmarshal(nc.ExtraData(), &to) != nil || checkText(to.Host, maxHost) != nil || to.Port == 0 || to.Port > 65535 {
		nc.Reject(ssh.ConnectionFailed, "the destination is not HOST:PORT")
		return
	}
	if !c.proven.mayPort {
		nc.Reject(ssh.Prohibited, "your certificate does not allow forwards")
		return
	}
	if name, ok := nodeOfHost(to.Host, c.door.cfg.Suffix); ok && !c.inner {
		c.serveJump(nc, name, to.Host, to.Port)
		return
	}
	c.serveForward(nc, targetOf(to.Host, to.Port))
}

// serveSocket serves a forward to a unix socket of the node.
func (c *connection) serveSocket(nc ssh.NewChannel) {
	var to struct {
		Path     string
		Reserved string
		Unused   uint32
	}
	if ssh.Unmarshal(nc.ExtraData(), &to) != nil || checkText(to.Path, maxSocket) != nil || to.Path[0] != '/' {
		nc.Reject(ssh.ConnectionFailed, "the destination is not the path of a socket")
		return
	}
	if !c.proven.mayPort {
		nc.Reject(ssh.Prohibited, "your certificate does not allow forwards")
		return
	}
	c.serveForward(nc, target{socket: to.Path})
}

// serveForward connects a channel with a target.
func (c *connection) serveForward(nc ssh.NewChannel, t target) {
	ctx, cancel := context.WithTimeout(c.ctx, openPatience)
	defer cancel()
	f, err := c.forward(ctx, t)
	if err != nil {
		nc.Reject(ssh.Prohibited, client.Clean(c.explain(err)))
		return
	}
	defer c.release(t, f)
	conn, err := f.client.Open(ctx)
	if err != nil {
		nc.Reject(ssh.ConnectionFailed, client.Clean(c.explainForward(f, err)))
		return
	}
	defer conn.Close()
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	c.wg.Go(func() { ssh.DiscardRequests(requests) }) // ends with the channel
	splice(c.ctx, ch, conn)
}

// explainForward says why a connection through f was not opened.
func (c *connection) explainForward(f *forward, err error) string {
	refused := (*client.ForwardRefusedError)(nil)
	switch {
	case errors.As(err, &refused):
		return refused.Error()
	case errors.Is(err, client.ErrForwardOver) && f.ended() != "":
		return f.ended()
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx).Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "the node did not connect in time"
	}
	c.log.Info("opening a connection through a forward", "error", err)
	return "the connection could not be opened: " + err.Error()
}

// ended waits for the end of a session that is about to end, which a denied address is
// to the node, and returns the reason given for it.
func (f *forward) ended() string {
	<-f.done
	return f.reason
}

// splice carries bytes both ways until both directions have ended or ctx does.
func splice(ctx context.Context, ch ssh.Channel, conn client.ForwardConn) {
	stop := context.AfterFunc(ctx, func() { ch.Close(); conn.Close() })
	defer stop()
	defer ch.Close()
	var both sync.WaitGroup
	both.Go(func() {
		if _, err := io.Copy(ch, conn); err != nil {
			ch.Close() // a connection that broke must not look like one that ended
			conn.Close()
			return
		}
		ch.CloseWrite()
	})
	if _, err := io.Copy(conn, ch); err != nil || conn.CloseWrite() != nil {
		conn.Close()
	}
	both.Wait()
}

// forward returns the open forward to a target, opening it if there is none. It stays
// open until release, and a little longer.
func (c *connection) forward(ctx context.Context, t target) (*forward, error) {
	f, made, err := c.enterForward(t)
	if err != nil {
		return nil, err
	}
	if made {
		c.wg.Go(func() { c.runForward(t, f) })
	}
	select {
	case <-f.ready:
	case <-ctx.Done():
		c.release(t, f)
		return nil, context.Cause(ctx)
	}
	if f.err != nil {
		c.release(t, f)
		return nil, f.err
	}
	return f, nil
}

var errForwards = errors.New("this connection has forwards to too many destinations already")

// enterForward finds or makes the entry of a target.
func (c *connection) enterForward(t target) (f *forward, made bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f = c.forwards[t]
	if f == nil {
		if len(c.forwards) >= c.door.cfg.MaxForwards && !c.dropIdleLocked() {
			return nil, false, fmt.Errorf("%w: %d", errForwards, len(c.forwards))
		}
		f = &forward{ready: make(chan struct{}), done: make(chan struct{})}
		c.forwards[t] = f
		made = true
	}
	f.users++
	if f.idle != nil {
		f.idle.Stop()
	}
	return f, made, nil
}

// dropIdleLocked ends a forward that nobody uses and reports whether there was one.
func (c *connection) dropIdleLocked() bool {
	for t, f := range c.forwards {
		if f.users == 0 {
			c.dropLocked(t, f)
			return true
		}
	}
	return false
}

func (c *connection) dropLocked(t target, f *forward) {
	if c.forwards[t] == f {
		delete(c.forwards, t)
	}
	f.dropped = true
	if f.cancel != nil {
		f.cancel(errUnused)
	}
}

// release gives a forward back.
func (c *connection) release(t target, f *forward) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.users--; f.users > 0 || c.forwards[t] != f {
		return
	}
	f.idle = time.AfterFunc(c.door.cfg.ForwardLinger, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.users == 0 {
			c.dropLocked(t, f)
		}
	})
}

// runForward opens a forward's session and keeps it until it ends.
func (c *connection) runForward(t target, f *forward) {
	defer c.forget(t, f)
	defer close(f.done)
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	started, err := c.startForward(ctx, t)
	if err != nil {
		f.err = err
		close(f.ready)
		return
	}
	f.client = client.NewForward(client.ChannelConfig{
		Stream: client.Stream{SessionID: started.SessionID, Token: started.Token},
		Dial:   c.dialer(ctx, started.SessionID, cancel),
		Notify: func(text string) { c.tell("The forward to " + t.String() + ": " + text) },
		Logger: c.log,
	}, client.ForwardConfig{})
	c.mu.Lock()
	f.cancel = cancel
	if f.dropped {
		cancel(errUnused)
	}
	c.mu.Unlock()
	close(f.ready)
	end, err := f.client.Run(ctx)
	f.reason = end.Output
	if err != nil {
		c.terminate(started.SessionID, err)
	} else if end.Output != "" {
		c.tell("The forward to " + t.String() + " has ended: " + end.Output)
	}
}

// forget takes a forward that has ended out of the way of the next one.
func (c *connection) forget(t target, f *forward) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forwards[t] == f {
		delete(c.forwards, t)
	}
	if f.idle != nil {
		f.idle.Stop()
	}
}

func (c *connection) startForward(ctx context.Context, t target) (server.Started, error) {
	// A start that is under way is not broken off, so that its session can be ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startPatience)
	defer cancel()
	p, err := c.principal(ctx)
	if err != nil {
		return server.Started{}, err
	}
	n, _, err := c.node(ctx, p)
	if err != nil {
		return server.Started{}, err
	}
	in := server.StartInput{Target: n.ID}
	in.Document, in.Parameters = t.start()
	return c.door.cfg.Server.StartSession(ctx, p, c.newOrigin(), in)
}
