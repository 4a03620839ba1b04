package command

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/wire"
)

// memory is a store of commands and an audit log.
type memory struct {
	mu          sync.Mutex
	commands    map[string]Command
	invocations map[string]map[string]Invocation // by command and node
	records     []audit.Record
	fails       error // of every call
}

func newMemory() *memory {
	return &memory{commands: map[string]Command{}, invocations: map[string]map[string]Invocation{}}
}

func (m *memory) lock() (func(), error) {
	m.mu.Lock()
	return m.mu.Unlock, m.fails
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fails = err
}

func (m *memory) Append(_ context.Context, r audit.Record) (audit.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records = append(m.records, r)
	return r, nil
}

func (m *memory) CreateCommand(_ context.Context, c Command, all []Invocation) error {
	unlock, err := m.lock()
	defer unlock()
	if err != nil {
		return err
	}
	m.commands[c.ID], m.invocations[c.ID] = c, map[string]Invocation{}
	for _, i := range all {
		m.invocations[c.ID][i.NodeID] = i
	}
	return nil
}

func (m *memory) Command(_ context.Context, id string) (Command, error) {
	unlock, err := m.lock()
	defer unlock()
	c, ok := m.commands[id]
	if !ok && err == nil {
		err = ErrNotFound
	}
	return c, err
}

func (m *memory) Commands(_ context.Context, f Filter) ([]Command, error) {
	unlock, err := m.lock()
	defer unlock()
	var all []Command
	for _, c := range m.commands {
		if (f.RootID == "" || c.RootID == f.RootID) && (f.Active == nil || *f.Active == c.Ended.IsZero()) {
			all = append(all, c)
		}
	}
	return all, err
}

func (m *memory) UpdateCommand(_ context.Context, id string, change func(*Command) error) (bool, error) {
	unlock, err := m.lock()
	defer unlock()
	c, ok := m.commands[id]
	if err == nil && !ok {
		err = ErrNotFound
	}
	if err != nil || !c.Ended.IsZero() {
		return false, err
	}
	if err := change(&c); err != nil {
		return false, err
	}
	c.Revision++
	m.commands[id] = c
	return true, nil
}

func (m *memory) Invocation(_ context.Context, id, node string) (Invocation, error) {
	unlock, err := m.lock()
	defer unlock()
	i, ok := m.invocations[id][node]
	if err == nil && !ok {
		err = ErrNoInvocation
	}
	return i, err
}

func (m *memory) Invocations(_ context.Context, f InvocationFilter) ([]Invocation, error) {
	unlock, err := m.lock()
	defer unlock()
	var all []Invocation
	for id, nodes := range m.invocations {
		for _, i := range nodes {
			if (f.CommandID == "" || f.CommandID == id) && (f.NodeID == "" || f.NodeID == i.NodeID) &&
				(len(f.NodeIDs) == 0 || slices.Contains(f.NodeIDs, i.NodeID)) && !(f.Active && i.Status.Final()) {
				all = append(all, i)
			}
		}
	}
	slices.SortFunc(all, func(a, b Invocation) int { return a.Rank - b.Rank })
	return all, err
}

func (m *memory) UpdateInvocation(_ context.Context, id, node string, change func(*Invocation) error) (bool, error) {
	unlock, err := m.lock()
	defer unlock()
	i, ok := m.invocations[id][node]
	if err == nil && !ok {
		err = ErrNoInvocation
	}
	if err != nil || !i.Ended.IsZero() {
		return false, err
	}
	if err := change(&i); err != nil {
		return false, err
	}
	m.invocations[id][node] = i
	return true, nil
}

func (m *memory) ClaimCommands(_ context.Context, member string, now, until time.Time) ([]string, error) {
	unlock, err := m.lock()
	defer unlock()
	var ids []string
	for id, c := range m.commands {
		if err == nil && c.Ended.IsZero() && (c.Member == member || c.Lease.Before(now)) {
			c.Member, c.Lease = member, until
			m.commands[id] = c
			ids = append(ids, id)
		}
	}
	return ids, err
}

func (m *memory) ReleaseCommands(_ context.Context, member string) error {
	unlock, err := m.lock()
	defer unlock()
	for id, c := range m.commands {
		if c.Member == member {
			c.Lease = time.Time{}
			m.commands[id] = c
		}
	}
	return err
}

func (m *memory) DeleteCommands(_ context.Context, before time.Time, limit int) (int, error) {
	unlock, err := m.lock()
	defer unlock()
	n := 0
	for id, c := range m.commands {
		if n < limit && !c.Ended.IsZero() && c.Ended.Before(before) {
			delete(m.commands, id)
			delete(m.invocations, id)
			n++
		}
	}
	return n, err
}

// statuses counts the invocations of a command by their details.
func (m *memory) statuses(id string) map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := map[string]int{}
	for _, i := range m.invocations[id] {
		counts[i.Details]++
	}
	return counts
}

// bus joins the members of a cluster.
type bus struct {
	mu    sync.Mutex
	hears map[string]func([]byte) // by member
}

// on is one member's end of a bus.
type on struct {
	bus    *bus
	member string
}

func (o on) Member() string { return o.member }

func (o on) Broadcast(_ string, data []byte) error {
	o.bus.mu.Lock()
	hears := slices.Collect(maps.Values(o.bus.hears))
	o.bus.mu.Unlock()
	for _, hear := range hears {
		hear(data)
	}
	return nil
}

func (o on) Listen(_ string, hear func([]byte)) (func(), error) {
	o.bus.mu.Lock()
	defer o.bus.mu.Unlock()
	o.bus.hears[o.member] = hear
	return func() {
		o.bus.mu.Lock()
		defer o.bus.mu.Unlock()
		delete(o.bus.hears, o.member)
	}, nil
}

var errAway = errors.New("node is not connected")

// fleet is a number of nodes. Each does what its name says: ok-…, fail-…, silent-…
// (takes the job and says nothing), deaf-… (does not even take it), away-….
type fleet struct {
	takes time.Duration // how long commands run

	mu      sync.Mutex
	to      func() *Runner // who hears the nodes
	sent    map[string]int
	running int
	most    int // that ran at once
	back    map[string]bool
	wg      sync.WaitGroup
}

func (f *fleet) SendJob(_ context.Context, node string, job wire.ControlTask) error {
	kind, _, _ := cut(node)
	f.mu.Lock()
	defer f.mu.Unlock()
	if kind == "away" && !f.back[node] {
		return errAway
	}
	f.sent[node]++
	if kind == "deaf" {
		return nil
	}
	f.wg.Go(func() { f.work(kind, node, job) })
	return nil
}

func cut(node string) (kind, rest string, ok bool) {
	i := slices.Index([]byte(node), '-')
	return node[:i], node[i+1:], true
}

func (f *fleet) work(kind, node string, job wire.ControlTask) {
	ctx := context.Background()
	r := f.to()
	if !isSend(job) {
		if kind != "silent" {
			r.JobReply(ctx, node, replyOf(cancelled(job), "Cancelled", 137, ""))
		}
		return
	}
	code := wire.JobSuccessful
	if f.count(node) > 1 {
		code = wire.JobDuplicateCommand
	}
	r.JobAck(ctx, node, wire.JobAck{JobID: job.JobID, StatusCode: code})
	if kind == "silent" || code != wire.JobSuccessful {
		return
	}
	f.busy(1)
	r.JobReply(ctx, node, replyOf(job.JobID, "InProgress", 0, ""))
	if kind == "fail" { // sooner, so that it is told first
		time.Sleep(f.takes / 2)
	} else {
		time.Sleep(f.takes)
	}
	f.busy(-1)
	status, exit := "Success", 0
	if kind == "fail" {
		status, exit = "Failed", 3
	}
	r = f.to()
	r.JobReply(ctx, node, replyOf(job.JobID, status, exit, "out of "+node))
	r.JobReply(ctx, node, replyOf(job.JobID, "InProgress", 0, "late")) // as AWS's agent does
}

func (f *fleet) count(node string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent[node]
}

func (f *fleet) busy(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running += n
	f.most = max(f.most, f.running)
}

func (f *fleet) atOnce() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.most
}
