package session

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/wire"
)

var epoch = time.UnixMilli(1700000000000)

func streamMessage(seq int64, pt wire.PayloadType, payload string) []byte {
	return wire.NewStream(wire.TypeOutputStreamData, seq, pt, epoch, []byte(payload)).Encode()
}

// written drains a flow and returns what it wrote, as "seq:payload".
func written(t *testing.T, f *flow) []string {
	t.Helper()
	var got []string
	for {
		o, ok := f.take()
		if !ok {
			return got
		}
		m, err := wire.Decode(o.data)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d:%s", m.SequenceNumber, m.Payload))
	}
}

func pushAll(f *flow, payloads ...string) {
	for _, p := range payloads {
		f.push(streamMessage(f.expected, wire.PayloadOutput, p))
	}
}

func TestFlowIsVerbatimUntilSomethingIsPutIn(t *testing.T) {
	var f flow
	sent := streamMessage(0, wire.PayloadOutput, "hello")
	f.push(bytes.Clone(sent))
	got, _ := f.take()
	if !bytes.Equal(got.data, sent) {
		t.Errorf("got %x, want the message as sent", got.data)
	}
}

func TestFlowShiftsAroundItsOwnMessages(t *testing.T) {
	var f flow
	pushAll(&f, "a", "b")
	f.inject(wire.NewStream(wire.TypeOutputStreamData, 0, wire.PayloadOutput, epoch, []byte("warning")))
	pushAll(&f, "c")
	f.inject(wire.NewStream(wire.TypeOutputStreamData, 0, wire.PayloadOutput, epoch, []byte("again")))
	pushAll(&f, "d")
	want := []string{"0:a", "1:b", "2:warning", "3:c", "4:again", "5:d"}
	if diff := cmp.Diff(want, written(t, &f)); diff != "" {
		t.Fatalf("written (-want +got):\n%s", diff)
	}
	for seq, want := range map[int64]struct {
		origin int64
		ours   bool
	}{0: {0, false}, 1: {1, false}, 2: {2, true}, 3: {2, false}, 4: {3, true}, 5: {3, false}} {
		origin, ours, known := f.acked(seq)
		if !known || ours != want.ours || !ours && origin != want.origin {
			t.Errorf("ack of %d: got %d, ours %v, known %v; want %d, ours %v", seq, origin, ours, known, want.origin, want.ours)
		}
	}
	if f.bytes != 0 || len(f.frames) != 0 {
		t.Errorf("after all acks %d bytes in %d messages are held, want none", f.bytes, len(f.frames))
	}
	if got := f.shifted(3); got != 5 {
		t.Errorf("the sender's 3 is the receiver's %d, want 5", got)
	}
}

func TestFlowWritesAgainToANewReceiver(t *testing.T) {
	var f flow
	pushAll(&f, "a", "b", "c", "d")
	for range 3 {
		f.take()
	}
	f.acked(1)
	f.rewind()
	if diff := cmp.Diff([]string{"0:a", "2:c", "3:d"}, written(t, &f)); diff != "" {
		t.Errorf("written to the new receiver (-want +got):\n%s", diff)
	}
}

func TestFlowClassifies(t *testing.T) {
	var f flow
	pushAll(&f, "a", "b", "c")
	written(t, &f)
	f.acked(0)
	for seq, want := range map[int64]arrival{
		-1: arrivedAbsurdly, 0: arrivedTwice, 1: arrivedAgain, 2: arrivedAgain, 3: arrivedInTurn,
		4: arrivedEarly, 3 + maxEarly: arrivedEarly, 4 + maxEarly: arrivedAbsurdly, 1 << 62: arrivedAbsurdly,
	} {
		if got := f.classify(seq); got != want {
			t.Errorf("classify(%d): got %d, want %d", seq, got, want)
		}
	}
}

func TestFlowRepeatsOnlyWhatItSaidBefore(t *testing.T) {
	var f flow
	pushAll(&f, "honest")
	if f.resend(0); f.again != nil {
		t.Error("a message that was not written yet was queued twice")
	}
	written(t, &f)
	f.resend(0)
	f.resend(0)
	if diff := cmp.Diff([]string{"0:honest"}, written(t, &f)); diff != "" {
		t.Errorf("repeated (-want +got):\n%s", diff)
	}
}

func TestFlowIgnoresAcksOfWhatWasNotWritten(t *testing.T) {
	var f flow
	pushAll(&f, "a", "b")
	f.take()
	for _, seq := range []int64{-1, 1, 2, 1 << 40} {
		if _, _, known := f.acked(seq); known {
			t.Errorf("an acknowledgement of %d was believed", seq)
		}
	}
	if len(f.frames) != 2 {
		t.Errorf("%d messages are held, want 2", len(f.frames))
	}
}

// AWS's client ignores repeated messages without a word. Once it has certainly read
// the repetitions, those that it did not acknowledge are ones that it had.
func TestFlowPresumesWhatAReadyClientMustHave(t *testing.T) {
	var f flow
	pushAll(&f, "a")
	written(t, &f)
	f.acked(0)
	pushAll(&f, "b", "c")
	written(t, &f)
	f.rewind() // the acknowledgements of b and c were lost with the connection
	if got := f.lastRepeat(); got != 2 {
		t.Errorf("last repeated message: got %d, want 2", got)
	}
	pushAll(&f, "d")
	written(t, &f)
	f.presume(2, false)
	if len(f.frames) != 1 || f.frames[0].seq != 3 {
		t.Errorf("held: %v, want message 3 alone", f.frames)
	}
	if got := f.classify(1); got != arrivedTwice {
		t.Errorf("the sender's repetition: got %d, want %d so that it gets its acknowledgement", got, arrivedTwice)
	}
}

// A client is ready for message 0 from the start, and for others a moment later.
func TestFlowPresumesLittleOfAClientThatIsNotReady(t *testing.T) {
	var f flow
	pushAll(&f, "a", "b", "c")
	written(t, &f)
	f.rewind()
	written(t, &f)
	f.acked(2) // stored by the client, out of order: it waits for the repetition of 1
	f.presume(2, false)
	if len(f.frames) != 1 || f.frames[0].seq != 1 {
		t.Errorf("held: %v, want message 1", f.frames)
	}
	f.presume(2, true)
	if len(f.frames) != 0 {
		t.Errorf("held of a settled client: %v, want nothing", f.frames)
	}
}

func TestFlowHoldsEarlyMessagesWithinBounds(t *testing.T) {
	var f flow
	for seq := int64(1); seq < maxEarly; seq++ {
		f.hold(seq, make([]byte, 4000))
	}
	if f.earlyBytes > maxEarlyBytes+4000 {
		t.Errorf("%d bytes are held early, want at most %d", f.earlyBytes, maxEarlyBytes)
	}
	for range maxAckBytes {
		f.acknowledge(make([]byte, 300))
	}
	if f.ackBytes > maxAckBytes+400 {
		t.Errorf("%d bytes of acknowledgements are held, want at most %d", f.ackBytes, maxAckBytes)
	}
}

// receiver models an end as data-plane.md describes AWS's client: it takes messages
// in order, holds early ones, acknowledges each once and ignores repetitions.
type receiver struct {
	expected int64
	early    map[int64]string
	got      []string
}

func (r *receiver) take(data []byte) (ack int64, acks bool) {
	m, _ := wire.Decode(data)
	switch {
	case m.SequenceNumber < r.expected:
		return 0, false
	case m.SequenceNumber > r.expected:
		r.early[m.SequenceNumber] = string(m.Payload)
		return m.SequenceNumber, true
	}
	r.got = append(r.got, string(m.Payload))
	r.expected++
	for p, ok := r.early[r.expected]; ok; p, ok = r.early[r.expected] {
		r.got = append(r.got, p)
		r.expected++
	}
	return m.SequenceNumber, true
}

// TestFlowAgainstModel cuts connections at random on both sides of a flow and checks
// that the receiver gets everything once and in order, own messages included, and
// that the sender gets an acknowledgement of everything.
func TestFlowAgainstModel(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		var f flow
		rcv := receiver{early: map[int64]string{}}
		unacked := map[int64]string{}
		var sent int64
		var want []string
		var wireDown []outgoing // written to the receiver, in flight; no data: a ping
		var replayed int64 = -1
		var wireAcks []int64 // from the receiver, in flight
		arrive := func(seq int64, payload string) {
			switch f.classify(seq) {
			case arrivedInTurn:
				f.push(streamMessage(seq, wire.PayloadOutput, payload))
				want = append(want, payload)
				for next, ok := f.held(); ok; next, ok = f.held() {
					m, _ := wire.Decode(next)
					want = append(want, string(m.Payload))
					f.push(next)
				}
			case arrivedEarly:
				f.hold(seq, streamMessage(seq, wire.PayloadOutput, payload))
			case arrivedAgain:
				f.resend(seq)
			case arrivedTwice:
				delete(unacked, seq)
			}
		}
		step := func(op int) {
			switch {
			case op < 30 && sent < 200: // the sender sends; sometimes into a dead link
				payload := fmt.Sprint("m", sent)
				unacked[sent] = payload
				if op < 27 {
					arrive(sent, payload)
				}
				sent++
			case op < 40: // the sender repeats its oldest
				oldest := int64(-1)
				for seq := range unacked {
					if oldest < 0 || seq < oldest {
						oldest = seq
					}
				}
				if oldest >= 0 {
					arrive(oldest, unacked[oldest])
				}
			case op < 42 && len(f.injected) < 5:
				f.inject(wire.NewStream(wire.TypeOutputStreamData, 0, wire.PayloadOutput, epoch, []byte("own")))
				want = append(want, "own")
			case op < 65:
				if o, ok := f.take(); ok {
					wireDown = append(wireDown, o)
					if o.seq >= 0 && o.seq == replayed {
						wireDown = append(wireDown, outgoing{seq: replayed})
					}
				}
			case op < 80:
				if len(wireDown) > 0 {
					if o := wireDown[0]; o.data == nil {
						wireAcks = append(wireAcks, -1-o.seq) // a pong
					} else if ack, ok := rcv.take(o.data); ok {
						wireAcks = append(wireAcks, ack)
					}
					wireDown = wireDown[1:]
				}
			case op < 95:
				if len(wireAcks) > 0 {
					if ack := wireAcks[0]; ack < 0 {
						f.presume(-1-ack, false)
					} else if origin, ours, known := f.acked(ack); known && !ours {
						delete(unacked, origin)
					}
					wireAcks = wireAcks[1:]
				}
			case op < 97 && f.ready: // the receiver's connection is cut, with all that is in flight
				wireDown, wireAcks = nil, nil
				f.rewind()
				replayed = f.lastRepeat()
			}
		}
		for range 3000 {
			step(r.IntN(100))
		}
		for range 8000 { // no more cuts: everything must settle
			step([]int{35, 50, 70, 90}[r.IntN(4)])
		}
		if diff := cmp.Diff(want, rcv.got); diff != "" {
			t.Fatalf("seed %d: received (-want +got):\n%s", seed, diff)
		}
		if int64(len(want)-len(f.injected)) != sent {
			t.Fatalf("seed %d: %d messages entered, %d were sent", seed, len(want)-len(f.injected), sent)
		}
	}
}
