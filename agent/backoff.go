package agent

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff spaces attempts: the first wait is between min and five times that, later
// ones double up to max, each with half of it at random, so that nodes that lost one
// server together do not come back together.
type backoff struct {
	min, max time.Duration
	tries    int
}

func (b *backoff) reset() { b.tries = 0 }

func (b *backoff) next() time.Duration {
	d := 5 * b.min << min(b.tries, 20)
	if d > b.max || d <= 0 {
		d = b.max
	}
	b.tries++
	low := max(b.min, d/2)
	if b.tries == 1 {
		low = b.min
	}
	return low + rand.N(max(d-low, 1))
}

// wait sleeps for the next interval; it reports false if ctx ended first.
func (b *backoff) wait(ctx context.Context) bool { return sleep(ctx, b.next()) }

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
