package client

import (
	"testing"
	"time"

	"sallyport.dev/wire"
)

// Whatever a server frames, the client neither panics nor keeps more than it may.
func FuzzDispatch(f *testing.F) {
	f.Add(wire.TypeOutputStreamData, int64(0), uint32(wire.PayloadHandshakeRequest), []byte(handshake(StandardStream)), []byte("x"))
	f.Add(wire.TypeOutputStreamData, int64(0), uint32(wire.PayloadHandshakeComplete), []byte(`{"CustomerMessage":"x"}`), []byte("x"))
	f.Add(wire.TypeChannelClosed, int64(0), uint32(0), []byte(`{"Output":1}`), []byte(`{"ExitStatus":3}`))
	f.Add(wire.TypeAcknowledge, int64(-1), uint32(0), []byte(`{"AcknowledgedMessageSequenceNumber":-9223372036854775808}`), []byte("{"))
	f.Fuzz(func(t *testing.T, typ string, seq int64, pt uint32, first, second []byte) {
		d := NewDataChannel(ChannelConfig{Handlers: map[string]Handler{StandardStream: newScreen()}})
		link := &deadLink{closed: make(chan struct{})}
		d.trySend(wire.PayloadOutput, []byte("k"), false)
		for i, p := range [][]byte{first, second} {
			m := wire.NewStream(typ, seq+int64(i), wire.PayloadType(pt), time.Now(), p)
			if decoded, err := wire.Decode(m.Encode()); err == nil {
				d.dispatch(link, decoded)
			}
		}
		for m := d.in.take(); m != nil; m = d.in.take() {
			d.handle(m)
			d.in.handled()
		}
		if d.in.size > maxHeldBytes || len(d.out.queue) > 3 {
			t.Errorf("kept %d bytes and %d messages", d.in.size, len(d.out.queue))
		}
	})
}
