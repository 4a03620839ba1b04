package member

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Figures of how the audit log is secured and sent on.
var (
	checkpointNumber   = gauge("audit_checkpoint_number", "Number of the last checkpoint of the audit log that this member made.")
	checkpointTime     = gauge("audit_checkpoint_timestamp_seconds", "When the last checkpoint that this member made was signed.")
	checkpointsWaiting = gauge("audit_checkpoints_waiting", "Checkpoints that the recording store does not have yet.")
	checkpointFailures = counter("audit_checkpoint_failures_total", "Attempts to sign or store a checkpoint that failed.")
	auditProblems      = counter("audit_problems_total", "What this member found wrong with the audit log and its checkpoints. Anything but 0 is an alarm.")
	forwardBehind      = gauge("audit_forward_behind", "Audit records that a destination was not sent yet, on the member that sends.", "destination")
	forwardLag         = gauge("audit_forward_lag_seconds", "Age of the oldest audit record that a destination was not sent yet, on the member that sends.", "destination")
	forwardSent        = counter("audit_forward_sent_total", "Audit records that were delivered.", "destination")
	forwardFailures    = counter("audit_forward_failures_total", "Attempts to deliver audit records that failed.", "destination")
)

// auditMetrics shows these figures to Prometheus.
type auditMetrics struct{ auditing *auditing }

// Describe implements prometheus.Collector.
func (a auditMetrics) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, checkpointNumber, checkpointTime, checkpointsWaiting, checkpointFailures, auditProblems,
		forwardBehind, forwardLag, forwardSent, forwardFailures)
}

// Collect implements prometheus.Collector.
func (a auditMetrics) Collect(ch chan<- prometheus.Metric) {
	s := a.auditing.keeper.Stats()
	checkpointNumber.put(ch, float64(s.Number))
	if !s.Made.IsZero() {
		checkpointTime.put(ch, seconds(s.Made))
	}
	checkpointsWaiting.put(ch, float64(s.Waiting))
	checkpointFailures.put(ch, float64(s.Failures))
	auditProblems.put(ch, float64(s.Problems))
	for _, f := range a.auditing.forwarder.Stats() {
		if f.Held {
			forwardBehind.put(ch, float64(f.Behind), f.Destination)
			forwardLag.put(ch, f.Lag.Seconds(), f.Destination)
		}
		forwardSent.put(ch, float64(f.Sent), f.Destination)
		forwardFailures.put(ch, float64(f.Failures), f.Destination)
	}
}

// seconds is a time as Prometheus has it.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
