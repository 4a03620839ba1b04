package session

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// heardJobs is what a gateway passed on of jobs.
type heardJobs struct {
	mu        sync.Mutex
	fails     error
	heard     []string // NODE ack CODE, NODE reply JOB
	connected []string
}

func (h *heardJobs) JobAck(_ context.Context, node string, ack wire.JobAck) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard = append(h.heard, node+" ack "+ack.StatusCode)
	return h.fails
}

func (h *heardJobs) JobReply(_ context.Context, node string, reply wire.JobReply) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard = append(h.heard, node+" reply "+reply.JobID)
	return h.fails
}

func (h *heardJobs) NodeConnected(_ context.Context, node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.connected = append(h.connected, node)
}

func (h *heardJobs) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fails = err
}

func (h *heardJobs) last() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.heard) == 0 {
		return ""
	}
	return h.heard[len(h.heard)-1]
}

// jobNode is a node that only takes jobs.
func (w *world) jobNode(node string) (*websocket.Conn, func() *wire.Message) {
	w.t.Helper()
	conn := w.dial("/v1/control-channel/"+node, node, wire.Opening{TokenValue: w.g.ControlToken(node), AgentVersion: "3.3.40.0"})
	w.t.Cleanup(conn.Abort)
	eventually(w.t, "node connects", func() bool { return w.store.memberOf(node) != "" && w.g.Connected(w.t.Context(), node) })
	return conn, func() *wire.Message {
		w.t.Helper()
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, data, err := conn.Read()
		if err != nil {
			w.t.Fatal(err)
		}
		m, err := wire.Decode(data)
		if err != nil {
			w.t.Fatal(err)
		}
		return m
	}
}

func TestJobs(t *testing.T) {
	jobs := &heardJobs{}
	first := newMember(t, newMemory(), newBus(), "m1", func(c *Config) { c.Jobs = jobs })
	second := newMember(t, first.store, first.bus, "m2", func(c *Config) { c.Jobs = jobs })
	conn, read := first.jobNode(testNode)
	job := wire.ControlTask{JobID: wire.JobID("c", testNode), Topic: wire.TopicSendCommand, Content: "{}", SchemaVersion: 1}
	if err := second.g.SendJob(t.Context(), testNode, job); err != nil {
		t.Fatal(err)
	}
	m := read()
	var got wire.ControlTask
	if json.Unmarshal(m.Payload, &got); m.Type != wire.TypeAgentJob || got != job {
		t.Errorf("through another member: got %s %+v", m.Type, got)
	}
	if err := second.g.SendJob(t.Context(), "mi-away", job); !errors.Is(err, ErrNotConnected) {
		t.Errorf("to a node that is away: got %v", err)
	}
	say := func(m *wire.Message) {
		if err := conn.Write(websocket.Binary, m.Encode()); err != nil {
			t.Fatal(err)
		}
	}
	say(wire.NewJSON(wire.TypeAgentJobAck, time.Now(), wire.JobAck{JobID: job.JobID, StatusCode: "200"}))
	eventually(t, "the answer arrives", func() bool { return jobs.last() == testNode+" ack 200" })

	// What is kept is acknowledged; what is not comes again. The node is who the channel
	// belongs to, whatever the job's id says.
	reply := wire.NewJSON(wire.TypeAgentJobReply, time.Now(), wire.JobReply{JobID: wire.JobID("c", "mi-other"), Content: "{}"})
	jobs.fail(errors.New("disk full"))
	say(reply)
	eventually(t, "the report arrives", func() bool { return jobs.last() == testNode+" reply aws.ssm.c.mi-other" })
	jobs.fail(nil)
	say(wire.New(wire.TypeAgentJobReply, time.Now(), []byte("{")))
	say(reply)
	m = read()
	var ack wire.JobReplyAck
	if json.Unmarshal(m.Payload, &ack); m.Type != wire.TypeAgentJobReplyAck || ack.AcknowledgedMessageID != reply.ID.String() {
		t.Errorf("got %s %+v, want the acknowledgement of %s", m.Type, ack, reply.ID)
	}
	eventually(t, "it is told that the node connected", func() bool {
		jobs.mu.Lock()
		defer jobs.mu.Unlock()
		return len(jobs.connected) == 1 && jobs.connected[0] == testNode
	})
}
