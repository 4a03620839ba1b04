package session

import (
	"context"
	"encoding/json"
	"time"

	"sallyport.dev/wire"
)

// Jobs takes what agents say of the jobs that they were given (Run Command), and hears
// of nodes that connect. *command.Runner is one.
type Jobs interface {
	JobAck(ctx context.Context, node string, ack wire.JobAck) error
	// JobReply returns once what the agent reported is kept; it must not be
	// acknowledged after an error, so that it comes again.
	JobReply(ctx context.Context, node string, reply wire.JobReply) error
	NodeConnected(ctx context.Context, node string)
}

// SendJob gives a job to a node's agent, by whichever member holds its control channel.
// It is ErrNotConnected where none does.
func (g *Gateway) SendJob(ctx context.Context, node string, job wire.ControlTask) error {
	return g.sendControl(ctx, node, wire.NewJSON(wire.TypeAgentJob, g.now(), job))
}

// jobMessage takes an agent's message about a job. A node speaks for itself only: what
// it says counts for its own jobs, whatever ids it names.
func (g *Gateway) jobMessage(c *control, m *wire.Message) error {
	if g.cfg.Jobs == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(g.ctx, storeTimeout)
	defer cancel()
	if m.Type == wire.TypeAgentJobAck {
		g.jobAck(ctx, c, m)
		return nil
	}
	return g.jobReply(ctx, c, m)
}

func (g *Gateway) jobAck(ctx context.Context, c *control, m *wire.Message) {
	var ack wire.JobAck
	err := json.Unmarshal(m.Payload, &ack)
	if err == nil {
		err = g.cfg.Jobs.JobAck(ctx, c.node, ack)
	}
	if err != nil { // the job is sent again, and answered again
		g.log.Warn("agent_job_ack dropped", "node", c.node, "error", err)
	}
}

func (g *Gateway) jobReply(ctx context.Context, c *control, m *wire.Message) error {
	var reply wire.JobReply
	err := json.Unmarshal(m.Payload, &reply)
	if err == nil {
		err = g.cfg.Jobs.JobReply(ctx, c.node, reply)
	}
	if err != nil {
		g.log.Warn("agent_job_reply not taken", "node", c.node, "error", err)
		return nil
	}
	return c.send(wire.NewJSON(wire.TypeAgentJobReplyAck, g.now(), wire.JobReplyAck{
		JobID: reply.JobID, AcknowledgedMessageID: m.ID.String(),
	}))
}

// jobsWait is how long a node that has just connected is left to get ready: AWS's
// agent drops jobs that come in its first moments.
const jobsWait = 500 * time.Millisecond

// greetJobs makes the jobs of a node that has just connected be sent.
func (g *Gateway) greetJobs(c *control) {
	if g.cfg.Jobs == nil {
		return
	}
	g.start(func() {
		t := time.NewTimer(jobsWait)
		defer t.Stop()
		select {
		case <-g.ctx.Done():
			return
		case <-t.C:
		}
		ctx, cancel := context.WithTimeout(g.ctx, storeTimeout)
		defer cancel()
		if g.control(c.node) == c {
			g.cfg.Jobs.NodeConnected(ctx, c.node)
		}
	})
}
