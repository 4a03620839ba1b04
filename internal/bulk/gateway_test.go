package bulk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const testSession = "alice-0123456789abcdef0"

// gateway pairs connections as the real one does, but copies.
type gateway struct {
	lock *Lock
	url  string
	srv  *httptest.Server
	raws atomic.Int64 // connections that left the outer TLS
	// strict breaks connections that leave it, as something in between may do.
	strict atomic.Bool

	mu      sync.Mutex
	parked  map[Role][]net.Conn
	conns   []net.Conn
	stopped bool
	wg      sync.WaitGroup
}

func newGateway(t testing.TB) *gateway {
	g := &gateway{lock: NewLock(testSession), parked: map[Role][]net.Conn{}}
	g.srv = httptest.NewUnstartedServer(g)
	g.srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	g.srv.StartTLS()
	g.url = g.srv.URL
	t.Cleanup(func() {
		g.cut(true)
		g.srv.Close()
		g.wg.Wait()
	})
	return g
}

// cut closes all connections, as a link that breaks does.
func (g *gateway) cut(forGood bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = forGood
	for _, c := range g.conns {
		c.Close()
	}
	g.conns, g.parked = nil, map[Role][]net.Conn{}
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	theirs := r.Header.Get(BindingHeader)
	role, err := g.lock.Open(r.Header.Get(ProofHeader), theirs)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	answer := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: sallyport-bulk\r\n"
	raw := theirs != "" && theirs == Binding(*r.TLS)
	if raw {
		g.raws.Add(1)
		answer += RawHeader + ": 1\r\n"
	}
	io.WriteString(conn, answer+"\r\n")
	if raw && g.strict.Load() {
		conn.Close()
		return
	}
	if raw {
		conn = Under(conn)
	}
	g.arrive(role, conn)
}

func (g *gateway) arrive(r Role, c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		c.Close()
		return
	}
	g.conns = append(g.conns, c)
	mates := map[Role]Role{Client: Agent, Agent: Client}
	if len(g.parked[mates[r]]) == 0 {
		g.parked[r] = append(g.parked[r], c)
		return
	}
	mate := g.parked[mates[r]][0]
	g.parked[mates[r]] = g.parked[mates[r]][1:]
	client, agent := c, mate
	if r == Agent {
		client, agent = mate, c
	}
	agent.Write([]byte{byte(len(g.parked[Client]))})
	for _, pair := range [][2]net.Conn{{client, agent}, {agent, client}} {
		g.wg.Go(func() {
			io.Copy(pair[0], pair[1])
			pair[0].Close()
			pair[1].Close()
		})
	}
}

func (g *gateway) dialer() Dialer {
	return Dialer{URL: g.url + "/v1/bulk/" + testSession, TLS: g.srv.Client().Transport.(*http.Transport).TLSClientConfig}
}

// world is a client and an agent at a gateway.
type world struct {
	t      testing.TB
	g      *gateway
	opener *Opener
	agent  *Acceptor
}

func identity(t testing.TB) *Identity {
	t.Helper()
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func prover(t testing.TB, g *gateway, r Role) *Prover {
	t.Helper()
	p, err := NewProver(testSession, r, g.lock.Token(r))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func logger(t testing.TB) *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// newWorld starts both ends; target is what the agent dials.
func newWorld(t testing.TB, target func(context.Context) (net.Conn, error), tune ...func(*gateway)) *world {
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	w := &world{t: t, g: newGateway(t)}
	for _, f := range tune {
		f(w.g)
	}
	client, agent := identity(t), identity(t)
	w.agent = NewAcceptor(w.g.dialer(), prover(t, w.g, Agent), agent, client.Fingerprint(), target, logger(t))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.agent.Run(ctx) }()
	w.opener = NewOpener(w.g.dialer(), prover(t, w.g, Client), client, agent.Fingerprint(), logger(t))
	t.Cleanup(func() {
		w.opener.Close()
		cancel()
		<-done
	})
	return w
}

// listen serves each connection to a loopback address and returns how to dial it.
func listen(t testing.TB, serve func(*net.TCPConn)) func(context.Context) (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); serve(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	}
}

// echo sends back what it gets, and finishes when its peer has.
func echo(c *net.TCPConn) {
	io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	c.CloseWrite()
}

// open opens a connection, with patience where none is ready.
func (w *world) open() *Conn {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := w.opener.Open(w.t.Context())
		if err == nil {
			return c
		}
		if !errors.Is(err, ErrUnavailable) || time.Now().After(deadline) {
			w.t.Fatalf("opening: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *world) links() int {
	w.opener.mu.Lock()
	defer w.opener.mu.Unlock()
	return len(w.opener.links)
}

// roundTrip sends data through an echo and checks what comes back.
func roundTrip(c *Conn, data []byte) error {
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, bytes.NewReader(data))
		if err == nil {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	h := sha256.New()
	n, err := io.Copy(h, struct{ io.Reader }{c})
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if want := sha256.Sum256(data); n != int64(len(data)) || !bytes.Equal(h.Sum(nil), want[:]) {
		return fmt.Errorf("%d bytes came back otherwise than %d were sent", n, len(data))
	}
	return nil
}

func noise(n int) []byte {
	b := make([]byte, n)
	var seed [32]byte
	r := rand.NewChaCha8(seed)
	r.Read(b)
	return b
}
