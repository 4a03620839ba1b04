package access

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport.dev/audit"
)

// refusals keeps principals from filling the audit log with their refusals: the first
// ones of a minute are recorded in full, the others counted, and the counts recorded
// when the minute is over.
type refusals struct {
	mu      sync.Mutex
	started time.Time // of the current minute
	counts  map[string]*refused
}

// refused are the refusals of one principal in a minute.
type refused struct {
	first   audit.Record
	n       int
	counted map[string]int // those that were not recorded, by action
}

const (
	refusalWindow = time.Minute
	// fullRefusals is how many refusals of a principal are recorded in full per window.
	fullRefusals = 100
	// maxRefused bounds the principals told apart in a window, maxActions the actions
	// of one.
	maxRefused = 1024
	maxActions = 20
	others     = "others"
)

// note takes a refusal of who and reports whether it is to be recorded in full.
func (r *refusals) note(who string, record audit.Record) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[string]*refused{}
	}
	one := r.counts[who]
	if one == nil && len(r.counts) >= maxRefused {
		who = others
		one = r.counts[who]
	}
	if one == nil {
		one = &refused{first: record, counted: map[string]int{}}
		r.counts[who] = one
	}
	if one.n++; one.n <= fullRefusals {
		return true
	}
	action := record.Action
	if _, known := one.counted[action]; !known && len(one.counted) >= maxActions {
		action = others
	}
	one.counted[action]++
	return false
}

// due returns the records of what was counted, once the window is over or if at once
// is asked for.
func (r *refusals) due(now time.Time, atOnce bool) []audit.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !atOnce && now.Sub(r.started) < refusalWindow {
		return nil
	}
	var due []audit.Record
	for _, who := range slices.Sorted(maps.Keys(r.counts)) {
		if one := r.counts[who]; len(one.counted) > 0 {
			due = append(due, one.summary(now, who == others))
		}
	}
	clear(r.counts)
	r.started = now
	return due
}

func (r *refused) summary(now time.Time, many bool) audit.Record {
	s := audit.Record{
		Time: now, Event: audit.EventDecision, Principal: r.first.Principal, Decision: r.first.Decision,
		Error: r.first.Error, SourceIP: r.first.SourceIP, UserAgent: r.first.UserAgent,
		Reason:  fmt.Sprintf("further refusals of the principal, beyond %d in a minute", fullRefusals),
		Details: map[string]string{"repeated": strconv.Itoa(r.n - fullRefusals)},
	}
	if many {
		s.Principal, s.SourceIP, s.UserAgent, s.Reason = "", "", "", "further refusals of many principals"
	}
	var actions []string
	for _, action := range slices.Sorted(maps.Keys(r.counted)) {
		actions = append(actions, fmt.Sprintf("%s %d", action, r.counted[action]))
	}
	s.Details["actions"] = strings.Join(actions, ", ")
	return s
}
