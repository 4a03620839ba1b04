package node

import (
	"hash/maphash"
	"sync"
	"time"
)

// Attempts counts failures by key and tells when a key has had too many, to slow
// down guessing. It holds a fixed number of counters however many keys are tried;
// keys that share one are slowed down together.
type Attempts struct {
	limit  int
	window time.Duration
	now    func() time.Time
	seed   maphash.Seed

	mu       sync.Mutex
	counters [4096]counter // guarded by mu
}

type counter struct {
	since time.Time
	n     int
}

// NewAttempts allows limit failures of a key per window, attempts under way counted
// in. now is the clock.
func NewAttempts(limit int, window time.Duration, now func() time.Time) *Attempts {
	return &Attempts{limit: limit, window: window, now: now, seed: maphash.MakeSeed()}
}

// Try counts an attempt on key and reports whether it may be made. Counting before the
// outcome is known keeps many attempts at a time from slipping through together.
func (a *Attempts) Try(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.counterLocked(key)
	if c.n >= a.limit {
		return false
	}
	c.n++
	return true
}

// Succeeded takes back an attempt that did not fail.
func (a *Attempts) Succeeded(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.counterLocked(key); c.n > 0 {
		c.n--
	}
}

func (a *Attempts) counterLocked(key string) *counter {
	c := &a.counters[maphash.String(a.seed, key)%uint64(len(a.counters))]
	if now := a.now(); now.Sub(c.since) >= a.window {
		*c = counter{since: now}
	}
	return c
}
