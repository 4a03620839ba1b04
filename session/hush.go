package session

import (
	"encoding/json"
	"time"

	"sallyport.dev/wire"
)

// AWS's client stops reading for good, without a word, when anything at all comes
// while it sets up a forward's multiplexer after the handshake (its plugin, 1.2.694:
// MuxPortForwarding.IsStreamNotSet looks into what is not there yet). A late
// acknowledgement of its handshake is enough. So it hears nothing from the end of the
// handshake until it has sent something through the multiplexer, at most CloseHold.
// Until then there is nothing that it waits for: it is the end that opens streams.

// hearLocked looks at a message of the client for what tells that it is ready.
func (s *live) hearLocked(h wire.Header) {
	switch {
	case s.row.SessionType != "Port":
	case h.PayloadType == wire.PayloadHandshakeResponse:
		s.ownClient = isOwnAnswer(h.Payload)
	default:
		s.hushed = false
	}
}

// isOwnAnswer reports whether our own client answered the handshake of a Port session.
func isOwnAnswer(payload []byte) bool {
	var response wire.HandshakeResponse
	if json.Unmarshal(payload, &response) != nil {
		return false
	}
	for _, a := range response.ProcessedClientActions {
		var answer wire.PortAnswer
		if a.ActionType == wire.ActionSessionType && json.Unmarshal(a.ActionResult, &answer) == nil && answer.Streams > 0 {
			return true
		}
	}
	return false
}

// hushLocked begins the silence.
func (s *live) hushLocked() { s.hushed = s.row.SessionType == "Port" && !s.ownClient }

// silentLocked reports whether nothing may be written to a link now.
func (s *live) silentLocked(l *link) bool {
	if l.role == roleClient {
		return s.hushed
	}
	return s.severed
}

// unhush ends the silence when its time is over.
func (s *live) unhush(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hushed && now.Sub(s.handshakeDone) >= s.g.cfg.CloseHold {
		s.hushed = false
		s.wakeLocked()
	}
}
