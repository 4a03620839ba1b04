package grant

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/flow"
)

// changed tells the audit log and who waits of a change that was stored. What the audit
// log cannot take now the clocks tell it later: the events are stored with the change.
func (e *Engine) changed(ctx context.Context, r Request, events []Event) {
	e.waits.wake()
	if e.config.Observe != nil {
		for _, ev := range events {
			e.config.Observe(r, ev)
		}
	}
	if err := e.tell(context.WithoutCancel(ctx), r.ID); err != nil {
		e.config.Logger.Error("telling the audit log of a request", "request", r.ID, "error", err)
	}
	e.after(r, events)
	e.endExtensions(context.WithoutCancel(ctx), r)
}

// tellTimeout bounds the wait for the audit log.
const tellTimeout = 10 * time.Second

// tellMost is how many events are told at a time.
const tellMost = 200

// tell writes into the audit log what it does not have yet of the events of a request,
// or of all. It may tell something twice where members do so at once, and never leaves
// anything out: what the audit log does not take now it is told again, and that alone.
func (e *Engine) tell(ctx context.Context, request string) error {
	if e.config.Audit == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	untold, err := e.config.Store.Untold(ctx, tellMost)
	if err != nil {
		return err
	}
	var told []int64
	var problem error // the first
	for _, ev := range untold {
		if request != "" && ev.Request != request {
			continue
		}
		if err := e.record(ctx, ev); err != nil {
			problem = cmp.Or(problem, fmt.Errorf("step %d of request %s: %w", ev.Seq, ev.Request, err))
			continue
		}
		told = append(told, ev.Seq)
	}
	if len(told) == 0 {
		return problem
	}
	// Even if time is up: what is not noted is told again.
	noting, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTimeout)
	defer cancel()
	return errors.Join(problem, e.config.Store.Told(noting, told))
}

// record writes one event into the audit log.
func (e *Engine) record(ctx context.Context, ev Event) error {
	r, err := e.config.Store.Request(ctx, ev.Request)
	if err != nil {
		return err
	}
	details := map[string]string{
		"request": r.ID, "flow": r.Frozen.Flow.Name, "hash": ev.Hash, "kind": ev.Kind, "state": string(ev.State),
		"stage": strconv.Itoa(ev.Stage + 1), "person": r.Frozen.Person.Name, "person_id": r.Frozen.Person.ID,
		"event": strconv.FormatInt(ev.Seq, 10), "at": ev.At.UTC().Format(time.RFC3339Nano),
	}
	for key, value := range map[string]string{"channel": ev.Channel, "comment": clip(ev.Comment, 1024)} {
		if value != "" {
			details[key] = value
		}
	}
	if ev.Kind == KindRequested {
		details["duration"], details["targets"] = r.Frozen.Duration.String(), clip(targetNames(r.Frozen.Targets), 512)
		details["requested_by"] = r.Frozen.Principal
	}
	record := audit.Record{
		Event: audit.EventRequest, Principal: ev.Actor, Action: "request:" + ev.Kind, Resources: []string{e.RequestARN(r.ID)},
		Reason: fmt.Sprintf("%s for %s: %s", r.Frozen.Flow.Name, r.Frozen.Person.Name, ev.Kind), Details: details,
	}
	for _, d := range r.Decisions {
		if d.Principal == ev.Actor && d.At.Equal(ev.At) && d.Rule == "" {
			record.SourceIP = d.SourceIP
			if d.Factor != "" {
				details["factor"] = d.Factor
			}
		}
	}
	_, err = e.config.Audit.Append(ctx, record)
	return err
}

// afterHooks are the hooks that run after a step, by the kind of its event.
var afterHooks = map[string]string{
	KindRequested: flow.HookRequest, KindApproved: flow.HookApprove, KindDenied: flow.HookDeny,
	KindActivated: flow.HookActivate, KindExpired: flow.HookExpire, KindRevoked: flow.HookRevoke,
}

// background is the work that no step waits for. There is only so much of it at a time;
// more is left out, and logged.
type background struct {
	mu     sync.Mutex
	n      int
	names  map[string]bool // of what runs once at a time
	closed bool
	done   sync.WaitGroup
	stop   chan struct{}
}

const maxBackground = 32

// closeGrace is how long what runs may go on when the engine is closed.
const closeGrace = 3 * time.Second

// run runs work for so long at most, unless there is too much of it, or the engine is
// closed.
func (b *background) run(limit time.Duration, work func(context.Context)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.n >= maxBackground {
		return false
	}
	if b.stop == nil {
		b.stop = make(chan struct{})
	}
	b.n++
	stop := b.stop
	b.done.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		go func() { // ends with the context
			select {
			case <-stop:
				select {
				case <-time.After(closeGrace):
					cancel()
				case <-ctx.Done():
				}
			case <-ctx.Done():
			}
		}()
		work(ctx)
		b.mu.Lock()
		b.n--
		b.mu.Unlock()
	})
	return true
}

// runOnce is run for work that has a name, unless work of this name runs already.
func (b *background) runOnce(name string, limit time.Duration, work func(context.Context)) {
	if !b.take(name) {
		return
	}
	ran := b.run(limit, func(ctx context.Context) {
		defer b.leave(name)
		work(ctx)
	})
	if !ran {
		b.leave(name)
	}
}

func (b *background) take(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.names[name] {
		return false
	}
	if b.names == nil {
		b.names = map[string]bool{}
	}
	b.names[name] = true
	return true
}

func (b *background) leave(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.names, name)
}

func (b *background) close() {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		if b.stop != nil {
			close(b.stop)
		}
	}
	b.mu.Unlock()
	b.done.Wait()
}

// after runs what the flow's code has after steps. Nothing hangs on it.
func (e *Engine) after(r Request, events []Event) {
	if r.Frozen.Flow.Code == nil {
		return
	}
	for _, ev := range events {
		name := afterHooks[ev.Kind]
		if name == "" {
			continue
		}
		ran := e.work.run(flow.MaxRun, func(ctx context.Context) {
			v := e.look(ctx, r)
			if v.code == nil {
				return
			}
			actor := r.Frozen.Person
			for _, d := range r.Decisions {
				if d.Principal == ev.Actor {
					actor = d.By
				}
			}
			err := v.code.After(ctx, v.env(e.now()), name, flow.Happening{Facts: v.facts(), Actor: actor, Channel: ev.Channel, Comment: ev.Comment})
			if err != nil && err != flow.ErrNoFunction {
				e.config.Logger.Warn("flow code after a step", "request", r.ID, "flow", r.Frozen.Flow.Name, "hook", name, "error", err)
			}
		})
		if !ran {
			e.config.Logger.Warn("flow code was left out: too much of it at a time", "request", r.ID, "hook", name)
		}
	}
}
