package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"sallyport.dev/identity"
)

// What a stranger sends costs the server little more than its length: nothing is
// built of it before its signature is verified.
func TestStrangersCostLittle(t *testing.T) {
	h := newHarness(t)
	h.user("alice", nil)
	forger := identity.Credentials{AccessKeyID: "AKIAAAAAAAAAAAAAAAAA", SecretAccessKey: "x"}
	var form strings.Builder
	form.WriteString("Action=GetCallerIdentity")
	for i := range 4095 {
		fmt.Fprintf(&form, "&%d.%s", i, strings.Repeat("a.", 30)+"a")
	}
	tree := func(n int) string { return `{"x":[` + strings.Repeat(`{"":0},`, n) + `0]}` }
	post := func(body string) *http.Request {
		r := h.request(http.MethodPost, body)
		r.Header.Set("Content-Type", contentForm)
		return r
	}
	get := func(query string) *http.Request {
		r := h.request(http.MethodGet, "")
		at := h.clock().UTC().Format("20060102T150405Z")
		r.URL.RawQuery = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAAAAAAAAAAAAAAAAA/" + at[:8] + "/us-east-1/sts/aws4_request" +
			"&X-Amz-Date=" + at + "&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00&" + query
		return r
	}
	for _, test := range []struct {
		name string
		r    *http.Request
		size int
		want int
	}{
		{"a form, unsigned", post(form.String()), form.Len(), 403},
		{"a form, signed with an unknown key", h.signedFor(forger, "sts", post(form.String())), form.Len(), 403},
		{"JSON, unsigned", h.jsonRequest("Sallyport.ListNodes", tree(149000)), 1 << 20, 413},
		{"JSON, signed with an unknown key", h.signed(forger, h.jsonRequest("Sallyport.ListNodes", tree(140000))), 1 << 20, 400},
		{"a large registration", h.jsonRequest("AmazonSSM.RegisterManagedInstance", tree(149000)), 1 << 20, 413},
		{"a large registration, signed", h.signed(forger, h.jsonRequest("AmazonSSM.RegisterManagedInstance", tree(149000))), 1 << 20, 413},
		{"a registration", h.jsonRequest("AmazonSSM.RegisterManagedInstance", tree(2300)), 16 << 10, 400},
		{"a presigned form", get(form.String()[:30<<10]), 30 << 10, 403},
		{"a presigned list", get(strings.Repeat("a&", 30<<10)), 60 << 10, 400},
	} {
		r, status := test.r, 0
		b, err := io.ReadAll(r.Body)
		h.must(err)
		body := string(b)
		r.RemoteAddr = "192.0.2.1:99"
		cost := allocated(func() {
			r.Body = io.NopCloser(strings.NewReader(body))
			w := httptest.NewRecorder()
			h.server.ServeHTTP(w, r)
			status = w.Code
		})
		if limit := uint64(4*test.size + 128<<10); cost > limit || status != test.want {
			t.Errorf("%s: got status %d for %d KiB, want %d and at most %d KiB", test.name, status, cost>>10, test.want, limit>>10)
		}
	}
	if held := h.held(); held != 0 {
		t.Errorf("%d bytes are still reserved", held)
	}
}

// allocated returns how many bytes f allocates, at best.
func allocated(f func()) uint64 {
	least := ^uint64(0)
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

func (h *harness) held() int {
	h.server.intake.mu.Lock()
	defer h.server.intake.mu.Unlock()
	return h.server.intake.held
}

// A known caller's request is bounded in what is built of it, too.
func TestLargeTrees(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	if got := h.json(admin, "Sallyport.ListNodes", `{"x":[`+strings.Repeat(`{"":0},`, 140000)+`0]}`); got.code() != "SerializationException" {
		t.Errorf("JSON: got %d %.300s", got.status, got.body)
	}
	var form strings.Builder
	form.WriteString("Action=GetCallerIdentity")
	for i := range 1000 {
		fmt.Fprintf(&form, "&%d.%s", i, strings.Repeat("a.", 30)+"a")
	}
	r := h.request(http.MethodPost, form.String())
	r.Header.Set("Content-Type", contentForm)
	if got := h.send(h.signedFor(admin, "sts", r)); got.code() != "MalformedQueryString" {
		t.Errorf("a form: got %d %.300s", got.status, got.body)
	}
}

// Bodies that arrive slowly cannot pile up: what one source may hold is bounded, the
// next is refused at once, and other sources are served as before.
func TestHeldBodies(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	admin := h.user("admin", nil, allowAll)
	head := func(size int) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\nX-Amz-Target: Sallyport.GetStatus\r\n"+
			"Content-Type: %s\r\nContent-Length: %d\r\nX-Amz-Date: %s\r\nAuthorization: AWS4-HMAC-SHA256 "+
			"Credential=AKIAAAAAAAAAAAAAAAAA/%s/us-east-1/sallyport/aws4_request, SignedHeaders=host;x-amz-date;x-amz-target, Signature=00\r\n\r\n{",
			contentJSON, size, h.clock().UTC().Format("20060102T150405Z"), h.clock().UTC().Format("20060102"))
	}
	open := func() net.Conn {
		conn, err := net.Dial("tcp", h.http.Listener.Addr().String())
		h.must(err)
		t.Cleanup(func() { conn.Close() })
		h.must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
		_, err = io.WriteString(conn, head(maxBody))
		h.must(err)
		return conn
	}
	full := maxHeldBySource / maxBody
	var first net.Conn
	for range full {
		first = open()
	}
	h.await("the bodies to be held", func() bool { return h.held() == maxHeldBySource })
	resp, err := http.ReadResponse(bufio.NewReader(open()), nil)
	h.must(err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one body more: got %s", resp.Status)
	}
	other := h.jsonRequest("Sallyport.GetStatus", struct{}{})
	other.Header.Set("X-Forwarded-For", "192.0.2.2")
	if got := h.send(h.signed(admin, other)); got.status != http.StatusOK {
		t.Errorf("another source: got %d %s", got.status, got.body)
	}
	first.Close()
	h.await("room to come back", func() bool { return h.held() == maxHeldBySource-maxBody })
}

func (h *harness) await(what string, done func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// However many sources there are, the sum is bounded, and large bodies leave room for
// small ones.
func TestIntake(t *testing.T) {
	var in intake
	var held []func()
	for i := range 1000 {
		release, ok := in.admit(fmt.Sprint("source ", i), maxBody)
		if !ok {
			break
		}
		held = append(held, release)
	}
	if got, want := len(held), maxHeld/2/maxBody; got != want {
		t.Errorf("got %d large bodies, want %d", got, want)
	}
	release, ok := in.admit("another source", 1000)
	if !ok {
		t.Fatal("a small body was refused")
	}
	for _, release := range append(held, release, release) {
		release()
	}
	if in.held != 0 || len(in.sources) != 0 {
		t.Errorf("after all are gone: %d bytes of %v", in.held, in.sources)
	}
}
