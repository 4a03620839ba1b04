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

// NewAttempts allows limit failures of a key per window. now is the clock.
func NewAttempts(limit int, window time.Duration, now func() time.Time) *Attempts {
	return &Attempts{limit: limit, window: window, now: now, seed: maphash.MakeSeed()}
}

// Failed counts a failure of key and reports whether it had fewer than the limit. What
// succeeds is not counted, so that nobody's failures keep another from succeeding.
func (a *Attempts) Failed(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.counterLocked(key)
	if c.n >= a.limit {
		return false
	}
	c.n++
	return true
}

func (a *Attempts) counterLocked(key string) *counter {
	c := &a.counters[maphash.String(a.seed, key)%uint64(len(a.counters))]
	if now := a.now(); now.Sub(c.since) >= a.window {
		*c = counter{since: now}
	}
	return c
}
