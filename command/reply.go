package command

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport.dev/wire"
)

// Bounds of what is kept of an agent's report, in bytes but for the steps.
const (
	// MaxOutput bounds each of a step's outputs. AWS's agent cuts at 24,000 and 8,000
	// characters, ours at 64 and 32 KiB.
	MaxOutput = 96 << 10
	maxSteps  = 50
	maxTrace  = 2500
	maxName   = 128
	maxTotal  = 384 << 10 // of all steps' outputs
)

// finalStatus maps the document status of an agent. Those that no node of ours gives
// (a reboot under way) count as running.
func finalStatus(s string) (Status, string) {
	switch s {
	case "Success":
		return Success, string(Success)
	case "Cancelled":
		return Cancelled, string(Cancelled)
	case "TimedOut":
		return TimedOut, ExecutionTimedOut
	case "Failed":
		return Failed, string(Failed)
	}
	return "", ""
}

// apply takes an agent's report into i and reports whether that changed anything. An
// invocation that has ended stays as it is, and so does a step: reports come out of
// order and twice, and a node does not revise what it said.
func (i *Invocation) apply(o wire.JobOutcome, now time.Time) bool {
	if i.Status.Final() || i.Sent.IsZero() {
		return false
	}
	changed := false
	if i.Delivered.IsZero() {
		i.Delivered, changed = now, true
	}
	if i.Status != Cancelling && i.Status != InProgress {
		i.Status, i.Details, changed = InProgress, string(InProgress), true
	}
	if i.applySteps(o.RuntimeStatus) {
		changed = true
	}
	status, details := finalStatus(o.DocumentStatus)
	if status == "" {
		return changed
	}
	i.Status, i.Details, i.Ended = status, details, now
	i.Trace = clip(o.DocumentTraceOutput, maxTrace)
	return true
}

func (i *Invocation) applySteps(steps map[string]wire.JobPlugin) (changed bool) {
	for name, p := range steps {
		step := stepOf(name, p)
		at := slices.IndexFunc(i.Steps, func(s Step) bool { return s.Name == step.Name })
		switch {
		case at < 0 && len(i.Steps) < maxSteps && i.room(step):
			i.Steps = append(i.Steps, step)
		case at >= 0 && !i.Steps[at].Status.Final():
			i.Steps[at] = step
		default:
			continue
		}
		changed = true
		if !step.Started.IsZero() && (i.Started.IsZero() || step.Started.Before(i.Started)) {
			i.Started = step.Started
		}
	}
	slices.SortStableFunc(i.Steps, func(a, b Step) int { return a.Started.Compare(b.Started) })
	return changed
}

// room reports whether another step's outputs may be kept.
func (i *Invocation) room(s Step) bool {
	total := 0
	for _, have := range append(slices.Clone(i.Steps), s) {
		total += len(have.Output) + len(have.Stdout) + len(have.Stderr)
	}
	return total <= maxTotal
}

func stepOf(name string, p wire.JobPlugin) Step {
	return Step{
		Name: clip(name, maxName), Plugin: clip(p.Name, maxName), Status: stepStatus(p.Status), Code: p.Code,
		Started: agentTime(p.StartDateTime), Ended: agentTime(p.EndDateTime),
		Output: clip(p.Output, maxTrace), Stdout: clip(p.StandardOutput, MaxOutput), Stderr: clip(p.StandardError, MaxOutput),
	}
}

func stepStatus(s string) Status {
	switch s {
	case "Success", "Skipped", "NotApplicable":
		return Success
	case "Cancelled", "TimedOut", "Failed", "Pending", "InProgress":
		return Status(s)
	case "NotStarted":
		return Pending
	}
	return InProgress
}

// agentTime reads a time as agents write it; another is none.
func agentTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 2000 || t.Year() > 2200 {
		return time.Time{}
	}
	return t.UTC()
}

// clip cuts s to at most n bytes of valid text that a database takes.
func clip(s string, n int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// acked takes an agent's answer to a job into i and reports whether that changed
// anything.
func (i *Invocation) acked(code string, now time.Time) bool {
	if i.Status.Final() || i.Sent.IsZero() || !i.Delivered.IsZero() {
		return false
	}
	switch code {
	case wire.JobSuccessful, wire.JobDuplicateCommand:
		i.Delivered = now
		if i.Status != Cancelling {
			i.Status, i.Details = InProgress, string(InProgress)
		}
	case wire.JobProcessorFull, wire.JobProcessorClosed:
		// It comes again, and holds no place until then.
		i.Sent = time.Time{}
		if i.Status != Cancelling {
			i.Status, i.Details = Delayed, string(Delayed)
		}
	default:
		i.Status, i.Details, i.Ended = Failed, string(Failed), now
		i.Trace = "the agent refused the document: " + clip(code, maxName)
	}
	return true
}
