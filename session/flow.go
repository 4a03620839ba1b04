package session

import (
	"encoding/binary"
	"slices"
	"sort"

	"sallyport.dev/wire"
)

// flow is one direction of a session: the stream messages of a sender on their way
// to a receiver, who may be away for a while or come back on another connection.
//
// A message stays in the flow until its receiver has acknowledged it, so that what
// a lost connection swallowed is written again to the next one. Messages enter in
// the order of their sequence numbers and leave in that order. The gateway may put
// messages of its own between them; receivers then see later numbers shifted by
// one, and their acknowledgements are shifted back. With nothing put in, what
// leaves is byte for byte what entered.
//
// A flow does no I/O and has no lock; its session guards it.
type flow struct {
	expected   int64            // the sender's next sequence number
	early      map[int64][]byte // messages that came before their turn
	earlyBytes int

	out      int64   // the receiver's next sequence number: expected + len(injected)
	injected []int64 // the receiver's numbers of the gateway's own messages
	frames   []frame // not yet acknowledged, ascending
	next     int     // the first of frames not yet written to the present receiver
	again    []int64 // numbers to write once more, since the sender sent them again
	bytes    int     // held in frames

	acks     [][]byte // acknowledgements for the receiver, of what it sent itself
	ackBytes int

	// ready says that the receiver has begun to take what the session shows: it
	// has acknowledged such a message, and none before it is missing.
	ready bool
}

type frame struct {
	seq     int64 // as the receiver sees it
	data    []byte
	written bool // to any receiver
	repeat  bool // written to an earlier one, too
}

const (
	// frameCost is what a held message costs beside its bytes.
	frameCost = 64
	// maxEarly bounds how far ahead of its turn a message may come, and
	// maxEarlyBytes how much of that is held. The sender keeps what is refused.
	maxEarly      = 10000
	maxEarlyBytes = 1 << 20
	// maxAckBytes bounds acknowledgements held for an absent receiver. The sender of
	// a message whose acknowledgement is dropped sends it again and gets another.
	maxAckBytes = 256 << 10

	sequenceOffset = 48
)

// arrival is what becomes of a message that the sender sent.
type arrival int

const (
	arrivedInTurn   arrival = iota // push it
	arrivedEarly                   // hold it
	arrivedAgain                   // on its way already
	arrivedTwice                   // already acknowledged: the sender missed that
	arrivedAbsurdly                // drop it
)

// classify says what to do with a message, by the sender's number.
func (f *flow) classify(seq int64) arrival {
	switch {
	case seq == f.expected:
		return arrivedInTurn
	case seq > f.expected && seq-f.expected <= maxEarly:
		return arrivedEarly
	case seq > f.expected, seq < 0:
		return arrivedAbsurdly
	}
	if _, held := f.find(f.shifted(seq)); held {
		return arrivedAgain
	}
	return arrivedTwice
}

// push adds the message whose turn it is. The flow owns data from here on.
func (f *flow) push(data []byte) {
	if len(f.injected) > 0 {
		binary.BigEndian.PutUint64(data[sequenceOffset:], uint64(f.out))
	}
	f.expected++
	f.add(data)
}

// inject adds a message of the gateway's own.
func (f *flow) inject(m *wire.Message) {
	m.SequenceNumber = f.out
	f.injected = append(f.injected, f.out)
	f.add(m.Encode())
}

func (f *flow) add(data []byte) {
	f.frames = append(f.frames, frame{seq: f.out, data: data})
	f.out++
	f.bytes += len(data) + frameCost
}

// hold keeps a message until its turn, or drops it when there is no room.
func (f *flow) hold(seq int64, data []byte) {
	if _, ok := f.early[seq]; ok || f.earlyBytes+len(data) > maxEarlyBytes {
		return
	}
	if f.early == nil {
		f.early = map[int64][]byte{}
	}
	f.early[seq] = data
	f.earlyBytes += len(data) + frameCost
}

// held returns the early message whose turn has come.
func (f *flow) held() ([]byte, bool) {
	data, ok := f.early[f.expected]
	if !ok {
		return nil, false
	}
	delete(f.early, f.expected)
	f.earlyBytes -= len(data) + frameCost
	return data, true
}

// resend asks for a message that is on its way to be written once more. The copy in
// the flow is what goes out: a sender cannot change what it once said.
func (f *flow) resend(seq int64) {
	seq = f.shifted(seq)
	if i, ok := f.find(seq); ok && i < f.next && !slices.Contains(f.again, seq) {
		f.again = append(f.again, seq)
	}
}

// acknowledge passes on an acknowledgement to the receiver of this flow.
func (f *flow) acknowledge(data []byte) {
	if f.ackBytes+len(data) > maxAckBytes {
		return
	}
	f.acks = append(f.acks, data)
	f.ackBytes += len(data) + frameCost
}

// outgoing is a message to write. seq is -1 for one without a number, and for one
// that is written once more at the sender's wish.
type outgoing struct {
	data    []byte
	seq     int64
	payload wire.PayloadType
}

// take returns the next message to write, if there is one.
func (f *flow) take() (outgoing, bool) {
	if len(f.acks) > 0 {
		data := f.acks[0]
		f.acks[0] = nil
		if f.acks = f.acks[1:]; len(f.acks) == 0 {
			f.acks = nil
		}
		f.ackBytes -= len(data) + frameCost
		return outgoing{data: data, seq: -1}, true
	}
	for len(f.again) > 0 {
		i, ok := f.find(f.again[0])
		f.again = f.again[1:]
		if ok && i < f.next {
			return outgoing{data: f.frames[i].data, seq: -1}, true
		}
	}
	if f.next == len(f.frames) {
		return outgoing{}, false
	}
	fr := &f.frames[f.next]
	fr.repeat, fr.written = fr.written, true
	f.next++
	return outgoing{data: fr.data, seq: fr.seq, payload: payloadType(fr.data)}, true
}

// rewind makes everything not acknowledged go to a new receiver.
func (f *flow) rewind() { f.next, f.again = 0, nil }

// acked drops a message that the receiver has acknowledged. It returns the sender's
// number of it; ours reports that the gateway was the sender, and known is false
// where no such message was written.
func (f *flow) acked(seq int64) (origin int64, ours, known bool) {
	if seq < 0 || seq >= f.out {
		return 0, false, false
	}
	if i, ok := f.find(seq); ok {
		if !f.frames[i].written {
			return 0, false, false
		}
		f.ready = f.ready || i == 0 && isScreen(payloadType(f.frames[0].data))
		f.drop(i)
	}
	n, ours := slices.BinarySearch(f.injected, seq)
	return seq - int64(n), ours, true
}

// drop removes frames[i].
func (f *flow) drop(i int) {
	f.bytes -= len(f.frames[i].data) + frameCost
	if i < f.next {
		f.next--
	}
	if i > 0 {
		f.frames = slices.Delete(f.frames, i, i+1)
		return
	}
	f.frames[0] = frame{}
	if f.frames = f.frames[1:]; len(f.frames) == 0 {
		f.frames = nil
	}
}

// lastRepeat returns the number of the last message that a new receiver gets for the
// second time, or -1. Call it after rewind.
func (f *flow) lastRepeat() int64 {
	for i := len(f.frames) - 1; i >= 0; i-- {
		if f.frames[i].written {
			return f.frames[i].seq
		}
	}
	return -1
}

// presume drops the messages up to seq that the present receiver was sent for the
// second time, and whose repetition it has certainly read: it had them before, and
// the acknowledgement was lost with the earlier connection. AWS's client says
// nothing when a message is repeated. It says nothing either when it is not ready
// for a message, which can only be in the first moments after message 0; settled
// says that those are over.
func (f *flow) presume(seq int64, settled bool) {
	for i := 0; i < f.next && f.frames[i].seq <= seq; {
		if f.frames[i].repeat && (f.ready || settled || f.frames[i].seq == 0) {
			f.drop(i)
		} else {
			i++
		}
	}
}

// repeats reports whether the oldest message held was sent to an earlier receiver.
func (f *flow) repeats() bool { return f.next > 0 && f.frames[0].repeat }

// find returns the index of a message that is not acknowledged.
func (f *flow) find(seq int64) (int, bool) {
	i := sort.Search(len(f.frames), func(i int) bool { return f.frames[i].seq >= seq })
	return i, i < len(f.frames) && f.frames[i].seq == seq
}

// shifted returns the receiver's number of the sender's message.
func (f *flow) shifted(origin int64) int64 {
	for _, own := range f.injected {
		if own <= origin {
			origin++
		}
	}
	return origin
}

// unwritten reports whether anything waits for the receiver.
func (f *flow) unwritten() bool {
	return len(f.acks) > 0 || len(f.again) > 0 || f.next < len(f.frames)
}

// overdue returns to writing the gateway's own messages that stay unacknowledged:
// nobody else sends them again.
func (f *flow) overdue() {
	for i := range f.frames[:f.next] {
		seq := f.frames[i].seq
		if _, own := slices.BinarySearch(f.injected, seq); own && !slices.Contains(f.again, seq) {
			f.again = append(f.again, seq)
		}
	}
}

// payloadType reads the payload type of an encoded message.
func payloadType(data []byte) wire.PayloadType {
	return wire.PayloadType(binary.BigEndian.Uint32(data[112:]))
}

// isScreen reports whether a payload is what the session shows.
func isScreen(t wire.PayloadType) bool {
	return t == wire.PayloadOutput || t == wire.PayloadStdErr
}
