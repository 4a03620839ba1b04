package archive

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"

	"sallyport.dev/recording"
)

// A chunk is frames, one behind the other. A frame is a header of 26 bytes, numbers in
// big-endian order:
//
//	 0  1  version, 1
//	 1  1  flags: 1 for the last frame of the recording
//	 2  4  length of what follows the header
//	 6  4  length of the plain bytes
//	10  8  number of the frame within the recording, from 1
//	18  8  offset of its plain bytes within the recording
//
// and then a nonce of 12 random bytes and the plain bytes, compressed with S2 and
// encrypted with AES-256-GCM under the recording's key. What is authenticated beside them
// is the kind of the file, the recording's name and the header, each of the first two with
// a zero byte behind it: a frame is good at its one place in its one recording alone.
const (
	frameVersion = 1
	frameHeader  = 26
	flagLast     = 1

	// frameSize is how many plain bytes a frame has at most, if lines allow; and maxFrame
	// bounds what is believed of a frame that is read.
	frameSize = 64 << 10
	maxFrame  = recording.MaxLine + frameSize
	// maxSealed bounds what follows a header: S2 adds little to what it cannot compress.
	maxSealed = maxFrame + maxFrame/64 + 1024

	keySize = 32
)

// Kinds of files with frames.
const (
	kindChunk   = "sallyport-recording-1 chunk"
	kindJournal = "sallyport-recording-1 journal"
)

// head is the header of a frame.
type head struct {
	last   bool
	sealed int // bytes behind the header
	plain  int
	number int64
	offset int64
}

// Errors of frames.
var (
	errCut   = errors.New("it is cut off")
	errFrame = errors.New("it is no frame")
	errSeal  = errors.New("it does not open: it was changed, or belongs elsewhere")
)

func (h head) append(b []byte) []byte {
	var flags byte
	if h.last {
		flags = flagLast
	}
	b = append(b, frameVersion, flags)
	b = binary.BigEndian.AppendUint32(b, uint32(h.sealed))
	b = binary.BigEndian.AppendUint32(b, uint32(h.plain))
	b = binary.BigEndian.AppendUint64(b, uint64(h.number))
	return binary.BigEndian.AppendUint64(b, uint64(h.offset))
}

// parseHead reads the header at the beginning of b.
func parseHead(b []byte) (head, error) {
	if len(b) < frameHeader {
		return head{}, errCut
	}
	h := head{
		last:   b[1] == flagLast,
		sealed: int(binary.BigEndian.Uint32(b[2:])),
		plain:  int(binary.BigEndian.Uint32(b[6:])),
		number: int64(binary.BigEndian.Uint64(b[10:])),
		offset: int64(binary.BigEndian.Uint64(b[18:])),
	}
	if b[0] != frameVersion || b[1] > flagLast || h.sealed > maxSealed || h.plain > maxFrame || h.number < 1 || h.offset < 0 {
		return head{}, errFrame
	}
	return h, nil
}

// frames reads frame after frame of b, which holds them, and stops at the first error of
// its own or of f. It returns how many bytes were good.
func frames(b []byte, f func(h head, frame []byte) error) (good int64, err error) {
	for len(b) > 0 {
		h, err := parseHead(b)
		if err != nil {
			return good, err
		}
		size := frameHeader + h.sealed
		if len(b) < size {
			return good, errCut
		}
		if err := f(h, b[:size]); err != nil {
			return good, err
		}
		good += int64(size)
		b = b[size:]
	}
	return good, nil
}

// sealer seals and opens the frames of one recording.
type sealer struct {
	name string
	aead cipher.AEAD
}

func newSealer(name string, key []byte) (*sealer, error) {
	if len(key) != keySize {
		return nil, fmt.Errorf("the data key has %d bytes, want %d", len(key), keySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("taking data key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("taking data key: %w", err)
	}
	return &sealer{name: name, aead: aead}, nil
}

func (s *sealer) context(kind string, header []byte) []byte {
	return bytes.Join([][]byte{[]byte(kind), []byte(s.name), header}, []byte{0})
}

// scratch are buffers for making a frame, to be used again.
type scratch struct{ zipped, frame []byte }

// seal makes the frame of plain, in and with the buffers of b.
func (s *sealer) seal(b *scratch, kind string, h head, plain []byte) []byte {
	b.zipped = s2.Encode(b.zipped[:cap(b.zipped)], plain)
	h.plain, h.sealed = len(plain), len(b.zipped)+s.aead.Overhead()
	b.frame = h.append(b.frame[:0])
	b.frame = s.aead.Seal(b.frame, nil, b.zipped, s.context(kind, b.frame))
	return b.frame
}

// open returns the plain bytes of a frame that frames found.
func (s *sealer) open(kind string, h head, frame []byte) ([]byte, error) {
	zipped, err := s.aead.Open(nil, nil, frame[frameHeader:], s.context(kind, frame[:frameHeader]))
	if err != nil {
		return nil, errSeal
	}
	n, err := s2.DecodedLen(zipped)
	if err != nil || n != h.plain {
		return nil, fmt.Errorf("it does not decompress to %d bytes", h.plain)
	}
	plain, err := s2.Decode(make([]byte, n), zipped)
	if err != nil {
		return nil, fmt.Errorf("it does not decompress: %w", err)
	}
	return plain, nil
}

// frameEnd is where the next frame of pending bytes ends: behind the last line that has
// room, or behind the first line if that is longer. What a crash cuts off is whole lines.
func frameEnd(p []byte) int {
	if len(p) <= frameSize {
		return len(p)
	}
	if i := bytes.LastIndexByte(p[:frameSize], '\n'); i >= 0 {
		return i + 1
	}
	if i := bytes.IndexByte(p, '\n'); i >= 0 && i < maxFrame {
		return i + 1
	}
	return min(len(p), maxFrame)
}
