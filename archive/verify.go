package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"maps"
	"slices"
)

// Report is what Verify found.
type Report struct {
	Manifest Manifest
	Damage   []*Damage // empty if all is well
}

// Verify reads all of a recording and compares it with its manifest, and that with the
// row. The error is one of reading, or recording.ErrIncomplete of one that has not ended;
// what is wrong with the recording is in the report.
func (a *Archive) Verify(ctx context.Context, name string) (Report, error) {
	var report Report
	err := a.verify(ctx, name, &report)
	if d := (*Damage)(nil); errors.As(err, &d) {
		report.Damage = append(report.Damage, d)
		err = nil
	}
	return report, err
}

func (a *Archive) verify(ctx context.Context, name string, report *Report) error {
	m, s, err := a.findManifest(ctx, name)
	if err != nil {
		return err
	}
	report.Manifest = m
	r := &reader{ctx: ctx, shelf: s, loaded: -1, chunks: m.Chunks, ended: true, fresh: true}
	r.sealer, err = a.key(ctx, r.shelf)
	if d := (*Damage)(nil); errors.As(err, &d) {
		report.Damage = append(report.Damage, d) // the chunks can be compared all the same
	} else if err != nil {
		return err
	}
	plain := sha256.New()
	for i := range m.Chunks {
		err := r.verifyChunk(i, plain)
		if d := (*Damage)(nil); errors.As(err, &d) {
			report.Damage = append(report.Damage, d)
		} else if err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(plain.Sum(nil)); len(report.Damage) == 0 && got != m.SHA256 {
		return a.damage(name, manifestObject, 0, "the recording's SHA-256 is %s, and was %s", got, m.SHA256)
	}
	return r.verifyList(report)
}

// verifyChunk opens every frame of a chunk.
func (r *reader) verifyChunk(i int, plain hash.Hash) error {
	if err := r.load(i); err != nil || r.sealer == nil {
		return err
	}
	for _, f := range r.index {
		b, err := r.openFrame(r.chunks[i].Name, f)
		if err != nil {
			return err
		}
		plain.Write(b)
	}
	return nil
}

// verifyList finds objects that the manifest does not know.
func (r *reader) verifyList(report *Report) error {
	objects, err := r.shelf.list(r.ctx)
	if err != nil {
		return err
	}
	for _, o := range slices.Sorted(maps.Keys(objects)) {
		n := chunkNumber(o)
		if o == keyObject || o == manifestObject || n > 0 && n <= len(r.chunks) {
			continue
		}
		report.Damage = append(report.Damage, r.shelf.a.damage(r.shelf.name, clip(o), 0, "it does not belong to the recording"))
	}
	return nil
}
