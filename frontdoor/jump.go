package frontdoor

import (
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshPort is the port of NODE.SUFFIX at which the door itself answers for the node.
const sshPort = 22

// serveJump is the SSH server of a node for those who come through the door as a jump
// host (ssh -J). Who they are is proven anew within; which nodes there are is not told
// here, so that any name will do.
func (c *connection) serveJump(nc ssh.NewChannel, name, host string, port uint32) {
	if port != sshPort {
		nc.Reject(ssh.Prohibited, "only port 22 of a node is reached this way; to reach others, forward them (-L) within a connection to the node")
		return
	}
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	c.wg.Go(func() { ssh.DiscardRequests(requests) }) // ends with the channel
	conn := &channelConn{Channel: ch, remote: c.remote}
	defer conn.Close()
	h := &handshake{
		door: c.door, conn: conn, names: []string{host}, origin: c.door.origin(c.remote),
		places: c.places, node: name, outer: c.proven.principal.Name,
	}
	inner, err := h.run(c.ctx)
	if err != nil {
		h.failed(err)
		return
	}
	inner.serve(c.ctx)
}

// channelConn is a channel as a net.Conn. It comes from where its connection does, and
// knows no deadlines: those who need one close it.
type channelConn struct {
	ssh.Channel
	remote net.Addr
}

// LocalAddr implements net.Conn.
func (c *channelConn) LocalAddr() net.Addr { return &net.TCPAddr{} }

// RemoteAddr implements net.Conn.
func (c *channelConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *channelConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (c *channelConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (c *channelConn) SetWriteDeadline(time.Time) error { return nil }
