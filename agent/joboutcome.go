package agent

import (
	"encoding/json"
	"time"

	"sallyport.dev/wire"
)

const (
	statusInProgress = "InProgress"
	statusCancelled  = "Cancelled"
	statusTimedOut   = "TimedOut"
)

// maxReply bounds a report, in bytes, safely within a message (docs/protocol.md §10).
const maxReply = 900 << 10

// outcomeOf is what a command has come to.
type outcomeOf struct {
	status string
	trace  string
	steps  map[string]wire.JobPlugin
}

func failedOutcome(trace string) outcomeOf { return outcomeOf{status: statusFailed, trace: trace} }

func (o *outcomeOf) add(name string, r wire.JobPlugin) {
	steps := map[string]wire.JobPlugin{name: r}
	for k, v := range o.steps {
		steps[k] = v
	}
	o.steps = steps // earlier reports hold the old map
}

// finish works out the status of the whole: the worst of its steps'.
func (o *outcomeOf) finish() {
	o.status = statusSuccess
	for _, worse := range []string{statusCancelled, statusTimedOut, statusFailed} {
		for _, s := range o.steps {
			if s.Status == worse {
				o.status = worse
			}
		}
	}
}

// reply is the report of an outcome. Outputs that make it too long are cut further.
func (o outcomeOf) reply(jobID string, now time.Time) wire.JobReply {
	for limit := maxStdout * 2; ; limit /= 2 {
		content, err := json.Marshal(o.message(now))
		if err != nil {
			panic("agent: encoding the outcome of a command: " + err.Error()) // strings always encode
		}
		r := wire.JobReply{SchemaVersion: 1, JobID: jobID, Content: string(content), Topic: wire.TopicSendCommand}
		outer, err := json.Marshal(r)
		if err != nil {
			panic("agent: encoding a report: " + err.Error())
		}
		if len(outer) <= maxReply || limit < 16 {
			return r
		}
		o = o.cut(limit / 2)
	}
}

// cut bounds every output.
func (o outcomeOf) cut(limit int) outcomeOf {
	steps := map[string]wire.JobPlugin{}
	for name, s := range o.steps {
		for _, out := range []*string{&s.StandardOutput, &s.StandardError, &s.Output} {
			if len(*out) > limit {
				c := newCapture(limit)
				c.write([]byte(*out))
				*out = c.String()
			}
		}
		steps[name] = s
	}
	o.steps = steps
	return o
}

func (o outcomeOf) message(now time.Time) wire.JobOutcome {
	name, version := osRelease("/etc/os-release", "/usr/lib/os-release")
	counts := map[string]int{}
	for _, s := range o.steps {
		counts[s.Status]++
	}
	return wire.JobOutcome{
		AdditionalInfo: wire.JobInfo{
			Agent:               wire.JobAgent{Lang: "en-US", Name: Name, OS: name, OSVersion: version, Version: ProtocolVersion},
			DateTime:            now.UTC().Format(jobTime),
			RuntimeStatusCounts: counts,
		},
		DocumentStatus:      o.status,
		DocumentTraceOutput: o.trace,
		RuntimeStatus:       o.steps,
	}
}
