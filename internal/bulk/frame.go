package bulk

import (
	"errors"
	"fmt"
	"io"
)

// kind is what a frame is for (docs/protocol.md §28.11).
type kind byte

const (
	kindOpen    kind = 1 // client: begin a connection; payload: its first bytes
	kindData    kind = 2
	kindEnd     kind = 3 // no more in this direction
	kindAbort   kind = 4 // the connection broke; ends this direction, too
	kindRefused kind = 5 // agent: the target was not reached; ends this direction
	kindAsk     kind = 6 // client: say whether the target was reached
	kindReached kind = 7 // agent: it was
	kindStill   kind = 8 // nothing; keeps what is between the ends from forgetting them
)

const (
	headerSize = 4
	// chunk is the longest frame, header included: sixteen TLS records that are full.
	chunk = 256 << 10
	// maxPayload bounds the payload of a frame.
	maxPayload = chunk - headerSize
	// maxReason bounds the text of an abort or a refusal, in bytes.
	maxReason = 512
)

// Still is the size of a frame without a payload on the wire: what passes in this size
// shows no use of the connection.
const Still = recordHeader + headerSize + 1 + 16

// errFrame is the error of a peer that does not keep to the protocol.
var errFrame = errors.New("peer broke the protocol")

// putHeader writes a frame's header to the first bytes of b.
func putHeader(b []byte, k kind, n int) {
	b[0], b[1], b[2], b[3] = byte(k), byte(n>>16), byte(n>>8), byte(n)
}

// header reads a frame's header and checks its length for its kind.
func header(b [headerSize]byte) (k kind, n int, err error) {
	k, n = kind(b[0]), int(b[1])<<16|int(b[2])<<8|int(b[3])
	limit := 0
	switch k {
	case kindOpen, kindData:
		limit = maxPayload
	case kindAbort, kindRefused:
		limit = maxReason
	case kindEnd, kindAsk, kindReached, kindStill:
	default:
		return 0, 0, fmt.Errorf("%w: frame of unknown kind %d", errFrame, k)
	}
	if n > limit {
		return 0, 0, fmt.Errorf("%w: frame of kind %d has %d bytes, at most %d are allowed", errFrame, k, n, limit)
	}
	return k, n, nil
}

// readHeader reads the next frame's header. io.EOF means that there is no next frame.
func readHeader(r io.Reader) (kind, int, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, 0, err
	}
	return header(b)
}

// ends reports whether a frame is the last one in its direction.
func (k kind) ends() bool { return k == kindEnd || k == kindAbort || k == kindRefused }
