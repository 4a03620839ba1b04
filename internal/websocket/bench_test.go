package websocket_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/internal/websocket"
)

// BenchmarkThroughput moves messages of the size that our agent sends.
func BenchmarkThroughput(b *testing.B) {
	for _, up := range []bool{true, false} {
		for _, size := range []int{1 << 10, 32 << 10} {
			b.Run(fmt.Sprintf("up=%v/size=%d", up, size), func(b *testing.B) {
				client, server := pair(b, websocket.Options{})
				from, to := server, client
				if up {
					from, to = client, server
				}
				b.SetBytes(int64(size))
				go func() {
					p := make([]byte, size)
					for {
						if from.Write(websocket.Binary, p) != nil {
							return
						}
					}
				}()
				for b.Loop() {
					if _, _, err := to.Read(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkIdle reports the resident memory that an idle TLS connection costs the
// server, reading goroutine included. The clients' ends are in a child process.
func BenchmarkIdle(b *testing.B) {
	const conns = 5000
	var wg sync.WaitGroup
	all := make(chan *websocket.Conn, conns)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Upgrade(w, r, websocket.Options{})
		if err != nil {
			return
		}
		wg.Go(func() {
			if _, _, err := c.Read(); err == nil {
				all <- c
				c.Read()
			}
		})
	}))
	s.StartTLS()
	defer s.Close()
	before := inUse()
	stop := dialChild(b, s.URL, conns)
	held := make([]*websocket.Conn, 0, conns)
	for range conns {
		held = append(held, <-all)
	}
	time.Sleep(200 * time.Millisecond)
	after := inUse()
	for b.Loop() { // the figure is the memory, not the time
	}
	b.ReportMetric(float64(after-before)/conns/1024, "KB/conn")
	stop()
	wg.Wait()
	runtime.KeepAlive(held)
}

func inUse() uint64 {
	runtime.GC()
	debug.FreeOSMemory()
	data, _ := os.ReadFile("/proc/self/statm")
	var size, rss uint64
	fmt.Sscan(string(data), &size, &rss)
	return rss * uint64(os.Getpagesize())
}

// dialChild starts this test binary again to hold the clients' ends.
func dialChild(b *testing.B, url string, conns int) (stop func()) {
	b.Helper()
	cmd := child(b, "SALLYPORT_WS_URL="+url, "SALLYPORT_WS_CONNS="+strconv.Itoa(conns))
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return func() { in.Close(); cmd.Wait() }
}

// TestHelperDialler is the child of BenchmarkIdle.
func TestHelperDialler(t *testing.T) {
	url := os.Getenv("SALLYPORT_WS_URL")
	if url == "" {
		t.Skip("only run by BenchmarkIdle")
	}
	n, _ := strconv.Atoi(os.Getenv("SALLYPORT_WS_CONNS"))
	for range n {
		c, err := websocket.Dial(t.Context(), strings.Replace(url, "https", "wss", 1), websocket.DialOptions{TLS: &tls.Config{InsecureSkipVerify: true}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write(websocket.Text, []byte(`{"opening":"message"}`))
	}
	os.Stdin.Read(make([]byte, 1))
}

func child(b *testing.B, env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperDialler$")
	cmd.Env = append(os.Environ(), env...)
	b.Cleanup(func() { cmd.Process.Kill() })
	return cmd
}
