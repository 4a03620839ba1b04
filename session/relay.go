package session

import (
	"bytes"
	"encoding/json"
	"strconv"
	"sync"

	"sallyport.dev/wire"
)

func (s *live) fromAgent(l *link, h wire.Header, data []byte) {
	switch h.Type {
	case wire.TypeOutputStreamData:
		s.enter(l, &s.enterOut, &s.out, s.outRoom, h, data)
	case wire.TypeAcknowledge:
		s.acknowledged(&s.in, &s.out, h, data)
	case wire.TypeAgentSessionState:
		s.agentState(h.Payload)
	}
}

func (s *live) fromClient(l *link, h wire.Header, data []byte) {
	switch h.Type {
	case wire.TypeInputStreamData:
		s.enter(l, &s.enterIn, &s.in, s.inRoom, h, data)
	case wire.TypeAcknowledge:
		s.acknowledged(&s.out, &s.in, h, data)
	}
}

// enter takes a stream message into its flow: waits for room, puts it in order,
// takes it down and wakes the writer.
func (s *live) enter(l *link, entering *sync.Mutex, f *flow, room *sync.Cond, h wire.Header, data []byte) {
	entering.Lock()
	defer entering.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	l.waiting = true
	for f.bytes >= s.g.cfg.Buffer && !l.gone && !s.closed {
		room.Wait()
	}
	l.waiting = false
	if l.gone || s.closed {
		return
	}
	switch f.classify(h.SequenceNumber) {
	case arrivedInTurn:
		s.enterTurnLocked(f, bytes.Clone(data))
		for next, ok := f.held(); ok; next, ok = f.held() {
			s.enterTurnLocked(f, next)
		}
	case arrivedEarly:
		f.hold(h.SequenceNumber, bytes.Clone(data))
	case arrivedAgain:
		f.resend(h.SequenceNumber)
	case arrivedTwice:
		s.acknowledgeAgainLocked(f, data)
	}
	s.passOnLocked()
	s.regulateLocked()
}

// enterTurnLocked enters the message whose turn it is. What is recorded is recorded
// before it is passed on; mu is let go for that, while entering keeps the order.
func (s *live) enterTurnLocked(f *flow, data []byte) {
	h, err := wire.Peek(data)
	if err != nil {
		return
	}
	s.mu.Unlock()
	data, ok := s.tap(f == &s.out, h, data)
	s.mu.Lock()
	if !ok || s.closed {
		return
	}
	f.push(data)
	if f == &s.in {
		s.hearLocked(h)
	} else if isScreen(h.PayloadType) {
		s.shown = true
	}
}

// acknowledgeAgainLocked answers the repetition of a message whose acknowledgement
// the sender has missed: the receiver gave one, and gives no second.
func (s *live) acknowledgeAgainLocked(f *flow, data []byte) {
	m, err := wire.Decode(data)
	if err != nil {
		return
	}
	back := &s.in
	if f == &s.in {
		back = &s.out
	}
	back.acknowledge(wire.NewAcknowledge(m, s.g.now()).Encode())
}

// acknowledged handles an acknowledgement: the receiver of f sent it, and it goes
// back to the sender of f, along with back.
func (s *live) acknowledged(f, back *flow, h wire.Header, data []byte) {
	seq, ok := ackedSequence(h.Payload)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	origin, ours, known := f.acked(seq)
	if !known {
		return
	}
	if !ours && !s.closed {
		back.acknowledge(shiftAck(data, seq, origin))
	}
	s.passOnLocked()
	s.regulateLocked()
	if f == &s.in {
		s.inRoom.Signal()
	} else {
		s.outRoom.Signal()
	}
	if s.cause.Load() != nil {
		s.settled.Broadcast()
	}
}

var ackField = []byte(`"AcknowledgedMessageSequenceNumber":`)

// ackedSequence reads the number of the acknowledged message. Both official programs
// write the field without spaces, which is worth a shortcut for every message.
func ackedSequence(payload []byte) (int64, bool) {
	if i := bytes.Index(payload, ackField); i >= 0 {
		rest := payload[i+len(ackField):]
		if j := bytes.IndexAny(rest, ",}"); j > 0 {
			if n, err := strconv.ParseInt(string(rest[:j]), 10, 64); err == nil {
				return n, true
			}
		}
	}
	var ack wire.Acknowledge
	if json.Unmarshal(payload, &ack) != nil {
		return 0, false
	}
	return ack.SequenceNumber, true
}

// shiftAck returns a copy of an acknowledgement with the number that the sender of
// the message knows it by.
func shiftAck(data []byte, seq, origin int64) []byte {
	if seq == origin {
		return bytes.Clone(data)
	}
	m, err := wire.Decode(data)
	if err != nil {
		return bytes.Clone(data)
	}
	var ack wire.Acknowledge
	if json.Unmarshal(m.Payload, &ack) != nil {
		return bytes.Clone(data)
	}
	ack.SequenceNumber = origin
	m.Payload, _ = json.Marshal(ack) // strings and numbers always encode
	return m.Encode()
}
