package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// dialTimeout bounds connecting to a target, resolveTimeout the resolution of its
	// name, and tryTimeout one address where there are others to try.
	dialTimeout    = 15 * time.Second
	resolveTimeout = 5 * time.Second
	tryTimeout     = 5 * time.Second
	maxHost        = 253 // characters
	maxSocketPath  = 107 // bytes: what the system's address has room for
	maxAddresses   = 16  // of a name, tried in turn
)

// Properties are what a session document says of its target, its parameters filled in
// (docs/protocol.md §26).
type Properties struct {
	Host       string `json:"host"`       // empty for the node itself
	PortNumber string `json:"portNumber"` // required without UnixSocket
	UnixSocket string `json:"unixSocket"` // an absolute path on the node
	Type       string `json:"type"`
}

// LocalPortForwarding is the Type of documents that forward many connections; without
// it a session carries one.
const LocalPortForwarding = "LocalPortForwarding"

// Resolver finds the addresses of a name, as *net.Resolver does.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Target is what the connections of one session lead to.
type Target struct {
	rules    Rules
	resolver Resolver
	host     string // a name, or an address
	port     uint16
	own      bool   // the document names no host: it is the node's own port
	socket   string // in place of host and port
}

// Resolve finds the target of a session and refuses one that the rules forbid. A name
// that does not resolve yet is no error: each Dial resolves it anew, as names move.
func Resolve(ctx context.Context, p Properties, r Rules) (*Target, error) {
	return ResolveWith(ctx, p, r, net.DefaultResolver)
}

// ResolveWith is Resolve with a resolver of its own.
func ResolveWith(ctx context.Context, p Properties, r Rules, resolver Resolver) (*Target, error) {
	t, err := parse(p)
	if err != nil {
		return nil, err
	}
	t.rules, t.resolver = r, resolver
	if t.socket != "" {
		return t, nil
	}
	addresses, err := t.addresses(ctx)
	if err != nil {
		return t, ctx.Err() // unless the session is over, each connection will tell
	}
	for _, a := range addresses {
		if r.check(a, t.own) {
			return t, nil
		}
	}
	return nil, t.forbidden(addresses[0])
}

// errNoPort says that a document names no target, in the words of AWS's agent.
type errNoPort struct{}

func (errNoPort) Error() string { return "Port number is empty in session properties." }

func parse(p Properties) (*Target, error) {
	if p.UnixSocket != "" {
		return parseSocket(p)
	}
	if p.PortNumber == "" {
		return nil, errNoPort{}
	}
	port, err := strconv.ParseUint(p.PortNumber, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("portNumber %q in session properties is not a number from 1 to 65535", p.PortNumber)
	}
	t := &Target{host: strings.TrimSpace(p.Host), port: uint16(port)}
	if t.host == "" {
		t.host, t.own = "localhost", true
	}
	return t, checkHost(t.host)
}

func parseSocket(p Properties) (*Target, error) {
	switch {
	case p.Host != "" || p.PortNumber != "":
		return nil, errors.New("session properties have unixSocket and host or portNumber: they exclude each other")
	case !filepath.IsAbs(p.UnixSocket) || filepath.Clean(p.UnixSocket) != p.UnixSocket, strings.ContainsRune(p.UnixSocket, 0):
		return nil, fmt.Errorf("unixSocket %q in session properties is not a plain absolute path", p.UnixSocket)
	case len(p.UnixSocket) > maxSocketPath:
		return nil, fmt.Errorf("unixSocket in session properties is longer than %d bytes", maxSocketPath)
	}
	return &Target{socket: p.UnixSocket}, nil
}

// checkHost refuses what is neither an address nor a name. Some resolvers take numbers
// of other forms (2852039166, 0xa9fea9fe, 0251.0376.0251.0376) for IPv4 addresses:
// nobody needs those, but to hide one.
func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	name := strings.TrimSuffix(host, ".")
	if name == "" || len(name) > maxHost {
		return fmt.Errorf("host %q in session properties is not a name or an address", truncated(host))
	}
	for _, c := range []byte(name) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && !(c >= '0' && c <= '9') && c != '-' && c != '_' && c != '.' && c < 0x80 {
			return fmt.Errorf("host %q in session properties is not a name or an address", truncated(host))
		}
	}
	last := strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return fmt.Errorf("host %q in session properties looks like an address and is none", truncated(host))
	}
	return nil
}

func truncated(s string) string { return s[:min(len(s), 100)] }

// String is how the target is called towards people: HOST:PORT or the socket's path.
func (t *Target) String() string {
	if t.socket != "" {
		return t.socket
	}
	return net.JoinHostPort(t.host, strconv.Itoa(int(t.port)))
}

// addresses resolves the host.
func (t *Target) addresses(ctx context.Context) ([]netip.Addr, error) {
	if t.own { // RFC 6761 §6.3; most forwards lead there, and asking takes longer than connecting
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	if a, err := netip.ParseAddr(t.host); err == nil {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	all, err := t.resolver.LookupNetIP(ctx, "ip", t.host)
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", t.host, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("resolving %s: it has no address", t.host)
	}
	all = all[:min(len(all), maxAddresses)]
	for i := range all {
		all[i] = all[i].Unmap() // resolvers return IPv4 as mapped
	}
	return all, nil
}

// forbidden words the refusal of an address: as AWS's agent does it for an address, with
// both where a name was asked for.
func (t *Target) forbidden(a netip.Addr) error {
	text := t.host
	if _, err := netip.ParseAddr(t.host); err != nil {
		text = fmt.Sprintf("%s (%s)", t.host, a)
	}
	return &ForbiddenError{Address: text}
}

// Dial connects to the target: its addresses in turn, those that the rules allow. The
// error says what was tried and is for people.
func (t *Target) Dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if t.socket != "" {
		return t.dialSocket(ctx)
	}
	addresses, err := t.addresses(ctx)
	if err != nil {
		return nil, err
	}
	var first error
	for i, a := range addresses {
		c, err := t.dial(ctx, a, i+1 < len(addresses))
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// dial connects to one address. The rules are asked about the address that the system is
// about to be given, so that nothing between here and there can make it another.
func (t *Target) dial(ctx context.Context, a netip.Addr, more bool) (net.Conn, error) {
	if more {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, tryTimeout)
		defer cancel()
	}
	d := net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || !t.rules.check(ap.Addr(), t.own) {
			return t.forbidden(a)
		}
		return nil
	}}
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, t.port).String())
	var forbidden *ForbiddenError
	switch {
	case errors.As(err, &forbidden):
		return nil, forbidden
	case err != nil:
		return nil, t.explain(a, err)
	}
	return c, nil
}

// explain words a failed connection as address and cause.
func (t *Target) explain(a netip.Addr, err error) error {
	address := netip.AddrPortFrom(a, t.port).String()
	if t.host != a.String() {
		address = fmt.Sprintf("%s (%s)", t, a)
	}
	return fmt.Errorf("connecting to %s: %w", address, cause(err))
}

// cause takes the operation and the address, which are named already, off an error of
// package net.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var sys syscall.Errno
	switch {
	case errors.As(err, &sys):
		return sys
	case errors.Is(err, context.DeadlineExceeded) || isTimeout(err):
		return errors.New("no answer in time")
	}
	return err
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func (t *Target) dialSocket(ctx context.Context) (net.Conn, error) {
	socket, err := holdSocket(t.socket)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", t.socket, cause(err))
	}
	defer socket.close()
	if err := t.rules.checkSocket(t.socket, socket); err != nil {
		return nil, err
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket.address())
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", t.socket, cause(err))
	}
	return c, nil
}
