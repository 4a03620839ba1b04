package member

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport.dev/awslog"
)

// Figures of the session logs that are written to AWS.
var (
	logsObjects   = counter("aws_logs_objects_total", "Session logs written to S3.")
	logsEvents    = counter("aws_logs_events_total", "Events of sessions put into CloudWatch Logs.")
	logsBytes     = counter("aws_logs_bytes_total", "Bytes of session logs written, by output: s3 or logs.", "output")
	logsFailures  = counter("aws_logs_failures_total", "Attempts to write session logs to AWS that failed.")
	logsGivenUp   = counter("aws_logs_given_up_total", "Session logs that will not be written to AWS.")
	logsStreaming = gauge("aws_logs_streaming", "Sessions that this member streams to CloudWatch Logs now.")
	logsWaiting   = gauge("aws_logs_waiting", "Session logs to be written to AWS, those of live sessions included; the same on every member.")
	logsFailing   = gauge("aws_logs_failing", "Session logs whose last attempt failed; the same on every member.")
	logsLag       = gauge("aws_logs_lag_seconds", "How long ago the session ended whose log waits longest; 0 where none does.")
)

// awsLogMetrics shows these figures to Prometheus.
type awsLogMetrics struct{ keeper *awslog.Keeper }

// Describe implements prometheus.Collector.
func (m awsLogMetrics) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, logsObjects, logsEvents, logsBytes, logsFailures, logsGivenUp, logsStreaming, logsWaiting, logsFailing, logsLag)
}

// Collect implements prometheus.Collector.
func (m awsLogMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.keeper.Stats()
	logsObjects.put(ch, float64(s.Objects))
	logsEvents.put(ch, float64(s.Events))
	logsBytes.put(ch, float64(s.ObjectBytes), string(awslog.S3))
	logsBytes.put(ch, float64(s.EventBytes), string(awslog.Logs))
	logsFailures.put(ch, float64(s.Failures))
	logsGivenUp.put(ch, float64(s.GivenUp))
	logsStreaming.put(ch, float64(s.Streaming))
	logsWaiting.put(ch, float64(s.Jobs))
	logsFailing.put(ch, float64(s.Failing))
	lag := 0.0
	if !s.Oldest.IsZero() {
		lag = time.Since(s.Oldest).Seconds()
	}
	logsLag.put(ch, lag)
}
