package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/wire"
)

// Jobs: commands that the server sends (Run Command, docs/protocol.md §25). A job is
// acknowledged once it is on disk; its outcome is kept there until the server has
// acknowledged it, so that it survives the agent.

const (
	maxJobID   = 512
	maxJobText = 1 << 20 // of a job's content, in bytes
	// jobTime is how times are written to the server.
	jobTime = "2006-01-02T15:04:05.000Z"
	// jobsWaiting is how many jobs may wait for a worker; further ones are refused for
	// the moment, and the server sends them again.
	jobsWaiting = 50
)

// Causes of a job's end before its time.
var (
	errJobCancelled = errors.New("the command was cancelled")
	errJobStopped   = errors.New("the agent was stopped while the command ran")
	errJobTimeout   = errors.New("the command took too long")
)

// jobs are the commands of a node.
type jobs struct {
	a      *Agent
	places chan struct{} // one per command that runs

	mu      sync.Mutex
	stopped bool
	live    map[string]context.CancelCauseFunc // by command id
	seen    map[string]time.Time               // commands that ended
	wg      sync.WaitGroup                     // of commands
}

func newJobs(a *Agent) *jobs {
	return &jobs{a: a, places: make(chan struct{}, a.cfg.CommandWorkers),
		live: map[string]context.CancelCauseFunc{}, seen: map[string]time.Time{}}
}

// job acts on an agent_job message.
func (a *Agent) job(m *wire.Message) {
	var task wire.ControlTask
	if err := json.Unmarshal(m.Payload, &task); err != nil || task.JobID == "" || len(task.JobID) > maxJobID {
		a.log.Warn("dropping a job that cannot be parsed")
		return
	}
	code, start := a.jobs.take(task)
	a.outbox.addOnce(wire.NewJSON(wire.TypeAgentJobAck, a.cfg.now().UTC(), wire.JobAck{
		JobID:                 task.JobID,
		AcknowledgedMessageID: m.ID.String(),
		CreatedDate:           time.UnixMilli(int64(m.CreatedDate)).UTC().Format(jobTime),
		StatusCode:            code,
		ErrorMessage:          jobCodeNames[code],
	}))
	if start != nil {
		start()
	}
}

var jobCodeNames = map[string]string{
	wire.JobSuccessful:         "Successful",
	wire.JobProcessorClosed:    "ClosedProcessor",
	wire.JobProcessorFull:      "ProcessorBufferFull",
	wire.JobUnexpectedDocument: "UnexpectedDocumentType",
	wire.JobDuplicateCommand:   "DuplicateCommand",
	wire.JobParseError:         "AgentJobMessageParseError",
	wire.JobUnexpectedError:    "UnexpectedError",
}

// take decides about a job: the code to acknowledge it with, and what to do then.
func (j *jobs) take(task wire.ControlTask) (code string, start func()) {
	switch {
	case strings.HasPrefix(task.Topic, wire.TopicSendCommand):
		return j.takeCommand(task)
	case strings.HasPrefix(task.Topic, wire.TopicCancelCommand):
		return j.takeCancel(task)
	}
	return wire.JobUnexpectedDocument, nil
}

func (j *jobs) takeCommand(task wire.ControlTask) (string, func()) {
	id, err := commandIDOf(task.JobID)
	var command wire.Command
	if err == nil && len(task.Content) > maxJobText {
		err = errors.New("content is too long")
	}
	if err == nil {
		err = json.Unmarshal([]byte(task.Content), &command)
	}
	if err != nil {
		j.a.log.Warn("refusing a command", "job", task.JobID, "error", err)
		return wire.JobParseError, func() {
			out := failedOutcome("the command cannot be parsed: " + err.Error())
			j.report(out.reply(task.JobID, j.a.cfg.now()), nil)
		}
	}
	ctx, code := j.admit(id)
	if code != wire.JobSuccessful {
		return code, nil
	}
	if err := j.keep(record{ID: id, JobID: task.JobID, State: jobRunning}); err != nil {
		j.a.log.Error("keeping a command", "command", id, "error", err)
		j.forget(id)
		return wire.JobUnexpectedError, nil
	}
	return wire.JobSuccessful, func() {
		go func() {
			defer j.wg.Done()
			j.run(ctx, id, task.JobID, command)
		}()
	}
}

// admit makes a place for a command, unless it is known or there is no room.
func (j *jobs) admit(id string) (context.Context, string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, ended := j.seen[id]
	switch {
	case j.stopped:
		return nil, wire.JobProcessorClosed
	case j.live[id] != nil || ended:
		return nil, wire.JobDuplicateCommand
	case len(j.live) >= cap(j.places)+jobsWaiting:
		return nil, wire.JobProcessorFull
	}
	ctx, cancel := context.WithCancelCause(context.Background()) // ends with stop, or before
	j.live[id] = cancel
	j.wg.Add(1) // here, so that who stops the jobs has counted it, or it is refused
	return ctx, wire.JobSuccessful
}

// forget undoes admit.
func (j *jobs) forget(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.live, id)
	j.wg.Done()
}

// takeCancel stops a command. One that has ended, or never came, needs nothing.
func (j *jobs) takeCancel(task wire.ControlTask) (string, func()) {
	var c wire.CommandCancel
	id := ""
	err := json.Unmarshal([]byte(task.Content), &c)
	if err == nil {
		id, err = commandIDOf(c.CancelMessageID)
	}
	if err != nil {
		return wire.JobParseError, nil
	}
	return wire.JobSuccessful, func() {
		j.mu.Lock()
		cancel := j.live[id]
		j.mu.Unlock()
		if cancel != nil {
			j.a.log.Info("cancelling a command", "command", id)
			cancel(errJobCancelled)
		}
	}
}

// commandIDOf returns the id of the command that a job is about. It names files.
func commandIDOf(jobID string) (string, error) {
	rest, ok := strings.CutPrefix(jobID, "aws.ssm.")
	id, _, _ := strings.Cut(rest, ".")
	if !ok || len(id) != 36 {
		return "", fmt.Errorf("job id %.80q names no command", jobID)
	}
	parsed, err := uuid.Parse(id)
	if err != nil {
		return "", fmt.Errorf("job id %.80q names no command: %w", jobID, err)
	}
	return parsed.String(), nil
}

// run runs one command, once there is a place for it.
func (j *jobs) run(ctx context.Context, id, jobID string, c wire.Command) {
	var out outcomeOf
	select {
	case j.places <- struct{}{}:
		out = j.execute(ctx, id, jobID, c)
		<-j.places
	case <-ctx.Done():
		out = outcomeOf{status: statusOf(context.Cause(ctx)), trace: context.Cause(ctx).Error()}
	}
	j.mu.Lock()
	j.live[id](nil) // frees the context
	delete(j.live, id)
	j.remember(id)
	j.mu.Unlock()
	j.a.log.Info("command ended", "command", id, "document", c.DocumentName, "status", out.status)
	reply := out.reply(jobID, j.a.cfg.now())
	err := j.keep(record{ID: id, JobID: jobID, State: jobDone, Reply: &reply})
	if err != nil {
		j.a.log.Error("keeping what a command came to", "command", id, "error", err)
	}
	j.report(reply, func() { j.settled(id, jobID) })
}

const (
	// remembered is how long a command that ended is known, so that it does not run
	// again when the server sends it twice; AWS's agent says 30 minutes.
	remembered = 2 * time.Hour
	// maxRemembered bounds how many are.
	maxRemembered = 2000
)

// remember notes that a command has ended. The caller holds mu.
func (j *jobs) remember(id string) {
	now := j.a.cfg.now()
	for old, at := range j.seen {
		if now.Sub(at) > remembered || len(j.seen) >= maxRemembered {
			delete(j.seen, old)
		}
	}
	j.seen[id] = now
}

// report tells the server what a command came to, until it says that it knows.
func (j *jobs) report(reply wire.JobReply, done func()) {
	j.a.outbox.addUntil(wire.TypeAgentJobReply, func(int) any { return reply }, done)
}

// progress tells the server how far a command is, once.
func (j *jobs) progress(jobID string, out outcomeOf) {
	j.a.outbox.addOnce(wire.NewJSON(wire.TypeAgentJobReply, j.a.cfg.now(), out.reply(jobID, j.a.cfg.now())))
}

// stop takes no more commands and ends those that there are, for which wg waits.
func (j *jobs) stop() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stopped = true
	for _, cancel := range j.live {
		cancel(errJobStopped)
	}
}
