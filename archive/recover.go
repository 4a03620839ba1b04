package archive

import (
	"bytes"
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"sallyport.dev/recording"
)

// recoverTime bounds how long Open finishes what an earlier run left open; the rest follows
// while the member serves. The key service may be away.
const recoverTime = 10 * time.Second

// maxRecoverWait is how long at most is waited between attempts at what is left.
const maxRecoverWait = 30 * time.Second

// Restarted is the reason in the end of a recording whose member was killed, where nobody
// knows another.
const Restarted = "server-restart"

// takeUp goes on with what an earlier run left in the spool.
func (a *Archive) takeUp(ctx context.Context) error {
	names, err := a.spool.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		a.recover[name] = true
	}
	ctx, cancel := context.WithTimeout(ctx, recoverTime)
	defer cancel()
	a.recoverAll(ctx)
	return nil
}

// recoverLeft goes on until everything is finished that takeUp could not.
func (a *Archive) recoverLeft() {
	for wait := time.Second; a.unrecovered() > 0; wait = min(2*wait, maxRecoverWait) {
		select {
		case <-a.ctx.Done():
			return
		case <-time.After(wait):
		}
		ctx, cancel := context.WithTimeout(a.ctx, recoverTime)
		a.recoverAll(ctx)
		cancel()
	}
}

func (a *Archive) unrecovered() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.recover)
}

// recoverAll finishes what is left of an earlier run, as far as that is possible now.
func (a *Archive) recoverAll(ctx context.Context) {
	a.mu.Lock()
	names := make([]string, 0, len(a.recover))
	for name := range a.recover {
		names = append(names, name)
	}
	a.mu.Unlock()
	slices.Sort(names)
	for _, name := range names {
		if ctx.Err() != nil {
			return
		}
		if err := a.recoverOne(ctx, name); err != nil {
			a.log.Error("finishing the recording that an earlier run left", "recording", name, "error", err)
			continue
		}
		a.mu.Lock()
		delete(a.recover, name)
		a.mu.Unlock()
	}
}

// recoverOne finishes one recording, or has it sent if it is finished.
func (a *Archive) recoverOne(ctx context.Context, name string) error {
	b, err := a.spool.read(name, keyObject, 0, maxKeyBytes+1)
	if errors.Is(err, fs.ErrNotExist) {
		// It was killed before its session could begin.
		return a.spool.drop(name)
	}
	if err != nil {
		return err
	}
	if settled, err := a.settledBefore(ctx, name); settled || err != nil {
		return err
	}
	if m, err := a.readSpooled(name); err == nil {
		return a.sendAgain(name, b, m)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s, key, err := a.unwrap(ctx, name, b)
	if err != nil {
		return err
	}
	l := a.newLive(name, s, key)
	l.replaying = true
	last, err := l.replay(ctx)
	if err != nil {
		return err
	}
	if l.frames == 0 {
		return a.spool.drop(name) // its session could not begin either
	}
	return l.conclude(ctx, last)
}

// settledBefore lets go of a recording that the store had whole already: what it was deleted
// of since, or wrapped anew, must not be put back. It reports false of one that is to be
// finished and sent.
func (a *Archive) settledBefore(ctx context.Context, name string) (bool, error) {
	row, err := a.cfg.Rows.Recording(ctx, name)
	if errors.Is(err, recording.ErrNotFound) || err == nil && row.State == Spooled {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if row.State == Stored {
		// Whoever wrote the row may be mistaken; the store is asked.
		s := a.shelf(name, Row{})
		b, err := s.readStore(ctx, manifestObject, 0, maxManifest)
		if errors.Is(err, fs.ErrNotExist) || err == nil && sum(b) != row.Manifest {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	objects, err := a.spool.objects(name)
	if err != nil {
		return false, err
	}
	if hasChunkAfter(objects, 0) {
		a.log.Error("the spool has an older copy of a recording that was stored or deleted; it was put aside", "recording", name, "state", string(row.State))
		return true, a.spool.putAside(name)
	}
	return true, a.spool.drop(name)
}

// readSpooled reads a manifest from the spool.
func (a *Archive) readSpooled(name string) (Manifest, error) {
	b, err := a.spool.read(name, manifestObject, 0, maxManifest+1)
	if err != nil {
		return Manifest{}, err
	}
	m, err := ParseManifest(b, name)
	if err != nil {
		return m, a.damage(name, manifestObject, 0, "%v", err)
	}
	return m, nil
}

// sendAgain has the store take what it may not have of a finished recording.
func (a *Archive) sendAgain(name string, key []byte, m Manifest) error {
	k, err := ParseKey(key, name)
	if err != nil {
		return a.damage(name, keyObject, 0, "%v", err)
	}
	_, err = a.spool.read(name, lateObject, 0, 0)
	late := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l := a.newLive(name, nil, k)
	l.meta = m.Summary().Metadata
	a.post(l, keyObject)
	for _, c := range m.Chunks { // the sender knows what the store has: what is not here
		a.post(l, c.Name)
	}
	a.postEnd(name, m, late)
	return nil
}

// replay brings a recording to the state in which it was flushed last: by its journal, and
// then by the chunks that the journal does not know. It returns the plain bytes of the last
// frame, if that is here.
func (l *live) replay(ctx context.Context) (last []byte, err error) {
	whole, err := l.replayJournal()
	if err != nil {
		return nil, err
	}
	for {
		b, stored, err := l.chunkBytes(ctx, whole)
		if errors.Is(err, fs.ErrNotExist) {
			return last, nil
		}
		if err != nil {
			return nil, err
		}
		if last, err = l.replayChunk(b); err != nil {
			return nil, err
		}
		more, err := l.hasLater()
		if err != nil || !more && !stored {
			return last, err
		}
		if l.chunk.Size == 0 {
			return last, l.discardLater()
		}
		if err := l.finishChunk(); err != nil {
			return nil, err
		}
	}
}

// discardLater puts chunks aside that nothing continues to: the machine lost what was before
// them.
func (l *live) discardLater() error {
	objects, err := l.a.spool.objects(l.name)
	if err != nil {
		return err
	}
	for o := range objects {
		if chunkNumber(o) <= chunkNumber(l.chunk.Name) {
			continue
		}
		b, err := l.a.spool.read(l.name, o, 0, maxChunk)
		if err == nil {
			err = l.a.spool.keepDamaged(l.name, o, b)
		}
		if err == nil {
			err = l.a.spool.remove(l.name, o)
		}
		if err != nil {
			return err
		}
		l.a.stats.damaged.Add(1)
		l.a.log.Error("a part of a recording has lost what was before it; it was put aside", "recording", l.name, "chunk", o)
	}
	return nil
}

// replayJournal reads the journal as far as it is good, and reports whether that is all of
// it.
func (l *live) replayJournal() (whole bool, err error) {
	b, err := l.a.spool.read(l.name, journalObject, 0, maxManifest)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	good, err := frames(b, func(h head, frame []byte) error {
		text, err := l.sealer.open(kindJournal, h, frame)
		if err != nil || h.number != l.entries+1 {
			return errSeal
		}
		var e entry
		if err := json.Unmarshal(text, &e); err != nil {
			return err
		}
		if err := l.replayEntry(e); err != nil {
			return err
		}
		l.entries++
		return nil
	})
	whole = err == nil && l.entries > 0
	l.journal = good
	if err != nil {
		l.a.log.Warn("the journal of a recording is cut", "recording", l.name, "bytes", good, "error", err)
		err = l.cut(journalObject, good)
	}
	return whole, err
}

func (l *live) replayEntry(e entry) error {
	l.noted = e.At
	if e.Meta != nil {
		l.meta = *e.Meta
	}
	if e.Chunk == nil {
		return nil
	}
	// The journal may have outlived bytes of the chunk, where the machine lost its power.
	b, err := l.a.spool.read(l.name, e.Chunk.Name, 0, maxChunk+1)
	if err == nil && sum(b) != e.Chunk.SHA256 {
		return fmt.Errorf("%s: %w", e.Chunk.Name, errCut)
	}
	if err := l.plain.(encoding.BinaryUnmarshaler).UnmarshalBinary(e.Digest); err != nil {
		return err
	}
	l.chunks, l.frames, l.sealed, l.ended = append(l.chunks, *e.Chunk), e.Frames, e.Ended != nil, e.Ended
	l.chunk = Chunk{Name: chunkName(len(l.chunks) + 1), PlainOffset: e.Chunk.end()}
	l.send(e.Chunk.Name) // if it is here: the sender tells that from what cannot be read now
	return nil
}

// cut shortens a file of the spool, if it is there: not a chunk that the store has alone.
func (l *live) cut(object string, size int64) error {
	if err := l.a.spool.cut(l.name, object, size); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cutting %s: %w", object, err)
	}
	return nil
}

// chunkBytes reads the chunk behind those that the journal knows. Where the machine lost
// the journal's end, the store may have that chunk already, and alone: what follows it
// belongs into another.
func (l *live) chunkBytes(ctx context.Context, journalWhole bool) (b []byte, stored bool, err error) {
	b, err = l.a.spool.read(l.name, l.chunk.Name, 0, maxChunk)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, false, err
	}
	later, laterErr := l.hasLater()
	if laterErr != nil {
		return nil, false, laterErr
	}
	if journalWhole && !later {
		return nil, false, err
	}
	s := l.a.shelf(l.name, Row{})
	b, err = s.readStore(ctx, l.chunk.Name, 0, maxChunk)
	return b, true, err
}

// hasLater reports whether the spool has chunks behind the one being replayed.
func (l *live) hasLater() (bool, error) {
	objects, err := l.a.spool.objects(l.name)
	return hasChunkAfter(objects, chunkNumber(l.chunk.Name)), err
}

// replayChunk takes in the frames of a chunk as far as they are good, and cuts off the
// rest: a frame that the crash cut in two.
func (l *live) replayChunk(b []byte) (last []byte, err error) {
	good, err := frames(b, func(h head, frame []byte) error {
		if l.sealed || h.number != l.frames+1 || h.offset != l.chunk.end() {
			return errSeal
		}
		plain, err := l.sealer.open(kindChunk, h, frame)
		if err != nil {
			return err
		}
		if h.number == 1 && l.meta.Session == "" {
			l.meta = metadataOf(plain)
		}
		l.took(h, frame, plain)
		last = plain
		return nil
	})
	if err == nil {
		return last, nil
	}
	rest := b[good:]
	l.a.log.Warn("the last frame of a recording is cut off", "recording", l.name, "chunk", l.chunk.Name, "bytes", len(rest), "error", err)
	if !errors.Is(err, errCut) {
		l.a.stats.damaged.Add(1)
		if err := l.a.spool.keepDamaged(l.name, l.chunk.Name, rest); err != nil {
			return nil, err
		}
	}
	return last, l.cut(l.chunk.Name, good)
}

// conclude ends a recording whose member was killed, with the reason, and finishes it.
func (l *live) conclude(ctx context.Context, last []byte) error {
	l.replaying = false
	l.send(keyObject)
	for _, object := range l.unsent {
		l.send(object)
	}
	if err := l.reopen(); err != nil {
		return err
	}
	s := recording.Summary{Metadata: l.meta, Duration: l.lastEvent(last)}
	end := l.whyEnded(ctx, s.Duration)
	switch {
	case l.ended != nil: // the journal knows
	case l.sealed:
		s.End = endOf(last)
		l.ended = &s
	default:
		s.End = end
		s.Duration = max(s.Duration, s.End.Ended.Sub(l.meta.Started))
		l.end(s)
	}
	if err := l.finish(); err != nil {
		return err
	}
	l.a.log.Info("finished the recording that an earlier run left", "recording", l.name, "bytes", l.done.Size, "reason", l.ended.End.Reason)
	return nil
}

// reopen opens the file of a chunk that has begun.
func (l *live) reopen() error {
	if l.chunk.Size == 0 || l.sealed {
		return nil
	}
	return l.openChunk()
}

// whyEnded asks how the session ended: one whose end is written down already was written
// without the digests. Where nobody knows, the end is when something was shown last.
func (l *live) whyEnded(ctx context.Context, last time.Duration) recording.End {
	if l.a.cfg.Ended != nil {
		if end, known := l.a.cfg.Ended(ctx, l.meta.Session); known {
			l.late = true
			return end
		}
	}
	return recording.End{Reason: Restarted, Ended: l.meta.Started.Add(last).UTC()}
}

// lastEvent is the time of the last event of a frame; where that is not here, of when its
// chunk was finished.
func (l *live) lastEvent(plain []byte) time.Duration {
	for _, line := range slices.Backward(bytes.Split(plain, []byte("\n"))) {
		if e, err := recording.ParseEvent(line); err == nil {
			return e.At
		}
	}
	return max(0, l.noted.Sub(l.meta.Started))
}

// endOf reads the end from the last frame of a recording.
func endOf(plain []byte) (end recording.End) {
	for _, line := range slices.Backward(bytes.Split(plain, []byte("\n"))) {
		e, err := recording.ParseEvent(line)
		if err == nil && e.Kind == recording.KindEnd && json.Unmarshal([]byte(e.Data), &end) == nil {
			return end
		}
	}
	return recording.End{}
}

// metadataOf reads whose session it was from the first frame of a recording.
func metadataOf(plain []byte) recording.Metadata {
	line, _, _ := bytes.Cut(plain, []byte("\n"))
	h, _ := recording.ParseHeader(line) // without, the name of the recording tells
	return h.Metadata
}
