// Package loopback tells this machine from all others: to it alone things may go that are
// not encrypted.
package loopback

import (
	"net/netip"
	"strings"
)

// Is reports whether a host, a name or an address without a port, cannot be but this
// machine. No name is looked up.
func Is(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}
