package grant

import (
	"time"

	"sallyport.dev/flow"
)

// Defaults of clocks that a flow leaves out.
const (
	defaultPending  = 24 * time.Hour
	defaultDuration = time.Hour
	// warnBefore is how long before its end a grant that is longer is warned of.
	warnBefore = 5 * time.Minute
)

// extends is the name of the value that makes a request one for more time: the id of
// the request whose grant is to be longer.
const extends = "extends"

// Extends is the id of the request whose grant this one asks to make longer; empty for
// a request of its own.
func (r Request) Extends() string {
	if v := r.Frozen.Values[extends]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// Holds reports whether the request's grant holds at a time: its row says so, and the
// time is between its beginning and its end. Members' clocks may differ a little at the
// beginning; a clock that was turned back does not make a grant longer.
func (r Request) Holds(at time.Time) bool {
	return r.State == Active && at.Before(r.EndsAt) && !at.Before(r.ActivatedAt.Add(-beginTolerance)) && r.Extends() == ""
}

// waitsForUse reports whether a request was approved and may still begin.
func (r Request) waitsForUse(at time.Time) bool {
	return r.State == Approved && r.Extends() == "" && (r.ActivateBy.IsZero() || at.Before(r.ActivateBy))
}

const beginTolerance = time.Minute

// current is the stage that decides; the zero Stage where none does.
func (r Request) current() flow.Stage { return r.stage(r.Stage) }

func (r Request) stage(i int) flow.Stage {
	if i < 0 || i >= len(r.Frozen.Flow.Stages) {
		return flow.Stage{}
	}
	return r.Frozen.Flow.Stages[i]
}

// fallbackAt is when more people may decide; zero for never, or if they may already.
func (r Request) fallbackAt() time.Time {
	s := r.current()
	if s.Fallback == nil || r.Fallen {
		return time.Time{}
	}
	after := s.Fallback.After
	if after <= 0 {
		after = s.Within
	}
	return r.StageSince.Add(after)
}

// expiresAt is when the request is over if nobody decides. A fallback that takes over at
// the end of the stage has the flow's pending clock.
func (r Request) expiresAt() time.Time {
	s := r.current()
	if s.Within <= 0 {
		return r.PendingUntil
	}
	if f := s.Fallback; f != nil && (f.After <= 0 || f.After >= s.Within) {
		return r.PendingUntil
	}
	return earlier(r.PendingUntil, r.StageSince.Add(s.Within))
}

func (r Request) remindAt() time.Time {
	s := r.current()
	if s.Remind <= 0 {
		return time.Time{}
	}
	return later(r.StageSince, r.Reminded).Add(s.Remind)
}

func (r Request) warnAt() time.Time {
	if r.Warned || r.EndsAt.Sub(r.ActivatedAt) <= warnBefore {
		return time.Time{}
	}
	return r.EndsAt.Add(-warnBefore)
}

// Due is when the next of the request's clocks is up; zero for none.
func (r Request) Due() time.Time {
	var due time.Time
	for _, at := range r.clocks() {
		if !at.IsZero() {
			due = earlier(due, at)
		}
	}
	return due
}

func (r Request) clocks() []time.Time {
	var all []time.Time
	switch r.State {
	case Pending:
		all = append(all, r.expiresAt(), r.fallbackAt(), r.remindAt())
	case Approved:
		all = append(all, r.ActivateBy)
		if r.Extends() != "" {
			all = append(all, r.ApprovedAt)
		}
	case Active:
		all = append(all, r.EndsAt, r.warnAt())
	}
	if r.Review != nil && r.Review.At.IsZero() && !r.Overdue {
		all = append(all, r.Review.Due)
	}
	for _, p := range r.Provisions {
		if p.open() {
			all = append(all, p.Next)
		}
	}
	return all
}

// open reports whether something is to be given or taken.
func (p Provision) open() bool { return p.State == provisionWanted || p.State == provisionUnwanted }

// States of provisions.
const (
	provisionWanted   = "wanted"
	provisionGiven    = "given"
	provisionUnwanted = "unwanted"
	provisionTaken    = "taken"
)

// earlier is the earlier of two times; the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
