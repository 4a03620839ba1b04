package archive

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"os"
	"sync"
	"time"

	"sallyport.dev/recording"
)

const (
	// maxPending bounds what a recording holds unsealed, in bytes; who writes more seals.
	maxPending = 512 << 10
)

// live is a recording being written: the sink of a recording.Writer. An idle one holds no
// buffer, no encoder and no open file.
type live struct {
	a      *Archive
	name   string
	meta   recording.Metadata
	sealer *sealer
	key    WrappedKey

	// sealing is held while files are written; it is taken before mu and Archive.mu.
	sealing sync.Mutex
	file    *os.File // of chunk, nil between chunks
	began   time.Time
	chunk   Chunk // the one being written; without a size there is none
	chunks  []Chunk
	frames  int64 // in all
	journal int64 // size of the journal's good part
	entries int64 // in the journal
	sum     hash.Hash
	plain   hash.Hash
	ended   *recording.Summary
	sealed  bool // the last frame has been written
	late    bool // the end of the session was written down without the manifest
	done    *Manifest

	// Of a recording that an earlier run left:
	replaying bool
	unsent    []string  // what is to be sent once that is over
	noted     time.Time // of the last entry of the journal

	mu      sync.Mutex // a leaf
	pending []byte
	queued  bool // for a worker
	err     error
}

var _ recording.Sink = (*live)(nil)

// newLive makes the state of a recording of which nothing has been written.
func (a *Archive) newLive(name string, s *sealer, key WrappedKey) *live {
	return &live{a: a, name: name, sealer: s, key: key, sum: sha256.New(), plain: sha256.New(), chunk: Chunk{Name: chunkName(1)}}
}

// Create starts the recording of the session that h names. What cannot be recorded must
// not begin: ErrFull and errors of the key service and the disk are for the caller to show.
func (a *Archive) Create(ctx context.Context, h recording.Header) (*Recording, error) {
	name, err := Name(h.Session, h.Started)
	if err != nil {
		return nil, err
	}
	if err := a.room(false); err != nil {
		return nil, err
	}
	s, key, err := a.newKey(ctx, name)
	if err != nil {
		return nil, err
	}
	l := a.newLive(name, s, key)
	l.meta = h.Metadata
	if err := l.create(); err != nil {
		return nil, err
	}
	if err := a.enter(l); err != nil {
		return nil, errors.Join(err, a.spool.drop(name))
	}
	w, err := recording.NewWriter(l, h)
	if err != nil {
		a.leave(l)
		return nil, errors.Join(err, a.spool.drop(name))
	}
	a.post(l, keyObject)
	return &Recording{Writer: w, Name: name, live: l}, nil
}

// create makes the recording's folder with its key.
func (l *live) create() error {
	if err := l.a.spool.create(l.name); err != nil {
		return err
	}
	err := l.a.spool.write(l.name, keyObject, l.key.Encode())
	if err == nil {
		err = l.note(entry{Meta: &l.meta, At: l.a.now()})
	}
	if err != nil {
		return errors.Join(err, l.a.spool.drop(l.name))
	}
	return nil
}

// Write implements recording.Sink: it takes p, and has it sealed by others if it can.
func (l *live) Write(p []byte) (int, error) {
	l.mu.Lock()
	if l.pending == nil {
		l.pending = *l.a.buffers.Get().(*[]byte)
	}
	l.pending = append(l.pending, p...)
	n, err := len(l.pending), l.err
	queue := n >= frameSize && !l.queued
	l.queued = l.queued || queue
	l.mu.Unlock()
	if err == nil {
		err = l.a.room(true)
	}
	if err == nil && (queue && !l.a.queue(l) || n >= maxPending) {
		err = l.Flush()
	}
	return len(p), err
}

// Flush implements recording.Sink: what was written outlives the process when it returns.
func (l *live) Flush() error {
	l.sealing.Lock()
	defer l.sealing.Unlock()
	if l.ended != nil { // finish does it, and marks the last frame
		return nil
	}
	if err := l.sealPending(false); err != nil {
		return err
	}
	if l.chunk.Size >= int64(l.a.cfg.ChunkSize) {
		return l.finishChunk()
	}
	return nil
}

// fail keeps the first error, for the next to write.
func (l *live) fail(err error) error {
	if err == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	return err
}

// sealPending writes what is held as frames; the very last is marked where last. What
// cannot be written stays held.
func (l *live) sealPending(last bool) error {
	l.mu.Lock()
	held := l.pending
	l.pending, l.queued = nil, false
	l.mu.Unlock()
	rest := held
	for len(rest) > 0 {
		n := frameEnd(rest)
		if err := l.writeFrame(rest[:n], last && n == len(rest)); err != nil {
			l.mu.Lock()
			l.pending = append(rest, l.pending...)
			l.mu.Unlock()
			return l.fail(err)
		}
		rest = rest[n:]
	}
	if cap(held) >= frameSize && cap(held) <= 2*maxPending {
		empty := held[:0]
		l.a.buffers.Put(&empty)
	}
	return nil
}

// writeFrame seals plain bytes into the chunk, which begins with them if need be.
func (l *live) writeFrame(plain []byte, last bool) error {
	if err := l.openChunk(); err != nil {
		return err
	}
	b := l.a.scratch.Get().(*scratch)
	defer l.a.scratch.Put(b)
	h := head{last: last, number: l.frames + 1, offset: l.chunk.end()}
	frame := l.sealer.seal(b, kindChunk, h, plain)
	if err := writeWhole(l.file, frame, l.chunk.Size); err != nil {
		return fmt.Errorf("writing %s: %w", l.chunk.Name, err)
	}
	l.a.spool.bytes.Add(int64(len(frame)))
	l.a.stats.frameBytes.Add(int64(len(plain)))
	l.a.stats.sealedBytes.Add(int64(len(frame)))
	l.took(h, frame, plain)
	return nil
}

// took notes a frame that is in the file.
func (l *live) took(h head, frame, plain []byte) {
	l.sum.Write(frame)
	l.plain.Write(plain)
	l.chunk.Size += int64(len(frame))
	l.chunk.PlainSize += int64(len(plain))
	l.chunk.Frames++
	l.frames++
	l.sealed = h.last
}

// writeWhole appends b to a file of the size, or leaves it as it was.
func writeWhole(f *os.File, b []byte, size int64) error {
	_, err := f.Write(b)
	if err == nil {
		return nil
	}
	return errors.Join(err, f.Truncate(size))
}

func (l *live) openChunk() (err error) {
	if l.file != nil {
		return nil
	}
	if len(l.chunks) >= maxChunks {
		return fmt.Errorf("the recording has %d chunks, the most that one may have", maxChunks)
	}
	if l.file, err = l.a.spool.append(l.name, l.chunk.Name); err != nil {
		return fmt.Errorf("making %s: %w", l.chunk.Name, err)
	}
	l.began = l.a.now()
	return nil
}

// finishChunk ends the chunk, if one has begun, and has it sent.
func (l *live) finishChunk() error {
	if l.chunk.Size == 0 {
		return nil
	}
	c := l.chunk
	c.SHA256 = hex.EncodeToString(l.sum.Sum(nil))
	state, err := l.plain.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return l.fail(fmt.Errorf("saving the digest: %w", err))
	}
	e := entry{Chunk: &c, At: l.a.now(), Frames: l.frames, Digest: state}
	if l.sealed {
		e.Ended = l.ended
	}
	if err := l.note(e); err != nil {
		return l.fail(err)
	}
	l.chunks = append(l.chunks, c)
	l.chunk = Chunk{Name: chunkName(len(l.chunks) + 1), PlainOffset: c.end()}
	l.sum.Reset()
	if l.file != nil {
		err = l.file.Close()
		l.file = nil
	}
	l.send(c.Name)
	return l.fail(err)
}

// send has an object sent to the store.
func (l *live) send(object string) {
	if l.replaying {
		l.unsent = append(l.unsent, object)
		return
	}
	l.a.post(l, object)
}

// finishOld ends a chunk that began long enough ago.
func (l *live) finishOld(now time.Time) {
	l.sealing.Lock()
	defer l.sealing.Unlock()
	if l.ended == nil && l.chunk.Size > 0 && now.Sub(l.began) >= l.a.cfg.ChunkInterval {
		l.finishChunk() // who writes next learns of an error
	}
}

// entry is one note of the journal, by which the next run goes on where this one is killed:
// first the metadata, then each finished chunk with the state of the digest behind it.
// Journals lie in the spool alone, and are sealed as chunks are: the state of a digest holds
// up to 63 bytes of what was shown.
type entry struct {
	Meta   *recording.Metadata `json:"meta,omitempty"`
	Chunk  *Chunk              `json:"chunk,omitempty"`
	At     time.Time           `json:"at"`
	Frames int64               `json:"frames,omitempty"` // so far
	Digest []byte              `json:"digest,omitempty"`
	Ended  *recording.Summary  `json:"ended,omitempty"` // of the chunk with the last frame
}

// note adds an entry to the journal.
func (l *live) note(e entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encoding the journal: %w", err)
	}
	f, err := l.a.spool.append(l.name, journalObject)
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	b := l.a.scratch.Get().(*scratch)
	defer l.a.scratch.Put(b)
	frame := l.sealer.seal(b, kindJournal, head{number: l.entries + 1, offset: l.journal}, text)
	if err := errors.Join(writeWhole(f, frame, l.journal), f.Close()); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	l.a.spool.bytes.Add(int64(len(frame)))
	l.journal += int64(len(frame))
	l.entries++
	return nil
}

// Finish implements recording.Sink. What cannot be finished for want of room is tried again
// until it can.
func (l *live) Finish(s recording.Summary) (recording.Summary, error) {
	l.sealing.Lock()
	defer l.sealing.Unlock()
	l.end(s)
	err := l.finish()
	if err != nil {
		l.late = true
		l.a.finishLater(l)
		return s, err
	}
	l.a.leave(l)
	return l.done.full(*l.ended), nil
}

// full adds to a summary what the manifest knows.
func (m *Manifest) full(s recording.Summary) recording.Summary {
	s.Name, s.Size, s.SHA256, s.Manifest = m.Name, m.Size, m.SHA256, m.Sum
	return s
}

// end takes the end into the recording, once.
func (l *live) end(s recording.Summary) {
	l.ended = &s
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, s.EndLine()...)
}

// finish writes what is left of a recording that has ended. It may be called again after an
// error.
func (l *live) finish() error {
	if l.done != nil {
		return nil
	}
	if err := l.sealPending(true); err != nil {
		return err
	}
	if l.file != nil {
		if err := l.file.Sync(); err != nil {
			return fmt.Errorf("writing %s: %w", l.chunk.Name, err)
		}
	}
	if err := l.finishChunk(); err != nil {
		return err
	}
	if l.late { // the next run would not know, once there is a manifest
		if err := l.a.spool.write(l.name, lateObject, nil); err != nil {
			return err
		}
	}
	l.ended.SHA256 = hex.EncodeToString(l.plain.Sum(nil))
	m := newManifest(l.name, *l.ended, l.chunks)
	if err := l.a.spool.write(l.name, manifestObject, m.encode()); err != nil {
		return err
	}
	l.done = &m
	l.a.postEnd(l.name, m, l.late)
	return nil
}

// view returns what a reader may see: the finished chunks and the one being written.
func (l *live) view() (chunks []Chunk, open Chunk) {
	l.sealing.Lock()
	defer l.sealing.Unlock()
	return l.chunks[:len(l.chunks):len(l.chunks)], l.chunk
}

// failed returns the error by which the recording cannot go on.
func (l *live) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
