package flow

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	starlarkjson "go.starlark.net/lib/json"
	"go.starlark.net/starlark"

	"sallyport.dev/internal/publicnet"
)

const (
	defaultFetch = 3 * time.Second
	maxFetch     = 10 * time.Second
	maxFetched   = 256 << 10 // bytes of an answer, and of what is sent
	maxRedirects = 3
)

// Fetch is an HTTP request of flow code, which its allow-list has passed.
type Fetch struct {
	Method, URL string
	Header      map[string]string
	Body        string
}

// Fetched is the answer.
type Fetched struct {
	Status int
	Body   string
}

// Fetcher may be implemented by an Env: it then answers what flow code asks of the net.
type Fetcher interface {
	Fetch(ctx context.Context, f Fetch) (Fetched, error)
}

var hostForm = regexp.MustCompile(`^(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]([a-z0-9-]*[a-z0-9])?$`)

// checkHost refuses what no allow-list may say: addresses, and names without a dot, which
// mean something else on every network.
func checkHost(host string) error {
	name, port, ok := strings.Cut(host, ":")
	if n, err := strconv.Atoi(port); ok && (err != nil || n < 1 || n > 65535) || len(name) > 253 || !hostForm.MatchString(name) {
		return fmt.Errorf("got %q, want the DNS name of a public host in small letters, such as api.example.com or *.example.com", host)
	}
	return nil
}

// allows reports whether the code may reach a URL, and why not.
func (h *HTTP) allows(u *url.URL) error {
	if h == nil {
		return errors.New(`the flow allows no hosts; want http { allow_hosts = ["…"] } in it`)
	}
	if u.Scheme != "https" || u.Opaque != "" || u.User != nil {
		return errors.New("want https://HOST/… without a user")
	}
	host := strings.ToLower(u.Hostname())
	for _, allowed := range h.AllowHosts {
		name, port, ok := strings.Cut(allowed, ":")
		if !ok {
			port = "443"
		}
		below, wild := strings.CutPrefix(name, "*")
		if (u.Port() == port || u.Port() == "" && port == "443") &&
			(host == name || wild && strings.HasSuffix(host, below) && len(host) > len(below)) {
			return nil
		}
	}
	return fmt.Errorf("the flow's http does not allow host %q; allowed are %s", u.Host, oneOf(h.AllowHosts))
}

// web reaches out for flow code.
type web struct {
	rules *HTTP
	// public decides about the address that is really dialled, whatever the name
	// resolved to before.
	public func(netip.Addr) bool
	tls    *tls.Config   // nil for the system's roots
	names  *net.Resolver // nil for the system's
}

// do makes a request. Every hop of it must be allowed.
func (w *web) do(ctx context.Context, f Fetch) (Fetched, error) {
	timeout := w.rules.Timeout
	if timeout <= 0 || timeout > maxFetch {
		timeout = defaultFetch
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, f.Method, f.URL, strings.NewReader(f.Body))
	if err != nil {
		return Fetched{}, err
	}
	for k, v := range f.Header {
		r.Header.Set(k, v)
	}
	r.Header.Set("User-Agent", "sallyport-flow")
	transport := w.transport()
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: w.redirect}
	resp, err := client.Do(r)
	if err != nil {
		return Fetched{}, plainFetchError(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFetched+1))
	if err != nil {
		return Fetched{}, fmt.Errorf("reading the answer: %w", err)
	}
	if len(body) > maxFetched {
		return Fetched{}, fmt.Errorf("the answer has more than %d bytes", maxFetched)
	}
	return Fetched{resp.StatusCode, string(body)}, nil
}

// plainFetchError leaves out the URL, whose query may hold what is nobody's business.
func plainFetchError(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func (w *web) redirect(r *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if err := w.rules.allows(r.URL); err != nil {
		return fmt.Errorf("redirect: %w", err)
	}
	return nil
}

// transport dials anew for each request, through no proxy: the addresses it sees are the
// ones that are reached.
func (w *web) transport() *http.Transport {
	dialer := &net.Dialer{Resolver: w.names, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil || !w.public(at.Addr()) {
			return fmt.Errorf("%s is no public address", address)
		}
		return nil
	}}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		ForceAttemptHTTP2:      false,
		MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig:        w.tls,
	}
}

// http_get(url, query={}, headers={})
func sdkGet(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	f := Fetch{Method: http.MethodGet}
	var query, headers starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "url", &f.URL, "query?", &query, "headers?", &headers); err != nil {
		return nil, err
	}
	return fetch(t, b, f, query, headers)
}

// http_post(url, json=None, body="", query={}, headers={})
func sdkPost(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	f := Fetch{Method: http.MethodPost}
	var value, query, headers starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "url", &f.URL, "json?", &value, "body?", &f.Body, "query?", &query, "headers?", &headers); err != nil {
		return nil, err
	}
	if value != nil {
		text, err := encodeJSON(t, value)
		if err != nil {
			return nil, fmt.Errorf("%s: json: %w", b.Name(), err)
		}
		f.Body, f.Header = text, map[string]string{"Content-Type": "application/json"}
	}
	if len(f.Body) > maxFetched {
		return nil, fmt.Errorf("%s: a body of %d bytes; at most %d", b.Name(), len(f.Body), maxFetched)
	}
	return fetch(t, b, f, query, headers)
}

func encodeJSON(t *starlark.Thread, v starlark.Value) (string, error) {
	w, err := weigh(v)
	if err != nil {
		return "", err
	}
	if err := charge(t, w); err != nil {
		return "", err
	}
	text, err := starlark.Call(t, starlarkjson.Module.Members["encode"], starlark.Tuple{v}, nil)
	if err != nil {
		return "", err
	}
	s, _ := starlark.AsString(text)
	return s, nil
}

// fetch makes one request and returns struct(status, body).
func fetch(t *starlark.Thread, b *starlark.Builtin, f Fetch, query, headers starlark.Value) (starlark.Value, error) {
	r, err := running(t)
	if err != nil {
		return nil, err
	}
	if r.fetches++; r.fetches > maxFetches {
		return nil, fmt.Errorf("%s: more than %d requests", b.Name(), maxFetches)
	}
	if err := prepare(&f, query, headers); err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name(), err)
	}
	u, err := url.Parse(f.URL)
	if err != nil {
		return nil, fmt.Errorf("%s: the URL cannot be read", b.Name())
	}
	if err := r.code.HTTP.allows(u); err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name(), err)
	}
	got, err := r.fetch(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", b.Name(), u.Host, err)
	}
	if len(got.Body) > maxFetched {
		return nil, fmt.Errorf("%s: %s: the answer has more than %d bytes", b.Name(), u.Host, maxFetched)
	}
	return record(starlark.StringDict{
		"status": starlark.MakeInt(got.Status),
		"body":   starlark.String(got.Body),
	}), charge(t, len(got.Body))
}

func (r *run) fetch(f Fetch) (Fetched, error) {
	if stub, ok := r.env.(Fetcher); ok {
		return stub.Fetch(r.ctx, f)
	}
	w := web{rules: r.code.HTTP, public: publicnet.Has}
	return w.do(r.ctx, f)
}

// prepare adds query and headers.
func prepare(f *Fetch, query, headers starlark.Value) error {
	asked, err := tagLists(query)
	if err != nil {
		return errors.New(`query: want {"KEY": "VALUE"}`)
	}
	if len(asked) > 0 {
		sep := "?"
		if strings.Contains(f.URL, "?") {
			sep = "&"
		}
		f.URL += sep + url.Values(asked).Encode()
	}
	given, err := tagLists(headers)
	if err != nil {
		return errors.New(`headers: want {"NAME": "VALUE"}`)
	}
	for name, values := range given {
		if f.Header == nil {
			f.Header = map[string]string{}
		}
		f.Header[http.CanonicalHeaderKey(name)] = strings.Join(values, ", ")
	}
	if bytes.ContainsAny([]byte(f.URL), "\x00\r\n\t ") || len(f.URL) > maxLine {
		return fmt.Errorf("the URL has spaces, or more than %d bytes", maxLine)
	}
	return nil
}
