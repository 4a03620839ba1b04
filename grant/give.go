package grant

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"sallyport.dev/flow"
)

// Targets outside: they are given and taken until that has succeeded, whoever restarts
// meanwhile.

const (
	// giveTimeout bounds one try, and giveLease how long others leave it alone.
	giveTimeout = 30 * time.Second
	giveLease   = time.Minute
	// alarmTries is how many tries may fail before people are told, and again each time
	// that so many more have.
	alarmTries = 5
	longestGap = 10 * time.Minute
)

// provide tries what is due of a request's targets outside.
func (e *Engine) provide(ctx context.Context, id string) error {
	r, err := e.config.Store.Request(ctx, id)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range r.Provisions {
		if p.open() && !e.now().Before(p.Next) {
			errs = append(errs, e.provideOne(ctx, r, p.Target))
		}
	}
	return errors.Join(errs...)
}

// provideOne takes the try for itself, so that of several members one makes it, makes it,
// and stores what came of it.
func (e *Engine) provideOne(ctx context.Context, r Request, target string) error {
	claimed, err := e.step(ctx, r.ID, func(*view) (func(*Request) ([]Event, error), error) {
		at := e.now()
		return func(r *Request) ([]Event, error) {
			p := r.provision(target)
			if p == nil || !p.open() || at.Before(p.Next) {
				return nil, errNothingDue
			}
			p.Lease = at.Add(giveLease)
			p.Next = p.Lease
			return nil, nil
		}, nil
	})
	if errors.Is(err, errNothingDue) {
		return nil
	}
	if err != nil {
		return err
	}
	try := *claimed.provision(target)
	err = e.give(ctx, claimed, target, try.State == provisionWanted)
	_, storeErr := e.step(context.WithoutCancel(ctx), r.ID, func(*view) (func(*Request) ([]Event, error), error) {
		at := e.now()
		return func(r *Request) ([]Event, error) { return r.provided(try, err, at), nil }, nil
	})
	return storeErr
}

func (r *Request) provision(target string) *Provision {
	i := slices.IndexFunc(r.Provisions, func(p Provision) bool { return p.Target == target })
	if i < 0 {
		return nil
	}
	return &r.Provisions[i]
}

// give gives or takes, once. The handle is stored before anything is given.
func (e *Engine) give(ctx context.Context, r Request, target string, wanted bool) error {
	giver := e.config.Giver
	if giver == nil {
		return errors.New("this server gives nothing in AWS any more")
	}
	i := slices.IndexFunc(r.Frozen.Targets, func(t flow.Target) bool { return t.Name == target })
	if i < 0 {
		return errors.New("the request has no such target")
	}
	tryCtx, cancel := context.WithTimeout(ctx, giveTimeout)
	defer cancel()
	t, handle := r.Frozen.Targets[i], r.provision(target).Handle
	if !wanted {
		return e.take(ctx, r, t, handle)
	}
	if handle == "" {
		// What another grant gave is shared with it, not what the person had before.
		_, other, err := e.alsoGiven(ctx, r, t)
		if handle = other; handle == "" && err == nil {
			handle, err = giver.Prepare(tryCtx, t, r.Frozen.Person)
		}
		if err == nil {
			err = e.keepHandle(ctx, r.ID, target, handle)
		}
		if err != nil {
			return err
		}
	}
	return giver.Give(tryCtx, t, handle)
}

// take takes a target back, unless another grant of the person gives it as well: then it
// is that one's to take.
func (e *Engine) take(ctx context.Context, r Request, t flow.Target, handle string) error {
	if handle == "" {
		return nil // nothing was given without one
	}
	other, _, err := e.alsoGiven(ctx, r, t)
	if err != nil {
		return err
	}
	if other != nil {
		return e.keepHandle(ctx, other.ID, sameTarget(*other, t), handle)
	}
	ctx, cancel := context.WithTimeout(ctx, giveTimeout)
	defer cancel()
	return e.config.Giver.Take(ctx, t, handle)
}

// alsoGiven finds another grant of the same person that gives the same outside: one that
// holds, if there is one, and the handle of any that has one.
func (e *Engine) alsoGiven(ctx context.Context, r Request, t flow.Target) (holds *Request, handle string, err error) {
	// One that holds has its end before it, one that takes back its next try.
	all, err := e.config.Store.Requests(ctx, Filter{Person: r.Frozen.Person.ID, Clocks: true})
	if err != nil {
		return nil, "", err
	}
	now := e.now()
	for _, other := range all {
		name := sameTarget(other, t)
		if other.ID == r.ID || name == "" {
			continue
		}
		p := other.provision(name)
		if p == nil || p.State == provisionTaken {
			continue
		}
		if p.Handle != "" {
			handle = p.Handle
		}
		if other.Holds(now) && p.State != provisionUnwanted {
			holds = &other
		}
	}
	return holds, handle, nil
}

// sameTarget is the name by which a request gives the same outside; empty if it does not.
func sameTarget(r Request, t flow.Target) string {
	for _, other := range r.Frozen.Targets {
		name := other.Name
		other.Name, other.Label = t.Name, t.Label
		if outside(other) && reflect.DeepEqual(other, t) {
			return name
		}
	}
	return ""
}

// keepHandle stores a handle, unless the target is not wanted any more.
func (e *Engine) keepHandle(ctx context.Context, id, target, handle string) error {
	_, err := e.step(ctx, id, func(*view) (func(*Request) ([]Event, error), error) {
		return func(r *Request) ([]Event, error) {
			p := r.provision(target)
			if p == nil || p.State != provisionWanted && p.State != provisionGiven {
				return nil, errors.New("the grant has ended meanwhile")
			}
			p.Handle = handle
			return nil, nil
		}, nil
	})
	return err
}

// takeBack makes a target one to be taken back, from a time on.
func (p *Provision) takeBack(at time.Time) {
	p.State, p.Next, p.Tries, p.Problem = provisionUnwanted, at, 0, ""
}

// provided notes what came of a try, as it was when it began. Where the grant has ended since,
// what was given, or may have been although there was a problem, is to be taken back at once:
// even if it was taken already, which was then too early.
func (r *Request) provided(try Provision, problem error, at time.Time) []Event {
	p := r.provision(try.Target)
	if p == nil {
		return nil
	}
	wanted := try.State == provisionWanted
	if wanted && (p.State == provisionUnwanted || p.State == provisionTaken) {
		p.Lease = time.Time{}
		p.takeBack(at)
		return nil
	}
	if !p.Lease.Equal(try.Lease) {
		return nil // a later try, or one that gave, has the last word
	}
	p.Lease = time.Time{}
	if problem != nil {
		return r.notProvided(p, problem, at)
	}
	p.Tries, p.Problem, p.Next = 0, "", time.Time{}
	p.State = provisionTaken
	if wanted {
		p.State = provisionGiven
	}
	return nil
}

// notProvided notes a try that failed.
func (r *Request) notProvided(p *Provision, problem error, at time.Time) []Event {
	p.Tries++
	p.Problem, p.Next = clip(problem.Error(), 500), at.Add(gap(p.Tries))
	if p.Tries%alarmTries != 0 {
		return nil
	}
	what := "cannot be given"
	if p.State == provisionUnwanted {
		what = "cannot be taken back"
	}
	return []Event{r.event(KindAlarm, at, "time", "", "target "+p.Target+" "+what+": "+p.Problem)}
}

// gap is the pause before the next try: longer each time, up to ten minutes.
func gap(tries int) time.Duration {
	return min(longestGap, time.Second<<min(tries, 20))
}
