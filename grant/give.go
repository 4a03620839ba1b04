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
			p.Next = at.Add(giveLease)
			return nil, nil
		}, nil
	})
	if errors.Is(err, errNothingDue) {
		return nil
	}
	if err != nil {
		return err
	}
	wanted := claimed.provision(target).State == provisionWanted
	err = e.give(ctx, claimed, target, wanted)
	_, storeErr := e.step(context.WithoutCancel(ctx), r.ID, func(*view) (func(*Request) ([]Event, error), error) {
		at := e.now()
		return func(r *Request) ([]Event, error) { return r.provided(target, wanted, err, at), nil }, nil
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
	all, err := e.config.Store.Requests(ctx, Filter{Person: r.Frozen.Person.ID})
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

// provided notes what came of a try. The grant may have ended meanwhile: then what was
// given is to be taken back at once.
func (r *Request) provided(target string, wanted bool, problem error, at time.Time) []Event {
	p := r.provision(target)
	if problem != nil {
		p.Tries++
		p.Problem, p.Next = clip(problem.Error(), 500), at.Add(gap(p.Tries))
		if p.Tries%alarmTries == 0 {
			what := "cannot be given"
			if p.State == provisionUnwanted {
				what = "cannot be taken back"
			}
			return []Event{r.event(KindAlarm, at, "time", "", "target "+target+" "+what+": "+p.Problem)}
		}
		return nil
	}
	p.Tries, p.Problem = 0, ""
	switch {
	case wanted && p.State == provisionWanted:
		p.State, p.Next = provisionGiven, time.Time{}
	case wanted: // it ended while it was being given
		p.Next = at
	default:
		p.State, p.Next = provisionTaken, time.Time{}
	}
	return nil
}

// gap is the pause before the next try: longer each time, up to ten minutes.
func gap(tries int) time.Duration {
	return min(longestGap, time.Second<<min(tries, 20))
}
