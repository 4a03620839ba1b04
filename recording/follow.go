package recording

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Attach has f follow the events from now on. It returns how many bytes of the recording
// lie before the first that f is told of, once what is held is flushed.
func (w *Writer) Attach(f Follower) (offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.follow = append(w.follow, f)
	return w.size + int64(len(w.buf))
}

// Detach undoes Attach.
func (w *Writer) Detach(f Follower) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.follow = slices.DeleteFunc(slices.Clone(w.follow), func(have Follower) bool { return have == f })
}

// AppendEvent appends an event's line as a Writer writes it.
func AppendEvent(b []byte, at time.Duration, kind Kind, data []byte) []byte {
	b = append(b, '[')
	b = appendSeconds(b, at)
	b = append(b, `, "`...)
	b = append(b, byte(kind))
	b = append(b, `", `...)
	b = appendString(b, data)
	return append(b, "]\n"...)
}

// ParseHeader reads the first line of a recording.
func ParseHeader(line []byte) (Header, error) {
	var h headerLine
	if json.Unmarshal(line, &h) != nil || h.Version != 2 {
		return Header{}, fmt.Errorf("%w: the first line is no asciicast version 2 header", ErrFormat)
	}
	header := Header{Width: h.Width, Height: h.Height, Title: h.Title, Env: h.Env}
	if h.Sallyport != nil {
		header.Metadata = *h.Sallyport
	} else if h.Timestamp != 0 {
		header.Started = time.Unix(h.Timestamp, 0).UTC()
	}
	return header, nil
}

// ParseEvent reads one line after the first.
func ParseEvent(line []byte) (Event, error) {
	e, err := parseEvent(line)
	if err != nil {
		return e, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return e, nil
}

// ParseEnd reads how the session ended from the last event of a whole recording; nil for
// another event.
func ParseEnd(e Event) *End {
	var end End
	if e.Kind != KindEnd || json.Unmarshal([]byte(e.Data), &end) != nil {
		return nil
	}
	return &end
}
