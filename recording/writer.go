package recording

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"math/bits"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	maxEvent    = 8 << 10  // bytes of output in one event; longer output becomes several
	flushBuffer = 16 << 10 // bytes held before they are written out unasked
)

// Writer writes one recording. It is safe for concurrent use. Its first error is
// kept: every later call returns it, because a recording with a hole in it is
// worth less than a session that ends.
//
// Events are held in memory until 16 KiB have gathered or Flush is called; the owner
// calls Flush at least every second, so that a crash costs no more than that.
type Writer struct {
	start time.Time
	meta  Metadata

	mu      sync.Mutex
	dst     io.Writer
	sink    Sink      // dst, if it is one
	digest  hash.Hash // nil with a sink
	buf     []byte
	last    time.Duration // time of the last event; time never runs backwards
	size    int64
	output  tail
	input   tail
	follow  []Follower
	err     error
	closed  bool
	summary Summary
}

// A Sink is a destination that holds what it is given, and takes digests itself.
type Sink interface {
	// Write takes whole lines. It must be quick: it is called under the writer's lock. What
	// it returns an error for it has taken all the same, if it can.
	io.Writer
	// Flush makes durable what Write took. It is called without the writer's lock, so that
	// a slow disk holds up no events.
	Flush() error
	// Finish is called once, by Close, also after an error: it writes the line of the end,
	// Summary.EndLine, makes everything durable and fills in the name, size and digests.
	Finish(s Summary) (Summary, error)
}

// A Follower is told of each event as it is recorded, after redaction and in order, the
// end included. It is called under the writer's lock, so it must be quick and must not
// block; data is the writer's again when it returns.
type Follower interface {
	Follow(at time.Duration, kind Kind, data []byte)
}

// NewWriter writes the header to w and returns a writer for the events. When w has
// a method Sync() error, Close calls it; when it is a Sink, that one's methods.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	line, err := json.Marshal(headerLine{
		Version:   2,
		Width:     h.Width,
		Height:    h.Height,
		Timestamp: h.Started.Unix(),
		Title:     h.Title,
		Env:       h.Env,
		Sallyport: &h.Metadata,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding recording header: %w", err)
	}
	rec := &Writer{start: h.Started, meta: h.Metadata, dst: w}
	if rec.sink, _ = w.(Sink); rec.sink == nil {
		rec.digest = sha256.New()
	}
	rec.buf = append(line, '\n')
	if err := rec.Flush(); err != nil {
		return nil, err
	}
	return rec, nil
}

type headerLine struct {
	Version   int               `json:"version"`
	Width     int               `json:"width"`
	Height    int               `json:"height"`
	Timestamp int64             `json:"timestamp,omitempty"`
	Title     string            `json:"title,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	Sallyport *Metadata         `json:"sallyport,omitempty"`
}

// Output records what the session showed at the given time.
func (w *Writer) Output(at time.Time, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.textLocked(at, KindOutput, &w.output, p)
}

// Input records what was typed.
func (w *Writer) Input(at time.Time, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.textLocked(at, KindInput, &w.input, p)
}

// Resize records a change of the terminal's size.
func (w *Writer) Resize(at time.Time, cols, rows int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.eventLocked(at, KindResize, []byte(strconv.Itoa(cols)+"x"+strconv.Itoa(rows)))
}

// Marker records a labelled point to which players can jump.
func (w *Writer) Marker(at time.Time, label string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.eventLocked(at, KindMarker, []byte(label))
}

// Flush writes out what is held, and holds no buffer then.
func (w *Writer) Flush() error {
	w.mu.Lock()
	err := w.flushLocked()
	w.releaseLocked()
	w.mu.Unlock()
	if err != nil || w.sink == nil {
		return err
	}
	if err := w.sink.Flush(); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.failLocked(err)
	}
	return nil
}

// Err returns the error that stopped the recording, or nil.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close records the end, writes everything out and returns the summary. Closing
// again returns the same; other calls after Close return ErrClosed.
func (w *Writer) Close(end End) (_ Summary, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return w.summary, w.closeErr()
	}
	end.Ended = end.Ended.UTC()
	w.tailsLocked(end.Ended)
	w.closed = true
	w.summary = Summary{Duration: max(w.last, end.Ended.Sub(w.start)), Metadata: w.meta, End: end}
	line, data := w.summary.endLine()
	for _, f := range w.follow {
		f.Follow(w.summary.Duration, KindEnd, data)
	}
	if w.sink != nil {
		err = w.finishLocked()
	} else {
		err = w.syncLocked(line)
	}
	if w.err == nil {
		w.err = ErrClosed
	}
	return w.summary, err
}

// finishLocked leaves the end to the sink. An error that came before counts, but what could
// be written until then is finished all the same.
func (w *Writer) finishLocked() (err error) {
	w.flushLocked()
	w.releaseLocked()
	w.summary, err = w.sink.Finish(w.summary)
	return w.failLocked(err)
}

// syncLocked writes the last line, and digests.
func (w *Writer) syncLocked(line []byte) error {
	w.buf = append(w.buf, line...)
	err := w.flushLocked()
	if s, ok := w.dst.(interface{ Sync() error }); ok && err == nil {
		err = w.failLocked(s.Sync())
	}
	w.summary.Size, w.summary.SHA256 = w.size, hex.EncodeToString(w.digest.Sum(nil))
	return err
}

// EndLine is the last line of the recording, with its newline.
func (s Summary) EndLine() []byte {
	line, _ := s.endLine()
	return line
}

func (s Summary) endLine() (line, data []byte) {
	data, _ = json.Marshal(s.End) // of strings, a number and a time
	return AppendEvent(nil, s.Duration, KindEnd, data), data
}

func (w *Writer) closeErr() error {
	if w.err == ErrClosed {
		return nil
	}
	return w.err
}

// tailsLocked writes the halves of characters that never became whole.
func (w *Writer) tailsLocked(at time.Time) {
	for _, s := range []struct {
		kind Kind
		tail *tail
	}{{KindOutput, &w.output}, {KindInput, &w.input}} {
		if rest := s.tail.bytes(); len(rest) > 0 {
			w.eventLocked(at, s.kind, rest)
		}
	}
}

// textLocked writes p as events of whole characters; the bytes of one that p ends
// in the middle of wait for the rest.
func (w *Writer) textLocked(at time.Time, kind Kind, t *tail, p []byte) error {
	for len(p) > 0 && w.err == nil {
		chunk := p[:min(len(p), maxEvent)]
		p = p[len(chunk):]
		if head := t.complete(&chunk); len(head) > 0 {
			w.eventLocked(at, kind, head)
		}
		chunk = t.hold(chunk)
		if len(chunk) > 0 {
			w.eventLocked(at, kind, chunk)
		}
	}
	return w.err
}

func (w *Writer) eventLocked(at time.Time, kind Kind, data []byte) error {
	if w.err != nil {
		return w.err
	}
	w.last = max(w.last, at.Sub(w.start))
	for _, f := range w.follow {
		f.Follow(w.last, kind, data)
	}
	if w.buf == nil {
		w.buf = *buffers.Get().(*[]byte)
	}
	w.buf = AppendEvent(w.buf, w.last, kind, data)
	if len(w.buf) >= flushBuffer {
		return w.flushLocked()
	}
	return nil
}

func (w *Writer) flushLocked() error {
	if w.err != nil || len(w.buf) == 0 {
		return w.err
	}
	n, err := w.dst.Write(w.buf)
	if err == nil && n < len(w.buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return w.failLocked(err)
	}
	if w.digest != nil {
		w.digest.Write(w.buf)
	}
	w.size += int64(n)
	w.buf = w.buf[:0]
	return nil
}

// buffers are for events, which are held for a moment.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, flushBuffer+2*maxEvent); return &b }}

// releaseLocked lets go of a buffer that is empty.
func (w *Writer) releaseLocked() {
	if b := w.buf[:0]; cap(b) >= flushBuffer && cap(b) <= 4*flushBuffer {
		buffers.Put(&b)
	}
	w.buf = nil
}

// failLocked keeps the first error and lets go of what can no longer be written.
func (w *Writer) failLocked(err error) error {
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("writing recording: %w", err)
		w.buf = nil
	}
	return w.err
}

// appendSeconds appends d as seconds with six decimals.
func appendSeconds(b []byte, d time.Duration) []byte {
	us := d.Microseconds()
	b = strconv.AppendInt(b, us/1e6, 10)
	b = append(b, '.')
	frac := us % 1e6
	for div := int64(1e5); div > 0; div /= 10 {
		b = append(b, byte('0'+frac/div%10))
	}
	return b
}

const hexDigits = "0123456789abcdef"

// appendString appends p as a JSON string. Bytes that are not UTF-8 become U+FFFD,
// one each: JSON cannot carry them.
func appendString(b, p []byte) []byte {
	b = append(b, '"')
	for len(p) > 0 {
		if n := plainBytes(p); n > 0 {
			b, p = append(b, p[:n]...), p[n:]
			continue
		}
		if p[0] >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(p)
			b, p = utf8.AppendRune(b, r), p[n:]
			continue
		}
		b, p = appendEscape(b, p[0]), p[1:]
	}
	return append(b, '"')
}

// plainBytes returns how many bytes at the beginning of p a JSON string holds as they are.
// It looks at eight at a time: most of what is shown is such text.
func plainBytes(p []byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; len(p)-n >= 8; n += 8 {
		x := binary.LittleEndian.Uint64(p[n:])
		// The top bit of the first byte that is another is set, if there is one: each term
		// is right up to the first byte for which one holds.
		other := (x | (x - ' '*ones) | (x + ones) | ((x ^ '"'*ones) - ones) | ((x ^ '\\'*ones) - ones)) & tops
		if other != 0 {
			return n + bits.TrailingZeros64(other)/8
		}
	}
	for n < len(p) && p[n] >= ' ' && p[n] < 0x7f && p[n] != '"' && p[n] != '\\' {
		n++
	}
	return n
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// tail holds the first bytes of a character whose rest is still to come.
type tail struct {
	b [utf8.UTFMax]byte
	n int
}

func (t *tail) bytes() []byte {
	b := t.b[:t.n]
	t.n = 0
	return b
}

// complete takes from chunk the bytes that finish the held character and returns
// that character, or nothing while it is still unfinished. When chunk shows that it
// never will be, the held bytes are returned as they are.
func (t *tail) complete(chunk *[]byte) []byte {
	if t.n == 0 {
		return nil
	}
	for len(*chunk) > 0 && !utf8.FullRune(t.b[:t.n]) {
		if utf8.RuneStart((*chunk)[0]) {
			break // the next character begins
		}
		t.b[t.n] = (*chunk)[0]
		t.n++
		*chunk = (*chunk)[1:]
	}
	if len(*chunk) == 0 && !utf8.FullRune(t.b[:t.n]) {
		return nil
	}
	return t.bytes()
}

// hold keeps the bytes of an unfinished character at the end of chunk and returns
// the rest.
func (t *tail) hold(chunk []byte) []byte {
	for i := len(chunk) - 1; i >= 0 && i >= len(chunk)-utf8.UTFMax; i-- {
		if !utf8.RuneStart(chunk[i]) {
			continue
		}
		if !utf8.FullRune(chunk[i:]) {
			t.n = copy(t.b[:], chunk[i:])
			return chunk[:i]
		}
		break
	}
	return chunk
}
