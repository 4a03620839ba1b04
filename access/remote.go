package access

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Remote is where a Port session leads, in the one form that policies compare: nothing
// that resolves to the same by its letters alone is written in two ways.
type Remote struct {
	Host    string     // lower case, no dot at the end; "localhost" where none was given
	Port    int        // from 1 to 65535
	Address netip.Addr // zero where Host is a name; 127.0.0.1 for localhost
	Socket  string     // path of a unix socket on the node, in place of all that
}

// named reports whether the remote is known by a name that is yet to be resolved.
func (r Remote) named() bool { return r.Socket == "" && !r.Address.IsValid() }

// localhost is the host of a Port session that names none: the node itself.
const localhost = "localhost"

// hostLabel is a part of a name. The underscore is for names of services.
var hostLabel = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// ParseRemote reads the host and the port of a Port session. It refuses what programs
// read in different ways: addresses written otherwise than as four decimal numbers or
// as RFC 4291 has it, zones, brackets, names with other letters than ASCII's.
func ParseRemote(host, port string) (Remote, error) {
	r := Remote{Host: host}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port {
		return r, fmt.Errorf("the port %q must be a number from 1 to 65535", clipped(port))
	}
	r.Port = n
	if r.Host, r.Address, err = parseHost(host); err != nil {
		return r, fmt.Errorf("the host %q: %w", clipped(host), err)
	}
	return r, nil
}

// parseHost returns the one form of a host, and the address that it is.
func parseHost(host string) (string, netip.Addr, error) {
	var none netip.Addr
	if len(host) > 254 {
		return "", none, fmt.Errorf("names have at most 253 letters")
	}
	if strings.ContainsAny(host, ":%") {
		addr, err := netip.ParseAddr(host)
		if err != nil || addr.Zone() != "" {
			return "", none, fmt.Errorf("write an IPv6 address without brackets or zone, and the port apart from it")
		}
		return specified(addr.Unmap())
	}
	name := strings.TrimSuffix(lowerASCII(host), ".")
	if host == "" || name == localhost {
		return localhost, netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	labels := strings.Split(name, ".")
	if isNumber(labels[len(labels)-1]) {
		// What ends in a number is an address to every resolver, or a mistake.
		addr, err := netip.ParseAddr(name)
		if err != nil || name != host {
			return "", none, fmt.Errorf("write an IPv4 address as four decimal numbers, such as 10.0.0.7")
		}
		return specified(addr)
	}
	for _, label := range labels {
		if !hostLabel.MatchString(label) {
			return "", none, fmt.Errorf("a name has letters a to z, digits and hyphens between its dots; write others in their xn-- form")
		}
	}
	return name, none, nil
}

// specified refuses 0.0.0.0 and ::, which connect to the node itself.
func specified(addr netip.Addr) (string, netip.Addr, error) {
	if addr.IsUnspecified() {
		return "", netip.Addr{}, fmt.Errorf("is no address to connect to; write localhost for the node itself")
	}
	return addr.String(), addr, nil
}

var number = regexp.MustCompile(`^([0-9]+|0[xX][0-9A-Fa-f]*)$`)

// isNumber reports whether a label makes a host an address to some resolvers: 10.1,
// 0x7f000001 and 2130706433 are addresses to libc.
func isNumber(label string) bool { return number.MatchString(label) }

// lowerASCII lowers A to Z only: other letters have lower cases that are ASCII.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func clipped(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

// Condition keys of where a Port session leads (docs/policies.md).
const (
	keyRemoteHost    = "sallyport:RemoteHost"
	keyRemotePort    = "sallyport:RemotePort"
	keyRemoteAddress = "sallyport:RemoteAddress"
	keyRemoteSocket  = "sallyport:RemoteSocket"
)

// Context returns the condition keys.
func (r Remote) Context() map[string][]string {
	if r.Socket != "" {
		return map[string][]string{keyRemoteSocket: {r.Socket}}
	}
	keys := map[string][]string{keyRemoteHost: {r.Host}, keyRemotePort: {strconv.Itoa(r.Port)}}
	if r.Address.IsValid() {
		keys[keyRemoteAddress] = []string{r.Address.String()}
	}
	return keys
}
