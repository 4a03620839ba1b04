package recording

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// Reader reads a recording event by event.
type Reader struct {
	header    Header
	lines     *bufio.Reader
	n         int // lines read
	end       *End
	truncated bool
}

// NewReader reads the header from r, which may be any asciicast version 2 file.
func NewReader(r io.Reader) (*Reader, error) {
	rec := &Reader{lines: bufio.NewReaderSize(r, 32<<10)}
	line, whole, err := rec.line()
	if err != nil && err != io.EOF {
		return nil, err
	}
	if !whole {
		line = nil
	}
	if rec.header, err = ParseHeader(line); err != nil {
		return nil, err
	}
	return rec, nil
}

// Header returns the header.
func (r *Reader) Header() Header { return r.header }

// End returns how the session ended, or nil while that has not been read.
func (r *Reader) End() *End { return r.end }

// Truncated reports whether the last line was cut off, as a crash leaves it. What
// came before it has been read.
func (r *Reader) Truncated() bool { return r.truncated }

// Next returns the next event, or io.EOF.
func (r *Reader) Next() (Event, error) {
	for {
		line, whole, err := r.line()
		if err != nil {
			return Event{}, err
		}
		if !whole {
			r.truncated = true
			return Event{}, io.EOF
		}
		if strings.TrimSpace(string(line)) == "" {
			continue
		}
		e, err := parseEvent(line)
		if err != nil {
			return Event{}, fmt.Errorf("%w: line %d: %w", ErrFormat, r.n, err)
		}
		if end := ParseEnd(e); end != nil {
			r.end = end
		}
		return e, nil
	}
}

// line returns the next line without its newline; whole is false for a last line
// that has none.
func (r *Reader) line() (line []byte, whole bool, err error) {
	r.n++
	for {
		part, err := r.lines.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > MaxLine {
			return nil, false, fmt.Errorf("%w: line %d exceeds %d bytes", ErrFormat, r.n, MaxLine)
		}
		switch {
		case err == nil:
			return line[:len(line)-1], true, nil
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && len(line) > 0:
			return line, false, nil
		default:
			return nil, false, err
		}
	}
}

func parseEvent(line []byte) (Event, error) {
	var fields []json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return Event{}, err
	}
	if len(fields) != 3 {
		return Event{}, fmt.Errorf("an event has 3 elements, got %d", len(fields))
	}
	var seconds float64
	var kind, data string
	for i, v := range []any{&seconds, &kind, &data} {
		if err := json.Unmarshal(fields[i], v); err != nil {
			return Event{}, err
		}
	}
	if seconds < 0 || seconds > math.MaxInt32 {
		return Event{}, fmt.Errorf("time %v out of range", seconds)
	}
	if len(kind) != 1 {
		return Event{}, fmt.Errorf("event kind %q is not one letter", kind)
	}
	at := time.Duration(math.Round(seconds*1e6)) * time.Microsecond
	return Event{At: at, Kind: Kind(kind[0]), Data: data}, nil
}
