package websocket_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport.dev/internal/websocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server whose upgraded connections go to the returned channel.
func serve(t testing.TB, opts websocket.Options) (url string, conns <-chan *websocket.Conn) {
	ch := make(chan *websocket.Conn, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Upgrade(w, r, opts)
		if err != nil {
			return
		}
		ch <- c
	}))
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http"), ch
}

// pair returns both ends of a connection.
func pair(t testing.TB, opts websocket.Options) (client, server *websocket.Conn) {
	url, conns := serve(t, opts)
	client, err := websocket.Dial(t.Context(), url, websocket.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	server = <-conns
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func TestMessagesArriveWholeAndInOrder(t *testing.T) {
	client, server := pair(t, websocket.Options{})
	sizes := []int{0, 1, 2, 3, 4, 125, 126, 127, 240, 256, 257, 4095, 4096, 4097, 65535, 65536, 300000, 1 << 20}
	for _, ends := range []struct {
		name     string
		from, to *websocket.Conn
	}{{"client to server", client, server}, {"server to client", server, client}} {
		t.Run(ends.name, func(t *testing.T) {
			go func() {
				for i, n := range sizes {
					kind := websocket.Text
					if i%2 == 1 {
						kind = websocket.Binary
					}
					ends.from.Write(kind, pattern(n))
				}
			}()
			for i, n := range sizes {
				kind, b, err := ends.to.Read()
				if err != nil {
					t.Fatalf("size %d: %v", n, err)
				}
				if (kind == websocket.Binary) != (i%2 == 1) || !bytes.Equal(b, pattern(n)) {
					t.Fatalf("size %d: got kind %d and %d bytes, want the message sent", n, kind, len(b))
				}
			}
		})
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

func TestConcurrentWritersDoNotMix(t *testing.T) {
	client, server := pair(t, websocket.Options{})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for range 200 {
				server.Write(websocket.Binary, bytes.Repeat([]byte{byte(w)}, 100+w*1000))
				server.Ping([]byte("between"))
			}
		})
	}
	for range 8 * 200 {
		_, b, err := client.Read()
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != 100+int(b[0])*1000 || bytes.Count(b, b[:1]) != len(b) {
			t.Fatalf("message of %d bytes starting with %d is mixed", len(b), b[0])
		}
	}
	wg.Wait()
}

func TestPingIsAnsweredDuringRead(t *testing.T) {
	client, server := pair(t, websocket.Options{})
	pong := make(chan string, 1)
	server.OnPong(func(p []byte) { pong <- string(p) })
	go server.Read()
	go client.Read()
	if err := server.Ping([]byte("keepalive")); err != nil {
		t.Fatal(err)
	}
	if got := <-pong; got != "keepalive" {
		t.Errorf("got pong %q, want keepalive", got)
	}
}

func TestReadTimeoutIsRenewedByPings(t *testing.T) {
	client, server := pair(t, websocket.Options{ReadTimeout: 150 * time.Millisecond})
	go client.Read()
	stop := time.Now().Add(400 * time.Millisecond)
	go func() {
		for time.Now().Before(stop) {
			client.Ping(nil)
			time.Sleep(30 * time.Millisecond)
		}
	}()
	_, _, err := server.Read()
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
	if time.Now().Before(stop) {
		t.Error("timed out while pings came in")
	}
}

func TestEnds(t *testing.T) {
	t.Run("dropped without a close frame", func(t *testing.T) {
		client, server := pair(t, websocket.Options{})
		client.Abort()
		if _, _, err := server.Read(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want io.EOF", err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		client, server := pair(t, websocket.Options{})
		client.Close()
		var e *websocket.CloseError
		if _, _, err := server.Read(); !errors.As(err, &e) || e.Code != 1000 {
			t.Errorf("got %v, want close code 1000", err)
		}
		if err := server.Write(websocket.Text, nil); !errors.Is(err, websocket.ErrClosed) {
			t.Errorf("writing afterwards: got %v, want ErrClosed", err)
		}
	})
	t.Run("close with a stuck writer", func(t *testing.T) {
		_, server := pair(t, websocket.Options{})
		stuck := make(chan error, 1)
		go func() {
			for {
				if err := server.Write(websocket.Binary, make([]byte, 1<<20)); err != nil {
					stuck <- err
					return
				}
			}
		}()
		time.Sleep(50 * time.Millisecond)
		start := time.Now()
		server.Close()
		<-stuck
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("took %v, want at most a second", d)
		}
	})
	t.Run("write timeout", func(t *testing.T) {
		_, server := pair(t, websocket.Options{WriteTimeout: 100 * time.Millisecond})
		for {
			if err := server.Write(websocket.Binary, make([]byte, 1<<20)); err != nil {
				break
			}
		}
	})
}

func TestDialReportsRefusal(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "not you", http.StatusForbidden)
	}))
	defer s.Close()
	_, err := websocket.Dial(t.Context(), s.URL, websocket.DialOptions{})
	var e *websocket.StatusError
	if !errors.As(err, &e) || e.Code != 403 || !strings.Contains(e.Body, "not you") {
		t.Errorf("got %v, want status 403 with its body", err)
	}
}

func TestDialOverTLSThroughProxy(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Upgrade(w, r, websocket.Options{})
		if err != nil {
			return
		}
		c.Write(websocket.Text, []byte("hello "+r.Header.Get("X-Who")))
		c.Read()
		c.Close()
	}))
	defer s.Close()
	var connects int
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connects++
		up, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		down, _, _ := w.(http.Hijacker).Hijack()
		fmt.Fprint(down, "HTTP/1.1 200 OK\r\n\r\n")
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(up, down); up.Close() })
		wg.Go(func() { io.Copy(down, up); down.Close() })
		wg.Wait()
	}))
	defer proxy.Close()
	transport := s.Client().Transport.(*http.Transport)
	proxyURL, _ := http.NewRequest("GET", proxy.URL, nil)
	c, err := websocket.Dial(t.Context(), s.URL, websocket.DialOptions{
		TLS: transport.TLSClientConfig, Proxy: http.ProxyURL(proxyURL.URL), Header: http.Header{"X-Who": {"proxied"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, b, err := c.Read(); err != nil || string(b) != "hello proxied" || connects != 1 {
		t.Errorf("got %q, %v through %d proxies; want hello proxied through 1", b, err, connects)
	}
}

// frame builds a raw frame, masked as a client's must be.
func frame(b0 byte, length uint64, payload []byte, masked bool) []byte {
	b := []byte{b0}
	bit := byte(0)
	if masked {
		bit = 0x80
	}
	switch {
	case length < 126:
		b = append(b, bit|byte(length))
	case length <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, bit|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, bit|127), length)
	}
	if masked {
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, payload...)
}

// rawClient upgrades by hand and returns the TCP connection.
func rawClient(t *testing.T, url string) net.Conn {
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "ws://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	var b [4096]byte
	if n, err := conn.Read(b[:]); err != nil || !bytes.Contains(b[:n], []byte("101")) {
		t.Fatalf("handshake: %q, %v", b[:n], err)
	}
	return conn
}

func TestHostileFramesEndTheConnection(t *testing.T) {
	for _, test := range []struct {
		name string
		sent []byte
		want error
	}{
		{"unmasked", frame(0x82, 5, []byte("hello"), false), websocket.ErrProtocol},
		{"reserved bit", frame(0xc2, 5, []byte("hello"), true), websocket.ErrProtocol},
		{"unknown opcode", frame(0x83, 0, nil, true), websocket.ErrProtocol},
		{"unknown control opcode", frame(0x8b, 0, nil, true), websocket.ErrProtocol},
		{"continuation of nothing", frame(0x80, 1, []byte("x"), true), websocket.ErrProtocol},
		{"message within a message", append(frame(0x02, 1, []byte("x"), true), frame(0x82, 1, []byte("x"), true)...), websocket.ErrProtocol},
		{"fragmented ping", frame(0x09, 1, []byte("x"), true), websocket.ErrProtocol},
		{"long ping", frame(0x89, 126, make([]byte, 126), true), websocket.ErrProtocol},
		{"negative length", frame(0x82, 1<<63, nil, true), websocket.ErrProtocol},
		{"oversize", frame(0x82, 1001, nil, true), websocket.ErrTooLarge},
		{"huge", frame(0x82, 1<<62, nil, true), websocket.ErrTooLarge},
		{"oversize in fragments", append(frame(0x02, 600, make([]byte, 600), true), frame(0x80, 600, nil, true)...), websocket.ErrTooLarge},
		{"endless empty fragments", append(frame(0x02, 0, nil, true), bytes.Repeat(frame(0x00, 0, nil, true), 5000)...), websocket.ErrTooLarge},
		{"truncated", frame(0x82, 9, []byte("hello"), true), io.ErrUnexpectedEOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			url, conns := serve(t, websocket.Options{ReadLimit: 1000})
			conn := rawClient(t, url)
			server := <-conns
			defer server.Close()
			conn.Write(test.sent)
			conn.(*net.TCPConn).CloseWrite()
			if _, _, err := server.Read(); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestFragmentsAreJoinedAroundControlFrames(t *testing.T) {
	url, conns := serve(t, websocket.Options{})
	conn := rawClient(t, url)
	server := <-conns
	defer server.Close()
	var b []byte
	var want []byte
	for i := range 100 {
		op, p := byte(0x00), pattern(4096)
		if i == 0 {
			op = 0x02
		}
		if i == 99 {
			op = 0x80
		}
		b = append(b, frame(op, 4096, p, true)...)
		b = append(b, frame(0x89, 2, []byte("hi"), true)...)
		want = append(want, p...)
	}
	go io.Copy(io.Discard, conn)
	go conn.Write(b)
	if _, got, err := server.Read(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
}

func TestEarlyDataIsNotLost(t *testing.T) {
	url, conns := serve(t, websocket.Options{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "ws://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n%s", frame(0x82, 5, []byte("early"), true))
	server := <-conns
	defer server.Close()
	if _, b, err := server.Read(); err != nil || string(b) != "early" {
		t.Errorf("got %q, %v; want early", b, err)
	}
}

func TestDripFedMessageMeetsItsDeadline(t *testing.T) {
	url, conns := serve(t, websocket.Options{ReadTimeout: 100 * time.Millisecond})
	conn := rawClient(t, url)
	server := <-conns
	defer server.Close()
	go func() {
		for _, b := range frame(0x82, 100, make([]byte, 100), true) {
			if _, err := conn.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	start := time.Now()
	if _, _, err := server.Read(); err == nil {
		t.Error("got the message, want a timeout")
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("endured %v of one byte at a time, want about 100 ms", d)
	}
}

// FuzzRead feeds arbitrary bytes to a server's reader: it must end, within its limits.
func FuzzRead(f *testing.F) {
	f.Add(frame(0x82, 5, []byte("hello"), true))
	f.Add(append(frame(0x02, 3, []byte("abc"), true), frame(0x80, 3, []byte("def"), true)...))
	f.Add(frame(0x89, 2, []byte("hi"), true))
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := net.Pipe()
		c := websocket.NewServerConn(near, websocket.Options{ReadLimit: 1 << 16})
		go func() {
			defer far.Close()
			go io.Copy(io.Discard, far)
			far.Write(b)
		}()
		for {
			_, m, err := c.Read()
			if err != nil {
				break
			}
			if len(m) > 1<<16 {
				t.Fatalf("message of %d bytes exceeds the limit", len(m))
			}
		}
		c.Close()
	})
}

// TestMaskAgainstDefinition compares masking in pieces with RFC 6455 §5.3.
func TestMaskAgainstDefinition(t *testing.T) {
	for range 200 {
		p := pattern(rand.IntN(2000))
		key := [4]byte{byte(rand.Int()), byte(rand.Int()), byte(rand.Int()), byte(rand.Int())}
		want := bytes.Clone(p)
		for i := range want {
			want[i] ^= key[i%4]
		}
		cut := rand.IntN(len(p) + 1)
		websocket.Mask(p[:cut], binary.LittleEndian.Uint32(key[:]), 0)
		websocket.Mask(p[cut:], binary.LittleEndian.Uint32(key[:]), cut)
		if !bytes.Equal(p, want) {
			t.Fatalf("masking %d bytes cut at %d is wrong", len(p), cut)
		}
	}
}

func TestDialBadURL(t *testing.T) {
	for _, u := range []string{"ftp://x", "://", "ws://127.0.0.1:1"} {
		if _, err := websocket.Dial(context.Background(), u, websocket.DialOptions{Timeout: time.Second}); err == nil {
			t.Errorf("%s: got a connection, want an error", u)
		}
	}
}
