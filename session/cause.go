package session

import (
	"fmt"
	"time"
)

// Reasons why sessions end, for rows, logs and audit records.
const (
	ReasonExit          = "exit"
	ReasonFailed        = "failed"
	ReasonTerminated    = "terminated"
	ReasonIdle          = "idle"
	ReasonMaxDuration   = "max-duration"
	ReasonClientGone    = "client-gone"
	ReasonAgentLost     = "agent-lost"
	ReasonStartTimeout  = "start-timeout"
	ReasonRecordingLost = "recording-lost"
	ReasonAuditLost     = "audit-lost"
	ReasonShutdown      = "shutdown"
	ReasonRestart       = "server-restart"
	ReasonMemberLost    = "member-lost"
	ReasonNodeRemoved   = "node-removed"
	ReasonAccess        = "access-ended"  // what it was allowed on has gone
	ReasonTransferLost  = "transfer-lost" // a file transfer that cannot be followed
	ReasonNotEncrypted  = "not-encrypted" // an end that did not encrypt as the document demands
)

// Cause is why a session ends: one text for the log, one for the terminal.
type Cause struct {
	Reason   string // one of the Reason constants
	Detail   string // for the log: who, which error; may be empty
	Terminal string // shown to the person; empty for an end that explains itself
	Failed   bool   // the session ends as Failed instead of Terminated
	Grant    string // id of the grant that ended, where one did
	Exit     *int   // exit status of the session's program, where known

	err error // for the log of this member alone, where Detail must not say it all
}

// Error implements error: reason and detail.
func (c *Cause) Error() string {
	if c.Detail == "" {
		return c.Reason
	}
	return c.Reason + ": " + c.Detail
}

// Terminated is the cause of a session ended through the API by a principal, for a reason
// that may be empty.
func Terminated(arn, reason string) *Cause {
	by := "by " + arn
	if reason != "" {
		by += ": " + reason
	}
	return &Cause{Reason: ReasonTerminated, Detail: by, Terminal: "Session terminated " + by + "."}
}

func (c *Cause) state() State {
	if c.Failed {
		return StateFailed
	}
	return StateTerminated
}

// byAgent reports whether the agent ended the session, so that there is nothing to
// tell it and everything that it sent is still to be shown.
func (c *Cause) byAgent() bool { return c.Reason == ReasonExit || c.Reason == ReasonFailed }

// in words a duration for the terminal.
func in(d time.Duration) string {
	switch {
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int((d+30*time.Second)/time.Minute))
	case d >= time.Minute:
		return "1 minute"
	case d >= 2*time.Second:
		return fmt.Sprintf("%d seconds", int((d+500*time.Millisecond)/time.Second))
	}
	return "1 second"
}

// cuts reports whether the session must end at once, whatever is still to be shown of
// one that the agent has ended: an agent could go on for ever.
func (c *Cause) cuts() bool {
	switch c.Reason {
	case ReasonTerminated, ReasonAccess, ReasonMaxDuration, ReasonNodeRemoved, ReasonRecordingLost, ReasonAuditLost, ReasonTransferLost, ReasonNotEncrypted:
		return true
	}
	return false
}
