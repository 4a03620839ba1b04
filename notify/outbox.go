package notify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport.dev/grant"
)

const (
	wakeOutbox = "outbox"
	// leaseTime is how long a lease lasts, and so how long after a member died another
	// delivers at the latest.
	leaseTime = 15 * time.Second
	// batch is how many events, or deliveries, are read at a time.
	batch = 50
	// maxAge is the age from which on events are not told any more: after a long outage,
	// or where notifications are new, nobody wants to hear of last month.
	maxAge = 24 * time.Hour
	// keepFor is how long what was delivered, and where, is remembered.
	keepFor     = 90 * 24 * time.Hour
	forgetEvery = time.Hour
)

// readOutbox turns events into deliveries while this member holds the lease.
func (s *Service) readOutbox(ctx context.Context) {
	var forgot time.Time
	for {
		more, err := s.readEvents(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Error("reading requests' events for notifications", "error", err)
		}
		if now := s.config.Now(); err == nil && now.Sub(forgot) > forgetEvery {
			forgot = now
			if err := s.config.Store.Forget(ctx, now.Add(-keepFor)); err != nil && ctx.Err() == nil {
				s.log.Error("forgetting old notifications", "error", err)
			}
		}
		if more && err == nil && ctx.Err() == nil {
			continue
		}
		if !s.pause(ctx, wakeOutbox) {
			return
		}
	}
}

// lease is what the holder of it knows.
type lease struct {
	renew    time.Time // when to
	position int64     // how far events have been read
}

// hold takes the lease, or renews it in time. It reports whether this member has it.
func (s *Service) hold(ctx context.Context) (bool, error) {
	now := s.config.Now()
	if now.Before(s.lease.renew) && now.After(s.lease.renew.Add(-leaseTime)) {
		return s.leads.Load(), nil
	}
	held, position, err := s.config.Store.HoldLease(ctx, s.holder, now, now.Add(leaseTime))
	s.leads.Store(held)
	if err != nil {
		return false, err
	}
	s.lease = lease{renew: now.Add(leaseTime / 3), position: position}
	return held, nil
}

// readEvents queues the deliveries of some events and reports whether there may be more.
func (s *Service) readEvents(ctx context.Context) (more bool, err error) {
	held, err := s.hold(ctx)
	if err != nil || !held {
		return false, err
	}
	events, err := s.config.Events.EventsAfter(ctx, s.lease.position, batch)
	if err != nil {
		return false, err
	}
	for _, e := range events {
		ds, err := s.plan(ctx, e)
		if err != nil {
			return false, fmt.Errorf("event %d: %w", e.Seq, err)
		}
		if err := s.queue(ctx, e.Seq, ds); err != nil {
			s.lease.renew = time.Time{}
			return false, err
		}
		s.lease.position = e.Seq
	}
	return len(events) == batch, nil
}

// queue stores deliveries and wakes those who make them.
func (s *Service) queue(ctx context.Context, position int64, ds []Delivery) error {
	if err := s.config.Store.Queue(ctx, s.holder, position, ds); err != nil {
		return err
	}
	for _, d := range ds {
		s.wake(d.Lane)
	}
	return nil
}

// plan says who is to be told of an event. Errors are of the store: what flow code says
// wrongly is found out later, in a delivery of its own.
func (s *Service) plan(ctx context.Context, e grant.Event) ([]Delivery, error) {
	if s.config.Now().Sub(e.At) > maxAge {
		return nil, nil
	}
	r, err := s.config.Access.Request(ctx, e.Request)
	if errors.Is(err, grant.ErrNotFound) {
		return nil, nil // it was deleted, or else nothing after it would ever be told
	}
	if err != nil {
		return nil, err
	}
	p := planner{s: s, e: e, r: r, seen: map[string]bool{}}
	if err := p.update(ctx); err != nil {
		return nil, err
	}
	p.announce()
	p.ask()
	return p.ds, p.tell(ctx)
}
