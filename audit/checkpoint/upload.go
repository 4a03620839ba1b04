package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// uploadBatch is how many checkpoints are read at a time for the recording store.
const uploadBatch = 50

// upload brings checkpoints to the recording store whenever there are some. While the
// store is away they wait in the database, in order.
func (k *Keeper) upload(ctx context.Context) {
	for wait := firstRetry; ; {
		err := k.Lift(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			wait = firstRetry
			select {
			case <-ctx.Done():
				return
			case <-k.wake:
			}
			continue
		}
		k.count(func(s *Stats) { s.Failures++ })
		k.log.Error("checkpoints of the audit log wait for the recording store", "waiting", k.Stats().Waiting, "error", err)
		if !sleep(ctx, wait) {
			return
		}
		wait = min(2*wait, lastRetry)
	}
}

// Lift brings every checkpoint that waits to the recording store, in order.
func (k *Keeper) Lift(ctx context.Context) error {
	k.lifts.Lock()
	defer k.lifts.Unlock()
	for {
		batch, waiting, err := k.config.Store.UnstoredCheckpoints(ctx, uploadBatch)
		if err != nil {
			return err
		}
		k.count(func(s *Stats) { s.Waiting = waiting })
		if len(batch) == 0 {
			return nil
		}
		for _, c := range batch {
			if err := k.lift(ctx, c); err != nil {
				return fmt.Errorf("storing checkpoint %d: %w", c.Number, err)
			}
			if err := k.config.Store.CheckpointStored(ctx, c.Number); err != nil {
				return err
			}
		}
	}
}

// lift brings one checkpoint to the recording store. What lies there already is never
// overwritten: another checkpoint of the same number is an alarm, and ours goes beside it.
func (k *Keeper) lift(ctx context.Context, c Signed) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	name := Name(c.Number)
	there, err := k.config.Objects.Get(ctx, name)
	switch {
	case err == nil && string(there) != c.Text, errors.Is(err, ErrSize):
		k.count(func(s *Stats) { s.Problems++ })
		k.log.Error("the recording store has another checkpoint of this number: the database was set back, or one of them was altered", "checkpoint", c.Number)
		name = strings.TrimSuffix(name, textSuffix) + "-" + c.Sum()[:12] + textSuffix
	case err == nil:
		return k.liftSignature(ctx, name, c)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	// The signature first: who finds the text finds it, too.
	if err := k.liftSignature(ctx, name, c); err != nil {
		return err
	}
	return k.config.Objects.Put(ctx, name, []byte(c.Text))
}

func (k *Keeper) liftSignature(ctx context.Context, name string, c Signed) error {
	name += SignatureSuffix
	if there, err := k.config.Objects.Get(ctx, name); err == nil && bytes.Equal(there, []byte(c.Signature)) {
		return nil
	}
	return k.config.Objects.Put(ctx, name, []byte(c.Signature))
}
