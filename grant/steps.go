package grant

import (
	"strings"
	"time"

	"sallyport.dev/flow"
)

// Steps of a request as rows see them: pure changes, which a store may run again.

// event tells of a step that r has taken.
func (r *Request) event(kind string, at time.Time, actor, channel, comment string) Event {
	return Event{
		Request: r.ID, Kind: kind, At: at, Actor: actor, Channel: channel,
		Stage: r.Stage, Comment: comment, Hash: r.Hash, State: r.State,
	}
}

// end brings the request to an end.
func (r *Request) end(state State, kind string, at time.Time, by, channel, because string) Event {
	because = strings.TrimPrefix(because, "because ") // as refusals begin
	r.State, r.EndedAt, r.EndedBy, r.Because = state, at, by, because
	for i := range r.Provisions {
		p := &r.Provisions[i]
		if p.State == provisionGiven || p.State == provisionWanted {
			// What is perhaps being given is taken back as well, once that has come to an end.
			p.takeBack(later(at, p.Lease))
		}
	}
	return r.event(kind, at, by, channel, because)
}

// approvals are the approvals that count in a stage.
func (r *Request) approvals(stage int) (n int) {
	for _, d := range r.Decisions {
		if d.Approve && d.Struck == "" && d.Rule == "" && d.Stage == stage {
			n++
		}
	}
	return n
}

// ruled reports whether a rule approved, for all stages.
func (r *Request) ruled() bool {
	for _, d := range r.Decisions {
		if d.Approve && d.Struck == "" && d.Rule != "" {
			return true
		}
	}
	return false
}

// advance goes to the first stage that lacks approvals. With none left it grants, for a first
// use within useBy.
func (r *Request) advance(at time.Time, actor, channel string, useBy time.Duration) []Event {
	for i := range max(1, len(r.Frozen.Flow.Stages)) {
		if r.ruled() || r.approvals(i) >= max(1, r.stage(i).Approvals) {
			continue
		}
		if i == r.Stage {
			return nil
		}
		r.enter(i, at)
		return []Event{r.event(KindStage, at, actor, channel, "")}
	}
	return r.grant(at, actor, channel, useBy)
}

// enter begins a stage.
func (r *Request) enter(stage int, at time.Time) {
	r.Stage, r.StageSince, r.Of, r.Fallen, r.Reminded = stage, at, nil, false, time.Time{}
}

// grant gives what was asked for: at once, or on its first use within useBy.
func (r *Request) grant(at time.Time, actor, channel string, useBy time.Duration) []Event {
	r.ApprovedAt = at
	r.State = Approved
	events := []Event{r.event(KindGranted, at, actor, channel, "")}
	if r.Extends() != "" {
		return events // what it makes longer is changed next, see applyExtension
	}
	if useBy > 0 {
		r.ActivateBy = at.Add(useBy)
		return events
	}
	return append(events, r.begin(at, actor, channel))
}

// begin begins the grant.
func (r *Request) begin(at time.Time, actor, channel string) Event {
	r.State, r.ActivatedAt, r.EndsAt = Active, at, at.Add(r.Frozen.Duration)
	for _, t := range r.Frozen.Targets {
		if outside(t) {
			r.Provisions = append(r.Provisions, Provision{Target: t.Name, State: provisionWanted, Next: at})
		}
	}
	if b := r.Frozen.Flow.BreakGlass; b != nil {
		within := b.ReviewWithin
		if within <= 0 {
			within = defaultReview
		}
		r.Review = &Review{Due: at.Add(within)}
	}
	return r.event(KindActivated, at, actor, channel, "")
}

// defaultReview is how long the review of a break-glass grant may take.
const defaultReview = 24 * time.Hour

// strike strikes approvals that do not count any more, by their index.
func (r *Request) strike(struck map[int]string, at time.Time) []Event {
	var events []Event
	for i := range r.Decisions {
		if because := strings.TrimPrefix(struck[i], "because "); because != "" {
			r.Decisions[i].Struck = because
			events = append(events, r.event(KindStruck, at, "policy", "", r.Decisions[i].By.Name+r.Decisions[i].Rule+": "+because))
		}
	}
	return events
}

// back makes an approved request wait again, for the approvals that it lacks.
func (r *Request) back(at time.Time) []Event {
	r.State, r.ApprovedAt, r.ActivateBy = Pending, time.Time{}, time.Time{}
	for i := range max(1, len(r.Frozen.Flow.Stages)) {
		if r.approvals(i) < max(1, r.stage(i).Approvals) {
			r.enter(i, at)
			break
		}
	}
	if len(r.Frozen.Flow.Stages) == 0 {
		return []Event{r.end(Denied, KindDenied, at, "policy", "", "what approved it does not any more, and nobody else decides")}
	}
	if !at.Before(r.PendingUntil) {
		return []Event{r.end(Expired, KindExpired, at, "time", "", "its approvals do not count any more, and its time to be decided is over")}
	}
	return []Event{r.event(KindStage, at, "policy", "", "it waits for approvals again")}
}

// forward lets others decide in this stage.
func (r *Request) forward(to *flow.People, at time.Time, actor string, channel, message string) Event {
	r.Of = to
	return r.event(KindDelegated, at, actor, channel, message)
}
