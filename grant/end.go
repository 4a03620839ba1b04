package grant

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sallyport.dev/flow"
)

// simple takes a step that needs no more than a look: judge says why it may not be
// taken, change takes it.
func (e *Engine) simple(ctx context.Context, a Actor, action, id string, details map[string]string, judge func(*view) error, change func(*Request) []Event) (Request, error) {
	if details == nil {
		details = map[string]string{}
	}
	details["request"], details["channel"] = id, a.Channel
	permit := e.permitOnce(a, action, id, details)
	r, err := e.step(ctx, id, func(v *view) (func(*Request) ([]Event, error), error) {
		err := judge(v)
		if err == nil {
			err = permit(ctx, v)
		}
		return func(r *Request) ([]Event, error) { return change(r), nil }, err
	})
	return r, e.refused(ctx, a, action, e.RequestARN(id), details, err)
}

// own refuses all but who asked.
func (v *view) own(a Actor) error {
	if a.Principal.IsNode() || a.Principal.RootID() != v.r.Frozen.Person.ID {
		return refuse("the request is %s's", v.r.Frozen.Person.Name)
	}
	return nil
}

// Cancel ends a request that waits, by who asked; Release gives back what was granted.
func (e *Engine) Cancel(ctx context.Context, a Actor, id string) (Request, error) {
	return e.simple(ctx, a, ActionCancel, id, nil, func(v *view) error {
		if err := v.own(a); err != nil {
			return err
		}
		if v.r.State != Pending && v.r.State != Approved {
			return stateError(v.r)
		}
		return nil
	}, func(r *Request) []Event {
		return []Event{r.end(Cancelled, KindCancelled, e.now(), a.Principal.ARN, a.Channel, "")}
	})
}

// Release gives back what was granted.
func (e *Engine) Release(ctx context.Context, a Actor, id string) (Request, error) {
	return e.simple(ctx, a, ActionRelease, id, nil, func(v *view) error {
		if err := v.own(a); err != nil {
			return err
		}
		if v.r.State != Approved && v.r.State != Active {
			return stateError(v.r)
		}
		return nil
	}, func(r *Request) []Event {
		return []Event{r.end(Released, KindReleased, e.now(), a.Principal.ARN, a.Channel, "")}
	})
}

// Revoke takes back what was granted, or what waits. allowed tells that policy lets the
// actor; without it those may who decide in one of its stages.
func (e *Engine) Revoke(ctx context.Context, a Actor, id, because string, allowed bool) (Request, error) {
	because = tidy(because)
	if err := CheckText("reason", because, maxReason); err != nil {
		return Request{}, err
	}
	details := map[string]string{"reason": clip(because, 256)}
	return e.simple(ctx, a, ActionRevoke, id, details, func(v *view) error {
		if v.r.State.Over() {
			return stateError(v.r)
		}
		if err := v.mayRevoke(ctx, a, allowed); err != nil {
			return err
		}
		t, _ := v.hook(ctx, flow.HookRevoke, flow.Person{ID: a.Principal.RootID(), Name: a.Principal.Name}, a.Channel, because)
		if t.Kind == flow.Ignore {
			return refuse("flow %s refuses: %s", v.r.Frozen.Flow.Name, orElse(t.Message, "its code says no"))
		}
		return nil
	}, func(r *Request) []Event {
		return []Event{r.end(Revoked, KindRevoked, e.now(), a.Principal.ARN, a.Channel, because)}
	})
}

// mayRevoke lets those revoke who decide in one of the request's stages, or review it.
func (v *view) mayRevoke(ctx context.Context, a Actor, allowed bool) error {
	if allowed {
		return nil
	}
	who, because, err := v.e.behind(ctx, a.Principal)
	if err != nil {
		return err
	}
	if because != "" {
		return &RefusedError{Because: because}
	}
	at := v.e.now()
	for stage := range v.r.Frozen.Flow.Stages {
		if v.deciders(ctx, stage, at).has(ctx, v, who, at) {
			return nil
		}
	}
	if b := v.r.Frozen.Flow.BreakGlass; b != nil {
		if has, _ := v.env(at).among(ctx, b.Review, who); has {
			return nil
		}
	}
	return refuse("%s decides in no stage of flow %s, and no policy lets them revoke", who.Name, v.r.Frozen.Flow.Name)
}

// Activate begins the grant of an approved request.
func (e *Engine) Activate(ctx context.Context, a Actor, id string) (Request, error) {
	details := map[string]string{"request": id, "channel": a.Channel}
	permit := e.permitOnce(a, ActionActivate, id, details)
	r, err := e.step(ctx, id, func(v *view) (func(*Request) ([]Event, error), error) {
		if err := v.own(a); err != nil {
			return nil, err
		}
		change, err := v.activation(ctx, a)
		if err == nil {
			err = permit(ctx, v)
		}
		return change, err
	})
	if err == nil && r.State != Active {
		err = fmt.Errorf("%w: %s", ErrState, orElse(r.Because, "its approvals do not count any more, it waits again"))
	}
	return r, e.refused(ctx, a, ActionActivate, e.RequestARN(id), details, err)
}

// useBy is how long what is approved waits for its first use; 0 begins it with the approval.
// Where code has a say before, it waits for that: see beginAtOnce.
func (v *view) useBy() time.Duration {
	f := &v.r.Frozen.Flow
	switch {
	case f.Clocks.ActivateBy > 0 && f.BreakGlass == nil:
		return f.Clocks.ActivateBy
	case v.code != nil && v.code.Defines("on_"+flow.HookActivate):
		return pendingClock(f.Clocks)
	}
	return 0
}

// beginAtOnce begins a grant that only waits for its flow's code. Where that is against it,
// or fails, it waits for its first use, before which code is asked again.
func (e *Engine) beginAtOnce(ctx context.Context, a Actor, r Request) Request {
	f := &r.Frozen.Flow
	if r.State != Approved || r.Extends() != "" || f.Clocks.ActivateBy > 0 && f.BreakGlass == nil {
		return r
	}
	begun, err := e.step(ctx, r.ID, func(v *view) (func(*Request) ([]Event, error), error) {
		return v.activation(ctx, a)
	})
	if err == nil {
		return begun
	}
	e.config.Logger.Warn("a grant was not begun", "request", r.ID, "error", err)
	if now, readErr := e.config.Store.Request(ctx, r.ID); readErr == nil {
		r = now
	}
	return r
}

// activation judges a request once more before its grant begins: who asked must still be
// there and may still ask, and those who approved must still be among those who decide.
func (v *view) activation(ctx context.Context, a Actor) (func(*Request) ([]Event, error), error) {
	at := v.e.now()
	if v.r.State != Approved || v.r.Extends() != "" {
		return nil, stateError(v.r)
	}
	if !v.r.ActivateBy.IsZero() && !at.Before(v.r.ActivateBy) {
		return nil, fmt.Errorf("%w: it was to be used until %s", ErrState, v.r.ActivateBy.Format("2006-01-02 15:04:05 MST"))
	}
	because, err := v.mayStillAsk(ctx)
	if err != nil {
		return nil, err
	}
	struck, err := v.strike(ctx)
	if err != nil {
		return nil, err
	}
	forbidden, err := v.rulesNow(ctx, struck)
	if err != nil {
		return nil, err
	}
	t, failed := v.hook(ctx, flow.HookActivate, v.r.Frozen.Person, a.Channel, "")
	if failed {
		return nil, fmt.Errorf("request %s cannot begin: %s", v.r.ID, strings.Join(v.warnings, "; "))
	}
	switch t.Kind {
	case flow.Ignore:
		return nil, refuse("flow %s refuses: %s", v.r.Frozen.Flow.Name, orElse(t.Message, "its code says no"))
	case flow.Deny:
		because = orElse(because, orElse(t.Message, "the flow's code denied it"))
	}
	return func(r *Request) ([]Event, error) {
		switch {
		case because != "":
			return []Event{r.end(Denied, KindDenied, at, "policy", "", because)}, nil
		case forbidden != "":
			return []Event{r.end(Denied, KindDenied, at, "rule "+forbidden, "", "prohibited by "+forbidden)}, nil
		}
		if events := r.strike(struck, at); len(events) > 0 && !r.complete() {
			return append(events, r.back(at)...), nil
		} else {
			return append(events, r.begin(at, a.Principal.ARN, a.Channel)), nil
		}
	}, nil
}

// complete reports whether all stages have what they need.
func (r *Request) complete() bool {
	if r.ruled() {
		return true
	}
	for i := range max(1, len(r.Frozen.Flow.Stages)) {
		if r.approvals(i) < max(1, r.stage(i).Approvals) {
			return false
		}
	}
	return true
}

// rulesNow asks the rules again. What a rule approved must still be approved by one;
// struck gets what is not.
func (v *view) rulesNow(ctx context.Context, struck map[int]string) (forbidden string, err error) {
	verdict, judged := v.rulesAgain(ctx)
	if verdict.Forbid != "" {
		return verdict.Forbid, nil
	}
	if !judged {
		return "", errors.New("the rules cannot be asked, so the grant cannot begin")
	}
	for i, d := range v.r.Decisions {
		if d.Approve && d.Struck == "" && d.Rule != "" && d.Rule != "code" && d.Rule != "break-glass" && verdict.Permit == "" {
			struck[i] = "because no rule permits it any more"
		}
	}
	return "", nil
}

// EndPerson revokes everything of a user who was disabled or deleted.
func (e *Engine) EndPerson(ctx context.Context, person, because string) error {
	open, err := e.config.Store.Requests(ctx, Filter{Person: person, States: []State{Pending, Approved, Active}})
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range open {
		if !r.Intact() { // which keeps it from steps, but not from its end
			errs = append(errs, e.discard(ctx, r))
			continue
		}
		_, err := e.step(ctx, r.ID, func(v *view) (func(*Request) ([]Event, error), error) {
			if v.r.State.Over() {
				return nil, stateError(v.r)
			}
			return func(r *Request) ([]Event, error) {
				return []Event{r.end(Revoked, KindRevoked, e.now(), "policy", "", because)}, nil
			}, nil
		})
		if !errors.Is(err, ErrState) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
