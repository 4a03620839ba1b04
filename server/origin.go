package server

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/tracing"
)

// maxUserAgent bounds what is kept of a User-Agent header, in bytes.
const maxUserAgent = 512

// origin tells where a request came from. X-Forwarded-For and X-Forwarded-Proto count
// only on connections from trusted proxies.
func (s *Server) origin(r *http.Request) access.Origin {
	o := access.Origin{
		RequestID: tracing.NewID(),
		UserAgent: truncate(strings.ToValidUTF8(r.UserAgent(), "?"), maxUserAgent),
		TLS:       r.TLS != nil,
		Time:      s.config.Now(),
	}
	peer, ok := remoteAddress(r)
	if !ok {
		return o
	}
	if s.trusts(peer) {
		peer = s.forwardedFor(r, peer)
		o.TLS = o.TLS || r.Header.Get("X-Forwarded-Proto") == "https"
	}
	o.SourceIP = peer.String()
	return o
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

func remoteAddress(r *http.Request) (netip.Addr, bool) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(host)
	return addr.Unmap().WithZone(""), err == nil
}

func (s *Server) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(s.config.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// forwardedFor returns the nearest address in X-Forwarded-For that is not a trusted
// proxy's: what is further left was written by whoever that is.
func (s *Server) forwardedFor(r *http.Request, peer netip.Addr) netip.Addr {
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		addr, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			return peer
		}
		peer = addr.Unmap().WithZone("")
		if !s.trusts(peer) {
			return peer
		}
	}
	return peer
}
