package grant

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"

	"sallyport.dev/flow"
)

// errStale tells that a request has changed since it was judged.
var errStale = errors.New("the request has changed meanwhile")

// maxTries bounds how often a step is judged anew because others came first. Each time
// one of them has got on, so that a request's decisions run out long before.
const maxTries = 64

// step judges a request and changes its row, unless the row has changed meanwhile: then
// it is judged again. judge may take its time and ask others; what it returns must only
// compute.
func (e *Engine) step(ctx context.Context, id string, judge func(*view) (func(*Request) ([]Event, error), error)) (Request, error) {
	for range maxTries {
		r, err := e.config.Store.Request(ctx, id)
		if err != nil {
			return r, err
		}
		if !r.Intact() {
			return r, fmt.Errorf("request %s: %w: its row was changed", id, ErrHash)
		}
		v := e.look(ctx, r)
		change, err := judge(v)
		if err != nil {
			return r, err
		}
		var events []Event
		done, err := e.config.Store.UpdateRequest(ctx, id, func(now *Request) (_ []Event, err error) {
			if now.Revision != r.Revision {
				return nil, errStale
			}
			events, err = change(now)
			now.Warnings = appendWarnings(now.Warnings, v.warnings)
			return events, err
		})
		if errors.Is(err, errStale) {
			continue
		}
		if err != nil {
			return r, err
		}
		e.changed(ctx, done, events)
		return done, nil
	}
	return Request{}, fmt.Errorf("request %s: %w", id, errStale)
}

// Decide takes one person's decision. hash is that of the request which they saw.
func (e *Engine) Decide(ctx context.Context, a Actor, id, hash string, approve bool, comment string) (Request, error) {
	action := ActionDeny
	if approve {
		action = ActionApprove
	}
	details := map[string]string{"request": id, "hash": hash, "comment": clip(comment, 256), "channel": a.Channel}
	comment = tidy(comment)
	if err := CheckText("comment", comment, maxComment); err != nil {
		return Request{}, err
	}
	permit := e.permitOnce(a, action, id, details)
	r, err := e.step(ctx, id, func(v *view) (func(*Request) ([]Event, error), error) {
		change, err := v.decision(ctx, a, hash, approve, comment)
		if err == nil {
			err = permit(ctx, v)
		}
		return change, err
	})
	if err == nil && r.State == Approved && r.Extends() != "" {
		e.settleExtensions(ctx, r)
		return e.config.Store.Request(ctx, id)
	}
	if err == nil {
		return e.beginAtOnce(ctx, a, r), nil
	}
	return r, e.refused(ctx, a, action, e.RequestARN(id), details, err)
}

// details add what a request is to those of a decision.
func (v *view) details(details map[string]string) map[string]string {
	details["flow"], details["person"], details["stage"] = v.r.Frozen.Flow.Name, v.r.Frozen.Person.Name, fmt.Sprint(v.r.Stage+1)
	details["state"] = string(v.r.State)
	return details
}

// decision judges one person's word and returns what it does.
func (v *view) decision(ctx context.Context, a Actor, hash string, approve bool, comment string) (func(*Request) ([]Event, error), error) {
	if subtle.ConstantTimeCompare([]byte(hash), []byte(v.r.Hash)) != 1 {
		return nil, ErrHash
	}
	if v.r.State != Pending {
		return nil, stateError(v.r)
	}
	right, because, err := v.mayDecide(ctx, a.Principal)
	if err != nil {
		return nil, err
	}
	if because != "" {
		return nil, &RefusedError{Because: because}
	}
	if err := v.checkWord(a, approve, comment); err != nil {
		return nil, err
	}
	d := Decision{
		Stage: v.r.Stage, Approve: approve, By: right.who, Principal: a.Principal.ARN, Hash: hash, Comment: comment,
		Channel: a.Channel, SourceIP: a.SourceIP, At: v.e.now(), Of: right.of, For: right.deputy,
	}
	if a.Principal.MFA {
		d.Factor = orElse(a.Principal.Factor, "mfa")
	}
	return v.word(ctx, a, d)
}

// checkWord refuses words by a channel that the flow does not take, and those that lack
// a comment.
func (v *view) checkWord(a Actor, approve bool, comment string) error {
	if f := &v.r.Frozen.Flow; !allowedChannel(f, a.Channel) {
		return refuse("flow %s takes decisions by %s only", f.Name, strings.Join(f.Channels, ", "))
	}
	rule := v.r.current().Comment
	if comment == "" && (rule == flow.CommentAlways || rule == flow.CommentOnDeny && !approve) {
		return &flow.FieldError{Field: "comment", Problem: "is required in " + v.stageName()}
	}
	return nil
}

// word runs the flow's hooks on a decision, and returns what it does to the request.
func (v *view) word(ctx context.Context, a Actor, d Decision) (func(*Request) ([]Event, error), error) {
	hook := flow.HookDeny
	if d.Approve {
		hook = flow.HookApprove
	}
	t, failed := v.hook(ctx, hook, d.By, d.Channel, d.Comment)
	switch t.Kind {
	case flow.Ignore:
		return nil, refuse("flow %s refuses: %s", v.r.Frozen.Flow.Name, orElse(t.Message, "its code says no"))
	case flow.Forward:
		return func(r *Request) ([]Event, error) {
			return []Event{r.forward(t.To, d.At, d.Principal, d.Channel, t.Message)}, nil
		}, nil
	case flow.Deny:
		return func(r *Request) ([]Event, error) {
			r.Decisions = append(r.Decisions, d)
			return []Event{r.end(Denied, KindDenied, d.At, "code", d.Channel, orElse(t.Message, "the flow's code denied it"))}, nil
		}, nil
	}
	if !d.Approve {
		return func(r *Request) ([]Event, error) {
			r.Decisions = append(r.Decisions, d)
			return []Event{r.end(Denied, KindDenied, d.At, d.Principal, d.Channel, orElse(d.Comment, "denied by "+d.By.Name))}, nil
		}, nil
	}
	if t.Kind == flow.Approve && !failed {
		return v.approval(ctx, a, d, "code")
	}
	return v.approval(ctx, a, d, "")
}

// approval is what an approval does: perhaps it is the last one, before which the others
// are judged once more.
func (v *view) approval(ctx context.Context, a Actor, d Decision, rule string) (func(*Request) ([]Event, error), error) {
	struck, err := v.strike(ctx)
	if err != nil {
		return nil, err
	}
	because, err := v.mayStillAsk(ctx)
	if err != nil {
		return nil, err
	}
	verdict, judged := v.rulesAgain(ctx)
	useBy := v.useBy()
	forbidden := verdict.Forbid // what cannot be asked prohibits nothing, as people decide
	if !judged {
		rule = "" // and lets code approve nothing
	}
	return func(r *Request) ([]Event, error) {
		if because != "" {
			return []Event{r.end(Denied, KindDenied, d.At, "policy", "", because)}, nil
		}
		if forbidden != "" {
			return []Event{r.end(Denied, KindDenied, d.At, "rule "+forbidden, "", "prohibited by "+forbidden)}, nil
		}
		events := r.strike(struck, d.At)
		r.Decisions = append(r.Decisions, d)
		events = append(events, r.event(KindApproved, d.At, d.Principal, d.Channel, d.Comment))
		if rule != "" {
			r.Decisions = append(r.Decisions, Decision{Stage: r.Stage, Approve: true, Rule: rule, Hash: r.Hash, At: d.At})
		}
		return append(events, r.advance(d.At, d.Principal, d.Channel, useBy)...), nil
	}, nil
}

func stateError(r Request) error {
	what := strings.ToLower(string(r.State))
	if r.EndedBy != "" {
		what += " by " + r.EndedBy
	}
	return fmt.Errorf("%w: it is %s", ErrState, what)
}

// maxDelegates bounds who are named in others' places in one request.
const maxDelegates = 20

// Delegate lets another decide in the actor's place.
func (e *Engine) Delegate(ctx context.Context, a Actor, id, to string) (Request, error) {
	details := map[string]string{"request": id, "to": clip(to, 128), "channel": a.Channel}
	permit := e.permitOnce(a, ActionDelegate, id, details)
	r, err := e.step(ctx, id, func(v *view) (func(*Request) ([]Event, error), error) {
		d, err := v.delegate(ctx, a, to)
		if err == nil {
			err = permit(ctx, v)
		}
		return func(r *Request) ([]Event, error) {
			r.Delegates = append(r.Delegates, d)
			return []Event{r.event(KindDelegated, d.At, a.Principal.ARN, a.Channel, d.From+" named "+d.To)}, nil
		}, err
	})
	return r, e.refused(ctx, a, ActionDelegate, e.RequestARN(id), details, err)
}

func (v *view) delegate(ctx context.Context, a Actor, to string) (d Delegate, err error) {
	if v.r.State != Pending {
		return d, stateError(v.r)
	}
	right, because, err := v.mayDecide(ctx, a.Principal)
	if err != nil {
		return d, err
	}
	at := v.e.now()
	deputy, personErr := v.env(at).Person(ctx, to)
	switch {
	case because != "":
		return d, &RefusedError{Because: because}
	case !v.r.current().Delegate:
		return d, refuse("nobody may be named in another's place in %s", v.stageName())
	case right.deputy != "":
		return d, refuse("%s was named by %s, and cannot name somebody else", right.who.Name, right.deputy)
	case len(v.r.Delegates) >= maxDelegates:
		return d, refuse("%d people were named already", maxDelegates)
	case personErr != nil:
		return d, &flow.FieldError{Field: "to", Problem: personErr.Error()}
	}
	same, err := v.e.samePerson(ctx, v.r, deputy, "")
	if err == nil && same {
		err = refuse("%s is who asked", deputy.Name)
	}
	return Delegate{Stage: v.r.Stage, From: right.who.Name, To: deputy.Name, At: at}, err
}
