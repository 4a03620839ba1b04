package command

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sallyport.dev/audit"
)

// driven is one command that this member schedules. A single goroutine looks at all of
// its invocations whenever it is woken or a clock runs out, and does what plan says.
type driven struct {
	r      *Runner
	id     string
	ctx    context.Context
	stop   context.CancelFunc
	nudged chan struct{} // has room for one

	mu    sync.Mutex
	fresh map[string]bool // nodes that have connected since the last look
}

// maxFresh bounds the nodes that are remembered as just connected; the others are told
// when their time comes.
const maxFresh = 10000

// drive begins to schedule a command, unless that goes on already.
func (r *Runner) drive(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.driven[id] != nil {
		return
	}
	d := &driven{r: r, id: id, nudged: make(chan struct{}, 1)}
	d.ctx, d.stop = context.WithCancel(r.ctx)
	r.driven[id] = d
	r.wg.Go(d.run)
}

func (d *driven) wake(node string) {
	if node != "" {
		d.mu.Lock()
		if d.fresh == nil {
			d.fresh = map[string]bool{}
		}
		if len(d.fresh) < maxFresh {
			d.fresh[node] = true
		}
		d.mu.Unlock()
	}
	select {
	case d.nudged <- struct{}{}:
	default:
	}
}

func (d *driven) takeFresh() map[string]bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	fresh := d.fresh
	d.fresh = nil
	return fresh
}

func (d *driven) run() {
	defer func() {
		d.stop()
		d.r.mu.Lock()
		if d.r.driven[d.id] == d {
			delete(d.r.driven, d.id)
		}
		d.r.mu.Unlock()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		began := time.Now()
		wait, err := d.look()
		d.rest(time.Since(began))
		switch {
		case d.ctx.Err() != nil, errors.Is(err, errOver):
			return
		case err != nil:
			d.r.log.Warn("scheduling a command", "command", d.id, "error", err)
			wait = retryAfter
		}
		timer.Reset(wait)
		select {
		case <-d.ctx.Done():
			return
		case <-d.nudged:
		case <-timer.C:
		}
	}
}

// maxRest bounds the pause between two looks.
const maxRest = time.Second

// rest pauses for as long as a look took: many nodes answer at once, and one look takes
// in all that has come.
func (d *driven) rest(took time.Duration) {
	t := time.NewTimer(min(took, maxRest))
	defer t.Stop()
	select {
	case <-d.ctx.Done():
	case <-t.C:
	}
}

// errOver says that a command needs no schedule any more.
var errOver = errors.New("command is over")

// look works out what is due, does it, and returns how long nothing else is.
func (d *driven) look() (time.Duration, error) {
	c, all, err := d.load()
	if err != nil {
		return 0, err
	}
	if c.Status.Final() {
		return 0, errOver
	}
	p := plan(c, all, d.r.now(), d.takeFresh(), d.r.cfg.timing)
	if ended, err := d.end(p.ends); err != nil || !ended {
		return 0, err // the plan does not hold any more
	}
	d.tell(c, p.send, d.send)
	d.tell(c, p.cancel, d.cancel)
	if err := d.save(c, p.state); err != nil {
		return 0, err
	}
	if p.state.status.Final() {
		return 0, errOver
	}
	if len(p.send)+len(p.cancel) > 0 {
		return 0, nil // their clocks have begun
	}
	if p.wake.IsZero() {
		return d.r.cfg.Lease, nil
	}
	return max(0, p.wake.Sub(d.r.now())), nil
}

func (d *driven) load() (Command, []Invocation, error) {
	ctx, cancel := d.r.call(d.ctx)
	defer cancel()
	c, err := d.r.cfg.Store.Command(ctx, d.id)
	if errors.Is(err, ErrNotFound) {
		return c, nil, errOver
	}
	if err != nil {
		return c, nil, fmt.Errorf("reading command: %w", err)
	}
	all, err := d.r.cfg.Store.Invocations(ctx, InvocationFilter{CommandID: d.id})
	if err != nil {
		return c, nil, fmt.Errorf("reading invocations: %w", err)
	}
	return c, all, nil
}

// end ends invocations for which it is still true that nothing was heard, and reports
// whether that was so for all.
func (d *driven) end(ends []ending) (all bool, err error) {
	all = true
	for _, e := range ends {
		ctx, cancel := d.r.call(d.ctx)
		now := d.r.now()
		ended, err := d.r.update(ctx, d.id, e.node, func(i *Invocation) bool {
			if !i.Delivered.IsZero() && e.details != ExecutionTimedOut {
				return false // it took the job just now
			}
			i.Status, i.Details, i.Ended = e.status, e.details, now
			return true
		})
		cancel()
		if err != nil {
			return false, fmt.Errorf("ending on %s: %w", e.node, err)
		}
		all = all && ended
	}
	return all, nil
}

// tell runs do for each node, a few at a time.
func (d *driven) tell(c Command, nodes []string, do func(Command, string)) {
	var wg sync.WaitGroup
	places := make(chan struct{}, sendsAtOnce)
	for _, node := range nodes {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			do(c, node)
		})
	}
	wg.Wait()
}

// send tells a node to run the command. That it is tried is stored first, so that the
// answer finds it, and one that is cancelled meanwhile is not sent.
func (d *driven) send(c Command, node string) {
	ctx, cancel := context.WithTimeout(d.ctx, sendTimeout)
	defer cancel()
	now := d.r.now()
	var before time.Time
	going, err := d.r.update(ctx, c.ID, node, func(i *Invocation) bool {
		if i.Status != Pending && i.Status != Delayed {
			return false
		}
		before = i.Sent
		if i.Tries++; i.Tries > 1 {
			i.Status, i.Details = Delayed, string(Delayed)
		}
		i.Tried, i.Sent = now, now
		return true
	})
	if err == nil && going {
		job, jerr := c.job(node, d.r.cfg.Region)
		if err = jerr; err == nil {
			err = d.r.sender.SendJob(ctx, node, job)
		}
	}
	if err == nil {
		return
	}
	d.r.log.Debug("sending a command", "command", c.ID, "node", node, "error", err)
	d.unsent(node, now, before)
}

// unsent notes that an attempt reached no control channel.
func (d *driven) unsent(node string, tried, before time.Time) {
	ctx, cancel := d.r.call(context.WithoutCancel(d.ctx))
	defer cancel()
	_, err := d.r.update(ctx, d.id, node, func(i *Invocation) bool {
		if !i.Tried.Equal(tried) || !i.Delivered.IsZero() {
			return false
		}
		i.Sent = before
		switch {
		case i.Status == Cancelling && before.IsZero():
			i.Status, i.Details, i.Ended = Cancelled, string(Cancelled), tried
		case i.Status != Cancelling:
			i.Status, i.Details = Delayed, string(Delayed)
		}
		return true
	})
	if err != nil {
		d.r.log.Warn("noting that a command was not sent", "command", d.id, "node", node, "error", err)
	}
}

// cancel tells a node to stop running the command.
func (d *driven) cancel(c Command, node string) {
	ctx, cancel := context.WithTimeout(d.ctx, sendTimeout)
	defer cancel()
	now := d.r.now()
	_, err := d.r.update(ctx, c.ID, node, func(i *Invocation) bool {
		i.CancelTries++
		i.CancelTried = now
		return true
	})
	if err == nil {
		err = d.r.sender.SendJob(ctx, node, c.cancelJob(node, d.r.cfg.Region))
	}
	if err != nil {
		d.r.log.Debug("cancelling a command", "command", c.ID, "node", node, "error", err)
	}
}

// save stores the state of the command where it has changed, and records its end.
func (d *driven) save(c Command, s state) error {
	was := state{c.Status, c.Details, c.CompletedCount, c.ErrorCount, c.DeliveryTimedOutCount}
	if s == was {
		return nil
	}
	ctx, cancel := d.r.call(d.ctx)
	defer cancel()
	now := d.r.now()
	changed, err := d.r.cfg.Store.UpdateCommand(ctx, c.ID, func(c *Command) error {
		if c.CancelledBy != "" && !s.status.Final() {
			s.status, s.details = Cancelling, string(Cancelling)
		}
		if c.take(s); s.status.Final() {
			c.Ended = now
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("saving command: %w", err)
	}
	if changed && s.status.Final() {
		d.r.log.Info("command ended", "command", c.ID, "status", s.details, "nodes", c.TargetCount, "errors", s.errors)
		d.r.record(d.ctx, audit.Record{Event: audit.EventCommandEnd, Principal: c.Owner, Document: c.Document, Reason: s.details,
			Details: map[string]string{"command_id": c.ID, "status": s.details, "nodes": fmt.Sprint(c.TargetCount), "errors": fmt.Sprint(s.errors)}})
	}
	return nil
}
