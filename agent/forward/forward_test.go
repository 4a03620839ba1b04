package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sallyport.dev/wire"
)

// names is a resolver that knows these names; one with several lists gives them in turn.
type names map[string][][]string

// LookupNetIP implements Resolver.
func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	lists := n[host]
	if len(lists) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if len(lists) > 1 {
		n[host] = lists[1:]
	}
	var out []netip.Addr
	for _, s := range lists[0] {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, nil
}

// No way to write a metadata address, and no name of one, gets past the rules.
func TestMetadataIsForbidden(t *testing.T) {
	resolver := names{
		"metadata.google.internal": {{"169.254.169.254"}},
		"innocent.example":         {{"169.254.169.254"}},
		"innocent.example.":        {{"169.254.169.254"}},
		"mapped.example":           {{"::ffff:169.254.169.254"}},
		"v6.example":               {{"fd00:ec2::254"}},
		"nat64.example":            {{"64:ff9b::a9fe:a9fe"}},
	}
	for _, host := range []string{
		"169.254.169.254", "169.254.170.2", "169.254.0.1", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::FFFF:169.254.169.254",
		"fd00:ec2::254", "fd00:0ec2:0:0:0:0:0:254", "fe80::a9fe:a9fe", "fe80::a9fe:a9fe%lo", "fd00:ec2::254%lo",
		"64:ff9b::169.254.169.254", "64:ff9b:1::169.254.169.254", "2002:a9fe:a9fe::1", "::169.254.169.254",
		"168.63.129.16", "100.100.100.200", "192.0.0.192", "fd20:ce::254",
		"metadata.google.internal", "innocent.example", "innocent.example.", "mapped.example", "v6.example", "nat64.example", " 169.254.169.254 ",
	} {
		_, err := ResolveWith(t.Context(), Properties{Host: host, PortNumber: "80"}, Rules{}, resolver)
		var forbidden *ForbiddenError
		if !errors.As(err, &forbidden) || !strings.HasPrefix(err.Error(), "Forwarding to IP address ") {
			t.Errorf("%s: got %v, want it forbidden", host, err)
		}
	}
}

// Numbers that some resolvers take for addresses are not looked up at all, and what
// could confuse a resolver or a log neither.
func TestStrangeHosts(t *testing.T) {
	for _, host := range []string{
		"2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "0251.0376.0251.0376", "169.254.43518", "169.254.169.254.", "127.1", "1.2.3.4.5", "[::1]", "::1]",
		"a b", "a\nb", "a\x00b", "a/b", "a@b", "a:80", ".", strings.Repeat("a", 300), "ex%61mple.com",
	} {
		resolver := resolverFunc(func(h string) ([]netip.Addr, error) {
			t.Errorf("%q was looked up", h)
			return nil, errors.New("no")
		})
		if target, err := ResolveWith(t.Context(), Properties{Host: host, PortNumber: "80"}, Rules{}, resolver); err == nil {
			t.Errorf("%q: got target %s, want an error", host, target)
		}
	}
}

type resolverFunc func(host string) ([]netip.Addr, error)

func (f resolverFunc) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return f(host)
}

// A name that is fine when the session starts and leads to the metadata service when
// somebody connects (DNS rebinding) is caught then, by the address connected to.
func TestRebinding(t *testing.T) {
	resolver := names{"rebind.example": {{"127.0.0.1"}, {"169.254.169.254"}}}
	target, err := ResolveWith(t.Context(), Properties{Host: "rebind.example", PortNumber: "80"}, Rules{}, resolver)
	if err != nil {
		t.Fatal(err)
	}
	_, err = target.Dial(t.Context())
	if want := "Forwarding to IP address rebind.example (169.254.169.254) is forbidden."; err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestRules(t *testing.T) {
	server := func(deny, allow []string) *wire.ForwardRules { return &wire.ForwardRules{Deny: deny, Allow: allow} }
	for name, tt := range map[string]struct {
		node   Config
		server *wire.ForwardRules
		host   string
		ok     bool
	}{
		"no rules":                        {host: "10.0.0.1", ok: true},
		"denied by the node":              {node: Config{Deny: []string{"10.0.0.0/8"}}, host: "10.0.0.1"},
		"denied by the server":            {server: server([]string{"10.0.0.0/8"}, nil), host: "10.0.0.1"},
		"denied as mapped":                {node: Config{Deny: []string{"10.0.0.0/8"}}, host: "::ffff:10.0.0.1"},
		"denied single address":           {node: Config{Deny: []string{"10.0.0.1"}}, host: "10.0.0.1"},
		"beside the denied address":       {node: Config{Deny: []string{"10.0.0.1"}}, host: "10.0.0.2", ok: true},
		"allowed":                         {node: Config{Allow: []string{"10.0.0.0/8"}}, host: "10.0.0.1", ok: true},
		"allowed, mapped":                 {node: Config{Allow: []string{"10.0.0.0/8"}}, host: "::ffff:10.0.0.1", ok: true},
		"not in the allowed":              {node: Config{Allow: []string{"10.0.0.0/8"}}, host: "192.0.2.1"},
		"allowed and denied":              {node: Config{Allow: []string{"10.0.0.0/8"}, Deny: []string{"10.0.0.1/32"}}, host: "10.0.0.1"},
		"the server cannot widen":         {node: Config{Allow: []string{"10.0.0.0/8"}}, server: server(nil, []string{"192.0.2.0/24"}), host: "192.0.2.1"},
		"both must allow":                 {node: Config{Allow: []string{"10.0.0.0/8"}}, server: server(nil, []string{"10.1.0.0/16"}), host: "10.1.0.1", ok: true},
		"nobody allows metadata":          {node: Config{Allow: []string{"169.254.169.254"}}, host: "169.254.169.254"},
		"the node itself needs no allow":  {node: Config{Allow: []string{"10.0.0.0/8"}}, host: "", ok: true},
		"but it may be denied":            {node: Config{Deny: []string{"127.0.0.0/8", "::1"}}, host: ""},
		"unspecified is loopback":         {node: Config{Deny: []string{"127.0.0.0/8"}}, host: "0.0.0.0"},
		"and so it is in IPv6":            {node: Config{Deny: []string{"::1"}}, host: "::"},
		"a zone does not hide an address": {node: Config{Deny: []string{"fe80::/10"}}, host: "fe80::1%lo"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := NewRules(tt.node)
			if err != nil {
				t.Fatal(err)
			}
			if r, err = r.With(tt.server); err != nil {
				t.Fatal(err)
			}
			resolver := names{"localhost": {{"127.0.0.1", "::1"}}}
			if _, err := ResolveWith(t.Context(), Properties{Host: tt.host, PortNumber: "80"}, r, resolver); (err == nil) != tt.ok {
				t.Errorf("got %v, want allowed: %t", err, tt.ok)
			}
		})
	}
}

func TestBadRules(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		want string
	}{
		{Config{Deny: []string{"10.0.0.0/33"}}, `deny: "10.0.0.0/33" is not an address or a prefix such as 10.0.0.0/8`},
		{Config{Allow: []string{"example.com"}}, `allow: "example.com" is not an address or a prefix such as 10.0.0.0/8`},
		{Config{Deny: []string{"fe80::1%eth0"}}, `deny: "fe80::1%eth0" is not an address or a prefix such as 10.0.0.0/8`},
		{Config{Deny: []string{"::ffff:10.0.0.0/104"}}, `deny: "::ffff:10.0.0.0/104": write IPv4 prefixes as such`},
		{Config{Sockets: []string{"run/*"}}, `sockets: "run/*" is not a pattern of absolute paths`},
	} {
		if _, err := NewRules(tt.c); err == nil || err.Error() != tt.want {
			t.Errorf("%+v: got %v, want %s", tt.c, err, tt.want)
		}
	}
}

func TestBadProperties(t *testing.T) {
	for _, tt := range []struct {
		p    Properties
		want string
	}{
		{Properties{}, "Port number is empty"},
		{Properties{PortNumber: "0"}, "1 to 65535"},
		{Properties{PortNumber: "65536"}, "1 to 65535"},
		{Properties{PortNumber: "-1"}, "1 to 65535"},
		{Properties{PortNumber: "80 "}, "1 to 65535"},
		{Properties{PortNumber: "http"}, "1 to 65535"},
		{Properties{UnixSocket: "run/x"}, "absolute"},
		{Properties{UnixSocket: "/run/x/../y"}, "absolute"},
		{Properties{UnixSocket: "/run/\x00x"}, "absolute"},
		{Properties{UnixSocket: "/" + strings.Repeat("x", 107)}, "longer"},
		{Properties{UnixSocket: "/run/x", PortNumber: "80"}, "exclude"},
		{Properties{UnixSocket: "/run/x", Host: "h"}, "exclude"},
	} {
		if _, err := Resolve(t.Context(), tt.p, Rules{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.p, err, tt.want)
		}
	}
}

func listener(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	return l
}

func portOf(l net.Listener) string { return strconv.Itoa(l.Addr().(*net.TCPAddr).Port) }

// A name's addresses are tried in turn: what does not answer or is forbidden is passed
// over.
func TestDialTriesAll(t *testing.T) {
	l := listener(t, "tcp", "127.0.0.1:0")
	resolver := names{"db.example": {{"169.254.169.254", "127.0.0.9", "127.0.0.1"}}}
	target, err := ResolveWith(t.Context(), Properties{Host: "db.example", PortNumber: portOf(l)}, Rules{}, resolver)
	if err != nil {
		t.Fatal(err)
	}
	c, err := target.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// What could not be reached is named with its address and the cause.
func TestDialErrors(t *testing.T) {
	l := listener(t, "tcp", "127.0.0.1:0")
	port := portOf(l)
	l.Close()
	resolver := names{"db.example": {{"127.0.0.1"}}}
	for _, tt := range []struct {
		p    Properties
		want string
	}{
		{Properties{Host: "db.example", PortNumber: port}, "connecting to db.example:" + port + " (127.0.0.1): connection refused"},
		{Properties{Host: "127.0.0.1", PortNumber: port}, "connecting to 127.0.0.1:" + port + ": connection refused"},
		{Properties{Host: "gone.example", PortNumber: port}, "resolving gone.example: lookup gone.example: no such host"},
		{Properties{UnixSocket: "/nonexistent/socket"}, "connecting to /nonexistent/socket: no such file or directory"},
	} {
		target, err := ResolveWith(t.Context(), tt.p, Rules{}, resolver)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := target.Dial(t.Context()); err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

func TestSockets(t *testing.T) {
	dir := t.TempDir()
	allowed, other := filepath.Join(dir, "allowed"), filepath.Join(dir, "other")
	for _, d := range []string{allowed, other} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		listener(t, "unix", filepath.Join(d, "s"))
	}
	if err := os.Symlink(filepath.Join(other, "s"), filepath.Join(allowed, "link")); err != nil {
		t.Fatal(err)
	}
	r, err := NewRules(Config{Sockets: []string{filepath.Join(allowed, "*")}})
	if err != nil {
		t.Fatal(err)
	}
	for path, ok := range map[string]bool{
		filepath.Join(allowed, "s"):    true,
		filepath.Join(allowed, "link"): false, // leads out of the allowed folder
		filepath.Join(other, "s"):      false,
	} {
		target, err := Resolve(t.Context(), Properties{UnixSocket: path}, r)
		if err != nil {
			t.Fatal(err)
		}
		c, err := target.Dial(t.Context())
		if (err == nil) != ok {
			t.Errorf("%s: got %v, want allowed: %t", path, err, ok)
		}
		if err == nil {
			c.Close()
		}
	}
}

// No host, however written, leads to an address that is denied.
func FuzzHost(f *testing.F) {
	for _, h := range []string{"169.254.169.254", "::ffff:a9fe:a9fe", "0xa9fea9fe", "fe80::1%lo", "example.com", "2852039166"} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, host string) {
		resolver := resolverFunc(func(string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("169.254.169.254")}, nil
		})
		target, err := ResolveWith(t.Context(), Properties{Host: host, PortNumber: "80"}, Rules{}, resolver)
		if err != nil || target.own {
			return
		}
		a, err := netip.ParseAddr(target.host)
		if err != nil {
			t.Fatalf("%q: a name of the metadata service was let through", host)
		}
		for _, form := range forms(a) {
			if contains(metadata, form) {
				t.Fatalf("%q leads to %s", host, form)
			}
		}
	})
}
