package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// startAlone starts a member with NATS inside the process.
func startAlone(t testing.TB) *Cluster {
	t.Helper()
	return start(t, Config{Member: "alone", URL: "https://alone.example"})
}

func start(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	cfg.Logger = quiet()
	c, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// natsServer starts a NATS server on loopback; port 0 chooses one.
func natsServer(t testing.TB, port int) *server.Server {
	t.Helper()
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true,
		Username: "sallyport", Password: "correct horse"})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(5 * time.Second) {
		t.Fatal("NATS server did not start")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

func joining(s *server.Server, member string) Config {
	return Config{Member: member, URL: "https://" + member + ".example", URLs: []string{s.ClientURL()},
		User: "sallyport", Password: "correct horse"}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v: %s", within, what)
		}
	}
}

func echo(_ context.Context, data []byte) ([]byte, error) {
	return append([]byte("echo "), data...), nil
}

func TestRequestAlone(t *testing.T) {
	c := startAlone(t)
	stop, err := c.Serve("sallyport.node.mi-1", echo)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Request(t.Context(), "sallyport.node.mi-1", []byte("hello"))
	if err != nil || string(got) != "echo hello" {
		t.Fatalf("got %q, %v, want %q", got, err, "echo hello")
	}
	stop()
	stop() // does no harm
	if _, err := c.Request(t.Context(), "sallyport.node.mi-1", nil); !errors.Is(err, ErrNoResponder) {
		t.Errorf("after stop: got %v, want ErrNoResponder", err)
	}
}

func TestNoResponderIsToldAtOnce(t *testing.T) {
	c := startAlone(t)
	began := time.Now()
	_, err := c.Request(t.Context(), "sallyport.node.mi-none", nil)
	if !errors.Is(err, ErrNoResponder) {
		t.Errorf("got %v, want ErrNoResponder", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestRemoteErrors(t *testing.T) {
	c := startAlone(t)
	tests := []struct {
		name string
		h    Handler
		want string
	}{
		{"an error's text", func(context.Context, []byte) ([]byte, error) {
			return nil, errors.New("node mi-1 is shutting down\nsecond line")
		}, "node mi-1 is shutting down\nsecond line"},
		{"a long text is cut", func(context.Context, []byte) ([]byte, error) {
			return nil, errors.New(strings.Repeat("x", 1<<20))
		}, strings.Repeat("x", errorLength)},
		{"a panic", func(context.Context, []byte) ([]byte, error) { panic("secret detail") }, "internal error"},
		{"an answer that is too large", func(context.Context, []byte) ([]byte, error) {
			return make([]byte, 2<<20), nil
		}, "sending answer: nats: maximum payload exceeded"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			subject := fmt.Sprint("test.error.", i)
			stop, err := c.Serve(subject, tt.h)
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
			_, err = c.Request(t.Context(), subject, nil)
			remote := (*RemoteError)(nil)
			if !errors.As(err, &remote) || remote.Text != tt.want {
				t.Errorf("got %.100v, want a RemoteError %.100q", err, tt.want)
			}
		})
	}
}

func TestRequestEndsWithItsContext(t *testing.T) {
	c := startAlone(t)
	ended := make(chan error, 1)
	stop, err := c.Serve("test.slow", func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.Request(ctx, "test.slow", nil)
	remote := (*RemoteError)(nil) // the handler's answer, at the same moment
	if !errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &remote) {
		t.Errorf("got %v, want the deadline", err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("handler's context: got %v, want the requester's deadline", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the handler's context did not end with the requester's")
	}
}

func TestHandlersRunAtOnceAndAreBounded(t *testing.T) {
	c := startAlone(t)
	release := make(chan struct{})
	stop, err := c.Serve("test.stuck", func(context.Context, []byte) ([]byte, error) { <-release; return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	var busy, done atomic.Int32
	var wg sync.WaitGroup
	for range handlersPerSubject + 10 {
		wg.Go(func() {
			_, err := c.Request(t.Context(), "test.stuck", nil)
			switch {
			case errors.Is(err, ErrBusy):
				busy.Add(1)
			case err == nil:
				done.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	eventually(t, 5*time.Second, "too few were refused", func() bool { return busy.Load() == 10 })

	stopOther, err := c.Serve("test.other", echo)
	if err != nil {
		t.Fatal(err)
	}
	defer stopOther()
	if _, err := c.Request(t.Context(), "test.other", nil); err != nil {
		t.Errorf("another subject, while one is stuck: got %v", err)
	}
	close(release)
	wg.Wait()
	if done.Load() != handlersPerSubject {
		t.Errorf("answered: got %d, want %d", done.Load(), handlersPerSubject)
	}
}

func TestSubjectsHoldAnyText(t *testing.T) {
	c := startAlone(t)
	// Names of role sessions may hold dots, and become parts of subjects.
	for _, subject := range []string{"a..b", ".a", "a.", "a b", "*", "a.*", "a.>", "%2A", "a\r\nPUB x 0", "ü", "$SYS.x", "="} {
		want := "I am " + subject
		stop, err := c.Serve(subject, func(context.Context, []byte) ([]byte, error) { return []byte(want), nil })
		if err != nil {
			t.Errorf("serving %q: %v", subject, err)
			continue
		}
		defer stop()
	}
	for _, subject := range []string{"a..b", ".a", "a.", "a b", "*", "a.*", "a.>", "%2A", "a\r\nPUB x 0", "ü", "$SYS.x", "="} {
		got, err := c.Request(t.Context(), subject, nil)
		if err != nil || string(got) != "I am "+subject {
			t.Errorf("asking %q: got %q, %v", subject, got, err)
		}
	}
	if _, err := c.Request(t.Context(), "a.other", nil); !errors.Is(err, ErrNoResponder) {
		t.Errorf("a wildcard got through: got %v, want ErrNoResponder", err)
	}
	for _, subject := range []string{"", strings.Repeat("x", subjectLength+1)} {
		if _, err := c.Serve(subject, echo); err == nil {
			t.Errorf("serving a subject of %d bytes: got no error", len(subject))
		}
		if _, err := c.Request(t.Context(), subject, nil); err == nil {
			t.Errorf("asking a subject of %d bytes: got no error", len(subject))
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("sallyport.node.mi-1", "a..b")
	f.Add("a%2Eb", "a.b")
	f.Add("*", ">")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, errX := escape(a)
		y, errY := escape(b)
		if errX != nil || errY != nil {
			return
		}
		if a != b && x == y {
			t.Errorf("%q and %q both become %q", a, b, x)
		}
		if strings.ContainsAny(x, "*> \t\r\n") || strings.Contains(x, "..") || x[0] == '.' || x[len(x)-1] == '.' {
			t.Errorf("%q becomes %q", a, x)
		}
	})
}

func TestInsideListensOnNoPort(t *testing.T) {
	c := startAlone(t)
	if addr := c.inside.nats.Addr(); addr != nil {
		t.Errorf("the NATS server inside listens on %v", addr)
	}
}

func TestCloseWaitsForHandlersAndRefusesLater(t *testing.T) {
	c := startAlone(t)
	var begun, ended atomic.Bool
	if _, err := c.Serve("test.wait", func(ctx context.Context, _ []byte) ([]byte, error) {
		begun.Store(true)
		<-ctx.Done()
		ended.Store(true)
		return nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		c.Request(t.Context(), "test.wait", nil)
	}()
	eventually(t, 5*time.Second, "handler did not begin", begun.Load)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if !ended.Load() {
		t.Error("Close returned before the handler did")
	}
	<-asked
	if _, err := c.Request(t.Context(), "test.wait", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("request after Close: got %v, want ErrClosed", err)
	}
	if _, err := c.Serve("test.wait", echo); !errors.Is(err, ErrClosed) {
		t.Errorf("serve after Close: got %v, want ErrClosed", err)
	}
	if _, err := c.Listen("test.wait", func([]byte) {}); !errors.Is(err, ErrClosed) {
		t.Errorf("listen after Close: got %v, want ErrClosed", err)
	}
	if err := c.Broadcast("test.wait", nil); err == nil {
		t.Error("broadcast after Close: got no error")
	}
}

func TestStartRefuses(t *testing.T) {
	tests := []struct {
		name string
		cfg  Config
		want string
	}{
		{"no member", Config{Logger: quiet()}, `member ""`},
		{"a wildcard as member", Config{Member: "*", Logger: quiet()}, `member "*"`},
		{"two kinds of credentials", Config{Member: "m", User: "u", CredsFile: "f", Logger: quiet()}, "only one may be given"},
		{"no logger", Config{Member: "m"}, "logger"},
		{"no such credentials file", Config{Member: "m", CredsFile: "/nonexistent/creds", URLs: []string{"nats://127.0.0.1:1"}, Logger: quiet()}, "/nonexistent/creds"},
		{"nobody listens", Config{Member: "m", URLs: []string{"nats://" + unusedAddr(t)}, Logger: quiet()}, "connecting to NATS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Start(t.Context(), tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func unusedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestWrongPasswordIsRefused(t *testing.T) {
	s := natsServer(t, 0)
	cfg := joining(s, "m1")
	cfg.Password, cfg.Logger = "battery staple", quiet()
	if _, err := Start(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "battery") {
		t.Errorf("got %v, want a refusal without the password", err)
	}
}

func memberIDs(c *Cluster) []string {
	var ids []string
	for _, m := range c.Members() {
		ids = append(ids, m.ID)
	}
	return ids
}

func TestTwoMembers(t *testing.T) {
	s := natsServer(t, 0)
	a, b := start(t, joining(s, "a")), start(t, joining(s, "b"))

	eventually(t, 2*time.Second, "members do not know each other", func() bool {
		return cmp.Equal(memberIDs(a), []string{"a", "b"}) && cmp.Equal(memberIDs(b), []string{"a", "b"})
	})
	if got := a.Members()[1].URL; got != "https://b.example" {
		t.Errorf("URL of b as a knows it: got %q", got)
	}

	if _, err := b.Serve("sallyport.node.mi-1", echo); err != nil {
		t.Fatal(err)
	}
	got, err := a.Request(t.Context(), "sallyport.node.mi-1", []byte("from a"))
	if err != nil || string(got) != "echo from a" {
		t.Errorf("got %q, %v", got, err)
	}

	heard := make(chan string, 4)
	for name, m := range map[string]*Cluster{"a": a, "b": b} {
		if _, err := m.Listen("sallyport.revoked", func(data []byte) { heard <- name + " " + string(data) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Broadcast("sallyport.revoked", []byte("x")); err != nil {
		t.Fatal(err)
	}
	both := map[string]bool{receive(t, heard): true, receive(t, heard): true}
	if want := map[string]bool{"a x": true, "b x": true}; !cmp.Equal(both, want) {
		t.Errorf("heard: got %v, want %v", both, want)
	}

	b.Close()
	eventually(t, time.Second, "a still lists b, which left", func() bool { return cmp.Equal(memberIDs(a), []string{"a"}) })
	if _, err := a.Request(t.Context(), "sallyport.node.mi-1", nil); !errors.Is(err, ErrNoResponder) {
		t.Errorf("asking for what b served: got %v, want ErrNoResponder", err)
	}
}

func receive(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case s := <-from:
		return s
	case <-time.After(5 * time.Second):
		t.Fatal("nothing heard")
		return ""
	}
}

func TestMemberIDsAreUnique(t *testing.T) {
	s := natsServer(t, 0)
	first := start(t, joining(s, "m"))
	cfg := joining(s, "m")
	cfg.Logger = quiet()
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another live member has this id") {
		t.Errorf("got %v, want a refusal", err)
	}
	first.Close()
	start(t, joining(s, "m"))
}

// TestDeadMember cuts a member's connection without a goodbye, as a crash does.
func TestDeadMember(t *testing.T) {
	s := natsServer(t, 0)
	a, b := start(t, joining(s, "a")), start(t, joining(s, "b"))
	if _, err := b.Serve("sallyport.node.mi-1", echo); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Second, "members do not know each other", func() bool { return len(a.Members()) == 2 })
	b.nats.Close()
	// The first request may still be sent to the dead member, and be lost with it.
	eventually(t, 5*time.Second, "what the dead member served has a responder", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := a.Request(ctx, "sallyport.node.mi-1", nil)
		return errors.Is(err, ErrNoResponder)
	})
	eventually(t, 5*time.Second, "a still lists the dead member", func() bool { return len(a.Members()) == 1 })
}

func TestServerRestart(t *testing.T) {
	s := natsServer(t, 0)
	port := s.Addr().(*net.TCPAddr).Port
	a, b := start(t, joining(s, "a")), start(t, joining(s, "b"))
	if _, err := b.Serve("sallyport.node.mi-1", echo); err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 100)
	if _, err := b.Listen("news", func(data []byte) { heard <- string(data) }); err != nil {
		t.Fatal(err)
	}

	s.Shutdown()
	s.WaitForShutdown()
	eventually(t, 5*time.Second, "the loss is not noticed", func() bool { return !a.nats.IsConnected() && !b.nats.IsConnected() })
	began := time.Now()
	if _, err := a.Request(t.Context(), "sallyport.node.mi-1", nil); err == nil || time.Since(began) > time.Second {
		t.Errorf("request without a connection: got %v after %v, want an error at once", err, time.Since(began))
	}
	if _, err := b.Serve("sallyport.node.mi-2", echo); err != nil {
		t.Errorf("serving without a connection: %v", err)
	}

	natsServer(t, port)
	for _, subject := range []string{"sallyport.node.mi-1", "sallyport.node.mi-2"} {
		eventually(t, 10*time.Second, subject+" does not answer after the restart", func() bool {
			_, err := a.Request(t.Context(), subject, nil)
			return err == nil
		})
	}
	eventually(t, 10*time.Second, "members are not back", func() bool { return len(a.Members()) == 2 && len(b.Members()) == 2 })
	if err := a.Broadcast("news", []byte("back")); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, heard); got != "back" {
		t.Errorf("heard: got %q", got)
	}
}

// TestForgedHeartbeats: whoever reaches NATS can say anything; it must neither crash
// a member nor make it remember without bound.
func TestForgedHeartbeats(t *testing.T) {
	c := startAlone(t)
	for _, data := range []string{"", "{", "null", "[]", `{"id":"../../x"}`, `{"id":"alone","nonce":"other"}`, `{"id":"alone","gone":true}`} {
		c.hearHeartbeat([]byte(data))
	}
	for i := range membersLimit + 100 {
		c.peers.note(heartbeat{ID: fmt.Sprint("m", i)}, time.Now())
	}
	if got := len(c.Members()); got != membersLimit+1 {
		t.Errorf("members remembered: got %d, want %d", got, membersLimit+1)
	}
	if got := c.peers.live(time.Now().Add(memberLost + time.Second)); len(got) != 0 {
		t.Errorf("members after silence: got %d, want none", len(got))
	}
}

func TestListenKeepsOrder(t *testing.T) {
	c := startAlone(t)
	heard := make(chan string, 1000)
	stop, err := c.Listen("news", func(data []byte) { heard <- string(data) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if err := c.Broadcast("news", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1000 {
		if got := receive(t, heard); got != fmt.Sprint(i) {
			t.Fatalf("heard: got %s, want %d", got, i)
		}
	}
	stop()
	stop()
}

// heapOf returns the live heap in bytes and the number of goroutines.
func heapOf() (uint64, int) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, runtime.NumGoroutine()
}

func TestServedSubjectsAreCheap(t *testing.T) {
	const subjects = 5000
	c := startAlone(t)
	heapBefore, goroutinesBefore := heapOf()
	began := time.Now()
	for i := range subjects {
		if _, err := c.Serve(fmt.Sprintf("sallyport.node.mi-%017x", i), echo); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	heap, goroutines := heapOf()
	each := (int64(heap) - int64(heapBefore)) / subjects
	t.Logf("%d subjects: %d bytes and %v each", subjects, each, took/subjects)
	if goroutines > goroutinesBefore+5 {
		t.Errorf("goroutines: got %d, had %d: there must be none for each subject", goroutines, goroutinesBefore)
	}
	if each > 4096 {
		t.Errorf("memory: got %d bytes each, want at most 4096", each)
	}
	if _, err := c.Request(t.Context(), fmt.Sprintf("sallyport.node.mi-%017x", 4321), nil); err != nil {
		t.Error(err)
	}
}

func BenchmarkRequestAlone(b *testing.B) {
	c := startAlone(b)
	if _, err := c.Serve("bench", echo); err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 200)
	b.Run("one by one", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Request(b.Context(), "bench", data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("32 at once", func(b *testing.B) {
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := c.Request(b.Context(), "bench", data); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
