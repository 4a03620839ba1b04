package transcript

import "time"

// bucket holds what may be spent: rate per second, and no more than most at once.
type bucket struct {
	rate, most float64
	spent      float64 // of most; starts at 0, so that the zero bucket is full
	last       time.Duration
}

// refill brings the bucket to the time at, and returns what is in it.
func (b *bucket) refill(at time.Duration) float64 {
	if at > b.last {
		b.spent = max(0, b.spent-(at-b.last).Seconds()*b.rate)
		b.last = at
	}
	return b.most - b.spent
}

// take spends n if there is so much.
func (b *bucket) take(at time.Duration, n int) bool {
	if b.refill(at) < float64(n) {
		return false
	}
	b.spent += float64(n)
	return true
}
