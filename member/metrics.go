package member

import (
	"github.com/prometheus/client_golang/prometheus"

	"sallyport.dev/frontdoor"
	"sallyport.dev/session"
)

// newDoorMetrics counts the connections of the SSH front door.
func newDoorMetrics(d *frontdoor.Door) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sallyport_ssh_connections", Help: "Connections to the SSH front door, those included that have not proven themselves.",
	}, func() float64 { return float64(d.Connections()) })
}

// gatewayMetrics shows the gateway's figures to Prometheus.
type gatewayMetrics struct{ gateway *session.Gateway }

var (
	nodesDesc = prometheus.NewDesc("sallyport_nodes_connected",
		"Nodes whose control channel this member holds.", nil, nil)
	sessionsDesc = prometheus.NewDesc("sallyport_sessions",
		"Sessions that this member relays now.", nil, nil)
	startedDesc = prometheus.NewDesc("sallyport_sessions_started_total",
		"Sessions opened since the start of the process.", nil, nil)
	endedDesc = prometheus.NewDesc("sallyport_sessions_ended_total",
		"Sessions ended since the start of the process, by reason.", []string{"reason"}, nil)
	bytesDesc = prometheus.NewDesc("sallyport_session_bytes_total",
		"Payload bytes of ended sessions, by direction: in is from people, out from nodes.", []string{"direction"}, nil)
)

// Describe implements prometheus.Collector.
func (g gatewayMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nodesDesc, sessionsDesc, startedDesc, endedDesc, bytesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g gatewayMetrics) Collect(ch chan<- prometheus.Metric) {
	s := g.gateway.Stats()
	ch <- prometheus.MustNewConstMetric(nodesDesc, prometheus.GaugeValue, float64(s.Nodes))
	ch <- prometheus.MustNewConstMetric(sessionsDesc, prometheus.GaugeValue, float64(s.Sessions))
	ch <- prometheus.MustNewConstMetric(startedDesc, prometheus.CounterValue, float64(s.Started))
	for reason, n := range s.Ended {
		ch <- prometheus.MustNewConstMetric(endedDesc, prometheus.CounterValue, float64(n), reason)
	}
	ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.CounterValue, float64(s.BytesIn), "in")
	ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.CounterValue, float64(s.BytesOut), "out")
}
