package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"gocloud.dev/blob"

	"sallyport.dev/archive"
	"sallyport.dev/archive/bucket"
	"sallyport.dev/archive/keyring"
	"sallyport.dev/recording"
)

// ReadRecording writes a recording, or without a name the names of all, from the store
// that cfg names, with the keys that it names: without a database and without a server.
// It is for the day on which these are lost, and for whoever holds store and keys anyway.
func ReadRecording(ctx context.Context, cfg Config, name string, w io.Writer) (err error) {
	c := cfg.Recordings
	b, err := bucket.Open(ctx, bucket.Config{URL: c.Store, CredentialsFile: c.CredentialsFile})
	if err != nil {
		return fmt.Errorf("recordings.store: %w", err)
	}
	if name == "" {
		return errors.Join(listRecordings(ctx, b.Bucket, w), b.Close())
	}
	ring, err := keyring.Open(ctx, keyring.Config{
		URL: c.Key, OldURLs: c.OldKeys, CredentialsFile: c.KeyCredentialsFile, Existing: true, Spares: -1, Logger: cfg.Logger,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("recordings.key: %w", err), b.Close())
	}
	defer ring.Close()
	spool, err := os.MkdirTemp("", "sallyport-recording-")
	if err != nil {
		return errors.Join(err, b.Close())
	}
	defer os.RemoveAll(spool)
	a, err := archive.Open(ctx, archive.Config{
		Bucket: b.Bucket, Keeper: ring, Rows: noRows{}, Logger: cfg.Logger, Member: "none", Spool: spool, Now: cfg.Now,
	})
	if err != nil {
		return errors.Join(err, b.Close())
	}
	return errors.Join(writeRecording(ctx, a, name, w), a.Close(ctx))
}

// writeRecording writes what verifies, up to the first place that does not.
func writeRecording(ctx context.Context, a *archive.Archive, name string, w io.Writer) error {
	r, err := a.Open(ctx, name)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, io.NewSectionReader(r, 0, r.Size()))
	return errors.Join(err, r.Close())
}

// listRecordings writes the names of recordings that have ended.
func listRecordings(ctx context.Context, b *blob.Bucket, w io.Writer) error {
	all := b.List(nil)
	for {
		o, err := all.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listing the store: %w", err)
		}
		name, object := path.Split(o.Key)
		name = path.Clean(name)
		if object != "manifest.json" || archive.CheckName(name) != nil {
			continue
		}
		if _, err := fmt.Fprintln(w, name); err != nil {
			return err
		}
	}
}

// noRows is a database that is lost.
type noRows struct{}

// PutRecording implements archive.Rows.
func (noRows) PutRecording(context.Context, archive.Row) error { return nil }

// Recording implements archive.Rows.
func (noRows) Recording(_ context.Context, name string) (archive.Row, error) {
	return archive.Row{}, fmt.Errorf("recording %q: %w", name, recording.ErrNotFound)
}

// UpdateRecording implements archive.Rows.
func (noRows) UpdateRecording(_ context.Context, name string, _ func(*archive.Row) error) error {
	return fmt.Errorf("recording %q: %w", name, recording.ErrNotFound)
}
