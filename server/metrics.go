package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts calls by operation and error code.
type metrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
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
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.calls, m.duration} {
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
