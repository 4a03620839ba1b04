package agent

import (
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/wire"
)

const (
	// maxReports bounds the reports that wait for the server; beyond it the oldest go.
	maxReports = 1024
	// reportTries is how often a report is sent on one connection; after that it
	// waits for the next.
	reportTries = 3
	reportEvery = time.Second
)

// report is a message on the control channel that the server must acknowledge: the
// end of a session, the outcome of a job.
type report struct {
	typ     string
	payload func(try int) any // try counts from 1
	ids     []uuid.UUID       // of the copies sent; any may be acknowledged
	tries   int               // in all
	onLink  int               // on this connection
	last    time.Time
	done    func() // called once it was acknowledged; nil for none
}

// outbox keeps what the control channel has to send, across reconnections.
type outbox struct {
	now  func() time.Time
	wake chan struct{} // has room for one

	mu      sync.Mutex
	reports []*report
	once    []*wire.Message // sent once, unacknowledged (job acknowledgements)
}

func newOutbox(now func() time.Time) *outbox {
	return &outbox{now: now, wake: make(chan struct{}, 1)}
}

func (o *outbox) add(typ string, payload func(try int) any) { o.addUntil(typ, payload, nil) }

// addUntil is add for a report of which it matters when the server knows: then done is
// called.
func (o *outbox) addUntil(typ string, payload func(try int) any, done func()) {
	o.mu.Lock()
	o.reports = append(o.reports, &report{typ: typ, payload: payload, done: done})
	if len(o.reports) > maxReports {
		o.reports = o.reports[1:]
	}
	o.mu.Unlock()
	notify(o.wake)
}

func (o *outbox) addOnce(m *wire.Message) {
	o.mu.Lock()
	if len(o.once) < maxReports {
		o.once = append(o.once, m)
	}
	o.mu.Unlock()
	notify(o.wake)
}

// acknowledged removes the report one of whose copies had this id.
func (o *outbox) acknowledged(id string) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return
	}
	if r := o.take(parsed); r != nil {
		if r.done != nil {
			r.done()
		}
		notify(o.wake)
	}
}

func (o *outbox) take(id uuid.UUID) *report {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, r := range o.reports {
		if slices.Contains(r.ids, id) {
			o.reports = slices.Delete(o.reports, i, i+1)
			return r
		}
	}
	return nil
}

// relink starts the tries anew: a new connection is open.
func (o *outbox) relink() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.reports {
		r.onLink, r.last = 0, time.Time{}
	}
}

// next returns the message to send now, or how long there is nothing to do: negative
// for as long as nothing is added.
func (o *outbox) next() (*wire.Message, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.once) > 0 {
		m := o.once[0]
		o.once = o.once[1:]
		return m, 0
	}
	now, wait := o.now(), time.Duration(-1)
	for _, r := range o.reports {
		if r.onLink >= reportTries {
			continue
		}
		due := r.last.Add(reportEvery)
		if r.onLink == 0 || !now.Before(due) {
			return r.send(now), 0
		}
		if d := due.Sub(now); wait < 0 || d < wait {
			wait = d
		}
	}
	return nil, wait
}

func (r *report) send(now time.Time) *wire.Message {
	r.tries++
	r.onLink++
	r.last = now
	m := wire.NewJSON(r.typ, now, r.payload(r.tries))
	if r.ids = append(r.ids, m.ID); len(r.ids) > 2*reportTries {
		r.ids = r.ids[1:]
	}
	return m
}

// empty reports whether every report has been acknowledged.
func (o *outbox) empty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.reports) == 0 && len(o.once) == 0
}

// notify wakes whoever waits on c, which has room for one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
