package session

import (
	"bufio"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"sallyport.dev/internal/bulk"
	"sallyport.dev/wire"
)

// Errors of bulk connections.
var (
	// ErrNoBulk is returned for a session that has no bulk connections, or has ended.
	ErrNoBulk = errors.New("session has no bulk connections")
	// ErrBulkFull is returned where there are too many already.
	ErrBulkFull = errors.New("too many bulk connections")
)

const (
	// maxBulkPairs bounds the pairs of one session, maxBulkParked the connections of
	// one end that wait for the other's, and maxBulkMember all connections of a member.
	maxBulkPairs  = 320
	maxBulkParked = 64
	maxBulkMember = 16384
	// bulkWait bounds the writing of what the gateway itself says.
	bulkWait = 5 * time.Second
	// bulkLook is how often pairs are looked at.
	bulkLook = 5 * time.Second
)

// bulkEnds are the bulk connections of one session at its gateway (docs/protocol.md
// §28.11): those that wait for one of the other end, and the pairs.
type bulkEnds struct {
	s    *live
	lock *bulk.Lock
	wg   sync.WaitGroup // of the pairs

	mu     sync.Mutex
	parked map[bulk.Role][]bulkEnd // longest waiting first
	paired map[net.Conn]bool       // sockets of pairs
	total  int                     // pairs, since the session began
	closed bool
	looked time.Time // for ends that are gone
}

// bulkEnd is a connection to one end.
type bulkEnd struct {
	net.Conn          // what the ends' own bytes go through
	socket   net.Conn // under it; the same where the outer TLS was left
	since    time.Time
}

// offerBulk lets the ends of a Port session have bulk connections.
func (s *live) offerBulk() {
	if s.row.SessionType != "Port" {
		return
	}
	s.bulk = &bulkEnds{
		s: s, lock: bulk.NewLock(s.row.ID),
		parked: map[bulk.Role][]bulkEnd{}, paired: map[net.Conn]bool{},
	}
	s.task.Bulk = &wire.Bulk{AgentToken: s.bulk.lock.Token(bulk.Agent), ClientToken: s.bulk.lock.Token(bulk.Client)}
}

// ServeBulk takes over the connection of r as a bulk connection of a session whose home
// is this member. It returns at once; the connection lives on. On an error r has not
// been answered.
func (g *Gateway) ServeBulk(w http.ResponseWriter, r *http.Request, id string) error {
	s := g.session(id)
	if s == nil || s.bulk == nil || s.cause.Load() != nil {
		return ErrNoBulk
	}
	theirs := r.Header.Get(bulk.BindingHeader)
	role, err := s.bulk.lock.Open(r.Header.Get(bulk.ProofHeader), theirs)
	if err != nil {
		s.log.Warn("bulk connection refused", "from", r.RemoteAddr, "error", err)
		return err
	}
	if err := s.bulk.room(role); err != nil {
		return err
	}
	ours := ""
	if r.TLS != nil {
		ours = bulk.Binding(*r.TLS)
	}
	raw := ours != "" && subtle.ConstantTimeCompare([]byte(ours), []byte(theirs)) == 1
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("taking over the connection: %w", err)
	}
	end, err := acceptBulk(conn, rw.Reader, raw)
	if err != nil {
		conn.Close()
		s.log.Info("bulk connection refused", "error", err)
		return nil
	}
	s.bulk.arrive(role, end)
	return nil
}

// acceptBulk answers the request of a connection, and leaves its TLS where raw is set.
// The end says nothing before it has the answer.
func acceptBulk(conn net.Conn, r *bufio.Reader, raw bool) (bulkEnd, error) {
	answer := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + bulk.Protocol + "\r\n"
	if raw {
		answer += bulk.RawHeader + ": 1\r\n"
	}
	if r.Buffered() > 0 {
		return bulkEnd{}, errors.New("the end spoke too early")
	}
	conn.SetDeadline(time.Now().Add(bulkWait))
	if _, err := io.WriteString(conn, answer+"\r\n"); err != nil {
		return bulkEnd{}, fmt.Errorf("answering: %w", err)
	}
	conn.SetDeadline(time.Time{})
	end := bulkEnd{Conn: conn, socket: bulk.Under(conn), since: time.Now()}
	if raw {
		end.Conn = end.socket
	}
	return end, nil
}

// room reports whether one more connection may come.
func (b *bulkEnds) room(r bulk.Role) error {
	if b.s.g.bulkConns.Load() >= maxBulkMember {
		return fmt.Errorf("%w at this member", ErrBulkFull)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.parked[r]) >= maxBulkParked || len(b.paired) >= 2*maxBulkPairs {
		return fmt.Errorf("%w of this session", ErrBulkFull)
	}
	return nil
}

// mateOf is the end that a connection is paired with.
func mateOf(r bulk.Role) bulk.Role {
	if r == bulk.Client {
		return bulk.Agent
	}
	return bulk.Client
}

// arrive pairs a connection, or keeps it until one of the other end comes.
func (b *bulkEnds) arrive(r bulk.Role, e bulkEnd) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.g.bulkConns.Add(1)
	if b.closed || len(b.parked[r]) >= maxBulkParked || len(b.paired) >= 2*maxBulkPairs {
		b.drop(e)
		return
	}
	mate, ok := b.mateLocked(mateOf(r))
	if !ok {
		b.parked[r] = append(b.parked[r], e)
		return
	}
	client, agent := e, mate
	if r == bulk.Agent {
		client, agent = mate, e
	}
	b.pairLocked(client, agent)
}

// mateLocked takes the connection that has waited longest and is still there. Agents
// say nothing while they wait; a client that has spoken has not gone.
func (b *bulkEnds) mateLocked(r bulk.Role) (bulkEnd, bool) {
	for len(b.parked[r]) > 0 {
		e := b.parked[r][0]
		b.parked[r] = b.parked[r][1:]
		if r == bulk.Client || bulk.Quiet(e.socket) {
			return e, true
		}
		b.drop(e)
	}
	return bulkEnd{}, false
}

func (b *bulkEnds) drop(e bulkEnd) {
	e.socket.Close()
	b.s.g.bulkConns.Add(-1)
}

// pairLocked relays between two connections from now on.
func (b *bulkEnds) pairLocked(client, agent bulkEnd) {
	waiting := len(b.parked[bulk.Client])
	b.paired[client.socket], b.paired[agent.socket] = true, true
	b.total++
	b.wg.Add(1)
	started := b.s.g.start(func() {
		defer b.wg.Done()
		b.relay(client, agent, waiting)
	})
	if !started {
		b.wg.Done()
		for _, e := range []bulkEnd{client, agent} {
			delete(b.paired, e.socket)
			b.drop(e)
		}
	}
}

// relay tells the agent how many clients wait for more, and carries what the two ends
// say until one of them is gone.
func (b *bulkEnds) relay(client, agent bulkEnd, waiting int) {
	agent.SetWriteDeadline(time.Now().Add(bulkWait))
	_, err := agent.Write([]byte{byte(min(waiting, 255))})
	agent.SetWriteDeadline(time.Time{})
	if err == nil {
		var wg sync.WaitGroup
		wg.Go(func() {
			b.carry(client, agent, &b.s.bytesOut)
			client.socket.Close()
			agent.socket.Close()
		})
		b.carry(agent, client, &b.s.bytesIn)
		client.socket.Close()
		agent.socket.Close()
		wg.Wait()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range []bulkEnd{client, agent} {
		delete(b.paired, e.socket)
		b.drop(e)
	}
}

// expire drops clients that no agent came for, and pairs of which one end is gone without
// a word.
func (b *bulkEnds) expire(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	waiting := b.parked[bulk.Client]
	for len(waiting) > 0 && now.Sub(waiting[0].since) >= b.s.g.cfg.OpeningTimeout {
		b.drop(waiting[0])
		waiting = waiting[1:]
	}
	b.parked[bulk.Client] = waiting
	if now.Sub(b.looked) < bulkLook {
		return
	}
	b.looked = now
	for c := range b.paired {
		if bulk.Stalled(c) {
			c.Close() // relay sees to the rest
		}
	}
}

// close closes all connections and waits until their last bytes are counted. It returns
// the number of pairs that there were.
func (b *bulkEnds) close() int {
	b.mu.Lock()
	b.closed = true
	for r, waiting := range b.parked {
		for _, e := range waiting {
			b.drop(e)
		}
		delete(b.parked, r)
	}
	for c := range b.paired {
		c.Close()
	}
	total := b.total
	b.mu.Unlock()
	b.wg.Wait()
	return total
}
