package signin

import (
	"net/netip"
	"sync"
	"time"
)

// rates bound how often something is done from one place: so many times in a window.
// They are of this member alone.
type rates struct {
	now func() time.Time

	mu    sync.Mutex
	began time.Time
	count map[string]int
}

const (
	rateWindow = time.Minute
	// maxRated bounds the places told apart in a window; those beyond share one count.
	maxRated = 8192
)

func newRates(now func() time.Time) rates { return rates{now: now, count: map[string]int{}} }

// PlaceOf is what counts as one place of an address: of IPv6 the /64 that one machine has
// for itself.
func PlaceOf(address string) string {
	addr, err := netip.ParseAddr(address)
	if err != nil || addr.Is4() {
		return address
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return address
	}
	return prefix.String()
}

// allow counts one more of what from a place, an address or a person, and reports whether
// it is within limit.
func (l *rates) allow(what, place string, limit int) bool {
	place = PlaceOf(place)
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.now(); now.Sub(l.began) >= rateWindow || now.Before(l.began) {
		clear(l.count)
		l.began = now
	}
	key := what + "\x00" + place
	if _, known := l.count[key]; !known && len(l.count) >= maxRated {
		key = what + "\x00"
	}
	l.count[key]++
	return l.count[key] <= limit
}

// polls bound how often a program asks for one device code (RFC 8628, 3.5).
type polls struct {
	mu   sync.Mutex
	last map[string]time.Time // by hash of the code
}

func newPolls() polls { return polls{last: map[string]time.Time{}} }

// pollGrace is how much sooner than told a program may ask: networks are uneven.
const pollGrace = time.Second

func (p *polls) allow(id string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, known := p.last[id]
	if !known && len(p.last) >= maxRated {
		clear(p.last)
	}
	p.last[id] = now
	return !known || now.Sub(last) >= pollEvery-pollGrace
}
