package command

import (
	"cmp"
	"slices"
	"time"
)

// timing are the clocks of a schedule.
type timing struct {
	ack        time.Duration // a node that was told holds its place so long without an answer
	retry      time.Duration // until the second attempt; each takes twice as long as the one before
	retryMax   time.Duration
	cancelWait time.Duration // a node that never answered is given so long to say that it stopped
	grace      time.Duration // beyond the execution timeout, for the result to arrive
}

func defaultTiming() timing {
	return timing{ack: 10 * time.Second, retry: 3 * time.Second, retryMax: 30 * time.Second,
		cancelWait: 20 * time.Second, grace: time.Minute}
}

// backoff is how long to wait after so many attempts.
func (t timing) backoff(tries int) time.Duration {
	d := t.retry
	for range min(tries-1, 10) {
		d *= 2
	}
	return min(d, t.retryMax)
}

// ending is the end of an invocation that its node has no say in.
type ending struct {
	node    string
	status  Status
	details string
}

// schedule is what to do for a command at one moment.
type schedule struct {
	ends   []ending
	send   []string // nodes to tell now
	cancel []string // nodes to tell that it is cancelled
	wake   time.Time
	state  state
}

// state is what a command as a whole has come to.
type state struct {
	status                       Status
	details                      string
	completed, errors, undeliver int
}

// scheduler works out a schedule. It does no I/O, so that tests turn its clock.
type scheduler struct {
	timing
	command Command
	now     time.Time
	fresh   map[string]bool // nodes that have just connected
	out     schedule
}

// plan says what is to be done for c, whose invocations are all, at now.
func plan(c Command, all []Invocation, now time.Time, fresh map[string]bool, t timing) schedule {
	s := &scheduler{timing: t, command: c, now: now, fresh: fresh}
	open := s.endOverdue(all)
	s.count(all)
	if s.out.state.errors > c.errorLimit() {
		open = s.terminate(open)
	}
	s.cancels(open)
	s.sends(open)
	s.settle(all, len(open))
	return s.out
}

// at notes that the schedule must be looked at again.
func (s *scheduler) at(t time.Time) {
	if s.out.wake.IsZero() || t.Before(s.out.wake) {
		s.out.wake = t
	}
}

func (s *scheduler) end(i Invocation, status Status, details string) {
	s.out.ends = append(s.out.ends, ending{i.NodeID, status, details})
}

// endOverdue ends what has run out of time and returns the invocations still open.
func (s *scheduler) endOverdue(all []Invocation) (open []Invocation) {
	for _, i := range all {
		if i.Status.Final() {
			continue
		}
		by, status, details := s.deadline(i)
		if !s.now.Before(by) {
			s.end(i, status, details)
			continue
		}
		s.at(by)
		open = append(open, i)
	}
	return open
}

// deadline is when an open invocation ends by itself, and as what.
func (s *scheduler) deadline(i Invocation) (time.Time, Status, string) {
	switch {
	case !i.Delivered.IsZero():
		return i.Delivered.Add(s.command.Execution + s.grace), TimedOut, ExecutionTimedOut
	case i.Status == Cancelling && i.Sent.IsZero():
		return s.now, Cancelled, string(Cancelled)
	case i.Status == Cancelling:
		return i.CancelAsked.Add(s.cancelWait), Cancelled, string(Cancelled)
	}
	return s.command.Requested.Add(s.command.Delivery), TimedOut, DeliveryTimedOut
}

// count tallies what has ended, now included.
func (s *scheduler) count(all []Invocation) {
	for _, i := range all {
		if i.Status.Final() {
			s.tally(i.Status, i.Details)
		}
	}
	for _, e := range s.out.ends {
		s.tally(e.status, e.details)
	}
}

func (s *scheduler) tally(status Status, details string) {
	s.out.state.completed++
	switch {
	case details == DeliveryTimedOut:
		s.out.state.undeliver++
	case details == string(Failed) || details == ExecutionTimedOut:
		s.out.state.errors++
	}
}

// terminate ends what no node was told yet, for too many have failed.
func (s *scheduler) terminate(open []Invocation) (left []Invocation) {
	for _, i := range open {
		if !i.Delivered.IsZero() || s.awaiting(i) || i.Status == Cancelling {
			left = append(left, i)
			continue
		}
		s.end(i, Cancelled, Terminated)
		s.tally(Cancelled, Terminated)
	}
	return left
}

// awaiting reports whether a node was told and may still answer.
func (s *scheduler) awaiting(i Invocation) bool {
	return i.Delivered.IsZero() && !i.Sent.IsZero() && i.Sent.Equal(i.Tried) && s.now.Before(i.Sent.Add(s.ack))
}

func (s *scheduler) cancels(open []Invocation) {
	for _, i := range open {
		if i.Status != Cancelling {
			continue
		}
		due := i.CancelTried.Add(s.backoff(i.CancelTries))
		if i.CancelTries == 0 || s.fresh[i.NodeID] || !s.now.Before(due) {
			s.out.cancel = append(s.out.cancel, i.NodeID)
			continue
		}
		s.at(due)
	}
}

// sends chooses the nodes to tell: those never told first, then the ones that waited
// longest. A node that holds a place already, for it was told and has not answered,
// needs no other.
func (s *scheduler) sends(open []Invocation) {
	free := s.command.concurrency()
	var waiting []Invocation
	for _, i := range open {
		held := !i.Delivered.IsZero() || s.awaiting(i)
		if held {
			free--
		}
		if !i.Delivered.IsZero() || i.Status == Cancelling {
			continue
		}
		due := i.Tried.Add(s.backoff(i.Tries))
		switch {
		case i.Tries > 0 && !s.fresh[i.NodeID] && s.now.Before(due):
			s.at(due)
			if held {
				s.at(i.Sent.Add(s.ack)) // its place becomes free
			}
		case held:
			s.out.send = append(s.out.send, i.NodeID)
		default:
			waiting = append(waiting, i)
		}
	}
	slices.SortStableFunc(waiting, func(a, b Invocation) int {
		return cmp.Or(a.Tried.Compare(b.Tried), cmp.Compare(a.Rank, b.Rank))
	})
	for _, i := range waiting[:max(0, min(free, len(waiting)))] {
		s.out.send = append(s.out.send, i.NodeID)
	}
}

// settle works out the state of the command.
func (s *scheduler) settle(all []Invocation, open int) {
	st := &s.out.state
	if open > 0 {
		st.status, st.details = s.running(all)
		return
	}
	st.status, st.details = s.final(all)
}

func (s *scheduler) running(all []Invocation) (Status, string) {
	if s.command.CancelledBy != "" {
		return Cancelling, string(Cancelling)
	}
	begun := func(i Invocation) bool { return i.Status.Final() || !i.Delivered.IsZero() }
	if len(s.out.ends) > 0 || slices.ContainsFunc(all, begun) {
		return InProgress, string(InProgress)
	}
	return Pending, string(Pending)
}

func (s *scheduler) final(all []Invocation) (Status, string) {
	ended := map[string]int{}
	for _, i := range all {
		if i.Status.Final() {
			ended[i.Details]++
		}
	}
	for _, e := range s.out.ends {
		ended[e.details]++
	}
	limit := s.command.errorLimit()
	switch {
	case len(all) == 0:
		return Failed, NoInstancesInTag
	case s.command.CancelledBy != "" && ended[string(Cancelled)] > 0:
		return Cancelled, string(Cancelled)
	case s.out.state.errors > limit:
		return Failed, string(Failed)
	case s.out.state.undeliver > limit:
		return TimedOut, DeliveryTimedOut
	case ended[AccessDenied] == len(all):
		return Failed, AccessDenied
	case ended[string(Success)] < len(all):
		return Failed, Incomplete
	}
	return Success, string(Success)
}
