package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/wire"
)

// Sender gives jobs to agents, by whichever member holds the node's control channel.
type Sender interface {
	SendJob(ctx context.Context, node string, job wire.ControlTask) error
}

// Cluster is what a Runner needs of the routing between members.
type Cluster interface {
	Member() string
	Broadcast(subject string, data []byte) error
	Listen(subject string, hear func([]byte)) (stop func(), err error)
}

// Auditor appends audit records durably.
type Auditor interface {
	Append(ctx context.Context, r audit.Record) (audit.Record, error)
}

// Config says what a Runner works with.
type Config struct {
	Store   Store        // required
	Cluster Cluster      // required
	Audit   Auditor      // required
	Logger  *slog.Logger // required
	Region  string       // required
	Now     func() time.Time
	// Keep is how long commands and their outputs are kept after their end. Default
	// 30 days, as AWS's.
	Keep time.Duration
	// Lease is how long a member that is not heard of keeps its commands from the
	// others. Default 15 s.
	Lease time.Duration

	timing timing
}

const (
	subjectNudge = "sallyport.command"
	defaultKeep  = 30 * 24 * time.Hour
	defaultLease = 15 * time.Second
	storeTimeout = 10 * time.Second
	sendTimeout  = 10 * time.Second
	// sendsAtOnce bounds how many nodes of one command are told at the same time.
	sendsAtOnce = 16
	// retryAfter is how long a schedule waits for a store that fails.
	retryAfter = time.Second
	// deleteEvery is between the deletions of old commands, deleteBatch what each
	// statement takes.
	deleteEvery = time.Hour
	deleteBatch = 100
)

// Runner schedules the commands of one member, and takes what agents connected to it
// have to say about any. All that lasts is in the store: when the member ends, another
// one or its next run goes on.
type Runner struct {
	cfg    Config
	log    *slog.Logger
	member string
	sender Sender

	ctx      context.Context // lives as long as the Runner
	cancel   context.CancelFunc
	unlisten func()

	mu      sync.Mutex
	stopped bool
	driven  map[string]*driven // by command id
	wg      sync.WaitGroup
}

// New returns a Runner that keeps what it hears of until Start.
func New(cfg Config) *Runner {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Keep == 0 {
		cfg.Keep = defaultKeep
	}
	if cfg.Lease == 0 {
		cfg.Lease = defaultLease
	}
	if cfg.timing == (timing{}) {
		cfg.timing = defaultTiming()
	}
	r := &Runner{cfg: cfg, log: cfg.Logger, member: cfg.Cluster.Member(), driven: map[string]*driven{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Start begins to schedule, with what an earlier run of this member left.
func (r *Runner) Start(ctx context.Context, s Sender) (err error) {
	r.sender = s
	if r.unlisten, err = r.cfg.Cluster.Listen(subjectNudge, r.heard); err != nil {
		return fmt.Errorf("listening to members: %w", err)
	}
	if err := r.claim(ctx); err != nil {
		r.unlisten()
		r.unlisten = nil
		return err
	}
	r.wg.Go(r.keepLeases)
	r.wg.Go(r.deleteOld)
	return nil
}

// Close stops scheduling, lets other members take over, and waits for what is under
// way.
func (r *Runner) Close(ctx context.Context) error {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	if r.unlisten != nil {
		r.unlisten()
	}
	r.cancel()
	r.wg.Wait()
	if r.sender == nil {
		return nil
	}
	if err := r.cfg.Store.ReleaseCommands(ctx, r.member); err != nil {
		return fmt.Errorf("leaving commands to other members: %w", err)
	}
	return nil
}

// now is in the precision of stores, so that times compare after they were stored.
func (r *Runner) now() time.Time { return r.cfg.Now().UTC().Truncate(time.Microsecond) }

// call bounds one use of the store.
func (r *Runner) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, storeTimeout)
}

// Send stores a command and begins to send it. Its state, member and times are set
// here; invocations that are final already stay so.
func (r *Runner) Send(ctx context.Context, c Command, all []Invocation) (Command, error) {
	now := r.now()
	c.Requested, c.Member, c.Lease = now, r.member, now.Add(r.cfg.Lease)
	c.TargetCount, c.Status, c.Details, c.Revision = len(all), Pending, string(Pending), int64(len(all))
	for n := range all {
		i := &all[n]
		i.CommandID, i.Rank, i.Requested, i.Revision = c.ID, n, now, int64(n+1)
		if i.Status.Final() {
			i.Ended = now
			continue
		}
		i.Status, i.Details = Pending, string(Pending)
	}
	if p := plan(c, all, now, nil, r.cfg.timing); p.state.status.Final() {
		c.take(p.state)
		c.Ended = now
	}
	if err := r.cfg.Store.CreateCommand(ctx, c, all); err != nil {
		return c, fmt.Errorf("storing command: %w", err)
	}
	if !c.Status.Final() {
		r.drive(c.ID)
	}
	return c, nil
}

func (c *Command) take(s state) {
	c.Status, c.Details = s.status, s.details
	c.CompletedCount, c.ErrorCount, c.DeliveryTimedOutCount = s.completed, s.errors, s.undeliver
}

// Driven are the ids of the commands that this member schedules now.
func (r *Runner) Driven() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.driven))
}

// Cancel stops a command on some nodes, or on all of them if none is named. What no
// node was told is cancelled at once, the rest when its nodes say so.
func (r *Runner) Cancel(ctx context.Context, id string, nodes []string, by string) error {
	if len(nodes) == 0 {
		_, err := r.cfg.Store.UpdateCommand(ctx, id, func(c *Command) error {
			c.CancelledBy, c.Status, c.Details = by, Cancelling, string(Cancelling)
			return nil
		})
		if err != nil {
			return fmt.Errorf("cancelling: %w", err)
		}
	}
	open, err := r.cfg.Store.Invocations(ctx, InvocationFilter{CommandID: id, NodeIDs: nodes, Active: true})
	if err != nil {
		return fmt.Errorf("cancelling: %w", err)
	}
	now := r.now()
	for _, i := range open {
		if _, err := r.update(ctx, id, i.NodeID, func(i *Invocation) bool { return i.cancel(now) }); err != nil {
			return fmt.Errorf("cancelling on %s: %w", i.NodeID, err)
		}
	}
	r.nudge(id, "")
	return nil
}

// cancel marks i cancelled, or as to be.
func (i *Invocation) cancel(now time.Time) bool {
	switch {
	case i.Status.Final() || i.Status == Cancelling:
		return false
	case i.Sent.IsZero():
		i.Status, i.Details, i.Ended = Cancelled, string(Cancelled), now
	default:
		i.Status, i.Details, i.CancelAsked = Cancelling, string(Cancelling), now
	}
	return true
}

// CancelOf cancels the commands that a user is behind: for one who was disabled.
func (r *Runner) CancelOf(ctx context.Context, rootID, by string) error {
	return r.cancelAll(ctx, Filter{RootID: rootID}, func(Command) bool { return true }, by)
}

// CancelThrough cancels the commands that were sent through a role, which has this id:
// for one that was deleted.
func (r *Runner) CancelThrough(ctx context.Context, roleID, by string) error {
	return r.cancelAll(ctx, Filter{}, func(c Command) bool { return strings.HasPrefix(c.OwnerID, roleID+":") }, by)
}

func (r *Runner) cancelAll(ctx context.Context, f Filter, match func(Command) bool, by string) error {
	active := true
	f.Active = &active
	all, err := r.cfg.Store.Commands(ctx, f)
	if err != nil {
		return fmt.Errorf("listing commands: %w", err)
	}
	var errs []error
	for _, c := range all {
		if match(c) {
			errs = append(errs, r.Cancel(ctx, c.ID, nil, by))
		}
	}
	return errors.Join(errs...)
}

// NodeRemoved ends what a node was still to run: another machine may get its id.
func (r *Runner) NodeRemoved(ctx context.Context, node string) error {
	open, err := r.cfg.Store.Invocations(ctx, InvocationFilter{NodeID: node, Active: true})
	if err != nil {
		return fmt.Errorf("listing commands of %s: %w", node, err)
	}
	now := r.now()
	for _, i := range open {
		_, err := r.update(ctx, i.CommandID, node, func(i *Invocation) bool {
			i.Status, i.Details, i.Ended = Failed, Undeliverable, now
			return true
		})
		if err != nil {
			return fmt.Errorf("ending command %s on %s: %w", i.CommandID, node, err)
		}
		r.nudge(i.CommandID, "")
	}
	return nil
}

// update changes an invocation unless it has ended, and records its end.
func (r *Runner) update(ctx context.Context, id, node string, change func(*Invocation) bool) (bool, error) {
	var after Invocation
	changed, err := r.cfg.Store.UpdateInvocation(ctx, id, node, func(i *Invocation) error {
		if !change(i) {
			return errUnchanged
		}
		after = *i
		return nil
	})
	if errors.Is(err, errUnchanged) {
		return false, nil
	}
	if err == nil && changed && after.Status.Final() {
		r.recordEnd(ctx, after)
	}
	return changed, err
}

var errUnchanged = errors.New("nothing changes")

// recordEnd writes what came of a command on a node into the audit log.
func (r *Runner) recordEnd(ctx context.Context, i Invocation) {
	details := map[string]string{"command_id": i.CommandID, "status": i.Details}
	for _, s := range i.Steps {
		if s.Status.Final() {
			details["exit_status"] = fmt.Sprint(s.Code) // of the last step
		}
	}
	r.record(ctx, audit.Record{Event: audit.EventCommandEnd, Node: i.NodeID, Reason: i.Details, Details: details})
}

func (r *Runner) record(ctx context.Context, a audit.Record) {
	ctx, cancel := r.call(context.WithoutCancel(ctx))
	defer cancel()
	a.Time = r.now()
	if _, err := r.cfg.Audit.Append(ctx, a); err != nil {
		r.log.Error("recording the end of a command", "details", a.Details, "error", err)
	}
}

// nudgeText is what members tell each other: look at a command again; a node has just
// connected.
type nudgeText struct {
	Command string `json:"command"`
	Node    string `json:"node,omitempty"`
}

// nudge makes whichever member schedules a command look at it again.
func (r *Runner) nudge(id, node string) {
	if r.wake(id, node) {
		return
	}
	b, _ := json.Marshal(nudgeText{id, node}) // strings always encode
	if err := r.cfg.Cluster.Broadcast(subjectNudge, b); err != nil {
		r.log.Warn("telling members of a command", "command", id, "error", err)
	}
}

func (r *Runner) heard(b []byte) {
	var n nudgeText
	if json.Unmarshal(b, &n) == nil {
		r.wake(n.Command, n.Node)
	}
}

// wake nudges a command that is scheduled here and reports whether it is.
func (r *Runner) wake(id, node string) bool {
	r.mu.Lock()
	d := r.driven[id]
	r.mu.Unlock()
	if d == nil {
		return false
	}
	d.wake(node)
	return true
}

// JobAck takes an agent's answer to a job (session.Jobs).
func (r *Runner) JobAck(ctx context.Context, node string, ack wire.JobAck) error {
	id, err := commandOf(ack.JobID, node)
	if err != nil {
		r.log.Warn("agent_job_ack dropped", "node", node, "error", err)
		return nil
	}
	now := r.now()
	return r.hear(ctx, id, node, func(i *Invocation) bool { return i.acked(ack.StatusCode, now) })
}

// JobReply takes an agent's report (session.Jobs). With an error it is to come again.
func (r *Runner) JobReply(ctx context.Context, node string, reply wire.JobReply) error {
	id, err := commandOf(reply.JobID, node)
	var outcome wire.JobOutcome
	if err == nil {
		err = json.Unmarshal([]byte(reply.Content), &outcome)
	}
	if err != nil {
		r.log.Warn("agent_job_reply dropped", "node", node, "error", err)
		return nil
	}
	now := r.now()
	return r.hear(ctx, id, node, func(i *Invocation) bool { return i.apply(outcome, now) })
}

// hear applies what an agent said of a command on its node.
func (r *Runner) hear(ctx context.Context, id, node string, change func(*Invocation) bool) error {
	changed, err := r.update(ctx, id, node, change)
	switch {
	case errors.Is(err, ErrNoInvocation), errors.Is(err, ErrNotFound):
		r.log.Debug("agent speaks of a command that is not known", "command", id, "node", node)
		return nil
	case err != nil:
		return err
	case changed:
		r.nudge(id, "")
	}
	return nil
}

// NodeConnected makes what a node has missed be sent (session.Jobs).
func (r *Runner) NodeConnected(ctx context.Context, node string) {
	open, err := r.cfg.Store.Invocations(ctx, InvocationFilter{NodeID: node, Active: true})
	if err != nil {
		r.log.Error("listing commands", "node", node, "error", err)
		return
	}
	for _, i := range open {
		r.nudge(i.CommandID, node)
	}
}

// keepLeases holds what is scheduled here and takes over what nobody schedules.
func (r *Runner) keepLeases() {
	t := time.NewTicker(r.cfg.Lease / 3)
	defer t.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-t.C:
		}
		if err := r.claim(r.ctx); err != nil && r.ctx.Err() == nil {
			r.log.Warn("keeping the leases of commands", "error", err)
		}
	}
}

func (r *Runner) claim(ctx context.Context) error {
	ctx, cancel := r.call(ctx)
	defer cancel()
	now := r.now()
	before := r.snapshot()
	ids, err := r.cfg.Store.ClaimCommands(ctx, r.member, now, now.Add(r.cfg.Lease))
	if err != nil {
		return fmt.Errorf("claiming commands: %w", err)
	}
	mine := map[string]bool{}
	for _, id := range ids {
		mine[id] = true
		r.drive(id)
	}
	for _, d := range before {
		if !mine[d.id] { // it has ended, or another member took it
			d.stop()
		}
	}
	return nil
}

func (r *Runner) snapshot() []*driven {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*driven, 0, len(r.driven))
	for _, d := range r.driven {
		all = append(all, d)
	}
	return all
}

// deleteOld enforces Keep.
func (r *Runner) deleteOld() {
	t := time.NewTicker(deleteEvery)
	defer t.Stop()
	for {
		r.deleteEnded()
		select {
		case <-r.ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (r *Runner) deleteEnded() {
	for n := deleteBatch; n == deleteBatch && r.ctx.Err() == nil; {
		ctx, cancel := r.call(r.ctx)
		var err error
		n, err = r.cfg.Store.DeleteCommands(ctx, r.now().Add(-r.cfg.Keep), deleteBatch)
		cancel()
		if err != nil && r.ctx.Err() == nil {
			r.log.Warn("deleting old commands", "error", err)
			return
		}
	}
}
