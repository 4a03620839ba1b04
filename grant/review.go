package grant

import (
	"context"
	"errors"

	"sallyport.dev/flow"
	"sallyport.dev/identity"
)

// Outcomes of a review.
const (
	Justified   = "justified"
	Unjustified = "unjustified"
)

// CloseReview closes the review of a break-glass grant. Who asked does not, under any of
// their identities. A grant that was not justified ends.
func (e *Engine) CloseReview(ctx context.Context, a Actor, id, outcome, comment string) (Request, error) {
	comment = tidy(comment)
	if err := CheckText("reason", comment, maxComment); err != nil {
		return Request{}, err
	}
	var who flow.Person
	details := map[string]string{"outcome": outcome, "comment": clip(comment, 256)}
	return e.simple(ctx, a, ActionReview, id, details, func(v *view) (err error) {
		who, err = v.mayReview(ctx, a)
		if err == nil && outcome != Justified && outcome != Unjustified {
			err = &flow.FieldError{Field: "outcome", Problem: "must be justified or unjustified"}
		}
		return err
	}, func(r *Request) []Event {
		return r.reviewed(Review{Due: r.Review.Due, By: who, At: e.now(), Outcome: outcome, Comment: comment}, a)
	})
}

func (v *view) mayReview(ctx context.Context, a Actor) (flow.Person, error) {
	b := v.r.Frozen.Flow.BreakGlass
	if v.r.Review == nil || !v.r.Review.At.IsZero() || b == nil {
		return flow.Person{}, ErrState
	}
	who, because, err := v.e.behind(ctx, a.Principal)
	if err != nil {
		return who, err
	}
	if because != "" {
		return who, &RefusedError{Because: because}
	}
	same, err := v.e.samePerson(ctx, v.r, who, a.Principal.SourceIdentity)
	if err != nil {
		return who, err
	}
	if same {
		return who, refuse("nobody reviews what they did themselves")
	}
	if has, problem := v.env(v.e.now()).among(ctx, b.Review, who); !has {
		if problem != "" {
			return who, refuse("whether %s reviews flow %s cannot be told: %s", who.Name, v.r.Frozen.Flow.Name, problem)
		}
		return who, refuse("%s is not among those who review flow %s", who.Name, v.r.Frozen.Flow.Name)
	}
	return who, nil
}

// Reviews reports whether the review of a request is open, and a person's to close.
func (e *Engine) Reviews(ctx context.Context, p identity.Principal, r Request) (bool, error) {
	if r.Review == nil || !r.Review.At.IsZero() {
		return false, nil
	}
	_, err := e.look(ctx, r).mayReview(ctx, Actor{Principal: p})
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		return false, nil
	}
	return err == nil, err
}

func (r *Request) reviewed(review Review, a Actor) []Event {
	r.Review = &review
	events := []Event{r.event(KindReviewed, review.At, a.Principal.ARN, a.Channel, review.Outcome+": "+review.Comment)}
	if review.Outcome == Unjustified && r.State == Active {
		events = append(events, r.end(Revoked, KindRevoked, review.At, a.Principal.ARN, a.Channel, "the review found it unjustified"))
	}
	return events
}
