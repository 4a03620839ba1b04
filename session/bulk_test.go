package session

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/internal/bulk"
)

// bulkWorld is a live Port session and what its ends know.
type bulkWorld struct {
	*world
	id            string
	s             *live
	client, agent *bulk.Prover
}

func newBulkWorld(t *testing.T, tune ...func(*StartRequest)) *bulkWorld {
	w := newWorld(t)
	_, id, _, _ := w.pair(append(tune, func(r *StartRequest) { r.Session.SessionType = "Port" })...)
	b := &bulkWorld{world: w, id: id, s: w.g.session(id)}
	b.client, b.agent = b.prover(bulk.Client, b.s.task.Bulk.ClientToken), b.prover(bulk.Agent, b.s.task.Bulk.AgentToken)
	return b
}

func (b *bulkWorld) prover(r bulk.Role, token string) *bulk.Prover {
	b.t.Helper()
	p, err := bulk.NewProver(b.id, r, token)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// knock asks for a bulk connection and returns the answer's status.
func (b *bulkWorld) knock(proof, binding string) (*bulkPeer, int) {
	b.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "ws://"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	r, err := http.NewRequest(http.MethodGet, "http://gateway/v1/bulk/"+b.id, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", bulk.Protocol)
	r.Header.Set(bulk.ProofHeader, proof)
	if binding != "" {
		r.Header.Set(bulk.BindingHeader, binding)
	}
	if err := r.Write(conn); err != nil {
		b.t.Fatal(err)
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, r)
	if err != nil {
		b.t.Fatal(err)
	}
	return &bulkPeer{Conn: conn, r: br}, resp.StatusCode
}

// bulkPeer is one end's connection.
type bulkPeer struct {
	net.Conn
	r *bufio.Reader
}

func (p *bulkPeer) Read(b []byte) (int, error) { return p.r.Read(b) }

// open opens a connection that must be let in, and waits until the gateway has it.
func (b *bulkWorld) open(p *bulk.Prover) *bulkPeer {
	b.t.Helper()
	before := b.g.bulkConns.Load()
	c, status := b.knock(p.Next(""), "")
	if status != http.StatusSwitchingProtocols {
		b.t.Fatalf("status %d", status)
	}
	eventually(b.t, "arrival", func() bool { return b.g.bulkConns.Load() > before })
	return c
}

// wantOver waits for the end of a connection.
func (b *bulkWorld) wantOver(what string, c *bulkPeer) {
	b.t.Helper()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := io.Copy(io.Discard, c)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		b.t.Errorf("%s is open still", what)
	}
}

func TestBulkPair(t *testing.T) {
	b := newBulkWorld(t)
	agent := b.open(b.agent)
	client := b.open(b.client)
	said := bytes.Repeat([]byte("said by the client "), 100_000)
	var writing sync.WaitGroup
	writing.Go(func() { client.Write(said) })
	got := make([]byte, 1+len(said))
	if _, err := io.ReadFull(agent, got); err != nil {
		t.Fatal(err)
	}
	writing.Wait()
	if got[0] != 0 || !bytes.Equal(got[1:], said) {
		t.Errorf("the agent got other bytes than the client said")
	}
	agent.Write([]byte("said by the agent"))
	if _, err := io.ReadFull(client, got[:17]); err != nil || string(got[:17]) != "said by the agent" {
		t.Errorf("client got %q, %v", got[:17], err)
	}
	eventually(t, "counting", func() bool {
		return b.s.bytesIn.Load() == int64(len(said)) && b.s.bytesOut.Load() == 17
	})
	client.Close()
	b.wantOver("the agent's connection", agent)
}

// The agent is told how many clients are waiting.
func TestBulkWaiting(t *testing.T) {
	b := newBulkWorld(t)
	for range 3 {
		b.open(b.client)
	}
	var more [1]byte
	if _, err := io.ReadFull(b.open(b.agent), more[:]); err != nil || more[0] != 2 {
		t.Errorf("agent was told of %d waiting, %v, want 2", more[0], err)
	}
}

func TestBulkAttacks(t *testing.T) {
	b := newBulkWorld(t)
	other := newBulkWorld(t)
	used := b.client.Next("")
	b.knock(used, "")
	skewed, _ := bulk.NewProver(other.id, bulk.Client, b.s.task.Bulk.ClientToken)
	good := b.client.Next("")
	for name, proof := range map[string]string{
		"none":                      "",
		"nonsense":                  "client.1.x",
		"long":                      "client.1." + strings.Repeat("a", 10_000),
		"used before":               used,
		"another session's token":   b.prover(bulk.Client, other.s.task.Bulk.ClientToken).Next(""),
		"another session's proof":   skewed.Next(""),
		"the client's as the agent": strings.Replace(good, "client.", "agent.", 1),
		"another number":            strings.Replace(good, ".2.", ".4.", 1),
		"a number of zero":          strings.Replace(good, ".2.", ".0.", 1),
		"a negative number":         strings.Replace(good, ".2.", ".-3.", 1),
		"for another TLS session":   b.client.Next("0123"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, status := b.knock(proof, ""); status != http.StatusForbidden {
				t.Errorf("status %d, want %d", status, http.StatusForbidden)
			}
		})
	}
	t.Run("a binding that is made up", func(t *testing.T) {
		c, status := b.knock(b.client.Next("0123"), "0123")
		if status != http.StatusSwitchingProtocols {
			t.Fatalf("status %d", status)
		}
		c.Close() // it stays where it is, and so does the gateway
	})
	t.Run("a session that has none", func(t *testing.T) {
		shell := newWorld(t)
		_, id, _, _ := shell.pair()
		if shell.g.session(id).task.Bulk != nil {
			t.Error("a shell was given bulk tokens")
		}
		stranger := &bulkWorld{world: shell, id: id}
		if _, status := stranger.knock(used, ""); status != http.StatusForbidden {
			t.Errorf("status %d", status)
		}
	})
}

// An end that speaks before it is answered is not let in.
func TestBulkSpeaksEarly(t *testing.T) {
	b := newBulkWorld(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "ws://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /v1/bulk/"+b.id+" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: sallyport-bulk\r\n"+
		bulk.ProofHeader+": "+b.agent.Next("")+"\r\n\r\nearly")
	b.wantOver("the early connection", &bulkPeer{conn, bufio.NewReader(conn)})
}

// Neither an end that floods the gateway with connections nor one that dies while it
// waits keeps others from theirs.
func TestBulkFlood(t *testing.T) {
	b := newBulkWorld(t)
	var all []*bulkPeer
	for range maxBulkParked {
		all = append(all, b.open(b.agent))
	}
	for range 20 {
		if _, status := b.knock(b.agent.Next(""), ""); status == http.StatusSwitchingProtocols {
			t.Errorf("a connection beyond %d was let in", maxBulkParked)
		}
	}
	for _, c := range all[:maxBulkParked-1] {
		c.Close()
	}
	client, _ := b.knock(b.client.Next(""), "")
	client.Write([]byte("hello"))
	alive := all[maxBulkParked-1]
	got := make([]byte, 6)
	if _, err := io.ReadFull(alive, got); err != nil || string(got[1:]) != "hello" {
		t.Errorf("the connection that was left got %q, %v", got, err)
	}
}

// Clients that no agent comes for are dropped in time.
func TestBulkExpires(t *testing.T) {
	b := newBulkWorld(t)
	b.wantOver("the connection", b.open(b.client))
}

// All connections end with the session, within a second, and are counted before the row
// and the audit log are written.
func TestBulkEndsWithSession(t *testing.T) {
	b := newBulkWorld(t)
	parked := b.open(b.agent)
	client := b.open(b.client)
	waiting := b.open(b.agent)
	client.Write(make([]byte, 1000))
	if _, err := io.ReadFull(parked, make([]byte, 1001)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := b.g.Terminate(t.Context(), b.id, Terminated("bob", "")); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]*bulkPeer{"agent": parked, "client": client, "waiting": waiting} {
		b.wantOver(what, c)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("the end took %v", took)
	}
	eventually(t, "audit", func() bool {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		last := b.store.records[len(b.store.records)-1]
		return last.Details["bytes_in"] == "1000" && last.Details["bulk_connections"] == "1"
	})
	if _, status := b.knock(b.client.Next(""), ""); status != http.StatusForbidden {
		t.Errorf("after the end: status %d", status)
	}
	if n := b.g.bulkConns.Load(); n != 0 {
		t.Errorf("%d connections are counted as open", n)
	}
}

// What passes on bulk connections keeps a session from being idle; their silence does not.
func TestBulkIsActivity(t *testing.T) {
	b := newBulkWorld(t, func(r *StartRequest) { r.Session.IdleTimeout = 300 * time.Millisecond })
	agent := b.open(b.agent)
	client := b.open(b.client)
	go io.Copy(io.Discard, agent)
	for began := time.Now(); time.Since(began) < time.Second; time.Sleep(50 * time.Millisecond) {
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if b.s.cause.Load() != nil {
		t.Fatal("the session ended while it was in use")
	}
	still := make([]byte, bulk.Still)
	go func() {
		for {
			if _, err := client.Write(still); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	b.wantOver("the idle session's connection", client)
}
