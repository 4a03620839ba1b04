package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport.dev/policy"
)

// metrics counts calls by operation and error code, and decisions by outcome.
type metrics struct {
	calls     *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	decisions *prometheus.HistogramVec
}

// newMetrics registers the metrics; a nil registerer leaves them unregistered.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_api_calls_total",
			Help: "API calls by operation and error code (empty for success).",
		}, []string{"operation", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sallyport_api_call_duration_seconds",
			Help:    "Time from the arrival of a call to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}, []string{"operation"}),
		decisions: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sallyport_decision_duration_seconds",
			Help:    "Time that policy decisions took, without their audit record, by outcome; the count is the number of decisions.",
			Buckets: prometheus.ExponentialBuckets(0.000001, 4, 12),
		}, []string{"decision"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.calls, m.duration, m.decisions} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// observe counts a call. The operation is a row of the table or empty, so that
// callers cannot make up label values.
func (m *metrics) observe(operation, code string, took time.Duration) {
	m.calls.WithLabelValues(operation, code).Inc()
	m.duration.WithLabelValues(operation).Observe(took.Seconds())
}

// decided counts a policy decision.
func (m *metrics) decided(d policy.Decision, took time.Duration) {
	m.decisions.WithLabelValues(d.Effect.String()).Observe(took.Seconds())
}
