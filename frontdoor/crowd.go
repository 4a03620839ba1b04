package frontdoor

import (
	"net"
	"net/netip"
	"sync"
)

// crowd bounds the connections that have not proven themselves, of one address and in
// all, so that nobody can keep others out by opening many.
type crowd struct {
	most, mostFrom int

	mu   sync.Mutex
	all  int
	from map[netip.Prefix]int
}

func newCrowd(most, mostFrom int) *crowd {
	return &crowd{most: most, mostFrom: mostFrom, from: map[netip.Prefix]int{}}
}

// enter reports whether there is room; then leave must be called, once.
func (c *crowd) enter(addr net.Addr) (leave func(), ok bool) {
	network := networkOf(addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.most || c.from[network] >= c.mostFrom {
		return nil, false
	}
	c.all++
	c.from[network]++
	return sync.OnceFunc(func() { c.leave(network) }), true
}

func (c *crowd) leave(network netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.from[network]--; c.from[network] == 0 {
		delete(c.from, network)
	}
}

// networkOf is whom an address belongs to: a /64 is one machine's or one house's.
func networkOf(addr net.Addr) netip.Prefix {
	ip := addressOf(addr)
	if !ip.IsValid() {
		return netip.Prefix{}
	}
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	network, _ := ip.Prefix(bits) // bits fit
	return network
}

func addressOf(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}
