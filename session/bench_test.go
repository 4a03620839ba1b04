package session

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// BenchmarkRelay moves messages from agent to client, each acknowledged, as our own
// ends do: 32 KiB of payload, at most 64 on the way.
func BenchmarkRelay(b *testing.B) {
	for _, size := range []int{1 << 10, 32 << 10} {
		for _, recorded := range []bool{false, true} {
			b.Run(fmt.Sprintf("size=%d/recorded=%v", size, recorded), func(b *testing.B) { benchmarkRelay(b, size, recorded) })
		}
	}
}

func benchmarkRelay(b *testing.B, size int, recorded bool) {
	w := newWorld(b, quietly, func(c *Config) {
		c.Record = func(context.Context, Session, Options) (Recorder, string, error) { return &discard{}, "", nil }
	})
	a := w.agent(testNode)
	id, token := w.started(a, func(r *StartRequest) { r.Options.Record = recorded })
	agentToken, _ := w.g.AgentToken(b.Context(), id, testNode)
	agent := w.dial("/v1/data-channel/"+id, testNode, wire.Opening{TokenValue: agentToken})
	client := w.dial("/v1/data-channel/"+id, "", wire.Opening{TokenValue: token})
	defer agent.Abort()
	defer client.Abort()
	window := make(chan struct{}, 64)
	go func() {
		for {
			if _, _, err := agent.Read(); err != nil {
				return
			}
			<-window
		}
	}()
	go func() {
		payload := make([]byte, size)
		for seq := int64(0); ; seq++ {
			select {
			case window <- struct{}{}:
			case <-b.Context().Done():
				return
			}
			if agent.Write(websocket.Binary, wire.NewStream(wire.TypeOutputStreamData, seq, wire.PayloadOutput, epoch, payload).Encode()) != nil {
				return
			}
		}
	}()
	b.SetBytes(int64(size))
	for b.Loop() {
		_, data, err := client.Read()
		if err != nil {
			b.Fatal(err)
		}
		m, _ := wire.Decode(data)
		client.Write(websocket.Binary, wire.NewAcknowledge(m, epoch).Encode())
	}
}

// BenchmarkEcho is one byte from client to agent and back, all acknowledged.
func BenchmarkEcho(b *testing.B) {
	w := newWorld(b, quietly)
	a := w.agent(testNode)
	id, token := w.started(a)
	agentToken, _ := w.g.AgentToken(b.Context(), id, testNode)
	agent := w.dial("/v1/data-channel/"+id, testNode, wire.Opening{TokenValue: agentToken})
	client := w.dial("/v1/data-channel/"+id, "", wire.Opening{TokenValue: token})
	defer agent.Abort()
	defer client.Abort()
	go func() {
		for seq := int64(0); ; {
			_, data, err := agent.Read()
			if err != nil {
				return
			}
			m, _ := wire.Decode(data)
			if m.Type != wire.TypeInputStreamData {
				continue
			}
			agent.Write(websocket.Binary, wire.NewStream(wire.TypeOutputStreamData, seq, wire.PayloadOutput, epoch, m.Payload).Encode())
			agent.Write(websocket.Binary, wire.NewAcknowledge(m, epoch).Encode())
			seq++
		}
	}()
	seq := int64(0)
	for b.Loop() {
		client.Write(websocket.Binary, wire.NewStream(wire.TypeInputStreamData, seq, wire.PayloadOutput, epoch, []byte("x")).Encode())
		seq++
		for {
			_, data, err := client.Read()
			if err != nil {
				b.Fatal(err)
			}
			if m, _ := wire.Decode(data); m.Type == wire.TypeOutputStreamData {
				client.Write(websocket.Binary, wire.NewAcknowledge(m, epoch).Encode())
				break
			}
		}
	}
}

func quietly(c *Config) { c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil)) }

type discard struct{ notes }

func (*discard) Output(time.Time, []byte) error { return nil }

// BenchmarkIdleNodes and BenchmarkIdleSessions report the resident memory that the
// server needs per idle control channel and per idle shell (two data channels and
// the session), over TLS. Agents and clients are in a child process.
func BenchmarkIdleNodes(b *testing.B) {
	const n = 5000
	w, url := tlsWorld(b)
	before := resident()
	stop := w.child(b, url, "nodes", n)
	defer stop()
	for w.g.Stats().Nodes < n {
		time.Sleep(10 * time.Millisecond)
	}
	reportIdle(b, before, n)
}

func BenchmarkIdleSessions(b *testing.B) {
	const n = 1000
	w, url := tlsWorld(b)
	a := w.agent(testNode)
	go func() {
		for { // forget the starts
			time.Sleep(10 * time.Millisecond)
			a.count(func() int { a.starts = nil; return 0 })
			if b.Context().Err() != nil {
				return
			}
		}
	}()
	before := resident()
	for i := range n {
		w.started(a, func(r *StartRequest) { r.Session.ID = fmt.Sprint("bench-", i) })
	}
	stop := w.child(b, url, "sessions", n)
	defer stop()
	connected := func() (c int) {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		for _, s := range w.store.sessions {
			if s.State == StateConnected {
				c++
			}
		}
		return c
	}
	for connected() < n {
		time.Sleep(10 * time.Millisecond)
	}
	reportIdle(b, before, n)
}

func tlsWorld(b *testing.B) (*world, string) {
	w := newWorld(b, quietly, func(c *Config) {
		*c = Config{
			Store: c.Store, Nodes: c.Nodes, Cluster: c.Cluster, Key: c.Key, Audit: c.Audit, Logger: c.Logger,
			Record: func(context.Context, Session, Options) (Recorder, string, error) { return &discard{}, "", nil },
		}
	})
	s := httptest.NewUnstartedServer(w)
	s.StartTLS()
	b.Cleanup(s.Close)
	return w, "wss" + strings.TrimPrefix(s.URL, "https")
}

func reportIdle(b *testing.B, before, n int) {
	time.Sleep(time.Second)
	after := resident()
	for b.Loop() { // the figure is the memory, not the time
	}
	b.ReportMetric(float64(after-before)/float64(n)/1024, "KB/each")
}

func resident() int {
	runtime.GC()
	debug.FreeOSMemory()
	data, _ := os.ReadFile("/proc/self/statm")
	var size, rss int
	fmt.Sscan(string(data), &size, &rss)
	return rss * os.Getpagesize()
}

// child runs this test binary again, to be the peers.
func (w *world) child(b *testing.B, url, what string, n int) (stop func()) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperPeers$")
	cmd.Env = append(os.Environ(), "SALLYPORT_PEERS="+what, "SALLYPORT_URL="+url, "SALLYPORT_N="+strconv.Itoa(n))
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return func() { in.Close(); cmd.Wait() }
}

// TestHelperPeers is the child of the benchmarks of memory.
func TestHelperPeers(t *testing.T) {
	what, url := os.Getenv("SALLYPORT_PEERS"), os.Getenv("SALLYPORT_URL")
	if what == "" {
		t.Skip("only run by benchmarks")
	}
	n, _ := strconv.Atoi(os.Getenv("SALLYPORT_N"))
	w := newWorld(t)
	var conns []*websocket.Conn
	dial := func(path, node, token string) {
		h := http.Header{"X-Node": {node}}
		if node == "" {
			h = nil
		}
		conn, err := websocket.Dial(t.Context(), url+path, websocket.DialOptions{Header: h, TLS: &tls.Config{InsecureSkipVerify: true}})
		if err != nil {
			t.Fatal(err)
		}
		opening, _ := json.Marshal(wire.Opening{MessageSchemaVersion: "1.0", TokenValue: token})
		conn.Write(websocket.Text, opening)
		conns = append(conns, conn)
		go func() {
			for {
				if _, _, err := conn.Read(); err != nil {
					return
				}
			}
		}()
	}
	for i := range n {
		if what == "nodes" {
			node := fmt.Sprintf("mi-%017x", i)
			dial("/v1/control-channel/"+node, node, w.g.ControlToken(node))
			continue
		}
		id := fmt.Sprint("bench-", i)
		dial("/v1/data-channel/"+id, testNode, w.g.newToken(roleAgent, id))
		dial("/v1/data-channel/"+id, "", w.g.newToken(roleClient, id))
	}
	os.Stdin.Read(make([]byte, 1))
	for _, c := range conns {
		c.Abort()
	}
}
