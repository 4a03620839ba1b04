package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"sallyport.dev/internal/vectors"
)

const vectorDir = "testdata/vectors"

// golden is a message as the official client encodes it.
const golden = `
00000074 696e7075745f73747265616d
5f646174612020202020202020202020
20202020 00000001 0000018bcfe56800
0000000000000007 0000000000000000
8899aabbccddeeff 0011223344556677
1d887ce0f8672e4914d9000e801cd74e
cd805dd9366c0bc42dc16adc0197dc2f
00000001 00000003 6c730d`

func goldenBytes(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(golden), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func goldenMessage() *Message {
	return &Message{
		Type:           TypeInputStreamData,
		SchemaVersion:  1,
		CreatedDate:    1700000000000,
		SequenceNumber: 7,
		ID:             uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff"),
		Digest:         sha256.Sum256([]byte("ls\r")),
		PayloadType:    PayloadOutput,
		Payload:        []byte("ls\r"),
	}
}

func TestGolden(t *testing.T) {
	got, err := Decode(goldenBytes(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(goldenMessage(), got); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(goldenBytes(t), goldenMessage().Encode()); diff != "" {
		t.Errorf("encoded (-want +got):\n%s", diff)
	}
}

// Every message that the official programs sent decodes to what was recorded of it
// and encodes to the same bytes.
func TestTranscripts(t *testing.T) {
	n := 0
	for _, tr := range vectors.LoadAll(t, vectorDir) {
		for i := range tr.Lines {
			l := &tr.Lines[i]
			if l.Hex == "" {
				continue
			}
			n++
			b := tr.Message(l)
			m, err := Decode(b)
			if err != nil {
				t.Errorf("%s line %d: %v", tr.Name, l.N, err)
				continue
			}
			if diff := cmp.Diff(recorded(l.Frame), m); diff != "" {
				t.Errorf("%s line %d (-want +got):\n%s", tr.Name, l.N, diff)
			}
			if !bytes.Equal(m.Encode(), b) {
				t.Errorf("%s line %d: encodes to other bytes", tr.Name, l.N)
			}
		}
	}
	if n != 527 {
		t.Errorf("got %d messages, want 527", n)
	}
}

func recorded(f *vectors.Frame) *Message {
	m := &Message{
		Type:           f.Type,
		SchemaVersion:  f.SchemaVersion,
		CreatedDate:    f.CreatedDate,
		SequenceNumber: f.Sequence,
		Flags:          f.Flags,
		ID:             uuid.MustParse(f.ID),
		PayloadType:    PayloadType(f.PayloadType),
		Payload:        f.Payload(),
	}
	if b, err := hex.DecodeString(f.Digest); err == nil {
		copy(m.Digest[:], b)
	}
	return m
}

func TestFlagsOfTranscripts(t *testing.T) {
	for _, tr := range vectors.LoadAll(t, vectorDir) {
		for _, l := range tr.Lines {
			if l.Hex == "" || PayloadType(l.Frame.PayloadType) != PayloadFlag {
				continue
			}
			if got := binary.BigEndian.Uint32(l.Frame.Payload()); got != l.Frame.FlagValue || got < 1 || got > FlagConnectToPortError {
				t.Errorf("%s line %d: got flag %d, want %d", tr.Name, l.N, got, l.Frame.FlagValue)
			}
		}
	}
}

// Each rule of docs/protocol.md §2.1, broken on its own.
func TestDecodeRefuses(t *testing.T) {
	tests := map[string]struct {
		change func(b []byte) []byte
		want   error
	}{
		"nothing":                    {func([]byte) []byte { return nil }, ErrShort},
		"one byte short of a header": {func(b []byte) []byte { return b[:PrefixLength-1] }, ErrShort},
		"header length zero":         {func(b []byte) []byte { binary.BigEndian.PutUint32(b, 0); return b }, ErrHeader},
		"header length too small":    {func(b []byte) []byte { binary.BigEndian.PutUint32(b, 115); return b }, ErrHeader},
		"header beyond the message":  {func(b []byte) []byte { binary.BigEndian.PutUint32(b, uint32(len(b)-3)); return b }, ErrHeader},
		"header length overflowing":  {func(b []byte) []byte { binary.BigEndian.PutUint32(b, 0xffffffff); return b }, ErrHeader},
		"type of blanks":             {func(b []byte) []byte { copy(b[4:36], strings.Repeat(" ", 32)); return b }, ErrType},
		"type of NUL bytes":          {func(b []byte) []byte { clear(b[4:36]); return b }, ErrType},
		"date zero":                  {func(b []byte) []byte { clear(b[40:48]); return b }, ErrDate},
		"other digest":               {func(b []byte) []byte { b[80] ^= 1; return b }, ErrDigest},
		"other payload":              {func(b []byte) []byte { b[120] ^= 1; return b }, ErrDigest},
		"cut payload":                {func(b []byte) []byte { return b[:len(b)-1] }, ErrDigest},
		"too large":                  {func(b []byte) []byte { return append(b, make([]byte, MaxMessage)...) }, ErrSize},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := Decode(tt.change(goldenBytes(t)))
			if !errors.Is(err, tt.want) || m != nil {
				t.Errorf("got %v, %v, want error %v", m, err, tt.want)
			}
		})
	}
}

// What both official readers take although no writer sends it.
func TestDecodeAccepts(t *testing.T) {
	tests := map[string]func(b []byte) []byte{
		"type padded with NUL bytes": func(b []byte) []byte { copy(b[4+len(TypeInputStreamData):36], make([]byte, 32)); return b },
		"no payload":                 func(b []byte) []byte { return b[:PrefixLength] },
		"other payload length":       func(b []byte) []byte { binary.BigEndian.PutUint32(b[116:], 99); return b },
		"other schema version":       func(b []byte) []byte { b[39] = 9; return b },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := Decode(change(goldenBytes(t)))
			if err != nil || m.Type != TypeInputStreamData {
				t.Errorf("got %+v, %v", m, err)
			}
		})
	}
}

// A relay reads headers only: a wrong digest is for the receiver to find.
func TestPeekLeavesTheDigestAlone(t *testing.T) {
	b := goldenBytes(t)
	b[80] ^= 1
	h, err := Peek(b)
	if err != nil {
		t.Fatal(err)
	}
	want := Header{Type: TypeInputStreamData, SequenceNumber: 7, PayloadType: PayloadOutput, Payload: []byte("ls\r")}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	b := goldenMessage().Append([]byte("before"))
	if !bytes.HasPrefix(b, []byte("before")) || !bytes.Equal(b[6:], goldenBytes(t)) {
		t.Errorf("got %x", b)
	}
}

func TestNewAcknowledge(t *testing.T) {
	at := time.UnixMilli(1700000000001)
	ack := NewAcknowledge(goldenMessage(), at)
	want := `{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"00112233-4455-6677-8899-aabbccddeeff","AcknowledgedMessageSequenceNumber":7,"IsSequentialMessage":true}`
	if string(ack.Payload) != want {
		t.Errorf("payload: got %s, want %s", ack.Payload, want)
	}
	if ack.Type != TypeAcknowledge || ack.Flags != 3 || ack.SequenceNumber != 0 || ack.CreatedDate != 1700000000001 || ack.ID == uuid.Nil {
		t.Errorf("got %+v", ack)
	}
}

// The type of a message comes from the network and ends up in JSON.
func TestNewAcknowledgeOfOddType(t *testing.T) {
	ack := NewAcknowledge(&Message{Type: "a\"}\n\xff"}, time.UnixMilli(1))
	if want := `{"AcknowledgedMessageType":"a\"}\n` + `\ufffd","AcknowledgedMessageId":"00000000-0000-0000-0000-000000000000","AcknowledgedMessageSequenceNumber":0,"IsSequentialMessage":true}`; string(ack.Payload) != want {
		t.Errorf("got %s, want %s", ack.Payload, want)
	}
}

func TestNewJSONPanicsOnOurOwnBugs(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("got no panic for a value that JSON cannot hold")
		}
	}()
	NewJSON(TypeAcknowledge, time.Now(), func() {})
}

func FuzzDecode(f *testing.F) {
	f.Add(goldenBytes(f))
	f.Add(goldenBytes(f)[:PrefixLength])
	for _, tr := range vectors.LoadAll(f, vectorDir)[:3] {
		for i := range tr.Lines {
			if l := &tr.Lines[i]; l.Hex != "" && i%7 == 0 {
				f.Add(tr.Message(l))
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if len(m.Type) == 0 || len(m.Type) > 32 || m.CreatedDate == 0 || len(m.Payload) > len(b)-PrefixLength {
			t.Fatalf("accepted %+v", m)
		}
		if strings.ContainsAny(m.Type, "\x00") { // official readers trim such types once, too
			return
		}
		again, err := Decode(m.Encode())
		if err != nil {
			t.Fatalf("encoding what was decoded: %v", err)
		}
		again.Digest = m.Digest // not checked for an empty payload
		if diff := cmp.Diff(m, again); diff != "" {
			t.Errorf("again (-first +second):\n%s", diff)
		}
	})
}

func benchmarkMessage() *Message {
	return NewStream(TypeOutputStreamData, 7, PayloadOutput, time.UnixMilli(1700000000000), make([]byte, 1024))
}

func BenchmarkAppend(b *testing.B) {
	m := benchmarkMessage()
	buf := m.Encode()
	b.SetBytes(int64(len(m.Payload)))
	b.ReportAllocs()
	for b.Loop() {
		buf = m.Append(buf[:0])
	}
}

func BenchmarkParse(b *testing.B) {
	buf := benchmarkMessage().Encode()
	var m Message
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Parse(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPeek(b *testing.B) {
	buf := benchmarkMessage().Encode()
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Peek(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewAcknowledge(b *testing.B) {
	m := benchmarkMessage()
	at := time.UnixMilli(1700000000000)
	b.ReportAllocs()
	for b.Loop() {
		NewAcknowledge(m, at)
	}
}

// Relays and readers run once per message of every session.
func TestHotPathsDoNotAllocate(t *testing.T) {
	m := benchmarkMessage()
	buf := m.Encode()
	closed := NewJSON(TypeChannelClosed, time.Now(), ChannelClosed{}).Encode()
	var into Message
	for name, f := range map[string]func(){
		"Append":                 func() { buf = m.Append(buf[:0]) },
		"Parse":                  func() { _ = into.Parse(buf) },
		"Peek":                   func() { _, _ = Peek(buf) },
		"Peek of a control type": func() { _, _ = Peek(closed) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: got %v allocations, want none", name, n)
		}
	}
}
