package member

import (
	"github.com/prometheus/client_golang/prometheus"

	"sallyport.dev/archive"
)

// Figures of recordings.
var (
	recordingsLive    = gauge("recordings_live", "Recordings being written by this member.")
	recordingsWaiting = gauge("recordings_waiting", "Recordings that the store does not have whole, live ones included.")
	spoolBytes        = gauge("recording_spool_bytes", "Bytes in the spool.")
	spoolLimit        = gauge("recording_spool_limit_bytes", "Size of the spool at which new recordings are refused.")
	recordingLag      = gauge("recording_lag_seconds", "Age of the oldest finished chunk that the store does not have.")
	objectsStored     = counter("recording_objects_stored_total", "Objects sent to the store of recordings.")
	storedBytes       = counter("recording_stored_bytes_total", "Bytes sent to the store of recordings.")
	plainBytes        = counter("recording_plain_bytes_total", "Bytes recorded, before compression and encryption.")
	sealedBytes       = counter("recording_sealed_bytes_total", "What the bytes recorded became by compression and encryption.")
	recordStoreErrors = counter("recording_store_errors_total", "Calls of the store of recordings that failed.")
	recordKeyErrors   = counter("recording_key_errors_total", "Calls of the key service that failed.")
	recordingDamage   = counter("recording_damage_total", "Times that a recording did not verify when it was read.")
)

// archiveMetrics shows the archive's figures to Prometheus.
type archiveMetrics struct{ archive *archive.Archive }

// Describe implements prometheus.Collector.
func (m archiveMetrics) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, recordingsLive, recordingsWaiting, spoolBytes, spoolLimit, recordingLag, objectsStored, storedBytes,
		plainBytes, sealedBytes, recordStoreErrors, recordKeyErrors, recordingDamage)
}

// Collect implements prometheus.Collector.
func (m archiveMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.archive.Stats()
	recordingsLive.put(ch, float64(s.Live))
	recordingsWaiting.put(ch, float64(s.Waiting))
	spoolBytes.put(ch, float64(s.SpoolBytes))
	spoolLimit.put(ch, float64(s.SpoolLimit))
	recordingLag.put(ch, s.Lag.Seconds())
	objectsStored.put(ch, float64(s.Stored))
	storedBytes.put(ch, float64(s.StoredBytes))
	plainBytes.put(ch, float64(s.FrameBytes))
	sealedBytes.put(ch, float64(s.SealedBytes))
	recordStoreErrors.put(ch, float64(s.StoreErrors))
	recordKeyErrors.put(ch, float64(s.KeeperErrors))
	recordingDamage.put(ch, float64(s.Damaged))
}
