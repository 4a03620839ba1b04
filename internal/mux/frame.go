package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A frame is a header of 8 bytes, little-endian, and data: version, command, length of
// the data (16 bits), stream (32 bits).
const (
	headerSize = 8
	version    = 1

	cmdSYN byte = 0 // opens a stream
	cmdFIN byte = 1 // closes it; in the extension, the sender's half of it
	cmdPSH byte = 2 // data
	cmdNOP byte = 3 // nothing

	// Of the extension.
	cmdWindow byte = 0x80 // 4 bytes: so many more may be sent on the stream
	cmdReset  byte = 0x81 // the stream is over, and why, as UTF-8
	cmdOpened byte = 0x82 // the stream's target has been reached

	// MaxData is the most that we put into one frame, so that frame and header fill a
	// stream message of 32 KiB.
	MaxData = 32<<10 - headerSize
	// maxReason bounds the text of a reset, in bytes.
	maxReason = 1 << 10
)

// ErrProtocol says that the peer does not speak the protocol.
var ErrProtocol = errors.New("multiplexer protocol violated")

type header struct {
	cmd    byte
	length int
	stream uint32
}

func readHeader(b []byte) (header, error) {
	h := header{cmd: b[1], length: int(binary.LittleEndian.Uint16(b[2:])), stream: binary.LittleEndian.Uint32(b[4:])}
	if b[0] != version {
		return h, fmt.Errorf("%w: version %d", ErrProtocol, b[0])
	}
	return h, nil
}

func appendFrame(b []byte, cmd byte, stream uint32, data []byte) []byte {
	b = append(b, version, cmd)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(data)))
	b = binary.LittleEndian.AppendUint32(b, stream)
	return append(b, data...)
}
