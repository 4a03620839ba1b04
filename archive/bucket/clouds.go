//go:build clouds

package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob/azureblob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"sallyport.dev/internal/cloud"
)

// cloudOpeners are the stores whose libraries are large.
func cloudOpeners() map[string]opener { return map[string]opener{"gs": openGCS, "azblob": openAzure} }

// openGCS opens gs://BUCKET/PREFIX. Its one parameter is endpoint, of what speaks as
// Google's service does.
func openGCS(ctx context.Context, u *url.URL, credentials string) (*Bucket, error) {
	p, err := cloud.ParseParams(u, "endpoint")
	if err != nil {
		return nil, err
	}
	bucket, prefix, err := place(u)
	if err != nil {
		return nil, err
	}
	var options gcsblob.Options
	if p["endpoint"] != "" {
		if err := cloud.Endpoint(p["endpoint"]); err != nil {
			return nil, err
		}
		options.ClientOptions = append(options.ClientOptions, option.WithEndpoint(p["endpoint"]+"/storage/v1/"), storage.WithJSONReads())
	}
	tokens, err := cloud.GoogleTokens(ctx, credentials, googleScope)
	if err != nil {
		return nil, err
	}
	client, err := gcp.NewHTTPClient(http.DefaultTransport, tokens)
	if err != nil {
		return nil, err
	}
	b, err := gcsblob.OpenBucket(ctx, client, bucket, &options)
	if err != nil {
		return nil, err
	}
	var objects *storage.Client
	if !b.As(&objects) {
		return nil, errors.Join(errors.New("the library has no client of Google's"), b.Close())
	}
	purge := func(ctx context.Context, key string) error {
		return purgeGCS(ctx, objects.Bucket(bucket), prefix+key)
	}
	return &Bucket{Bucket: prefixed(b, prefix), purge: purge}, nil
}

const googleScope = "https://www.googleapis.com/auth/devstorage.read_write"

// purgeGCS deletes all generations of an object.
func purgeGCS(ctx context.Context, b *storage.BucketHandle, key string) error {
	all := b.Objects(ctx, &storage.Query{Prefix: key, Versions: true})
	for {
		o, err := all.Next()
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err == nil && o.Name == key {
			err = b.Object(key).Generation(o.Generation).Delete(ctx)
		}
		if err != nil && !errors.Is(err, storage.ErrObjectNotExist) {
			return lockedGCS(err)
		}
	}
}

func lockedGCS(err error) error {
	if e := (*googleapi.Error)(nil); errors.As(err, &e) && (e.Code == http.StatusForbidden || e.Code == http.StatusPreconditionFailed) {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return err
}

// openAzure opens azblob://CONTAINER/PREFIX: by a connection string in the credentials
// file, or with the identity of the environment at the storage account that the parameter
// account names (and domain, where it is not blob.core.windows.net).
func openAzure(ctx context.Context, u *url.URL, credentials string) (*Bucket, error) {
	p, err := cloud.ParseParams(u, "account", "domain")
	if err != nil {
		return nil, err
	}
	name, prefix, err := place(u)
	if err != nil {
		return nil, err
	}
	client, err := azureClient(p, name, credentials)
	if err != nil {
		return nil, err
	}
	b, err := azureblob.OpenBucket(ctx, client, nil)
	if err != nil {
		return nil, err
	}
	purge := func(ctx context.Context, key string) error { return purgeAzure(ctx, client, prefix+key) }
	return &Bucket{Bucket: prefixed(b, prefix), purge: purge}, nil
}

func azureClient(p cloud.Params, name, credentials string) (*container.Client, error) {
	if credentials != "" {
		text, err := cloud.ReadSecret(credentials)
		if err != nil {
			return nil, err
		}
		client, err := container.NewClientFromConnectionString(string(text), name, nil)
		if err != nil {
			return nil, fmt.Errorf("credentials file %s: it is no connection string", credentials)
		}
		at, err := url.Parse(client.URL())
		if err != nil {
			return nil, err
		}
		return client, cloud.Endpoint(at.Scheme + "://" + at.Host)
	}
	if p["account"] == "" {
		return nil, errors.New("want the parameter account, or a credentials file with a connection string")
	}
	identity, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, err
	}
	domain := p["domain"]
	if domain == "" {
		domain = "blob.core.windows.net"
	}
	at := url.URL{Scheme: "https", Host: p["account"] + "." + domain, Path: "/" + name}
	if !containerHost(at.Host) {
		return nil, fmt.Errorf("account %q, domain %q: want names of hosts", p["account"], p["domain"])
	}
	return container.NewClient(at.String(), identity, nil)
}

func containerHost(host string) bool {
	u, err := url.Parse("https://" + host)
	return err == nil && u.Host == host && u.Port() == "" && u.User == nil
}

// purgeAzure deletes a blob with its snapshots and versions.
func purgeAzure(ctx context.Context, c *container.Client, key string) error {
	include := azblob.DeleteSnapshotsOptionTypeInclude
	_, err := c.NewBlobClient(key).Delete(ctx, &azblob.DeleteOptions{DeleteSnapshots: &include})
	if err != nil && !bloberror.HasCode(err, bloberror.BlobNotFound) {
		return lockedAzure(err)
	}
	all := c.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &key, Include: container.ListBlobsInclude{Versions: true}})
	for all.More() {
		page, err := all.NextPage(ctx)
		if err != nil {
			return lockedAzure(err)
		}
		for _, item := range page.Segment.BlobItems {
			if err := purgeVersion(ctx, c, key, item); err != nil {
				return lockedAzure(err)
			}
		}
	}
	return nil
}

func purgeVersion(ctx context.Context, c *container.Client, key string, item *container.BlobItem) error {
	if item.Name == nil || *item.Name != key || item.VersionID == nil {
		return nil
	}
	version, err := c.NewBlobClient(key).WithVersionID(*item.VersionID)
	if err != nil {
		return err
	}
	if _, err := version.Delete(ctx, nil); err != nil && !bloberror.HasCode(err, bloberror.BlobNotFound) {
		return err
	}
	return nil
}

func lockedAzure(err error) error {
	e := (*azcore.ResponseError)(nil)
	if errors.As(err, &e) && (e.StatusCode == http.StatusForbidden || e.StatusCode == http.StatusConflict) {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return err
}
