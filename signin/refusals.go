package signin

import (
	"strconv"
	"sync"
	"time"

	"sallyport.dev/audit"
)

// refusals keep strangers from filling the audit log: the first refusals of a place in a
// minute are recorded as they come, the rest in one record with their number when the
// minute is over and another comes. They are of this member alone.
type refusals struct {
	now func() time.Time

	mu    sync.Mutex
	began time.Time
	seen  map[string]*refusal
}

type refusal struct {
	last   audit.Record
	told   int
	untold int
}

// refusalsTold is how many refusals of one place are recorded one by one in a minute.
const refusalsTold = 30

func newRefusals(now func() time.Time) refusals {
	return refusals{now: now, seen: map[string]*refusal{}}
}

// note counts a refusal and returns the records that are due.
func (f *refusals) note(rec audit.Record) (due []audit.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.now(); now.Sub(f.began) >= rateWindow || now.Before(f.began) {
		due = f.summed()
		clear(f.seen)
		f.began = now
	}
	place := PlaceOf(rec.SourceIP)
	if f.seen[place] == nil && len(f.seen) >= maxRated {
		place = ""
	}
	if f.seen[place] == nil {
		f.seen[place] = &refusal{}
	}
	of := f.seen[place]
	of.last = rec
	if of.told == refusalsTold {
		of.untold++
		return due
	}
	of.told++
	return append(due, rec)
}

// summed are records of what was only counted.
func (f *refusals) summed() (due []audit.Record) {
	for _, of := range f.seen {
		if of.untold == 0 {
			continue
		}
		due = append(due, audit.Record{
			Event: of.last.Event, Action: of.last.Action, Decision: of.last.Decision, SourceIP: of.last.SourceIP,
			Reason:  "further refusals from there, of which the last was: " + of.last.Reason,
			Details: map[string]string{"repeated": strconv.Itoa(of.untold)},
		})
	}
	return due
}
