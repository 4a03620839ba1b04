package member

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sallyport.dev/frontdoor"
	"sallyport.dev/grant"
	"sallyport.dev/session"
)

// newRegistry returns what Prometheus is shown of a member whose gateway has started.
func (m *Member) newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(gatewayMetrics{m.gateway}, stateMetrics{m.State}, archiveMetrics{m.archive})
	r.MustRegister(m.requests.steps, m.requests.decisions)
	if m.index != nil {
		r.MustRegister(indexMetrics{m.index})
	}
	if m.awsLogs != nil {
		r.MustRegister(awsLogMetrics{m.awsLogs})
	}
	return r
}

// newDoorMetrics counts the connections of the SSH front door.
func newDoorMetrics(d *frontdoor.Door) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sallyport_ssh_connections", Help: "Connections to the SSH front door, those included that have not proven themselves.",
	}, func() float64 { return float64(d.Connections()) })
}

// figure is one figure that a collector reads when it is asked.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) figure {
	return figure{prometheus.NewDesc("sallyport_"+name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) figure {
	return figure{prometheus.NewDesc("sallyport_"+name, help, labels, nil), prometheus.CounterValue}
}

// put reports a figure's value.
func (f figure) put(ch chan<- prometheus.Metric, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
}

// Figures of the gateway.
var (
	nodesConnected  = gauge("nodes_connected", "Nodes whose control channel this member holds.")
	sessionsNow     = gauge("sessions", "Sessions that this member relays now, by kind (shell, command, forward, transfer).", "kind")
	sessionsStarted = counter("sessions_started_total", "Sessions opened since the start of the process, by kind.", "kind")
	sessionsEnded   = counter("sessions_ended_total", "Sessions ended since the start of the process, by kind and reason.", "kind", "reason")
	sessionBytes    = counter("session_bytes_total", "Payload bytes of ended sessions, by direction: in is from people, out from nodes.", "direction")
)

// gatewayMetrics shows the gateway's figures to Prometheus.
type gatewayMetrics struct{ gateway *session.Gateway }

// Describe implements prometheus.Collector.
func (g gatewayMetrics) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, nodesConnected, sessionsNow, sessionsStarted, sessionsEnded, sessionBytes)
}

func describe(ch chan<- *prometheus.Desc, figures ...figure) {
	for _, f := range figures {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector. Kinds that there are none of are shown as 0,
// so that alerts and graphs have them from the start.
func (g gatewayMetrics) Collect(ch chan<- prometheus.Metric) {
	s := g.gateway.Stats()
	nodesConnected.put(ch, float64(s.Nodes))
	for _, kind := range []string{session.KindShell, session.KindCommand, session.KindForward, session.KindTransfer} {
		sessionsNow.put(ch, float64(s.Sessions[kind]), kind)
		sessionsStarted.put(ch, float64(s.Started[kind]), kind)
	}
	for end, n := range s.Ended {
		sessionsEnded.put(ch, float64(n), end.Kind, end.Reason)
	}
	sessionBytes.put(ch, float64(s.BytesIn), "in")
	sessionBytes.put(ch, float64(s.BytesOut), "out")
}

// Figures of the database and the audit log, and of what waits in them. The last are the
// same on every member: take the maximum over them.
var (
	storeErrors       = counter("store_errors_total", "Statements and commits that the database failed.")
	storeWaiting      = gauge("store_queue_length", "Changes that wait for the database's writer (SQLite).")
	auditRecords      = counter("audit_records_total", "Audit records stored since the start of the process.")
	auditErrors       = counter("audit_errors_total", "Audit records that could not be stored. What they tell of was refused.")
	auditWaiting      = gauge("audit_queue_length", "Audit records that wait to be stored.")
	requestsWaiting   = gauge("requests_waiting", "Requests for access that wait for a decision; of all members.")
	deliveriesWaiting = gauge("notifications_waiting", "Notifications that wait to be delivered; of all members.")
)

// stateMetrics shows the figures of store and audit log to Prometheus.
type stateMetrics struct{ *State }

// backlogTimeout bounds the counting of what waits, for a scrape.
const backlogTimeout = 2 * time.Second

// Describe implements prometheus.Collector.
func (m stateMetrics) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, storeErrors, storeWaiting, auditRecords, auditErrors, auditWaiting, requestsWaiting, deliveriesWaiting)
}

// Collect implements prometheus.Collector. What the database does not tell is left out.
func (m stateMetrics) Collect(ch chan<- prometheus.Metric) {
	st, au := m.Store.Stats(), m.Audit.Stats()
	storeErrors.put(ch, float64(st.Failed))
	storeWaiting.put(ch, float64(st.Waiting))
	auditRecords.put(ch, float64(au.Appended))
	auditErrors.put(ch, float64(au.Failed))
	auditWaiting.put(ch, float64(au.Waiting))
	ctx, cancel := context.WithTimeout(context.Background(), backlogTimeout)
	defer cancel()
	backlog, err := m.Store.Backlog(ctx)
	if err != nil {
		return
	}
	requestsWaiting.put(ch, float64(backlog.Requests))
	deliveriesWaiting.put(ch, float64(backlog.Deliveries))
}

// requestMetrics counts the steps of requests that this member took.
type requestMetrics struct {
	steps     *prometheus.CounterVec
	decisions *prometheus.HistogramVec
}

func newRequestMetrics() requestMetrics {
	m := requestMetrics{
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_requests_total", Help: "Steps of requests for access that this member took, by kind.",
		}, []string{"kind"}),
		decisions: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sallyport_request_decision_seconds",
			Help:    "Time from asking for access to its approval or denial.",
			Buckets: prometheus.ExponentialBuckets(1, 3, 12), // to two days
		}, []string{"kind"}),
	}
	for _, kind := range []string{grant.KindRequested, grant.KindGranted, grant.KindDenied} {
		m.steps.WithLabelValues(kind)
	}
	for _, kind := range []string{grant.KindGranted, grant.KindDenied} {
		m.decisions.WithLabelValues(kind)
	}
	return m
}

// step counts one step of a request.
func (m requestMetrics) step(r grant.Request, ev grant.Event) {
	m.steps.WithLabelValues(ev.Kind).Inc()
	if ev.Kind == grant.KindGranted || ev.Kind == grant.KindDenied {
		m.decisions.WithLabelValues(ev.Kind).Observe(ev.At.Sub(r.Frozen.Created).Seconds())
	}
}
