package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"sallyport.dev/recording"
	"sallyport.dev/transcript"
)

// repairLoop makes transcripts of recordings: those that a crash or a flood left, and
// those of sessions that were recorded while there was no index.
func (k *Keeper) repairLoop() {
	t := time.NewTicker(repairEvery)
	defer t.Stop()
	// An earlier run's transcripts are looked for once its sessions have been over for a
	// moment: nobody writes to them any more, and people search after a crash.
	left := time.NewTimer(leftAfter)
	defer left.Stop()
	var swept time.Time
	for age := repairAge; ; {
		k.repair(k.ctx, age)
		if now := k.cfg.Now(); now.Sub(swept) >= sweepEvery {
			k.sweep(k.ctx)
			swept = now
		}
		select {
		case <-k.ctx.Done():
			return
		case <-left.C:
			age = leftAge
		case <-t.C:
			age = repairAge
		}
	}
}

// repairer is who writes what is made of recordings: not the member itself, whose followers
// of sessions that are over may be late and would add to it.
func (k *Keeper) repairer() string { return k.cfg.Member + " repairs" }

// repair makes what is partial whole that nobody has written to for an age. What fails is
// left for the next time.
func (k *Keeper) repair(ctx context.Context, age time.Duration) {
	before := k.cfg.Now().Add(-age)
	for ctx.Err() == nil {
		work, err := k.cfg.Store.ClaimTranscripts(ctx, k.repairer(), before, k.cfg.Now(), repairBatch)
		if err != nil {
			k.unlessClosed(ctx, "looking for partial transcripts", "", err)
			return
		}
		for _, w := range work {
			k.remake(ctx, w)
		}
		if len(work) < repairBatch {
			return
		}
	}
}

// sweep makes the transcripts that are missing.
func (k *Keeper) sweep(ctx context.Context) {
	for ctx.Err() == nil {
		work, err := k.cfg.Store.MissingTranscripts(ctx, repairBatch)
		if err != nil {
			k.unlessClosed(ctx, "looking for sessions without transcripts", "", err)
			return
		}
		for _, w := range work {
			if w.Number, err = k.cfg.Store.CreateTranscript(ctx, w.Session, k.repairer(), Partial, k.cfg.Now()); err != nil {
				k.unlessClosed(ctx, "beginning a transcript", w.Session, err)
				return
			}
			if w.Number != 0 { // else another member is making it
				k.remake(ctx, w)
			}
		}
		if len(work) < repairBatch {
			return
		}
	}
}

func (k *Keeper) unlessClosed(ctx context.Context, doing, session string, err error) {
	if ctx.Err() == nil {
		k.failed(doing, session, err)
	}
}

// remake makes a transcript of a recording. What fails is tried again later.
func (k *Keeper) remake(ctx context.Context, w Work) {
	state, err := k.make(ctx, w)
	if err != nil {
		k.unlessClosed(ctx, "making a transcript of its recording", w.Session, err)
		return
	}
	if err := k.cfg.Store.EndTranscript(ctx, w.Number, k.repairer(), state, k.cfg.Now()); err != nil {
		k.unlessClosed(ctx, "ending a transcript", w.Session, err)
		return
	}
	k.stats.repaired.Add(1)
}

// lateAge is how long the recording of a session that has ended may lack its end, or all of
// it: the member that wrote it adds that when it comes back.
const lateAge = time.Hour

func (k *Keeper) make(ctx context.Context, w Work) (State, error) {
	if w.Recording == "" {
		return Gone, nil
	}
	late := k.cfg.Now().Sub(w.Ended) >= lateAge
	file, err := k.cfg.Open(ctx, w.Recording)
	if errors.Is(err, fs.ErrNotExist) && late {
		return Gone, nil
	}
	if err != nil {
		return Partial, fmt.Errorf("opening recording: %w", err)
	}
	defer file.Close()
	m := &making{k: k, ctx: ctx, work: w}
	err = m.read(file)
	if errors.Is(err, recording.ErrFormat) {
		k.failed("a recording can be read in part only", w.Session, err)
		err, late = nil, true // it will not get better
	}
	m.builder.end()
	m.store()
	if err := errors.Join(err, m.err); err != nil {
		return Partial, err
	}
	if !m.ended && !late {
		return Partial, nil
	}
	return Whole, nil
}

// repairBlocks is how many blocks are written at a time.
const repairBlocks = 8

// making is a transcript being made of a recording.
type making struct {
	k       *Keeper
	ctx     context.Context
	work    Work
	builder builder
	ended   bool // the recording's end was read
	err     error
	wrote   time.Duration // how long the last write took
}

func (m *making) read(file io.Reader) error {
	r, err := recording.NewReader(stopping{m, file})
	if err != nil {
		return err
	}
	err = transcript.Read(r, transcript.Config{Line: func(l transcript.Line) {
		m.builder.add(l)
		if len(m.builder.full) >= repairBlocks {
			m.store()
		}
	}})
	m.ended = r.End() != nil
	return err
}

// store writes blocks that are full. It leaves the store as much time as it took, since
// nobody waits for it and others do for theirs.
func (m *making) store() {
	blocks := m.builder.take()
	if len(blocks) == 0 || m.err != nil {
		return
	}
	if m.err = m.pause(); m.err != nil {
		return
	}
	var all []Addition
	for _, b := range blocks {
		all = append(all, Addition{m.work.Number, b})
	}
	began := time.Now()
	gone, err := m.k.cfg.Store.AddBlocks(m.ctx, m.k.repairer(), all, m.k.cfg.Now())
	m.wrote = time.Since(began)
	if m.err = err; err == nil && len(gone) > 0 {
		m.err = ErrGone
	}
}

func (m *making) pause() error {
	if m.wrote == 0 {
		return m.ctx.Err()
	}
	t := time.NewTimer(m.wrote)
	defer t.Stop()
	select {
	case <-m.ctx.Done():
		return m.ctx.Err()
	case <-t.C:
		return nil
	}
}

// stopping ends the reading of a recording whose transcript cannot be written.
type stopping struct {
	m    *making
	file io.Reader
}

// Read implements io.Reader.
func (s stopping) Read(p []byte) (int, error) {
	if s.m.err != nil {
		return 0, s.m.err
	}
	if err := s.m.ctx.Err(); err != nil {
		return 0, err
	}
	return s.file.Read(p)
}
