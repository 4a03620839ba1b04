package member

import (
	"github.com/prometheus/client_golang/prometheus"
)

// auditMetrics shows how the audit log is secured and sent on.
type auditMetrics struct{ auditing *auditing }

var (
	checkpointDesc = prometheus.NewDesc("sallyport_audit_checkpoint_number",
		"Number of the last checkpoint of the audit log that this member made.", nil, nil)
	checkpointTimeDesc = prometheus.NewDesc("sallyport_audit_checkpoint_timestamp_seconds",
		"When the last checkpoint that this member made was signed.", nil, nil)
	checkpointsWaitingDesc = prometheus.NewDesc("sallyport_audit_checkpoints_waiting",
		"Checkpoints that the recording store does not have yet.", nil, nil)
	checkpointFailuresDesc = prometheus.NewDesc("sallyport_audit_checkpoint_failures_total",
		"Attempts to sign or store a checkpoint that failed.", nil, nil)
	auditProblemsDesc = prometheus.NewDesc("sallyport_audit_problems_total",
		"What this member found wrong with the audit log and its checkpoints. Anything but 0 is an alarm.", nil, nil)
	forwardBehindDesc = prometheus.NewDesc("sallyport_audit_forward_behind",
		"Audit records that a destination was not sent yet, on the member that sends.", []string{"destination"}, nil)
	forwardLagDesc = prometheus.NewDesc("sallyport_audit_forward_lag_seconds",
		"Age of the oldest audit record that a destination was not sent yet, on the member that sends.", []string{"destination"}, nil)
	forwardSentDesc = prometheus.NewDesc("sallyport_audit_forward_sent_total",
		"Audit records that were delivered.", []string{"destination"}, nil)
	forwardFailuresDesc = prometheus.NewDesc("sallyport_audit_forward_failures_total",
		"Attempts to deliver audit records that failed.", []string{"destination"}, nil)
)

// Describe implements prometheus.Collector.
func (a auditMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{checkpointDesc, checkpointTimeDesc, checkpointsWaitingDesc, checkpointFailuresDesc,
		auditProblemsDesc, forwardBehindDesc, forwardLagDesc, forwardSentDesc, forwardFailuresDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (a auditMetrics) Collect(ch chan<- prometheus.Metric) {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	add := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	s := a.auditing.keeper.Stats()
	add(checkpointDesc, gauge, float64(s.Number))
	if !s.Made.IsZero() {
		add(checkpointTimeDesc, gauge, float64(s.Made.UnixMilli())/1000)
	}
	add(checkpointsWaitingDesc, gauge, float64(s.Waiting))
	add(checkpointFailuresDesc, counter, float64(s.Failures))
	add(auditProblemsDesc, counter, float64(s.Problems))
	for _, f := range a.auditing.forwarder.Stats() {
		if f.Held {
			add(forwardBehindDesc, gauge, float64(f.Behind), f.Destination)
			add(forwardLagDesc, gauge, f.Lag.Seconds(), f.Destination)
		}
		add(forwardSentDesc, counter, float64(f.Sent), f.Destination)
		add(forwardFailuresDesc, counter, float64(f.Failures), f.Destination)
	}
}
