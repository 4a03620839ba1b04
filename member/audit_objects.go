package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"strings"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob" // file://
	_ "gocloud.dev/blob/s3blob"   // s3://
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
		err = fmt.Errorf("%s is larger than %d bytes", name, checkpoint.MaxText)
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

// openPrefix opens the bucket of s3://BUCKET/PREFIX or file:///FOLDER, and returns the
// prefix with its slash.
func openPrefix(text string) (*blob.Bucket, string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "s3" && u.Scheme != "file" {
		return nil, "", errors.New("url: want s3://BUCKET/PREFIX or file:///FOLDER")
	}
	if err := checkEndpoint(u.Query().Get("endpoint")); err != nil {
		return nil, "", err
	}
	prefix := ""
	if u.Scheme == "s3" {
		if prefix = strings.Trim(u.Path, "/"); prefix != "" {
			prefix += "/"
		}
		u.Path = ""
	} else {
		q := u.Query()
		q.Set("create_dir", "true")
		q.Set("metadata", "skip")
		q.Set("no_tmp_dir", "true") // so that renaming stays on one disk
		u.RawQuery = q.Encode()
	}
	// Opening asks nothing of the network.
	bucket, err := blob.OpenBucket(context.Background(), u.String())
	if err != nil {
		return nil, "", fmt.Errorf("url: %w", err)
	}
	return bucket, prefix, nil
}

// checkEndpoint refuses plain HTTP to other machines.
func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("url: endpoint: want https://HOST[:PORT]")
	}
	if u.Scheme == "http" {
		host := u.Host
		if u.Port() == "" {
			host = u.Hostname() + ":80"
		}
		if err := loopbackOnly(host); err != nil {
			return fmt.Errorf("url: endpoint: %w", err)
		}
	}
	return nil
}
