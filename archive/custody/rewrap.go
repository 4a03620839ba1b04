package custody

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gocloud.dev/blob"

	"sallyport.dev/archive"
)

// leaseTime is how long a recording cannot be deleted whose key is wrapped anew: a key
// that is written after the recording was deleted would bring it back.
const leaseTime = time.Minute

// rewrapTime bounds the wrapping of one key; it is well within the lease.
const rewrapTime = 40 * time.Second

// Rewrapping says which keys are to be wrapped anew.
type Rewrapping struct {
	// From is the id of the key that they are wrapped with; empty for all that are
	// wrapped with another than the one of now.
	From string
	// After continues after the recording of this name.
	After string
	// Limit bounds how many are looked at.
	Limit int
}

// Rewrapped says how far it went.
type Rewrapped struct {
	Done   int
	Failed map[string]string // by name of the recording: why
	Next   string            // continue after this one; empty at the end
}

// Rewrap wraps keys anew with the key of now. It changes key.json alone, and can be broken
// off and begun again at any time. Each one that fails stays as it was.
func (k *Keeper) Rewrap(ctx context.Context, w Rewrapping) (Rewrapped, error) {
	out := Rewrapped{Failed: map[string]string{}}
	names, err := k.cfg.Store.RecordingsWrappedBy(ctx, w.From, k.cfg.Keys.ID(), w.After, w.Limit)
	if err != nil {
		return out, err
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if err := k.rewrapOne(ctx, name); err != nil {
			out.Failed[name] = clip(err.Error())
			continue
		}
		out.Done++
	}
	if len(names) == w.Limit {
		out.Next = names[len(names)-1]
	}
	return out, nil
}

func (k *Keeper) rewrapOne(ctx context.Context, name string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, rewrapTime)
	defer cancel()
	if err := archive.CheckName(name); err != nil {
		return err
	}
	now := k.cfg.Now()
	if err := k.cfg.Store.LeaseRecording(ctx, name, now, now.Add(leaseTime)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.cfg.Store.UnleaseRecording(context.WithoutCancel(ctx), name)) }()
	if err := k.rewrapObject(ctx, name); err != nil {
		return err
	}
	return k.cfg.Store.UpdateRecording(ctx, name, func(r *archive.Row) error {
		r.KeyID = k.cfg.Keys.ID()
		return nil
	})
}

// rewrapObject writes a new key.json, after it has seen that the new one opens.
func (k *Keeper) rewrapObject(ctx context.Context, name string) error {
	object := name + "/" + keyObject
	old, err := k.read(ctx, object)
	if err != nil {
		return fmt.Errorf("reading %s: %w", keyObject, err)
	}
	wrapped, err := archive.ParseKey(old, name)
	if err != nil {
		return fmt.Errorf("%s: %w", keyObject, err)
	}
	key, err := k.cfg.Keys.Unwrap(ctx, wrapped.KeyID, wrapped.Wrapped)
	if err != nil {
		return fmt.Errorf("unwrapping the key: %w", err)
	}
	defer clear(key)
	wrapped.KeyID = k.cfg.Keys.ID()
	if wrapped.Wrapped, err = k.cfg.Keys.Wrap(ctx, key); err != nil {
		return fmt.Errorf("wrapping the key: %w", err)
	}
	again, err := k.cfg.Keys.Unwrap(ctx, wrapped.KeyID, wrapped.Wrapped)
	defer clear(again)
	if err != nil || !bytes.Equal(again, key) {
		return errors.Join(errors.New("the key service does not unwrap what it has wrapped"), err)
	}
	if err := k.cfg.Objects.WriteAll(ctx, object, wrapped.Encode(), &blob.WriterOptions{ContentType: "application/json"}); err != nil {
		return fmt.Errorf("writing %s: %w", keyObject, err)
	}
	return nil
}

// read returns an object of a key's size; ParseKey refuses longer ones.
func (k *Keeper) read(ctx context.Context, object string) ([]byte, error) {
	r, err := k.cfg.Objects.NewRangeReader(ctx, object, 0, maxKey, nil)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// maxKey bounds what is read of key.json, in bytes: one more than it may have.
const maxKey = 64<<10 + 1
