package signin

import (
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

// allow counts one more of what from a place and reports whether it is within limit.
func (l *rates) allow(what, place string, limit int) bool {
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
