package grant

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"sallyport.dev/flow"
)

// Extend asks for more time; by is 0 for the flow's own measure. Where the flow asks
// nobody the grant is longer at once; otherwise a request of its own is made, on which
// the same stages decide.
func (e *Engine) Extend(ctx context.Context, a Actor, id string, by time.Duration, reason string) (Request, error) {
	reason = tidy(reason)
	if err := CheckText("reason", reason, maxReason); err != nil {
		return Request{}, err
	}
	details := map[string]string{"request": id, "channel": a.Channel, "reason": clip(reason, 256)}
	var asked Request
	permitted := false
	r, err := e.step(ctx, id, func(v *view) (func(*Request) ([]Event, error), error) {
		more, err := v.mayExtend(ctx, a, by, asked.ID)
		if err == nil && !permitted {
			details["by"] = more.String()
			err = e.permit(ctx, a, ActionExtend, e.RequestARN(id), v.details(details))
			permitted = err == nil
		}
		if err != nil {
			return nil, err
		}
		if v.r.Frozen.Flow.Clocks.ExtendWithout {
			return v.lengthen(a, more, reason), nil
		}
		if asked.ID == "" { // or an earlier try has made it
			if asked, err = v.askForMore(ctx, a, more, reason); err != nil {
				return nil, err
			}
		}
		return func(r *Request) ([]Event, error) {
			r.Extensions = append(r.Extensions, Extension{By: more, Reason: reason, Asked: asked.Frozen.Created, Request: asked.ID})
			return []Event{r.event(KindExtension, asked.Frozen.Created, a.Principal.ARN, a.Channel, reason)}, nil
		}, nil
	})
	if err != nil {
		if asked.ID != "" && errors.Is(err, ErrState) {
			e.endExtension(ctx, id, asked.ID) // it ended meanwhile, and does not know of the request
		}
		return r, e.refused(ctx, a, ActionExtend, e.RequestARN(id), details, err)
	}
	if asked.ID != "" {
		e.settleExtensions(ctx, asked)
		return e.config.Store.Request(ctx, id)
	}
	return r, nil
}

// mayExtend works out how much longer a grant may be.
func (v *view) mayExtend(ctx context.Context, a Actor, by time.Duration, own string) (time.Duration, error) {
	if err := v.own(a); err != nil {
		return 0, err
	}
	if !v.r.Holds(v.e.now()) {
		return 0, stateError(v.r)
	}
	if v.r.Review != nil && !v.r.Review.At.IsZero() {
		return 0, refuse("the use of grant %s was reviewed already: more time would have no review", v.r.ID)
	}
	c := v.r.Frozen.Flow.Clocks
	if len(v.r.Extensions) >= c.Extensions {
		return 0, refuse("flow %s allows %d extensions, which there have been", v.r.Frozen.Flow.Name, c.Extensions)
	}
	for _, x := range v.r.Extensions {
		if x.Request != "" && x.Request != own && x.Until.IsZero() && v.undecided(ctx, x) {
			return 0, refuse("an extension was asked for already (%s)", x.Request)
		}
	}
	measure := c.Extension
	if measure <= 0 {
		measure = v.r.Frozen.Duration
	}
	if by < 0 || by > measure {
		return 0, &flow.FieldError{Field: flow.FieldTime, Problem: fmt.Sprintf("%s: one extension of flow %s is %s at most", by, v.r.Frozen.Flow.Name, measure)}
	}
	if by == 0 {
		by = measure
	}
	if c.Longest > 0 {
		by = min(by, c.Longest-v.r.EndsAt.Sub(v.r.ActivatedAt))
	}
	if by <= 0 {
		return 0, refuse("a grant of flow %s is %s at most, with its extensions", v.r.Frozen.Flow.Name, c.Longest)
	}
	return by, nil
}

// undecided reports whether an extension's request still waits.
func (v *view) undecided(ctx context.Context, x Extension) bool {
	r, err := v.e.config.Store.Request(ctx, x.Request)
	return err == nil && !r.State.Over()
}

// lengthen makes the grant longer without asking anybody.
func (v *view) lengthen(a Actor, by time.Duration, reason string) func(*Request) ([]Event, error) {
	at := v.e.now()
	return func(r *Request) ([]Event, error) {
		if !r.Holds(at) {
			return nil, stateError(*r)
		}
		r.extend(by)
		r.Extensions = append(r.Extensions, Extension{By: by, Reason: reason, Asked: at, Until: r.EndsAt})
		return []Event{r.event(KindExtended, at, a.Principal.ARN, a.Channel, reason)}, nil
	}
}

// extend makes the grant longer, as far as its flow allows.
func (r *Request) extend(by time.Duration) {
	r.EndsAt = r.EndsAt.Add(by)
	if longest := r.Frozen.Flow.Clocks.Longest; longest > 0 {
		r.EndsAt = earlier(r.EndsAt, r.ActivatedAt.Add(longest))
	}
	r.Warned = false
}

// askForMore makes the request for an extension: the same flow as it was, the same
// targets, by who asked first.
func (v *view) askForMore(ctx context.Context, a Actor, by time.Duration, reason string) (Request, error) {
	f := v.r.Frozen
	if reason == "" {
		reason = f.Reason
	}
	frozen := Frozen{
		ID: newID(), Flow: f.Flow, SetDigest: f.SetDigest, Person: f.Person, Principal: a.Principal.ARN,
		SourceIdentity: a.Principal.SourceIdentity, Values: maps.Clone(f.Values), Reason: reason, Duration: by,
		Targets: f.Targets, Nodes: f.Nodes, Channel: a.Channel, SourceIP: a.SourceIP, Created: v.e.now(),
	}
	if frozen.Values == nil {
		frozen.Values = flow.Values{}
	}
	frozen.Values[extends] = []string{v.r.ID}
	child := &view{e: v.e, set: v.set, code: v.code}
	if _, _, err := child.freeze(frozen); err != nil {
		return Request{}, err
	}
	// Nobody waits for more time longer than there is some left.
	child.r.PendingUntil = earlier(child.r.PendingUntil, v.r.EndsAt)
	events, err := child.judge(ctx, a)
	if err != nil {
		return Request{}, err
	}
	if err := v.e.config.Store.CreateRequest(ctx, child.r, events); err != nil {
		return Request{}, err
	}
	return child.r, v.e.changed(ctx, child.r, events)
}

// endExtensions ends the requests for more time that still wait for a decision when their
// grant is over: nobody is to decide on what nobody can have.
func (e *Engine) endExtensions(ctx context.Context, r Request) {
	if !r.State.Over() {
		return
	}
	for _, x := range r.Extensions {
		if x.Request != "" && x.Until.IsZero() {
			e.endExtension(ctx, r.ID, x.Request)
		}
	}
}

// endExtension ends a request for more time for a grant that is over. Where that fails its
// own clock ends it, at the end that the grant would have had.
func (e *Engine) endExtension(ctx context.Context, id, extension string) {
	_, err := e.step(ctx, extension, func(v *view) (func(*Request) ([]Event, error), error) {
		if v.r.State != Pending {
			return nil, stateError(v.r)
		}
		return func(r *Request) ([]Event, error) {
			return []Event{r.end(Expired, KindExpired, e.now(), "time", "", "the grant "+id+" had ended")}, nil
		}, nil
	})
	if err != nil && !errors.Is(err, ErrState) && ctx.Err() == nil {
		e.config.Logger.Error("ending a request for more time", "request", id, "extension", extension, "error", err)
	}
}

// settleExtensions gives the time that an approved extension is about. It does so once,
// however often and wherever it is tried.
func (e *Engine) settleExtensions(ctx context.Context, child Request) {
	if child.State != Approved || child.Extends() == "" {
		return
	}
	if err := e.settleExtension(ctx, child); err != nil && ctx.Err() == nil {
		e.config.Logger.Error("making a grant longer", "request", child.Extends(), "extension", child.ID, "error", err)
	}
}

var errSettled = errors.New("the extension was given already")

func (e *Engine) settleExtension(ctx context.Context, child Request) error {
	at := e.now()
	parent, err := e.step(ctx, child.Extends(), func(*view) (func(*Request) ([]Event, error), error) {
		return func(r *Request) ([]Event, error) { return r.extended(child, at) }, nil
	})
	problem := ""
	switch {
	case errors.Is(err, ErrState):
		problem = "the grant had ended"
	case errors.Is(err, errSettled):
	case err != nil:
		return err
	}
	_, err = e.step(ctx, child.ID, func(v *view) (func(*Request) ([]Event, error), error) {
		if v.r.State != Approved {
			return nil, errSettled
		}
		return func(r *Request) ([]Event, error) {
			if problem != "" {
				return []Event{r.end(Lapsed, KindLapsed, at, "time", "", problem)}, nil
			}
			return []Event{r.end(Ended, KindEnded, at, "extension", "", fmt.Sprintf("grant %s holds until %s", parent.ID, parent.EndsAt.Format(time.RFC3339)))}, nil
		}, nil
	})
	if errors.Is(err, errSettled) {
		return nil
	}
	return err
}

// extended gives an approved extension's time to the grant.
func (r *Request) extended(child Request, at time.Time) ([]Event, error) {
	i := -1
	for j, x := range r.Extensions {
		if x.Request == child.ID {
			i = j
		}
	}
	if i >= 0 && !r.Extensions[i].Until.IsZero() {
		return nil, errSettled
	}
	if !r.Holds(at) || child.Frozen.Person.ID != r.Frozen.Person.ID {
		return nil, stateError(*r)
	}
	if i < 0 {
		// The request was stored, and the server stopped before this was.
		r.Extensions = append(r.Extensions, Extension{By: child.Frozen.Duration, Reason: child.Frozen.Reason, Asked: child.Frozen.Created, Request: child.ID})
		i = len(r.Extensions) - 1
	}
	r.extend(child.Frozen.Duration)
	r.Extensions[i].Until = r.EndsAt
	return []Event{r.event(KindExtended, at, child.EndedBy, "", child.Frozen.Reason)}, nil
}
