package sallyporttest_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport.dev/audit"
	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/sallyporttest"
)

// bulkSystem is a member with one node, which reaches it over TLS, or through server.
func bulkSystem(t *testing.T) (*sallyporttest.System, sallyporttest.Key) {
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		goleak.VerifyNone(t, ignore)
	})
	s := sallyporttest.Start(t, "one", sallyporttest.Options{})
	key := s.User("admin", nil, sallyporttest.Everything)
	s.Node(forwardNode, identity.Tags{"Name": "frontend-1"}, s.TLSURL())
	return s, key
}

// bulkConnections returns what the audit log says of a session that has ended: how many
// bulk connections it had, and the bytes from the client.
func bulkConnections(t *testing.T, s *sallyporttest.System, id string) (connections, bytesIn int) {
	t.Helper()
	var record audit.Record
	s.Eventually(func() bool {
		records, err := s.Store.Audit(t.Context(), audit.Filter{Event: audit.EventSessionEnd, Session: id})
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 1 {
			record = records[0]
		}
		return len(records) == 1
	}, "the end of %s in the audit log", id)
	connections, _ = strconv.Atoi(record.Details["bulk_connections"])
	bytesIn, _ = strconv.Atoi(record.Details["bytes_in"])
	return connections, bytesIn
}

// warm waits until the forward's connections go beside the data channel: before, they go
// through it.
func warm(t *testing.T, address string) {
	t.Helper()
	if err := exchange(dialLocal(t, address), 1, 10); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
}

// Connections go beside the data channel, arrive whole, and are counted.
func TestBulkForward(t *testing.T) {
	s, key := bulkSystem(t)
	f := s.BulkForward(key, forwardNode, toPort, params(target(t, echo)), client.ForwardConfig{}, "")
	address := serve(t, f)
	warm(t, address)
	const n, each = 200, 200_000
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := exchange(dialLocal(t, address), i, each); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	all.Wait()
	f.End()
	connections, bytesIn := bulkConnections(t, s, f.SessionID)
	if connections < 2 || bytesIn < n*each {
		t.Errorf("audit: got %d connections and %d bytes, want some and at least %d", connections, bytesIn, n*each)
	}
}

// Thousands of short connections leave nothing behind.
func TestBulkChurn(t *testing.T) {
	s, key := bulkSystem(t)
	f := s.BulkForward(key, forwardNode, toPort, params(target(t, echo)), client.ForwardConfig{}, "")
	address := serve(t, f)
	warm(t, address)
	before := openFiles()
	const workers, each = 10, 500
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := range each {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				c.SetDeadline(time.Now().Add(30 * time.Second))
				if err := exchange(c.(*net.TCPConn), i, 300); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
				c.Close()
			}
		})
	}
	all.Wait()
	f.End()
	if connections, _ := bulkConnections(t, s, f.SessionID); connections == 0 || connections > 10*workers {
		t.Errorf("%d short connections took %d bulk connections", workers*each, connections)
	}
	// The gateway keeps some pipes.
	s.Eventually(func() bool { return openFiles() < before+80 }, "descriptors to be closed: %d before", before)
}

// openFiles counts this process's descriptors, where the system tells.
func openFiles() int {
	d, _ := os.ReadDir("/proc/self/fd")
	return len(d)
}

// What the node cannot reach is told as on any other way.
func TestBulkTargetRefuses(t *testing.T) {
	s, key := bulkSystem(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	events := make(chan client.ForwardEvent, 64)
	f := s.BulkForward(key, forwardNode, toHost, map[string]string{"portNumber": port, "host": "127.0.0.1"},
		client.ForwardConfig{Event: func(e client.ForwardEvent) { events <- e }}, "")
	address := serve(t, f)
	for range 3 {
		c := dialLocal(t, address)
		if got, err := io.ReadAll(c); len(got) > 0 || err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
			t.Errorf("read %q, %v", got, err)
		}
		var refused *client.ForwardRefusedError
		for e := range events {
			if e.Kind == client.ForwardOpened {
				continue
			}
			if e.Kind != client.ForwardRefused || !errors.As(e.Err, &refused) || !strings.Contains(refused.Reason, "connection refused") {
				t.Errorf("event %d with %v, want a refusal", e.Kind, e.Err)
			}
			break
		}
	}
	var refused *client.ForwardRefusedError
	if _, err := f.Open(t.Context()); !errors.As(err, &refused) {
		t.Errorf("Open: got %v, want a refusal", err)
	}
}

// Ending a session ends a transfer in its midst, within a second.
func TestBulkTerminated(t *testing.T) {
	s, key := bulkSystem(t)
	port := target(t, func(c *net.TCPConn) {
		for {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	f := s.BulkForward(key, forwardNode, toPort, params(port), client.ForwardConfig{}, "")
	address := serve(t, f)
	c := dialLocal(t, address)
	if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := s.API(key).TerminateSession(t.Context(), f.SessionID); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c.SetDeadline(began.Add(10 * time.Second))
	io.Copy(io.Discard, c)
	if took := time.Since(began); took > time.Second {
		t.Errorf("the transfer went on for %v", took)
	}
	<-f.Over
}

// door is a proxy that ends TLS before the member, as load balancers do.
func door(t *testing.T, s *sallyporttest.System, refuse func(*http.Request) bool) string {
	t.Helper()
	to, err := url.Parse(s.TLSURL())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: s.Trust()}
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		p.Out.Host = p.In.Host
	}}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse(r) {
			http.Error(w, "not through here", http.StatusNotFound)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	srv.Start()
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		transport.CloseIdleConnections()
	})
	return srv.URL
}

// Behind a proxy that ends TLS, both sides stay inside their connection to it.
func TestBulkThroughProxy(t *testing.T) {
	s, key := bulkSystem(t)
	proxied := door(t, s, func(*http.Request) bool { return false })
	f := s.BulkForward(key, forwardNode, toPort, params(target(t, echo)), client.ForwardConfig{}, proxied)
	address := serve(t, f)
	warm(t, address)
	for i := range 5 {
		if err := exchange(dialLocal(t, address), i, 5_000_000); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	f.End()
	if connections, bytesIn := bulkConnections(t, s, f.SessionID); connections == 0 || bytesIn < 25_000_000 {
		t.Errorf("audit: got %d connections and %d bytes", connections, bytesIn)
	}
}

// Where bulk connections are not let through, everything goes through the data channel.
func TestBulkBlocked(t *testing.T) {
	s, key := bulkSystem(t)
	proxied := door(t, s, func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v1/bulk/") })
	f := s.BulkForward(key, forwardNode, toPort, params(target(t, echo)), client.ForwardConfig{}, proxied)
	address := serve(t, f)
	for i := range 5 {
		if err := exchange(dialLocal(t, address), i, 500_000); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	f.End()
	if connections, bytesIn := bulkConnections(t, s, f.SessionID); connections != 0 || bytesIn < 2_500_000 {
		t.Errorf("audit: got %d connections and %d bytes, want none and 2.5 MB", connections, bytesIn)
	}
}

// A node that is connected to another member: its bulk connections meet the client's
// there, passed on by the one that the client dials.
func TestBulkAcrossMembers(t *testing.T) {
	a, b := pair(t)
	key := a.User("admin", nil, sallyporttest.Everything)
	a.Node(forwardNode, identity.Tags{"Name": "frontend-1"}, a.TLSURL())
	b.Eventually(func() bool { return b.Connected(t.Context(), forwardNode) }, "b knows of the node")
	f := b.BulkForward(key, forwardNode, toPort, params(target(t, echo)), client.ForwardConfig{}, b.TLSURL())
	address := serve(t, f)
	warm(t, address)
	for i := range 5 {
		if err := exchange(dialLocal(t, address), i, 3_000_000); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	f.End()
	if connections, bytesIn := bulkConnections(t, a, f.SessionID); connections == 0 || bytesIn < 15_000_000 {
		t.Errorf("audit: got %d connections and %d bytes", connections, bytesIn)
	}
}
