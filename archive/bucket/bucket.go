package bucket

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"sallyport.dev/internal/cloud"
)

// Config says which store is wanted.
type Config struct {
	// URL of the store; an absolute path is a folder's.
	URL string
	// CredentialsFile holds what opens the store, in the store's own form: an AWS shared
	// credentials file, a Google service account's JSON, an Azure connection string. It
	// must be readable by its owner alone. Optional; folders have none.
	CredentialsFile string
}

// Bucket is an open store.
type Bucket struct {
	*blob.Bucket
	purge func(ctx context.Context, key string) error
}

// Errors of stores.
var (
	// ErrURL means that a URL names no store that this build can open.
	ErrURL = errors.New("no store of recordings")
	// ErrLocked means that the store refuses to delete an object, by a retention or hold
	// of its own or for want of a permission.
	ErrLocked = errors.New("the store refuses to delete it")
)

// Open opens a store. The context bounds the opening alone.
func Open(ctx context.Context, c Config) (*Bucket, error) {
	u, open, err := find(c.URL)
	if err != nil {
		return nil, err
	}
	b, err := open(ctx, u, c.CredentialsFile)
	if err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", cloud.Shown(u), err)
	}
	return b, nil
}

// Check finds out whether a URL may be one of a store, without opening it.
func Check(text string) error {
	_, _, err := find(text)
	return err
}

// Verify finds out whether a store can be opened, as far as this machine can tell: whether its
// parameters are good and its credentials can be read. It asks the store nothing, and makes
// no folder.
func Verify(ctx context.Context, c Config) error {
	u, _, err := find(c.URL)
	if err != nil {
		return err
	}
	if u.Scheme == "file" {
		return folderCredentials(c.CredentialsFile)
	}
	b, err := Open(ctx, c)
	if err != nil {
		return err
	}
	return b.Close()
}

type opener = cloud.Opener[*Bucket]

// find returns how the store of a URL is opened.
func find(text string) (*url.URL, opener, error) {
	u, open, err := cloud.Find(text, openers())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrURL, err)
	}
	return u, open, nil
}

// openers are how stores are opened; nil for what this build was made without.
func openers() map[string]opener {
	all := map[string]opener{"file": openFolder, "s3": openS3, "gs": nil, "azblob": nil}
	maps.Copy(all, cloudOpeners())
	return all
}

var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,221}$`)

// place returns the bucket's name in a URL and the prefix with its slash.
func place(u *url.URL) (bucket, prefix string, err error) {
	if !name.MatchString(u.Host) {
		return "", "", fmt.Errorf("bucket %q: want letters, digits, dots, dashes and underscores", u.Host)
	}
	prefix = strings.Trim(u.Path, "/")
	if prefix == "" {
		return u.Host, "", nil
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if part == "." || part == ".." || part == "" {
			return "", "", fmt.Errorf("prefix %q: want names with single slashes between", prefix)
		}
	}
	return u.Host, prefix + "/", nil
}

// prefixed is a bucket, or the part of it under a prefix.
func prefixed(b *blob.Bucket, prefix string) *blob.Bucket {
	if prefix == "" {
		return b
	}
	return blob.PrefixedBucket(b, prefix)
}

// Purge deletes an object with all of its versions, where the store keeps versions that
// it can delete, and with what was not written to its end beside it. What is not there is no error; what the store will not delete is
// ErrLocked, with its words.
func (b *Bucket) Purge(ctx context.Context, key string) error {
	err := b.purge(ctx, key)
	switch {
	case err == nil, gcerrors.Code(err) == gcerrors.NotFound:
		return nil
	case gcerrors.Code(err) == gcerrors.PermissionDenied, gcerrors.Code(err) == gcerrors.FailedPrecondition:
		err = fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return fmt.Errorf("deleting %s: %w", key, err)
}
