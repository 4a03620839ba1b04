package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Message types (docs/protocol.md §3).
const (
	TypeInputStreamData      = "input_stream_data"
	TypeOutputStreamData     = "output_stream_data"
	TypeAcknowledge          = "acknowledge"
	TypeChannelClosed        = "channel_closed"
	TypeStartPublication     = "start_publication"
	TypePausePublication     = "pause_publication"
	TypeAgentSessionState    = "agent_session_state"
	TypeInteractiveShell     = "interactive_shell"
	TypeAgentTaskComplete    = "agent_task_complete"
	TypeAgentTaskAcknowledge = "agent_task_acknowledge"
	TypeAgentJob             = "agent_job"
	TypeAgentJobAck          = "agent_job_ack"
	TypeAgentJobReply        = "agent_job_reply"
	TypeAgentJobReplyAck     = "agent_job_reply_ack"
	TypeAgentTelemetry       = "agent_telemetry"
	TypeAgentUpdateResult    = "agent_update_result"
)

// PayloadType says what the payload of a stream message is.
type PayloadType uint32

// Payload types (docs/protocol.md §5).
const (
	PayloadNone                 PayloadType = 0
	PayloadOutput               PayloadType = 1
	PayloadError                PayloadType = 2
	PayloadSize                 PayloadType = 3
	PayloadParameter            PayloadType = 4
	PayloadHandshakeRequest     PayloadType = 5
	PayloadHandshakeResponse    PayloadType = 6
	PayloadHandshakeComplete    PayloadType = 7
	PayloadEncChallengeRequest  PayloadType = 8
	PayloadEncChallengeResponse PayloadType = 9
	PayloadFlag                 PayloadType = 10
	PayloadStdErr               PayloadType = 11
	PayloadExitCode             PayloadType = 12
)

// Flags of a message (docs/protocol.md §4); neither official end acts on them.
const (
	FlagSYN uint64 = 1
	FlagFIN uint64 = 2
)

const (
	// HeaderLength is the offset of the payload length, as every writer puts it.
	HeaderLength = 116
	// PrefixLength is the number of bytes before the payload.
	PrefixLength = HeaderLength + 4
	// MaxMessage bounds a framed message on any channel, in bytes (§10). The official
	// programs stay under 1,500 on data channels and 142,000 on control channels.
	MaxMessage = 1 << 20

	typeOffset, typeLength = 4, 32
)

// Errors of Decode; the message they concern is dropped, the channel lives on.
var (
	ErrShort  = errors.New("message shorter than its header")
	ErrHeader = errors.New("bad header length")
	ErrType   = errors.New("blank message type")
	ErrDate   = errors.New("zero creation date")
	ErrDigest = errors.New("payload digest does not match")
	ErrSize   = errors.New("message exceeds the size limit")
)

// Message is one framed unit on a channel (docs/protocol.md §2). All integers are
// big-endian on the wire; the halves of the id are swapped there.
type Message struct {
	Type           string
	SchemaVersion  uint32
	CreatedDate    uint64 // milliseconds since the epoch; zero is invalid
	SequenceNumber int64
	Flags          uint64
	ID             uuid.UUID
	Digest         [sha256.Size]byte // set by Decode; Append computes it anew
	PayloadType    PayloadType
	Payload        []byte
}

// New returns a message of the given type with a fresh id, made at the given time.
func New(typ string, at time.Time, payload []byte) *Message {
	return &Message{
		Type:          typ,
		SchemaVersion: 1,
		CreatedDate:   uint64(at.UnixMilli()),
		ID:            uuid.New(),
		Payload:       payload,
	}
}

// NewJSON is New with v encoded as the payload. It panics if v cannot be encoded,
// which for the shapes of this package cannot happen.
func NewJSON(typ string, at time.Time, v any) *Message {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("wire: encoding %T: %v", v, err))
	}
	return New(typ, at, b)
}

// NewAcknowledge returns the acknowledgement of m.
func NewAcknowledge(m *Message, at time.Time) *Message {
	ack := NewJSON(TypeAcknowledge, at, Acknowledge{
		MessageType:    m.Type,
		MessageID:      m.ID.String(),
		SequenceNumber: m.SequenceNumber,
		IsSequential:   true,
	})
	ack.Flags = FlagSYN | FlagFIN
	return ack
}

// NewStream returns a stream message (input_stream_data or output_stream_data).
func NewStream(typ string, seq int64, pt PayloadType, at time.Time, payload []byte) *Message {
	m := New(typ, at, payload)
	m.SequenceNumber, m.PayloadType = seq, pt
	return m
}

// Append appends the encoded message to b and returns the extended slice.
func (m *Message) Append(b []byte) []byte {
	var head [PrefixLength]byte
	binary.BigEndian.PutUint32(head[0:], HeaderLength)
	n := copy(head[typeOffset:typeOffset+typeLength], m.Type)
	for i := typeOffset + n; i < typeOffset+typeLength; i++ {
		head[i] = ' '
	}
	binary.BigEndian.PutUint32(head[36:], m.SchemaVersion)
	binary.BigEndian.PutUint64(head[40:], m.CreatedDate)
	binary.BigEndian.PutUint64(head[48:], uint64(m.SequenceNumber))
	binary.BigEndian.PutUint64(head[56:], m.Flags)
	copy(head[64:72], m.ID[8:])
	copy(head[72:80], m.ID[:8])
	digest := sha256.Sum256(m.Payload)
	copy(head[80:112], digest[:])
	binary.BigEndian.PutUint32(head[112:], uint32(m.PayloadType))
	binary.BigEndian.PutUint32(head[116:], uint32(len(m.Payload)))
	return append(append(b, head[:]...), m.Payload...)
}

// Encode returns the encoded message.
func (m *Message) Encode() []byte {
	return m.Append(make([]byte, 0, PrefixLength+len(m.Payload)))
}

// Header is what a relay needs of a message, read without copying or hashing.
type Header struct {
	Type           string
	SequenceNumber int64
	PayloadType    PayloadType
	Payload        []byte // aliases the input
}

// Decode parses one framed message and checks it as the official client does: a
// header length within bounds, a type, a date, and the digest of a payload. The
// payload aliases b.
func Decode(b []byte) (*Message, error) {
	m := new(Message)
	if err := m.Parse(b); err != nil {
		return nil, err
	}
	return m, nil
}

// Parse is Decode into m, which a reader can use again for its next message.
func (m *Message) Parse(b []byte) error {
	h, err := Peek(b)
	if err != nil {
		return err
	}
	*m = Message{
		Type:           h.Type,
		SchemaVersion:  binary.BigEndian.Uint32(b[36:]),
		CreatedDate:    binary.BigEndian.Uint64(b[40:]),
		SequenceNumber: h.SequenceNumber,
		Flags:          binary.BigEndian.Uint64(b[56:]),
		PayloadType:    h.PayloadType,
		Payload:        h.Payload,
	}
	copy(m.ID[8:], b[64:72])
	copy(m.ID[:8], b[72:80])
	copy(m.Digest[:], b[80:112])
	if len(m.Payload) > 0 && sha256.Sum256(m.Payload) != m.Digest {
		return ErrDigest
	}
	return nil
}

// Peek parses and checks the header of a framed message, leaving the digest alone:
// what a relay does for every message that it passes on unchanged.
func Peek(b []byte) (Header, error) {
	if len(b) > MaxMessage {
		return Header{}, ErrSize
	}
	if len(b) < PrefixLength {
		return Header{}, ErrShort
	}
	hl := uint64(binary.BigEndian.Uint32(b))
	if hl < HeaderLength || hl+4 > uint64(len(b)) {
		return Header{}, ErrHeader
	}
	typ := messageType(b[typeOffset : typeOffset+typeLength])
	if typ == "" {
		return Header{}, ErrType
	}
	if binary.BigEndian.Uint64(b[40:]) == 0 {
		return Header{}, ErrDate
	}
	return Header{
		Type:           typ,
		SequenceNumber: int64(binary.BigEndian.Uint64(b[48:])),
		PayloadType:    PayloadType(binary.BigEndian.Uint32(b[112:])),
		Payload:        b[hl+4:],
	}, nil
}

// types are the known message types, by name, so that decoding one allocates nothing.
var types = func() map[string]string {
	known := []string{
		TypeInputStreamData, TypeOutputStreamData, TypeAcknowledge, TypeChannelClosed,
		TypeStartPublication, TypePausePublication, TypeAgentSessionState,
		TypeInteractiveShell, TypeAgentTaskComplete, TypeAgentTaskAcknowledge,
		TypeAgentJob, TypeAgentJobAck, TypeAgentJobReply, TypeAgentJobReplyAck,
		TypeAgentTelemetry, TypeAgentUpdateResult,
	}
	m := make(map[string]string, len(known))
	for _, t := range known {
		m[t] = t
	}
	return m
}()

// messageType strips padding: NUL bytes, then white space.
func messageType(b []byte) string {
	b = bytes.TrimSpace(bytes.Trim(b, "\x00"))
	if t, ok := types[string(b)]; ok {
		return t
	}
	return string(b)
}
