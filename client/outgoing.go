package client

import (
	"time"

	"sallyport.dev/wire"
)

// Retransmission (docs/protocol.md §7).
const (
	firstRTT     = 100 * time.Millisecond
	firstRTO     = 200 * time.Millisecond
	minVariation = 10 * time.Millisecond
	maxRTO       = time.Second
	maxResendGap = 5 * time.Second

	// maxUnackedMessages and maxUnackedBytes bound what is kept for resending: what is
	// typed while the link is away waits here. A sender waits when they are reached.
	maxUnackedMessages = 4096
	maxUnackedBytes    = 1 << 20
)

// sent is a stream message that the agent has not acknowledged.
type sent struct {
	seq   int64
	frame []byte    // nil once acknowledged
	at    time.Time // sent last
	since time.Time // sent first over this link
	tries int
}

// outgoing numbers stream messages and keeps the unacknowledged ones, in order.
// It is not safe for concurrent use.
type outgoing struct {
	next  int64
	queue []sent
	bytes int

	rtt, variation, rto time.Duration
}

func newOutgoing() outgoing { return outgoing{rtt: firstRTT, rto: firstRTO} }

func (o *outgoing) full() bool {
	return len(o.queue) >= maxUnackedMessages || o.bytes >= maxUnackedBytes
}

// add numbers, encodes and keeps one message and returns its frame.
func (o *outgoing) add(pt wire.PayloadType, payload []byte, at time.Time) []byte {
	frame := wire.NewStream(wire.TypeInputStreamData, o.next, pt, at, payload).Encode()
	o.queue = append(o.queue, sent{seq: o.next, frame: frame, at: at, since: at})
	o.next++
	o.bytes += len(frame)
	return frame
}

// acknowledge drops the message with the given number, if it is still kept.
func (o *outgoing) acknowledge(seq int64, at time.Time) {
	if len(o.queue) == 0 {
		return
	}
	i := seq - o.queue[0].seq
	if i < 0 || i >= int64(len(o.queue)) || o.queue[i].frame == nil {
		return
	}
	m := &o.queue[i]
	if m.tries == 0 {
		o.sample(at.Sub(m.at))
	}
	o.bytes -= len(m.frame)
	m.frame = nil
	for len(o.queue) > 0 && o.queue[0].frame == nil {
		o.queue = o.queue[1:]
	}
	if len(o.queue) == 0 {
		o.queue = nil
	}
}

// sample takes one round trip into the estimate. Resent messages are no samples:
// which copy was acknowledged cannot be known.
func (o *outgoing) sample(r time.Duration) {
	o.variation = o.variation*3/4 + (o.rtt-r).Abs()/4
	o.rtt = o.rtt*7/8 + r/8
	o.rto = min(o.rtt+max(minVariation, 4*o.variation), maxRTO)
}

// due returns the frame of the oldest message if it has waited too long, and counts
// it as resent. The gap doubles with every try.
func (o *outgoing) due(now time.Time) []byte {
	if len(o.queue) == 0 {
		return nil
	}
	m := &o.queue[0]
	gap := min(o.rto<<min(m.tries, 8), maxResendGap)
	if now.Sub(m.at) < gap {
		return nil
	}
	m.tries++
	m.at = now
	return m.frame
}

// all returns every kept frame in order, as resent now.
func (o *outgoing) all(now time.Time) [][]byte {
	var frames [][]byte
	for i := range o.queue {
		if o.queue[i].frame == nil {
			continue
		}
		o.queue[i].tries++
		o.queue[i].at, o.queue[i].since = now, now
		frames = append(frames, o.queue[i].frame)
	}
	return frames
}

// waiting returns how long the oldest message has waited for its acknowledgement.
func (o *outgoing) waiting(now time.Time) time.Duration {
	if len(o.queue) == 0 {
		return 0
	}
	return now.Sub(o.queue[0].since)
}
