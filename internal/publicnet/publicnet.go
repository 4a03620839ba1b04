// Package publicnet tells addresses of the public net from those that nothing may be made
// to reach whose URL somebody else wrote: a flow's code, a flow's calendar.
package publicnet

import "net/netip"

// reserved are the networks that netip does not know to be out of bounds: shared and
// special IPv4, and the IPv6 that carries IPv4 within, so that no private address can hide
// in it.
var reserved = func() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16",
		"3fff::/20", "5f00::/16", "fec0::/10",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

// Has reports whether an address is one of the public net. It is to be asked about the
// address that is dialled, not about what a name resolved to before.
func Has(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range reserved {
		if p.Contains(a) {
			return false
		}
	}
	return true
}
