package frontdoor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/session"
)

const (
	// endPatience is how long channels may take to say a connection's last words.
	endPatience = 3 * time.Second
	// expiryWarning is how long before its end the person is told.
	expiryWarning = time.Minute
	// nodeMemory is how long a connection remembers which node a name stands for.
	nodeMemory = 30 * time.Second
	// maxNotices bounds what waits to be said in the next session.
	maxNotices = 8
)

// connection is one person's SSH connection, with all that they opened in it. When it
// breaks, all of that ends: SSH clients cannot come back.
type connection struct {
	door     *Door
	log      *slog.Logger
	ssh      *ssh.ServerConn
	channels <-chan ssh.NewChannel
	requests <-chan *ssh.Request
	proven   *proven
	origin   access.Origin
	remote   net.Addr
	inner    bool // through another connection

	ctx    context.Context // of the connection; its cause is what the person is told
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	places chan struct{} // one per channel, shared with the connections through this one

	mu       sync.Mutex
	open     int // channels
	sessions map[*sessionChannel]struct{}
	forwards map[target]*forward
	notices  []string // to be said in the next session
	used     time.Time
	known    namedNode
}

// namedNode is the node that the connection's user name stands for.
type namedNode struct {
	node  node.Node
	known bool
	until time.Time
}

func newConnection(h *handshake, sc *ssh.ServerConn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request, p *proven) *connection {
	return &connection{
		door: h.door, ssh: sc, channels: channels, requests: requests, proven: p, origin: h.origin,
		remote: h.conn.RemoteAddr(), inner: h.node != "",
		log:      h.door.log.With("principal", p.principal.ARN, "from", h.origin.SourceIP),
		places:   h.places,
		sessions: map[*sessionChannel]struct{}{}, forwards: map[target]*forward{}, used: time.Now(),
	}
}

// serve serves the connection until it ends.
func (c *connection) serve(ctx context.Context) {
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.log.Info("SSH connection opened", "client", c.origin.UserAgent)
	c.wg.Go(c.answerRequests)
	c.wg.Go(c.acceptChannels)
	c.wg.Go(c.watch)
	c.wg.Go(c.keepAlive)
	c.wg.Go(func() { c.ssh.Wait(); c.cancel(errGone) })
	<-c.ctx.Done()
	c.end()
	c.log.Info("SSH connection closed", "cause", context.Cause(c.ctx))
}

// end lets channels say why, for a moment, and closes the connection.
func (c *connection) end() {
	said := make(chan struct{})
	go func() { c.awaitSessions(); close(said) }() // ends once the connection is closed, at the latest
	select {
	case <-said:
	case <-time.After(endPatience):
	}
	c.ssh.Close()
	c.wg.Wait()
	<-said
}

func (c *connection) awaitSessions() {
	c.mu.Lock()
	var open []*sessionChannel
	for s := range c.sessions {
		open = append(open, s)
	}
	c.mu.Unlock()
	for _, s := range open {
		<-s.done
	}
}

// watch ends the connection when its person may not be here any longer, and when it is
// not used.
func (c *connection) watch() {
	ticker := time.NewTicker(c.door.cfg.Recheck)
	defer ticker.Stop()
	warned := false
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
		}
		if _, err := c.door.still(c.ctx, c.proven); err != nil {
			c.cancel(err)
			return
		}
		if c.unusedFor() > c.door.cfg.Unused {
			c.cancel(errUnused)
			return
		}
		if left := c.expiresIn(); left < expiryWarning && !warned {
			warned = true
			c.tell(fmt.Sprintf("Your certificate expires in %v, and this connection ends with it.", left.Round(time.Second)))
		}
	}
}

func (c *connection) expiresIn() time.Duration {
	if c.proven.expires.IsZero() {
		return 24 * time.Hour
	}
	return c.proven.expires.Sub(c.door.cfg.Now())
}

func (c *connection) unusedFor() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open > 0 {
		c.used = time.Now()
	}
	return time.Since(c.used)
}

// keepAlive asks the client for signs of life, and ends a connection that gives none.
func (c *connection) keepAlive() {
	ticker := time.NewTicker(c.door.cfg.Keepalive)
	defer ticker.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
		}
		late := time.AfterFunc(c.door.cfg.Keepalive, func() {
			c.cancel(errGone)
			c.ssh.Close()
		})
		_, _, err := c.ssh.SendRequest("keepalive@openssh.com", true, nil)
		late.Stop()
		if err != nil {
			return
		}
	}
}

// tell says something in all sessions that people may be looking at.
func (c *connection) tell(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.sessions {
		c.wg.Go(func() { s.say(text) })
	}
}

// notice keeps something to be said in the next session.
func (c *connection) notice(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.notices) < maxNotices {
		c.notices = append(c.notices, text)
	}
}

func (c *connection) takeNotices() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	notices := c.notices
	c.notices = nil
	return notices
}

// answerRequests answers what the client asks of the connection as a whole.
func (c *connection) answerRequests() {
	for r := range c.requests {
		ok := false
		switch r.Type {
		case "keepalive@openssh.com":
			ok = true
		case "tcpip-forward", "streamlocal-forward@openssh.com":
			c.notice("Forwards from the node to you (-R) are not offered here; forwards from you to the node (-L, -D) are.")
		}
		if r.WantReply {
			r.Reply(ok, nil)
		}
	}
}

// acceptChannels serves the channels that the client opens, each on its own.
func (c *connection) acceptChannels() {
	for nc := range c.channels {
		select {
		case c.places <- struct{}{}:
		default:
			nc.Reject(ssh.ResourceShortage, fmt.Sprintf("one connection may have %d channels", cap(c.places)))
			continue
		}
		c.count(1)
		c.wg.Go(func() {
			defer func() { c.count(-1); <-c.places }()
			c.serveChannel(nc)
		})
	}
}

func (c *connection) count(channels int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open += channels
}

func (c *connection) serveChannel(nc ssh.NewChannel) {
	switch nc.ChannelType() {
	case "session":
		c.serveSession(nc)
	case "direct-tcpip":
		c.serveDirect(nc)
	case "direct-streamlocal@openssh.com":
		c.serveSocket(nc)
	default:
		nc.Reject(ssh.UnknownChannelType, "this server knows sessions and forwards to the node")
	}
}

// principal is who the person is now, with the tags that they have now.
func (c *connection) principal(ctx context.Context) (identity.Principal, error) {
	p, err := c.door.still(ctx, c.proven)
	if err != nil {
		c.cancel(err)
	}
	return p, err
}

// newOrigin is where one channel comes from.
func (c *connection) newOrigin() access.Origin {
	o := c.door.origin(c.remote)
	o.UserAgent = c.origin.UserAgent
	return o
}

// node finds the node that the connection is for. Where there is none of that name, its
// id is the name: who may not use it learns no more than of another's.
func (c *connection) node(ctx context.Context, p identity.Principal) (n node.Node, known bool, err error) {
	c.mu.Lock()
	remembered := c.known
	c.mu.Unlock()
	if time.Now().Before(remembered.until) {
		return remembered.node, remembered.known, nil
	}
	n, known, err = c.door.cfg.Server.NodeNamed(ctx, p, c.origin, c.proven.target.node)
	if err != nil {
		return n, false, err
	}
	if !known {
		n = node.Node{ID: asTarget(c.proven.target.node)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = namedNode{node: n, known: known, until: time.Now().Add(nodeMemory)}
	return n, known, nil
}

// asTarget makes a name fit where the API takes an id.
func asTarget(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, name)
}

// terminate ends a session that this connection opened.
func (c *connection) terminate(id string, cause error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), 10*time.Second)
	defer cancel()
	why := &session.Cause{Reason: session.ReasonClientGone, Detail: cause.Error()}
	if err := c.door.cfg.Gateway.Terminate(ctx, id, why); err != nil {
		c.log.Warn("ending a session", "session", id, "error", err)
	}
}
