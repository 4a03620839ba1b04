package grant

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/identity"
)

// The clocks: one loop per member, which does what is due. Every step is compared and
// set, so that of several members one takes it; what was due while none ran is done when
// the first starts.

const (
	tickEvery = 500 * time.Millisecond
	// dueMost is how many due requests are read at a time.
	dueMost = 100
	// tellEvery is how often events are looked for that the audit log does not have.
	tellEvery = 10 * time.Second
)

// clock is the loop's own state.
type clock struct {
	e        *Engine
	revision int64
	people   int64 // revision of the directory
	told     time.Time
}

// Start runs the clocks until Close. What is due is done before it returns, but for what waits
// for flow code or AWS, which has begun.
func (e *Engine) Start(ctx context.Context) error {
	c := &clock{e: e}
	if err := c.round(ctx); err != nil {
		return err
	}
	e.work.mu.Lock()
	defer e.work.mu.Unlock()
	if e.work.closed {
		return errors.New("the engine is closed")
	}
	if e.work.stop == nil {
		e.work.stop = make(chan struct{})
	}
	stop := e.work.stop
	e.work.done.Go(func() { c.run(context.WithoutCancel(ctx), stop) })
	return nil
}

// Close stops the clocks and waits for them. Who waits for a request is let go.
func (e *Engine) Close() {
	e.waits.close()
	e.work.close()
}

func (c *clock) run(ctx context.Context, stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	})
	defer cancel()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		if err := c.round(ctx); err != nil && ctx.Err() == nil {
			c.e.config.Logger.Error("clocks of requests", "error", err)
		}
	}
}

// round does what is due, and wakes who waits if another member changed something.
func (c *clock) round(ctx context.Context) error {
	revision, err := c.e.config.Store.GrantRevision(ctx)
	if err != nil {
		return err
	}
	if revision != c.revision {
		c.revision = revision
		c.e.waits.wake()
	}
	if now := time.Now(); now.Sub(c.told) >= tellEvery { // not the server's clock: that may be turned
		c.told = now
		if err := c.e.tell(ctx, ""); err != nil {
			c.e.config.Logger.Error("telling the audit log of requests", "error", err)
		}
	}
	if err := c.endGone(ctx); err != nil {
		c.e.config.Logger.Error("ending requests of who is gone", "error", err)
	}
	return c.allDue(ctx)
}

// allDue sees to all that is due, page by page: what fails, or waits for flow code, stays due
// and holds up nothing behind it.
func (c *clock) allDue(ctx context.Context) error {
	f := Filter{Due: c.e.now(), Limit: dueMost}
	for {
		due, err := c.e.config.Store.Requests(ctx, f)
		if err != nil {
			return err
		}
		for _, r := range due {
			if err := c.e.due(ctx, r); err != nil && ctx.Err() == nil {
				c.e.config.Logger.Error("clock of a request", "request", r.ID, "error", err)
			}
		}
		if len(due) < dueMost {
			return nil
		}
		last := due[len(due)-1]
		f.After, f.AfterDue = last.ID, last.Due()
	}
}

// endGone ends the requests of users who were disabled or deleted, whoever did that and
// wherever it was interrupted.
func (c *clock) endGone(ctx context.Context) error {
	revision, err := c.e.config.Directory.Revision(ctx)
	if err != nil || revision == c.people {
		return err
	}
	open, err := c.e.config.Store.Requests(ctx, Filter{States: []State{Pending, Approved, Active}})
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	var errs []error
	for _, r := range open {
		if !r.Intact() {
			errs = append(errs, c.e.discard(ctx, r)) // whose it is cannot be told
			continue
		}
		if id := r.Frozen.Person.ID; !seen[id] {
			seen[id] = true
			errs = append(errs, c.endIfGone(ctx, id))
		}
	}
	err = errors.Join(errs...)
	if err == nil {
		c.people = revision
	}
	return err
}

func (c *clock) endIfGone(ctx context.Context, person string) error {
	_, because, err := c.e.byID(ctx, person)
	if err != nil || because == "" {
		return err
	}
	return c.e.EndPerson(ctx, person, because)
}

// codeClock bounds what the clock of a request takes whose flow has code for that.
const codeClock = time.Minute

// due does what is due for one request. What waits for code or for AWS is done beside: others'
// clocks do not wait for it. Where there is too much of it at a time the next round is early
// enough.
func (e *Engine) due(ctx context.Context, r Request) error {
	switch {
	case !r.Intact():
		return e.discard(ctx, r)
	case r.State == Approved && r.Extends() != "":
		return e.settleExtension(ctx, r)
	case r.expires(e.now()) && r.Frozen.Flow.Code != nil:
		e.work.runOnce(r.ID, codeClock, func(ctx context.Context) {
			if err := e.tick(ctx, r); err != nil && ctx.Err() == nil {
				e.config.Logger.Error("clock of a request", "request", r.ID, "error", err)
			}
		})
		return nil
	}
	return e.tick(ctx, r)
}

// expires reports whether nobody has decided in time.
func (r Request) expires(at time.Time) bool { return r.State == Pending && !at.Before(r.expiresAt()) }

// tick takes the steps that are due.
func (e *Engine) tick(ctx context.Context, r Request) error {
	waited := r.State == Pending
	done, err := e.step(ctx, r.ID, func(v *view) (func(*Request) ([]Event, error), error) {
		at := e.now()
		if v.r.expires(at) {
			return v.expiry(ctx, at), nil
		}
		return func(r *Request) ([]Event, error) {
			events := r.tick(at)
			if len(events) == 0 {
				return nil, errNothingDue
			}
			return events, nil
		}, nil
	})
	if err != nil && !errors.Is(err, errNothingDue) {
		return err
	}
	if err == nil && waited {
		done = e.beginAtOnce(ctx, Actor{Principal: identity.Principal{ARN: "rule code"}}, done)
	}
	e.provideSoon(done)
	return nil
}

// provideSoon begins to give or take what is due of a request's targets outside.
func (e *Engine) provideSoon(r Request) {
	at := e.now()
	if !slices.ContainsFunc(r.Provisions, func(p Provision) bool { return p.open() && !at.Before(p.Next) }) {
		return
	}
	e.work.run(2*giveTimeout, func(ctx context.Context) {
		if err := e.provide(ctx, r.ID); err != nil && ctx.Err() == nil {
			e.config.Logger.Error("targets outside", "request", r.ID, "error", err)
		}
	})
}

// discard ends a request whose row is not what was hashed: somebody changed it by hand.
func (e *Engine) discard(ctx context.Context, r Request) error {
	e.config.Logger.Error("a request's row was changed: it is revoked", "request", r.ID)
	var events []Event
	done, err := e.config.Store.UpdateRequest(ctx, r.ID, func(now *Request) ([]Event, error) {
		// Nothing of it can be believed, whose access in AWS it was least of all.
		outside := len(now.Provisions) > 0
		now.Provisions, now.Review = nil, nil
		events = []Event{now.end(Revoked, KindRevoked, e.now(), "policy", "", "its row was changed by hand")}
		if outside {
			events = append(events, now.event(KindAlarm, e.now(), "policy", "", "what it gave in AWS must be taken back by hand"))
		}
		return events, nil
	})
	if err == nil {
		e.changed(ctx, done, events)
	}
	return err
}

var errNothingDue = errors.New("nothing is due")

// expiry ends a request that nobody decided on in time, unless the flow's code has
// another idea: to forward it (once), or to approve it.
func (v *view) expiry(ctx context.Context, at time.Time) func(*Request) ([]Event, error) {
	t, failed := v.hook(ctx, flow.HookExpire, v.r.Frozen.Person, "", "")
	if t.Kind == flow.Forward && t.To != nil && v.r.Of == nil && !failed {
		return func(r *Request) ([]Event, error) {
			r.StageSince, r.PendingUntil = at, at.Add(pendingClock(r.Frozen.Flow.Clocks))
			return []Event{r.forward(t.To, at, "code", "", orElse(t.Message, "nobody decided in time"))}, nil
		}
	}
	if t.Kind == flow.Approve && !failed && v.mayBeGiven(ctx) {
		useBy := v.useBy()
		return func(r *Request) ([]Event, error) {
			r.Decisions = append(r.Decisions, Decision{Stage: r.Stage, Approve: true, Rule: "code", Hash: r.Hash, At: at})
			events := []Event{r.event(KindApproved, at, "rule code", "", t.Message)}
			return append(events, r.grant(at, "rule code", "", useBy)...), nil
		}
	}
	if t.Kind == flow.Approve {
		t.Message = "" // it says why it was approved
	}
	return func(r *Request) ([]Event, error) {
		return []Event{r.end(Expired, KindExpired, at, "time", "", orElse(t.Message, "nobody decided in time"))}, nil
	}
}

// mayBeGiven reports whether nothing has come up since it was asked that prohibits giving it.
func (v *view) mayBeGiven(ctx context.Context) bool {
	because, err := v.mayStillAsk(ctx)
	if err != nil {
		v.warn("people", err)
		return false
	}
	verdict, judged := v.rulesAgain(ctx)
	return because == "" && judged && verdict.Forbid == ""
}

// tick does what the clocks say at a time. Of a grant whose time is up it is the end that
// counts, not the warning before.
func (r *Request) tick(at time.Time) []Event {
	var events []Event
	up := func(clock time.Time) bool { return !clock.IsZero() && !at.Before(clock) }
	switch r.State {
	case Pending:
		if up(r.fallbackAt()) {
			r.Fallen = true
			events = append(events, r.event(KindFallback, at, "time", "", ""))
		} else if up(r.remindAt()) {
			r.Reminded = at
			events = append(events, r.event(KindReminder, at, "time", "", ""))
		}
	case Approved:
		if up(r.ActivateBy) && r.Extends() == "" {
			events = append(events, r.end(Lapsed, KindLapsed, at, "time", "", "it was not used in time"))
		}
	case Active:
		if up(r.EndsAt) {
			events = append(events, r.end(Ended, KindEnded, at, "time", "", ""))
		} else if up(r.warnAt()) {
			r.Warned = true
			events = append(events, r.event(KindWarning, at, "time", "", ""))
		}
	}
	if r.Review != nil && r.Review.At.IsZero() && !r.Overdue && up(r.Review.Due) {
		r.Overdue = true
		events = append(events, r.event(KindReviewDue, at, "time", "", ""))
	}
	return events
}
