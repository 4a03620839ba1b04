package client

import (
	"context"
	"errors"
	"sync"
	"time"
)

var errPanic = errors.New("a goroutine panicked")

// crew runs goroutines and waits for them. A panic in one of them is raised again in
// the goroutine that waits, so that what it deferred, such as giving the terminal
// back, still happens.
type crew struct {
	group sync.WaitGroup
	mu    sync.Mutex
	panic any
}

func (c *crew) run(cancel context.CancelCauseFunc, f func()) {
	c.group.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				c.mu.Lock()
				c.panic = p
				c.mu.Unlock()
				cancel(errPanic)
			}
		}()
		f()
	})
}

func (c *crew) wait() {
	c.group.Wait()
	c.raise()
}

// waitFor waits no longer than d.
func (c *crew) waitFor(d time.Duration) {
	done := make(chan struct{})
	go func() { // ends with the last of the crew
		c.group.Wait()
		close(done)
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	c.raise()
}

func (c *crew) raise() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.panic != nil {
		panic(c.panic)
	}
}
