package session

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/node"
	"sallyport.dev/recording"
)

// memory is a store of sessions, of nodes' connections and of audit records.
type memory struct {
	mu        sync.Mutex
	sessions  map[string]Session
	connected map[string]string // node to member
	records   []audit.Record
	auditErr  error
	updates   int
}

func newMemory() *memory {
	return &memory{sessions: map[string]Session{}, connected: map[string]string{}}
}

func (m *memory) CreateSession(_ context.Context, s Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.sessions[s.ID]; ok {
		return errors.New("exists")
	}
	m.sessions[s.ID] = s
	return nil
}

func (m *memory) Session(_ context.Context, id string) (Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sessions[id]
	if !ok {
		return Session{}, ErrNotFound
	}
	return s, nil
}

func (m *memory) Sessions(_ context.Context, f Filter) ([]Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Session
	for _, s := range m.sessions {
		if f.Active != nil && s.State.Active() != *f.Active || f.NodeID != "" && s.NodeID != f.NodeID ||
			f.Member != "" && s.Member != f.Member || s.Started.Before(f.StartedAfter) {
			continue
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Session) int { return b.Started.Compare(a.Started) })
	return out, nil
}

func (m *memory) UpdateSession(_ context.Context, id string, change func(*Session) error) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sessions[id]
	if !ok {
		return false, ErrNotFound
	}
	if !s.State.Active() {
		return false, nil
	}
	m.updates++
	if err := change(&s); err != nil {
		return false, err
	}
	m.sessions[id] = s
	return true, nil
}

func (m *memory) Nodes(context.Context, node.Filter) ([]node.Node, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []node.Node
	for id, member := range m.connected {
		out = append(out, node.Node{ID: id, Member: member})
	}
	return out, nil
}

func (m *memory) SetConnected(_ context.Context, id, member string, _ time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connected[id] = member
	return nil
}

func (m *memory) ClearConnected(_ context.Context, id, member string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.connected[id] == member {
		delete(m.connected, id)
	}
	return nil
}

func (m *memory) Append(_ context.Context, r audit.Record) (audit.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.auditErr != nil {
		return r, m.auditErr
	}
	m.records = append(m.records, r)
	return r, nil
}

// lastOf returns the newest audit record about a session. Nodes that come and go write
// others meanwhile.
func (m *memory) lastOf(id string) audit.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range slices.Backward(m.records) {
		if r.Session == id {
			return r
		}
	}
	return audit.Record{}
}

func (m *memory) row(id string) Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessions[id]
}

func (m *memory) memberOf(node string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.connected[node]
}

func (m *memory) events(session string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, r := range m.records {
		if r.Session == session {
			out = append(out, r.Event)
		}
	}
	return out
}

// bus connects the gateways of one test, as NATS does.
type bus struct {
	mu       sync.Mutex
	handlers map[string]map[int]func(context.Context, []byte) ([]byte, error)
	hearers  map[string]map[int]func([]byte)
	members  []Member
	next     int
}

func newBus() *bus {
	return &bus{
		handlers: map[string]map[int]func(context.Context, []byte) ([]byte, error){},
		hearers:  map[string]map[int]func([]byte){},
	}
}

func (b *bus) setMembers(m ...Member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members = m
}

// seat is one member's place on the bus.
type seat struct {
	*bus
	id string
}

func (s seat) Member() string { return s.id }

func (s seat) Members() []Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.members)
}

func (s seat) Serve(subject string, h func(context.Context, []byte) ([]byte, error)) (func(), error) {
	if strings.ContainsAny(strings.TrimPrefix(strings.TrimPrefix(subject, subjectNode), subjectSession), ".*> ") {
		return nil, errors.New("bad subject " + subject)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	n := s.next
	if s.handlers[subject] == nil {
		s.handlers[subject] = map[int]func(context.Context, []byte) ([]byte, error){}
	}
	s.handlers[subject][n] = h
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.handlers[subject], n)
	}, nil
}

func (s seat) Request(ctx context.Context, subject string, data []byte) ([]byte, error) {
	s.mu.Lock()
	handlers := slices.Collect(maps.Values(s.handlers[subject]))
	s.mu.Unlock()
	if len(handlers) == 0 {
		return nil, ErrNoResponder
	}
	return handlers[0](ctx, data)
}

func (s seat) Broadcast(subject string, data []byte) error {
	s.mu.Lock()
	hearers := slices.Collect(maps.Values(s.hearers[subject]))
	s.mu.Unlock()
	for _, hear := range hearers {
		hear(data)
	}
	return nil
}

func (s seat) Listen(subject string, hear func([]byte)) (func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	n := s.next
	if s.hearers[subject] == nil {
		s.hearers[subject] = map[int]func([]byte){}
	}
	s.hearers[subject][n] = hear
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.hearers[subject], n)
	}, nil
}

// notes is a recorder that keeps what it is given, and fails when asked to.
type notes struct {
	mu      sync.Mutex
	output  []byte
	input   []byte
	sizes   [][2]int
	flushes int
	fail    error
	stopped error // told without anything being recorded
	closed  *recording.End
}

func (n *notes) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stopped
}

func (n *notes) Output(_ time.Time, p []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.output = append(n.output, p...)
	return n.fail
}

func (n *notes) Input(_ time.Time, p []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.input = append(n.input, p...)
	return n.fail
}

func (n *notes) Resize(_ time.Time, cols, rows int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sizes = append(n.sizes, [2]int{cols, rows})
	return n.fail
}

func (n *notes) Flush() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.flushes++
	return n.fail
}

func (n *notes) Holds() bool                     { return false }
func (n *notes) Attach(recording.Follower) int64 { return 0 }
func (n *notes) Detach(recording.Follower)       {}

func (n *notes) Close(end recording.End) (recording.Summary, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = &end
	return recording.Summary{}, nil
}

func (n *notes) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return string(n.output)
}

func (n *notes) breakWith(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail = err
}

var _ Recorder = (*recording.Writer)(nil)

// eventually waits until cond is true.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
