package grant

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	permit := e.permitOnce(a, ActionExtend, id, details)
	r, err := e.step(ctx, id, func(v *view) (func(*Request) ([]Event, error), error) {
		if asked.ID != "" && v.r.extension(asked.ID) >= 0 {
			return nil, errSettled // by another member's clock, which was faster
		}
		more, err := v.mayExtend(ctx, a, by)
		if err == nil {
			details["by"] = more.String()
			err = permit(ctx, v)
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
	if err != nil && !errors.Is(err, errSettled) {
		e.dropExtension(context.WithoutCancel(ctx), id, asked.ID)
		return r, e.refused(ctx, a, ActionExtend, e.RequestARN(id), details, err)
	}
	if asked.ID != "" {
		e.settleExtensions(ctx, asked)
		return e.config.Store.Request(ctx, id)
	}
	return r, nil
}

// mayExtend works out how much longer a grant may be.
func (v *view) mayExtend(ctx context.Context, a Actor, by time.Duration) (time.Duration, error) {
	if err := v.own(a); err != nil {
		return 0, err
	}
	if !v.r.Holds(v.e.now()) {
		return 0, stateError(v.r)
	}
	if err := v.r.mayHaveMore(); err != nil {
		return 0, err
	}
	c := v.r.Frozen.Flow.Clocks
	for _, x := range v.r.Extensions {
		if x.Request != "" && x.Until.IsZero() && v.undecided(ctx, x) {
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

// mayHaveMore refuses one extension more of a grant that has had all of them, or whose use was
// reviewed: nobody would see what more time is used for.
func (r *Request) mayHaveMore() error {
	if err := r.notReviewed(); err != nil {
		return err
	}
	if most := r.Frozen.Flow.Clocks.Extensions; len(r.Extensions) >= most {
		return refuse("flow %s allows %d extensions, which there have been", r.Frozen.Flow.Name, most)
	}
	return nil
}

func (r *Request) notReviewed() error {
	if r.Review != nil && !r.Review.At.IsZero() {
		return refuse("the use of grant %s was reviewed already: more time would have no review", r.ID)
	}
	return nil
}

// extension is the index of the extension that a request is about; -1 for none.
func (r *Request) extension(id string) int {
	return slices.IndexFunc(r.Extensions, func(x Extension) bool { return x.Request == id })
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
	if err := v.e.notTooMany(ctx, child.r); err != nil {
		return Request{}, err
	}
	events, err := child.judge(ctx, a)
	if err != nil {
		return Request{}, err
	}
	if err := v.e.config.Store.CreateRequest(ctx, child.r, events); err != nil {
		return Request{}, err
	}
	v.e.changed(ctx, child.r, events)
	return child.r, nil
}

// endExtensions ends the requests for more time that still wait for a decision when their
// grant is over: nobody is to decide on what nobody can have.
func (e *Engine) endExtensions(ctx context.Context, r Request) {
	if !r.State.Over() {
		return
	}
	for _, x := range r.Extensions {
		if x.Request != "" && x.Until.IsZero() {
			e.endExtension(ctx, r.ID, x.Request, "the grant "+r.ID+" had ended")
		}
	}
}

// dropExtension ends a request for more time that its grant came to know nothing of: something
// else came first. Where that fails it can still be decided on, as far as the grant allows more.
func (e *Engine) dropExtension(ctx context.Context, id, extension string) {
	if extension == "" {
		return
	}
	if r, err := e.config.Store.Request(ctx, id); err == nil && r.extension(extension) < 0 {
		e.endExtension(ctx, id, extension, "the grant "+id+" has changed meanwhile")
	}
}

// endExtension ends a request for more time. Where that fails its own clock ends it, at the
// end that the grant would have had.
func (e *Engine) endExtension(ctx context.Context, id, extension, because string) {
	_, err := e.step(ctx, extension, func(v *view) (func(*Request) ([]Event, error), error) {
		if v.r.State.Over() {
			return nil, stateError(v.r)
		}
		return func(r *Request) ([]Event, error) {
			return []Event{r.end(Expired, KindExpired, e.now(), "time", "", because)}, nil
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
	problem, refused := "", (*RefusedError)(nil)
	switch {
	case errors.Is(err, ErrState):
		problem = "the grant had ended"
	case errors.As(err, &refused):
		problem = refused.Because
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
	i := r.extension(child.ID)
	if i >= 0 && !r.Extensions[i].Until.IsZero() {
		return nil, errSettled
	}
	if !r.Holds(at) || child.Frozen.Person.ID != r.Frozen.Person.ID {
		return nil, stateError(*r)
	}
	if err := r.notReviewed(); err != nil {
		return nil, err
	}
	if i < 0 {
		if err := r.mayHaveMore(); err != nil {
			return nil, err
		}
		// The request was stored, and the server stopped before this was.
		r.Extensions = append(r.Extensions, Extension{By: child.Frozen.Duration, Reason: child.Frozen.Reason, Asked: child.Frozen.Created, Request: child.ID})
		i = len(r.Extensions) - 1
	}
	r.extend(child.Frozen.Duration)
	r.Extensions[i].Until = r.EndsAt
	return []Event{r.event(KindExtended, at, child.EndedBy, "", child.Frozen.Reason)}, nil
}
