package frontdoor

import (
	"net"
	"net/netip"
	"sync"
)

// crowd bounds connections, in all and those of one network or person, so that nobody
// can keep others out by opening many.
type crowd[K comparable] struct {
	most, mostOf int

	mu  sync.Mutex
	all int
	of  map[K]int
}

func newCrowd[K comparable](most, mostOf int) *crowd[K] {
	return &crowd[K]{most: most, mostOf: mostOf, of: map[K]int{}}
}

// enter reports whether there is room; then leave must be called.
func (c *crowd[K]) enter(who K) (leave func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.most || c.of[who] >= c.mostOf {
		return nil, false
	}
	c.all++
	c.of[who]++
	return sync.OnceFunc(func() { c.leave(who) }), true
}

func (c *crowd[K]) leave(who K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.of[who]--; c.of[who] == 0 {
		delete(c.of, who)
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
