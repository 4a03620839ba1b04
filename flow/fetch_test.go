package flow

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport.dev/internal/publicnet"
)

func TestAllowedHosts(t *testing.T) {
	rules := &HTTP{AllowHosts: []string{"api.example.com", "*.corp.example", "odd.example.com:8443"}}
	tests := []struct {
		url string
		ok  bool
	}{
		{"https://api.example.com/x?y=z", true},
		{"https://API.example.com/", true},
		{"https://api.example.com:443/", true},
		{"https://api.example.com:8443/", false},
		{"https://odd.example.com:8443/", true},
		{"https://odd.example.com/", false},
		{"https://a.b.corp.example/", true},
		{"https://corp.example/", false},
		{"https://evilcorp.example/", false},
		{"https://.corp.example/", false},
		{"http://api.example.com/", false},
		{"ftp://api.example.com/", false},
		{"https://api.example.com.evil.example/", false},
		{"https://api.example.com@evil.example/", false},
		{"https://user:secret@api.example.com/", false},
		{"https://169.254.169.254/latest/meta-data/", false},
		{"https://[::1]/", false},
		{"https:api.example.com", false},
		{"//api.example.com/", false},
		{"", false},
	}
	for _, test := range tests {
		u, err := url.Parse(test.url)
		if err != nil {
			t.Fatal(err)
		}
		if err := rules.allows(u); (err == nil) != test.ok {
			t.Errorf("%s: got %v, want allowed %v", test.url, err, test.ok)
		}
	}
	if err := (*HTTP)(nil).allows(&url.URL{Scheme: "https", Host: "api.example.com"}); err == nil {
		t.Error("without rules: allowed")
	}
}

func TestHostsOfTheAllowList(t *testing.T) {
	for host, ok := range map[string]bool{
		"api.example.com": true, "*.example.com": true, "api.example.com:8443": true,
		"localhost": false, "127.0.0.1": false, "[::1]": false, "169.254.169.254": false, "*": false, "*.": false,
		"API.example.com": false, "api.example.com:0": false, "api.example.com/x": false, "https://api.example.com": false, "0x7f.1": false, "": false,
	} {
		if err := checkHost(host); (err == nil) != ok {
			t.Errorf("%q: got %v, want allowed %v", host, err, ok)
		}
	}
}

// resolving answers every question for a name with one address.
func resolving(t *testing.T, address string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			conn.WriteTo(dnsAnswer(buf[:n], address), from)
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// dnsAnswer answers a query of one question (RFC 1035 section 4.1): an A record for A, and
// nothing for all else.
func dnsAnswer(query []byte, address string) []byte {
	const header = 12
	end := header + bytes.IndexByte(query[header:], 0) + 5 // the name's end, type and class
	answer := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, query[header:end]...)
	if query[end-3] == 1 {
		answer[7] = 1
		ip := netip.MustParseAddr(address).As4()
		answer = append(answer, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		answer = append(answer, ip[:]...)
	}
	return answer
}

// pretend starts a TLS server that answers for example.com, and a web that reaches it.
func pretend(t *testing.T, h http.Handler) (*web, string) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "https://"), ":")
	w := &web{
		rules:  &HTTP{AllowHosts: []string{"example.com:" + port}, Timeout: 2 * time.Second},
		public: func(netip.Addr) bool { return true },
		tls:    &tls.Config{RootCAs: roots},
		names:  resolving(t, "127.0.0.1"),
	}
	return w, "https://example.com:" + port
}

func TestFetching(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method, r.Header.Get("X-A")) })
	mux.HandleFunc("/same", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	mux.HandleFunc("/plain", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://example.com/ok", http.StatusFound)
	})
	mux.HandleFunc("/metadata", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
	})
	mux.HandleFunc("/other", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://other.example.com/", http.StatusFound)
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, maxFetched+1)) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	w, base := pretend(t, mux)
	tests := []struct{ path, want, err string }{
		{"/ok", "GETb", ""},
		{"/same", "GETb", ""},
		{"/round", "", "more than 3 redirects"},
		{"/plain", "", "want https://"},
		{"/metadata", "", "want https://"},
		{"/other", "", `does not allow host "other.example.com"`},
		{"/large", "", "more than 262144 bytes"},
		{"/slow", "", "deadline exceeded"},
	}
	for _, test := range tests {
		if test.path == "/slow" {
			w.rules.Timeout = 200 * time.Millisecond
		}
		got, err := w.do(context.Background(), Fetch{Method: "GET", URL: base + test.path, Header: map[string]string{"X-A": "b"}})
		if got.Body != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: got %q, %v, want %q, %q", test.path, got.Body, err, test.want, test.err)
		}
	}
}

// A name of the allow-list that resolves to an address within is refused when it is
// dialled: what it resolved to before means nothing.
func TestPrivateAddressesAreNotDialled(t *testing.T) {
	reached := false
	w, base := pretend(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	w.public = publicnet.Has
	for _, address := range []string{"127.0.0.1", "169.254.169.254", "10.0.0.1"} {
		w.names = resolving(t, address)
		_, err := w.do(context.Background(), Fetch{Method: "GET", URL: base + "/"})
		if err == nil || !strings.Contains(err.Error(), "is no public address") {
			t.Errorf("%s: got %v, want that it is no public address", address, err)
		}
	}
	if reached {
		t.Error("the server was reached")
	}
}

// Flow code that fetches a private address gets an error, which its callers take for a
// reason to ask people.
func TestCodeFetches(t *testing.T) {
	tests := []struct{ name, call, want string }{
		{"metadata", "http_get('http://169.254.169.254/latest/meta-data/')", "want https://HOST/"},
		{"metadata by https", "http_get('https://169.254.169.254/')", "does not allow host"},
		{"loopback", "http_post('https://127.0.0.1:8443/', json={})", "does not allow host"},
		{"other host", "http_get('https://evil.example/')", "does not allow host"},
		{"header with line end", "http_get('https://api.example.com/', headers={'X': 'a\\r\\nHost: b'})", "invalid header"},
		{"line end", "http_get('https://api.example.com/\\r\\n')", "URL"},
		{"too much", "http_post('https://api.example.com/', body='a' * 300000)", "at most 262144"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := codeOf("def on_request(event):\n  "+test.call).On(context.Background(), newWorld(), HookRequest, happening())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestCodeGetsAnswers(t *testing.T) {
	w := newWorld()
	var asked []Fetch
	w.answer = func(f Fetch) (Fetched, error) {
		asked = append(asked, f)
		return Fetched{Status: 200, Body: `{"open": true}`}, nil
	}
	code := codeOf(`
def on_request(event):
    answer = http_get("https://api.example.com/t", query={"id": event.request.values["ticket"][0]}, headers={"accept": "application/json"})
    http_post("https://api.example.com/log", json={"who": event.actor.name})
    if answer.status == 200 and json.decode(answer.body)["open"]:
        return approve("the ticket is open")
`)
	got, err := code.On(context.Background(), fetching{w}, HookRequest, happening())
	if err != nil || got.Kind != Approve {
		t.Errorf("got %v, %v, want approve", got, err)
	}
	if len(asked) != 2 || asked[0].URL != "https://api.example.com/t?id=OPS-1" || asked[0].Header["Accept"] != "application/json" ||
		asked[1].Method != "POST" || asked[1].Body != `{"who":"ann"}` {
		t.Errorf("got requests %+v", asked)
	}
}
