// Package forward reaches the targets of Port sessions from the node: it resolves them,
// holds them against the node's and the server's rules, and connects to them. No way of
// writing an address, and no name, leads past the rules: they are applied to every
// address that is about to be connected to.
package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"sallyport.dev/wire"
)

// metadata are the addresses of services that hand credentials, or power over the
// machine, to whoever asks from it. They are always denied: AWS's (all of the IPv4
// link-local block, and its own IPv6 block), and those of other clouds elsewhere.
var metadata = prefixes(
	"169.254.0.0/16",      // AWS, GCP, Azure, Oracle, DigitalOcean, Hetzner; ECS tasks
	"fd00:ec2::/32",       // AWS
	"fd20:ce::254/128",    // GCP
	"fe80::a9fe:a9fe/128", // OpenStack
	"168.63.129.16/32",    // Azure's wire server
	"100.100.100.200/32",  // Alibaba
	"192.0.0.192/32",      // Oracle, formerly
)

// Prefixes in whose addresses an IPv4 address is embedded, from the given byte on.
var embedding = []struct {
	prefix netip.Prefix
	from   int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},   // NAT64
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12}, // NAT64 of a site, as commonly laid out
	{netip.MustParsePrefix("2002::/16"), 2},       // 6to4
	{netip.MustParsePrefix("::/96"), 12},          // IPv4-compatible
}

// Config is the node's own rules, as they are configured. All lists may be empty.
type Config struct {
	// Deny and Allow are CIDR prefixes or addresses. What is in Deny is refused; where
	// Allow is not empty, remote hosts must have an address in it.
	Deny  []string
	Allow []string
	// Sockets are patterns (as filepath.Match has them) of the unix sockets that may be
	// forwarded to; where it is empty, the session documents decide.
	Sockets []string
}

// Rules say which addresses a session may reach: the node's rules and the server's, of
// which each may only take away.
type Rules struct {
	deny    []netip.Prefix
	allow   [][]netip.Prefix // an address must be in each of them
	sockets []string
}

// NewRules makes the rules of the node. Errors name the list.
func NewRules(c Config) (Rules, error) {
	var r Rules
	r, err := r.with(c.Deny, c.Allow)
	if err != nil {
		return r, err
	}
	for _, p := range c.Sockets {
		if _, err := filepath.Match(p, ""); err != nil || !filepath.IsAbs(p) {
			return r, fmt.Errorf("sockets: %q is not a pattern of absolute paths", p)
		}
	}
	r.sockets = c.Sockets
	return r, nil
}

// With adds the server's rules, which may be nil.
func (r Rules) With(server *wire.ForwardRules) (Rules, error) {
	if server == nil {
		return r, nil
	}
	r, err := r.with(server.Deny, server.Allow)
	if err != nil {
		return r, fmt.Errorf("the server's forward rules: %w", err)
	}
	return r, nil
}

func (r Rules) with(deny, allow []string) (Rules, error) {
	denied, err := parsePrefixes(deny)
	if err != nil {
		return r, fmt.Errorf("deny: %w", err)
	}
	allowed, err := parsePrefixes(allow)
	if err != nil {
		return r, fmt.Errorf("allow: %w", err)
	}
	r.deny = append(r.deny[:len(r.deny):len(r.deny)], denied...)
	if len(allowed) > 0 {
		r.allow = append(r.allow[:len(r.allow):len(r.allow)], allowed)
	}
	return r, nil
}

// parsePrefixes reads CIDR prefixes; an address stands for itself alone.
func parsePrefixes(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil || a.Zone() != "" {
				return nil, fmt.Errorf("%q is not an address or a prefix such as 10.0.0.0/8", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q: write IPv4 prefixes as such", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func prefixes(list ...string) []netip.Prefix {
	p, err := parsePrefixes(list)
	if err != nil {
		panic("forward: " + err.Error())
	}
	return p
}

// ForbiddenError says that the rules forbid an address or a socket.
type ForbiddenError struct {
	Address string // as asked for, and what it resolved to if that differs
}

// Error implements error, in the words of AWS's agent.
func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("Forwarding to IP address %s is forbidden.", e.Address)
}

// check reports whether an address may be connected to. own says that it is the node's
// own port that was asked for, which lists of allowed remote hosts do not concern.
func (r Rules) check(a netip.Addr, own bool) bool {
	for _, form := range forms(a) {
		if contains(metadata, form) || contains(r.deny, form) {
			return false
		}
	}
	if own {
		return true
	}
	a = a.Unmap().WithZone("")
	for _, list := range r.allow {
		if !contains(list, a) {
			return false
		}
	}
	return true
}

// forms returns the addresses that a packet to a may end up at: a without its zone, as
// IPv4 where it is mapped; the loopback addresses, which the system takes an unspecified
// one for; and the IPv4 address that a transition mechanism would take out of it.
func forms(a netip.Addr) []netip.Addr {
	a = a.Unmap().WithZone("")
	all := []netip.Addr{a}
	if a.IsUnspecified() {
		all = append(all, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	}
	if a.Is4() {
		return all
	}
	b := a.As16()
	for _, e := range embedding {
		if e.prefix.Contains(a) {
			var v4 [4]byte
			binary.BigEndian.PutUint32(v4[:], binary.BigEndian.Uint32(b[e.from:]))
			all = append(all, netip.AddrFrom4(v4))
		}
	}
	return all
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// checkSocket checks a socket that a path was found to lead to. With patterns its own
// path must fit one, so that a link in an allowed folder allows nothing else. Without
// them it is for the document to say which socket it is, and not for whoever may put a
// link in its place.
func (r Rules) checkSocket(path string, found *heldSocket) error {
	for _, pattern := range r.sockets {
		if ok, err := filepath.Match(pattern, found.real); ok && err == nil {
			return nil
		}
	}
	if len(r.sockets) > 0 {
		return fmt.Errorf("forwarding to the socket %s is forbidden", path)
	}
	real, err := follow(path)
	if err == nil && real != found.real {
		err = errors.New("it has just been replaced")
	}
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", path, cause(err))
	}
	return nil
}
