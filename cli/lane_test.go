package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/smithy-go"

	"sallyport.dev/client"
)

// fakePort is a session that echoes until its test ends it.
type fakePort struct {
	ready   chan struct{}
	end     chan error
	refused error // of Open
}

func newFakePort() *fakePort {
	f := &fakePort{ready: make(chan struct{}), end: make(chan error, 1)}
	close(f.ready)
	return f
}

func (f *fakePort) Ready() <-chan struct{} { return f.ready }

func (f *fakePort) Run(ctx context.Context) (client.End, error) {
	select {
	case err := <-f.end:
		var ended *endedError
		if errors.As(err, &ended) {
			return client.End{Output: ended.words}, nil
		}
		return client.End{}, err
	case <-ctx.Done():
		return client.End{}, context.Cause(ctx)
	}
}

type pipeConn struct{ net.Conn }

func (c pipeConn) CloseWrite() error { return c.Close() }

func (f *fakePort) Open(context.Context) (client.ForwardConn, error) {
	if f.refused != nil {
		return nil, f.refused
	}
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		io.Copy(far, far)
	}()
	return pipeConn{near}, nil
}

func (f *fakePort) Carry(ctx context.Context, local net.Conn) {
	defer local.Close()
	io.Copy(local, local)
}

// starts hands out what the tests prepared, in turn: *fakePort or error. After the last
// it waits for the end.
type starts struct {
	mu   sync.Mutex
	next []any
	left int
}

func (s *starts) start(ctx context.Context, _ *lane) (portSession, string, func(), error) {
	s.mu.Lock()
	if len(s.next) == 0 {
		s.mu.Unlock()
		<-ctx.Done()
		return nil, "", nil, context.Cause(ctx)
	}
	n := s.next[0]
	s.next = s.next[1:]
	s.mu.Unlock()
	if err, ok := n.(error); ok {
		return nil, "", nil, err
	}
	return n.(*fakePort), "alice-0a", func() { s.mu.Lock(); s.left++; s.mu.Unlock() }, nil
}

// events keeps what is told.
type events struct {
	mu  sync.Mutex
	all []string
}

func (e *events) tell(v tunnelEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, strings.TrimSpace(v.Event+" "+v.Error))
}

func (e *events) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.all, "; ")
}

func refusal(code string) error { return &smithy.GenericAPIError{Code: code, Message: "m"} }

func TestLaneStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second, third := newFakePort(), newFakePort(), newFakePort()
		s := &starts{next: []any{first, refusal("TargetNotConnected"), second, third}}
		told := &events{}
		l := newLane(target{port: "80"}, s.start, told.tell)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.run(ctx) }()
		synctest.Wait()
		time.Sleep(time.Minute)
		first.end <- client.ErrLost
		synctest.Wait()
		if l.up() {
			t.Error("the lane is up, want it down after the session was lost")
		}
		time.Sleep(time.Minute)
		if !l.up() {
			t.Error("the lane is down, want a second session")
		}
		second.end <- &endedError{"The server is shutting down."}
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("got %v, want no error: the person left", err)
		}
		want := "up; lost " + client.ErrLost.Error() + "; failed TargetNotConnected: m; up; lost The server is shutting down.; up"
		if got := told.String(); got != want {
			t.Errorf("got events %s\nwant %s", got, want)
		}
		if s.left != 1 {
			t.Errorf("%d sessions were left, want 1: the last", s.left)
		}
	})
}

// A person, or a policy, who says no means it.
func TestLaneStops(t *testing.T) {
	for name, test := range map[string]struct {
		next []any
		end  error // of the first session, after a minute
		want string
	}{
		"refused at first":      {next: []any{refusal("AccessDeniedException")}, want: "AccessDeniedException"},
		"not connected":         {next: []any{refusal("TargetNotConnected")}, want: "TargetNotConnected"},
		"refused later":         {next: []any{newFakePort(), refusal("AccessDeniedException")}, end: client.ErrLost, want: "AccessDeniedException"},
		"terminated by someone": {next: []any{newFakePort(), newFakePort()}, end: &endedError{"Session terminated by bob."}, want: "terminated by bob"},
		"a grant that is over":  {next: []any{newFakePort(), newFakePort()}, end: &endedError{"Your access ended: grant oi-1 is over, its time was up."}, want: "is over, its time was up"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if p, ok := test.next[0].(*fakePort); ok { // of this bubble
					p = newFakePort()
					test.next[0] = p
					go func() {
						time.Sleep(time.Minute)
						p.end <- test.end
					}()
				}
				if _, ok := test.next[len(test.next)-1].(*fakePort); ok {
					test.next[len(test.next)-1] = test.next[0]
				}
				l := newLane(target{port: "80"}, (&starts{next: test.next}).start, func(tunnelEvent) {})
				err := l.run(t.Context())
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %s", err, test.want)
				}
				if _, opening := l.open(t.Context()); !errors.Is(opening, client.ErrForwardOver) || opening.Error() != err.Error() {
					t.Errorf("opening: got %q, want that it is over for %q", opening, err)
				}
			})
		})
	}
}

// Sessions that end as soon as they start would be started forever.
func TestLaneGivesUpOnShortSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &starts{}
		for range 2 * maxShort {
			p := newFakePort()
			p.end <- &endedError{"no"}
			s.next = append(s.next, p)
		}
		l := newLane(target{port: "80"}, s.start, func(tunnelEvent) {})
		if err := l.run(t.Context()); err == nil || len(s.next) != maxShort {
			t.Errorf("got %v with %d sessions left, want an error after %d", err, len(s.next), maxShort)
		}
	})
}

func TestLaneWaitsForASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		first, second := newFakePort(), newFakePort()
		l := newLane(target{port: "80"}, (&starts{next: []any{first, second}}).start, func(tunnelEvent) {})
		done := make(chan error, 1)
		go func() { done <- l.run(ctx) }()
		synctest.Wait()
		time.Sleep(time.Minute)
		first.end <- client.ErrLost
		synctest.Wait()
		near, far := net.Pipe()
		go func() {
			if err := l.carry(ctx, far); err != nil {
				t.Errorf("carrying: %v", err)
			}
		}()
		fmt.Fprint(near, "hello")
		got := make([]byte, 5)
		if _, err := io.ReadFull(near, got); err != nil || string(got) != "hello" {
			t.Errorf("got %q, %v, want the echo of the second session", got, err)
		}
		near.Close()
		synctest.Wait()
		if l.sent.Load() != 5 || l.received.Load() != 5 {
			t.Errorf("counted %d and %d bytes, want 5 and 5", l.sent.Load(), l.received.Load())
		}
		cancel()
		<-done
	})
}

func TestFinal(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{refusal("AccessDeniedException"), true},
		{refusal("ValidationException"), true},
		{refusal("InvalidDocument"), true},
		{refusal("TargetNotConnected"), false},
		{refusal("ThrottlingException"), false},
		{refusal("ExpiredTokenException"), false},
		{client.ErrLost, false},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, false},
		{&endedError{"Session terminated by bob."}, true},
		{&endedError{"Your access ended: the user was disabled."}, true},
		{&endedError{"The session was idle for 20 minutes."}, false},
	} {
		if got := final(test.err); got != test.want {
			t.Errorf("%v: got final %v, want %v", test.err, got, test.want)
		}
	}
}
