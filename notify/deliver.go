package notify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
)

const (
	// maxTries is how often a delivery is tried before it is given up.
	maxTries = 8
	// sendTime bounds one try, and beginTime is how long a delivery that was begun is
	// nobody else's: more than that, so that two members do not send at once.
	sendTime  = 20 * time.Second
	beginTime = time.Minute
	maxWait   = 15 * time.Minute
	// lastStep is the step in which all who decide are told. Nobody is left for a next one,
	// however many notifications there were before: flow code gives far fewer.
	lastStep = 1000
)

// backoff is how long a delivery waits after so many tries.
func backoff(tries int) time.Duration {
	return min(2*time.Second<<(2*min(tries-1, 8)), 10*time.Minute)
}

// deliver makes the deliveries of a lane, one after the other.
func (s *Service) deliver(ctx context.Context, lane string, to sender) {
	for {
		for s.leads.Load() && s.deliverDue(ctx, lane, to) {
		}
		if !s.pause(ctx, lane) {
			return
		}
	}
}

// deliverDue makes what is due and reports whether there may be more.
func (s *Service) deliverDue(ctx context.Context, lane string, to sender) (more bool) {
	due, err := s.config.Store.Due(ctx, lane, s.config.Now(), batch)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("finding due notifications", "lane", lane, "error", err)
		}
		return false
	}
	for _, d := range due {
		if ctx.Err() != nil || !s.try(ctx, d, to) {
			return false
		}
	}
	return len(due) == batch
}

// try makes one try of a delivery. It reports false where this member does not deliver.
func (s *Service) try(ctx context.Context, d Delivery, to sender) bool {
	// A try is counted before it is made: what kills a member is not tried for ever.
	err := s.config.Store.Begin(ctx, s.holder, d.ID, d.Tries, s.config.Now().Add(beginTime))
	if errors.Is(err, ErrLease) {
		s.leads.Store(false)
		return false
	}
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("beginning a notification", "delivery", d.ID, "error", err)
		}
		return false
	}
	d.Tries++
	err = s.attempt(ctx, d, to)
	// What became of it is noted even where the service is stopping.
	noting, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTime)
	defer cancel()
	s.finish(noting, d, err)
	return true
}

// attempt sends a delivery, unless it is too old or was tried often enough by members
// that did not live to note what became of it.
func (s *Service) attempt(ctx context.Context, d Delivery, to sender) error {
	if d.Tries > maxTries {
		return fmt.Errorf("%d tries of it did not end: %w", maxTries, errNever)
	}
	if s.stale(d) {
		return errNothing
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	return to.send(ctx, d)
}

// stale reports whether a delivery waited for so long, perhaps for a lane that was
// configured again, that nobody wants to hear of it. Steps may be planned for days ahead,
// and messages that are brought up to date disturb nobody.
func (s *Service) stale(d Delivery) bool {
	return d.Lane != laneStep && d.What != tellUpdate && s.config.Now().Sub(d.Made) > maxAge
}

// finish notes what became of a try.
func (s *Service) finish(ctx context.Context, d Delivery, err error) {
	now := s.config.Now()
	state, next, problem := DeliverySent, now, ""
	later := (*laterError)(nil)
	switch {
	case err == nil:
	case errors.Is(err, errNothing):
		state = DeliveryDropped
	case errors.Is(err, errNever) || d.Tries >= maxTries:
		state, problem = DeliveryFailed, line(err.Error(), maxComment)
		s.log.Warn("giving up a notification", "request", d.Request, "lane", d.Lane, "to", d.To, "tries", d.Tries, "error", problem)
	default:
		state, problem, next = DeliveryWaiting, line(err.Error(), maxComment), now.Add(s.config.backoff(d.Tries))
		if errors.As(err, &later) && later.after > 0 {
			next = now.Add(min(later.after, maxWait))
		}
		s.log.Info("a notification will be tried again", "request", d.Request, "lane", d.Lane, "tries", d.Tries, "error", problem)
	}
	if err := s.config.Store.Finish(ctx, d.ID, state, next, problem); err != nil {
		s.log.Error("noting a notification", "delivery", d.ID, "error", err)
		return
	}
	if state == DeliveryFailed && d.Step > 0 && d.Step < lastStep {
		if err := s.failed(ctx, d); err != nil {
			s.log.Error("going on to the next who are told", "request", d.Request, "error", err)
		}
	}
}

// failed goes on to the next step at once where nothing of a step has reached anybody.
func (s *Service) failed(ctx context.Context, d Delivery) error {
	all, err := s.config.Store.Deliveries(ctx, d.Request)
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.Seq == d.Seq && other.Step == d.Step && other.Lane != laneStep && other.State != DeliveryFailed {
			return nil
		}
	}
	return s.queue(ctx, 0, []Delivery{s.stepAfter(d, s.config.Now(), "/failed")})
}

// stepAfter is the delivery that takes the step after d's.
func (s *Service) stepAfter(d Delivery, at time.Time, suffix string) Delivery {
	p := planner{s: s, e: grant.Event{Seq: d.Seq, Kind: d.Kind}, r: grant.Request{ID: d.Request, Stage: d.Stage}, step: d.Step + 1, seen: map[string]bool{}}
	p.add(laneStep, tellAsk, suffix)
	p.ds[0].Next = at
	return p.ds[0]
}

// told reports whether the same place was told of the same event in an earlier step.
func (s *Service) told(ctx context.Context, d Delivery) (bool, error) {
	if d.Step == 0 {
		return false, nil
	}
	all, err := s.config.Store.Deliveries(ctx, d.Request)
	for _, other := range all {
		if other.Seq == d.Seq && other.Lane == d.Lane && other.To == d.To && other.Step < d.Step && other.State == DeliverySent {
			return true, nil
		}
	}
	return false, err
}

// steps takes the steps of telling those who decide: each of the flow code's
// notifications in turn, as long as nobody has decided, and at last everybody.
type steps struct{ *Service }

func (s steps) send(ctx context.Context, d Delivery) error {
	r, err := s.config.Access.Request(ctx, d.Request)
	if err != nil {
		return err
	}
	if r.State != grant.Pending || r.Stage != d.Stage {
		return errNothing
	}
	p := planner{s: s.Service, e: grant.Event{Seq: d.Seq, Kind: d.Kind}, r: r, step: d.Step, seen: map[string]bool{}}
	wait, last, err := s.plan(ctx, &p)
	if err != nil {
		return err
	}
	ds := p.ds
	switch {
	case last:
		if len(ds) == 0 {
			s.log.Warn("nobody can be told of a request", "request", r.ID)
		}
	case len(ds) == 0:
		ds = append(ds, s.stepAfter(d, s.config.Now(), "/nobody"))
	case wait > 0:
		ds = append(ds, s.stepAfter(d, s.config.Now().Add(wait), ""))
	}
	return s.queue(ctx, 0, ds)
}

// plan plans one step: how long it is given, and whether it is the last.
func (s steps) plan(ctx context.Context, p *planner) (wait time.Duration, last bool, err error) {
	what := tellAsk
	if p.e.Kind == grant.KindReminder {
		what = tellRemind
	}
	order, err := s.config.Access.Notifications(ctx, p.r)
	if err != nil && !errors.Is(err, flow.ErrNoFunction) {
		s.log.Warn("the flow's code does not say whom to tell; all who decide are", "request", p.r.ID, "error", err)
		order = nil
	}
	if p.step <= len(order) {
		n := order[p.step-1]
		p.places(what, n.Slack, n.Email, n.Webhook)
		return n.Timeout, false, p.people(ctx, what, n.People)
	}
	later := p.step > 1
	p.step = lastStep
	if later {
		for _, a := range p.r.Frozen.Flow.Announce {
			p.places(what, a.Slack, a.Email, a.Webhook)
		}
	}
	deciders, err := s.config.Access.Deciders(ctx, p.r, maxTold)
	if err != nil {
		s.log.Warn("finding who decides", "request", p.r.ID, "error", err)
	}
	return 0, true, p.persons(ctx, what, deciders)
}
