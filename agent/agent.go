package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sallyport.dev/agent/keysync"
	"sallyport.dev/agent/shell"
)

// lastWords bounds how long a stopping agent tries to report the ends of its sessions.
const lastWords = time.Second

// Agent is one node's agent.
type Agent struct {
	cfg       Config
	log       *slog.Logger
	endpoints []*endpoint
	current   atomic.Int32 // index of the endpoint in use
	identity  nodeIdentity
	outbox    *outbox
	sessions  sessions
	jobs      *jobs
	keys      *keysync.Syncer // nil for none

	sessionsCtx    context.Context // of all sessions, set by Run
	registeredAnew chan struct{}   // has room for one: facts are to be reported
}

// New checks the configuration and returns an agent that does nothing until Run or
// Register. Errors name the field that is wrong.
func New(cfg Config) (*Agent, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	endpoints, err := newEndpoints(cfg)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, log: cfg.Logger, endpoints: endpoints, outbox: newOutbox(cfg.now), registeredAnew: make(chan struct{}, 1),
		sessions: sessions{max: cfg.MaxSessions, live: make(map[string]context.CancelCauseFunc)},
	}
	a.jobs = newJobs(a)
	a.keys, err = a.newKeys()
	return a, err
}

// Run registers the machine if need be, and serves sessions until ctx ends. By then
// every session has ended and no process of any is left. It returns nil if ctx ended
// it, and an error for what waiting does not mend: no registration and no
// activation, an activation refused, a registration made on another machine.
func (a *Agent) Run(ctx context.Context) error {
	if err := makeStateDir(a.cfg.StateDir); err != nil {
		return err
	}
	held, err := lock(a.cfg.StateDir)
	if err != nil {
		return err
	}
	defer held.Close()
	if err := a.ensureRegistered(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	return a.serve(ctx)
}

// serve runs the control channel and the report of facts. They outlive ctx for as
// long as sessions take to end and to be reported.
func (a *Agent) serve(ctx context.Context) error {
	linked, unlink := context.WithCancel(context.WithoutCancel(ctx))
	defer unlink()
	a.sessionsCtx = linked
	defer a.openCgroups().Close()
	failed := make(chan error, 1)
	a.jobs.resume()
	var wg sync.WaitGroup
	wg.Go(func() { failed <- a.runControl(linked) })
	wg.Go(func() { a.reportFacts(linked) })
	wg.Go(func() { a.keepKeys(linked) })
	wg.Go(func() { a.reportKeys(linked) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	a.jobs.stop()
	a.sessions.stop()
	a.jobs.wg.Wait()
	if err == nil {
		a.flush(linked)
	}
	unlink()
	wg.Wait()
	for _, e := range a.endpoints {
		e.http.CloseIdleConnections()
	}
	return err
}

// openCgroups gives each session a control group, where the machine has them.
func (a *Agent) openCgroups() *shell.Cgroups {
	all, err := shell.OpenCgroups(a.cfg.SessionLimits, a.log)
	switch {
	case err == nil:
		a.cfg.Shell.Cgroups = all
		return all
	case a.cfg.SessionLimits != shell.SessionLimits{}:
		a.log.Error("sessions go without limits and control groups", "error", err)
	default:
		a.log.Info("sessions go without control groups", "error", err)
	}
	return nil
}

// flush gives the outbox a moment to be acknowledged.
func (a *Agent) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	for !a.outbox.empty() && sleep(ctx, 5*time.Millisecond) {
	}
}

// reportFacts reports the node's facts: now, then every cfg.FactsEvery, and whenever
// the machine has become another node.
func (a *Agent) reportFacts(ctx context.Context) {
	wait := backoff{min: minBackoff, max: maxBackoff}
	for {
		err := a.reportOnce(ctx)
		next := a.cfg.FactsEvery
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			wait.reset()
		case errors.Is(err, ErrKeyRefused): // the control channel tells and deals with it
			next = maxRefusedWait
		default:
			if refused(err) {
				a.forget()
			}
			a.log.Warn("reporting facts", "error", err)
			next = wait.next()
		}
		if !a.pause(ctx, next) {
			return
		}
	}
}

// pause sleeps for d, or until the machine is registered anew; it reports false if
// ctx ended first.
func (a *Agent) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-a.registeredAnew:
	case <-t.C:
	}
	return true
}

func (a *Agent) reportOnce(ctx context.Context) error {
	e := a.endpoint()
	sign, err := a.signWith(ctx, e)
	if err != nil {
		return err
	}
	return e.call(ctx, "UpdateInstanceInformation", sign, facts(a.cfg, a.NodeID()), &struct{}{})
}
