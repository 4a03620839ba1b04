package sallyporttest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/sallyporttest"
)

const (
	forwardNode = "mi-0f000000000000001"
	toPort      = "AWS-StartPortForwardingSession"
	toHost      = "AWS-StartPortForwardingSessionToRemoteHost"
	toSSH       = "AWS-StartSSHSession"
)

// system is a member with one node and an administrator.
func forwardSystem(t *testing.T) (*sallyporttest.System, sallyporttest.Key) {
	s := sallyporttest.Start(t, "one", sallyporttest.Options{})
	key := s.User("admin", nil, sallyporttest.Everything)
	s.Node(forwardNode, identity.Tags{"Name": "frontend-1"})
	return s, key
}

// target is a TCP server on loopback that treats each connection with f.
func target(t *testing.T, f func(*net.TCPConn)) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { l.Close() })
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func echo(c *net.TCPConn) {
	io.Copy(c, c)
	c.CloseWrite()
}

func params(port string) map[string]string { return map[string]string{"portNumber": port} }

// serve makes a listener that leads through the forward and returns its address.
func serve(t *testing.T, f *sallyporttest.Forward) string {
	t.Helper()
	l, err := client.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Serve(ctx, l)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return l.Addr().String()
}

func dialLocal(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn)
}

// random returns n bytes that follow from seed.
func random(seed, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// exchange sends bytes, ends, and wants them back with their end.
func exchange(c *net.TCPConn, seed, n int) error {
	sent := random(seed, n)
	var writing sync.WaitGroup
	writing.Go(func() {
		c.Write(sent)
		c.CloseWrite()
	})
	h := sha256.New()
	got, err := io.Copy(h, c)
	writing.Wait()
	switch want := sha256.Sum256(sent); {
	case err != nil:
		return err
	case got != int64(n):
		return fmt.Errorf("got %d bytes back, want %d", got, n)
	case !bytes.Equal(h.Sum(nil), want[:]):
		return errors.New("the bytes differ")
	}
	return nil
}

// Two hundred connections at once, each to its end in both directions by half-close.
func TestForwardManyConnections(t *testing.T) {
	s, key := forwardSystem(t)
	f := s.Forward(key, forwardNode, toPort, params(target(t, echo)), client.ForwardConfig{}, nil)
	address := serve(t, f)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			c := dialLocal(t, address)
			if err := exchange(c, i, 100_000+i); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if _, err := f.End(); !errors.Is(err, context.Canceled) {
		t.Errorf("end: got %v", err)
	}
}

// A closed port is told with its address and the cause, and the forward goes on.
func TestForwardClosedPort(t *testing.T) {
	s, key := forwardSystem(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	events := make(chan client.ForwardEvent, 16)
	f := s.Forward(key, forwardNode, toHost, map[string]string{"portNumber": port, "host": "127.0.0.1"}, client.ForwardConfig{
		Event: func(e client.ForwardEvent) { events <- e },
	}, nil)
	want := "connecting to 127.0.0.1:" + port + ": connection refused"
	var refused *client.ForwardRefusedError
	if _, err := f.Open(t.Context()); !errors.As(err, &refused) || err.Error() != want {
		t.Errorf("Open: got %v, want %s", err, want)
	}
	wantKinds(t, events, client.ForwardOpened, client.ForwardRefused)
	c := dialLocal(t, serve(t, f))
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("local connection: got %q, %v", b, err)
	}
	if e := wantKinds(t, events, client.ForwardOpened, client.ForwardRefused); e.Err == nil || e.Err.Error() != want {
		t.Errorf("event: got %v, want %s", e.Err, want)
	}
}

func wantKinds(t *testing.T, events <-chan client.ForwardEvent, kinds ...client.ForwardEventKind) (e client.ForwardEvent) {
	t.Helper()
	for _, want := range kinds {
		select {
		case e = <-events:
			if e.Kind != want {
				t.Errorf("event: got %+v, want kind %d", e, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no event of kind %d", want)
		}
	}
	return e
}

// What is denied is denied however it is written; the session fails with the reason.
func TestForwardDenied(t *testing.T) {
	s, key := forwardSystem(t)
	for _, host := range []string{"169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"} {
		f := s.Forward(key, forwardNode, toHost, map[string]string{"portNumber": "80", "host": host}, client.ForwardConfig{}, nil)
		select {
		case <-f.Over:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: the session goes on", host)
		}
		end, err := f.End()
		if want := "Forwarding to IP address " + host + " is forbidden."; err != nil || !strings.Contains(end.Output, want) {
			t.Errorf("%s: got end %q, %v, want %q", host, end.Output, err, want)
		}
	}
}

// cutter breaks the links that were dialled through it.
type cutter struct {
	mu    sync.Mutex
	links []client.Link
	cuts  int
}

func (c *cutter) configure(cfg *client.ChannelConfig) {
	dial := cfg.Dial
	cfg.Dial = func(ctx context.Context, url string) (client.Link, error) {
		l, err := dial(ctx, url)
		if err == nil {
			c.mu.Lock()
			c.links = append(c.links, l)
			c.mu.Unlock()
		}
		return l, err
	}
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.links {
		l.Close()
	}
	if len(c.links) > 0 {
		c.cuts++
	}
	c.links = nil
}

// Links that break in the middle of transfers cost no byte.
func TestForwardSurvivesCuts(t *testing.T) {
	s, key := forwardSystem(t)
	var c cutter
	f := s.Forward(key, forwardNode, toPort, params(target(t, echo)), client.ForwardConfig{}, c.configure)
	address := serve(t, f)
	stop := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for range 6 {
			select {
			case <-stop:
				return
			case <-time.After(150 * time.Millisecond):
				c.cut()
			}
		}
	})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := 0; n < 3; n++ {
				if err := exchange(dialLocal(t, address), i*10+n, 4_000_000); err != nil {
					t.Errorf("connection %d.%d: %v", i, n, err)
				}
			}
		})
	}
	all.Wait()
	close(stop)
	cutting.Wait()
	if c.cuts == 0 {
		t.Error("no link was cut")
	}
}

// One connection that nobody reads does not hold up the others.
func TestForwardSlowReader(t *testing.T) {
	s, key := forwardSystem(t)
	f := s.Forward(key, forwardNode, toPort, params(target(t, echo)), client.ForwardConfig{}, nil)
	address := serve(t, f)
	slow := dialLocal(t, address)
	var writing sync.WaitGroup
	defer writing.Wait()
	defer slow.Close()
	writing.Go(func() { slow.Write(make([]byte, 64<<20)) })
	time.Sleep(200 * time.Millisecond) // buffers fill
	for i := range 5 {
		if err := exchange(dialLocal(t, address), i, 3_000_000); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

// A session that carries one connection ends with the target's end, and everything that
// the target said before has arrived.
func TestForwardSingle(t *testing.T) {
	s, key := forwardSystem(t)
	said := random(1, 3_000_000)
	port := target(t, func(c *net.TCPConn) {
		io.CopyN(io.Discard, c, 5)
		c.Write(said)
	})
	f := s.Forward(key, forwardNode, toSSH, params(port), client.ForwardConfig{}, nil)
	c, err := f.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("hello"))
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, said) {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len(said))
	}
	c.Close()
}
