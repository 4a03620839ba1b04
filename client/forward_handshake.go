package client

import (
	"encoding/json"
	"fmt"

	"sallyport.dev/wire"
)

// localPortForwarding is the type of Port documents that forward a port; without it,
// the session carries one connection, as for SSH.
const localPortForwarding = "LocalPortForwarding"

// ForwardProperties are the properties of a Port document, as the agent gives them.
type ForwardProperties struct {
	Host                string `json:"host"`
	PortNumber          string `json:"portNumber"`
	UnixSocket          string `json:"unixSocket"` // on the node
	Type                string `json:"type"`
	LocalPortNumber     string `json:"localPortNumber"`
	LocalUnixSocket     string `json:"localUnixSocket"`
	LocalConnectionType string `json:"localConnectionType"`
}

// Single reports whether the session carries one connection, as standard input and
// output of ssh's ProxyCommand do.
func (p ForwardProperties) Single() bool { return p.Type != localPortForwarding }

// forwardTerms are what the ends have agreed on.
type forwardTerms struct {
	properties ForwardProperties
	agent      string // its version
	streams    bool   // our multiplexer
	bulk       bool
}

// Version gates of AWS's agents (docs/protocol.md §17): above these they multiplex, and
// do without keep-alives.
const (
	multiplexes      = "3.0.196.0"
	withoutKeepAlive = "3.1.1511.0"
)

// portHandler handles the Port session of a forward.
type portHandler Forward

// agree implements negotiator.
func (h *portHandler) agree(version string, p wire.SessionTypeParameters) (any, error) {
	h.terms.agent = version
	if p.Streams != wire.StreamsVersion {
		return nil, nil
	}
	h.terms.streams = true
	answer := wire.PortAnswer{Streams: wire.StreamsVersion}
	if p.Bulk != nil && h.cfg.Bulk != nil && !single(p.Properties) {
		bulk, err := h.cfg.Bulk.Answer(*p.Bulk)
		if err != nil {
			return nil, fmt.Errorf("bulk connections: %w", err)
		}
		answer.Bulk, h.terms.bulk = &bulk, true
	}
	return answer, nil
}

// single reports whether a session carries one connection. That stays on the data
// channel, where it survives a broken link, which matters more to a shell over SSH than
// speed does.
func single(properties json.RawMessage) bool {
	var p ForwardProperties
	return json.Unmarshal(properties, &p) != nil || p.Single()
}

// Start implements Handler.
func (h *portHandler) Start(properties json.RawMessage) error {
	if err := json.Unmarshal(properties, &h.terms.properties); err != nil {
		return fmt.Errorf("decoding the session's properties: %w", err)
	}
	f := (*Forward)(h)
	switch p := h.terms.properties; {
	case h.terms.streams:
		h.way = newMuxWay(f, true)
	case p.Single():
		h.way = newSingleWay(f, false)
	case wire.CompareVersions(h.terms.agent, multiplexes) > 0:
		h.way = newMuxWay(f, false)
	default:
		h.way = newSingleWay(f, true)
	}
	close(h.ready)
	if h.ending.Load() {
		h.way.end() // whoever closed the channel may not have seen it
	}
	return nil
}

// Take implements Handler.
func (h *portHandler) Take(pt wire.PayloadType, payload []byte) error {
	return h.way.take(pt, payload)
}
