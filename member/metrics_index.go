package member

import (
	"github.com/prometheus/client_golang/prometheus"

	"sallyport.dev/index"
)

// Figures of the index of transcripts.
var (
	indexWaiting  = gauge("index_queue_bytes", "Bytes of sessions that wait to be read for the index.")
	indexLines    = counter("index_lines_total", "Lines of transcripts that were kept.")
	indexPartial  = counter("index_partial_total", "Transcripts that must be made again, because too much came at once.")
	indexRepaired = counter("index_repaired_total", "Transcripts that were made again of their recordings.")
	indexErrors   = counter("index_errors_total", "Writes of the index, and readings of recordings for it, that failed.")
)

// indexMetrics shows the index's figures to Prometheus.
type indexMetrics struct{ index *index.Keeper }

// Describe implements prometheus.Collector.
func (m indexMetrics) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, indexWaiting, indexLines, indexPartial, indexRepaired, indexErrors)
}

// Collect implements prometheus.Collector.
func (m indexMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.index.Stats()
	indexWaiting.put(ch, float64(s.Queued))
	indexLines.put(ch, float64(s.Lines))
	indexPartial.put(ch, float64(s.Partial))
	indexRepaired.put(ch, float64(s.Repaired))
	indexErrors.put(ch, float64(s.Failures))
}
