package grant

import (
	"context"
	"errors"
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
	handle, err := e.give(ctx, claimed, target, wanted)
	_, storeErr := e.step(context.WithoutCancel(ctx), r.ID, func(*view) (func(*Request) ([]Event, error), error) {
		at := e.now()
		return func(r *Request) ([]Event, error) { return r.provided(target, wanted, handle, err, at), nil }, nil
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

// give gives or takes, once.
func (e *Engine) give(ctx context.Context, r Request, target string, wanted bool) (handle string, err error) {
	if e.config.Giver == nil {
		return "", errors.New("this server gives nothing in AWS any more")
	}
	i := slices.IndexFunc(r.Frozen.Targets, func(t flow.Target) bool { return t.Name == target })
	if i < 0 {
		return "", errors.New("the request has no such target")
	}
	ctx, cancel := context.WithTimeout(ctx, giveTimeout)
	defer cancel()
	t, p := r.Frozen.Targets[i], r.provision(target)
	if wanted {
		return e.config.Giver.Give(ctx, t, r.Frozen.Person)
	}
	return p.Handle, e.config.Giver.Take(ctx, t, r.Frozen.Person, p.Handle)
}

// provided notes what came of a try. The grant may have ended meanwhile: then what was
// given is to be taken back at once.
func (r *Request) provided(target string, wanted bool, handle string, problem error, at time.Time) []Event {
	p := r.provision(target)
	if handle != "" {
		p.Handle = handle
	}
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
