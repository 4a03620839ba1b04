package client

import "sallyport.dev/wire"

const (
	// maxHeldMessages and maxHeldBytes bound what has arrived and was not handled yet.
	// Sallyport's agent keeps less in flight; AWS's knows no limit, so there the
	// socket is left unread until there is room.
	maxHeldMessages = 10000
	maxHeldBytes    = 4 << 20
)

// verdict says what becomes of an arrived stream message.
type verdict int

const (
	take   verdict = iota // kept for the handler
	ignore                // being handled, or no room beyond a gap: the agent resends
	repeat                // handled before: acknowledge again
	wait                  // no room until the handler moves on
)

// incoming puts stream messages in order. It is not safe for concurrent use.
type incoming struct {
	next int64 // to be handed out next
	done int64 // everything below is handled
	held map[int64]*wire.Message
	size int
}

func newIncoming() incoming { return incoming{held: map[int64]*wire.Message{}} }

// arrive judges m and keeps it if there is room. The payload must not be reused.
func (in *incoming) arrive(m *wire.Message) verdict {
	switch {
	case m.SequenceNumber < in.done:
		return repeat
	case m.SequenceNumber < in.next || in.held[m.SequenceNumber] != nil:
		return ignore
	case m.SequenceNumber != in.next && in.fullFor(m):
		if in.moving() {
			return wait
		}
		return ignore
	}
	in.held[m.SequenceNumber] = m
	in.size += len(m.Payload)
	return take
}

func (in *incoming) fullFor(m *wire.Message) bool {
	return len(in.held) >= maxHeldMessages || in.size+len(m.Payload) > maxHeldBytes
}

// moving reports whether the handler has something to do, so that room will come.
func (in *incoming) moving() bool { return in.done < in.next || in.held[in.next] != nil }

// take hands out the next message in order, or nil.
func (in *incoming) take() *wire.Message {
	m := in.held[in.next]
	if m == nil {
		return nil
	}
	delete(in.held, in.next)
	in.size -= len(m.Payload)
	in.next++
	return m
}

// handled notes that everything handed out is handled.
func (in *incoming) handled() { in.done = in.next }
