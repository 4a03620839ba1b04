package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"sallyport.dev/audit/checkpoint"
)

// objects lets checkpoints and the forwarded log lie in a bucket.
type objects struct{ bucket *blob.Bucket }

// Put implements checkpoint.Objects and forward.Objects.
func (o objects) Put(ctx context.Context, name string, data []byte) error {
	return o.bucket.WriteAll(ctx, name, data, &blob.WriterOptions{ContentType: contentType(name)})
}

func contentType(name string) string {
	switch {
	case strings.HasSuffix(name, ".json"):
		return "application/json"
	case strings.HasSuffix(name, ".jsonl"):
		return "application/x-ndjson"
	}
	return "text/plain"
}

// Get implements checkpoint.Objects.
func (o objects) Get(ctx context.Context, name string) ([]byte, error) {
	r, err := o.bucket.NewReader(ctx, name, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, checkpoint.MaxText+1))
	if err == nil && len(data) > checkpoint.MaxText {
		err = fmt.Errorf("%s %w", name, checkpoint.ErrSize)
	}
	return data, errors.Join(err, r.Close())
}

// List implements checkpoint.Objects.
func (o objects) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		all := o.bucket.List(&blob.ListOptions{Prefix: prefix})
		for {
			object, err := all.Next(ctx)
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield("", err)
				return
			case !yield(object.Key, nil):
				return
			}
		}
	}
}
