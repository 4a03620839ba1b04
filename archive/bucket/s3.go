package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"gocloud.dev/blob/s3blob"

	"sallyport.dev/internal/cloud"
)

// openS3 opens s3://BUCKET/PREFIX. Parameters: region, endpoint (of what speaks as S3
// does), path_style, profile (of the credentials file), sse (AES256, aws:kms) and
// sse_kms_key_id.
func openS3(ctx context.Context, u *url.URL, credentials string) (*Bucket, error) {
	p, err := cloud.ParseParams(u, "region", "endpoint", "path_style", "profile", "sse", "sse_kms_key_id")
	if err != nil {
		return nil, err
	}
	bucket, prefix, err := place(u)
	if err != nil {
		return nil, err
	}
	client, err := s3Client(ctx, p, credentials)
	if err != nil {
		return nil, err
	}
	options := s3blob.Options{
		EncryptionType:             types.ServerSideEncryption(p["sse"]),
		KMSEncryptionID:            p["sse_kms_key_id"],
		RequestChecksumCalculation: client.Options().RequestChecksumCalculation,
	}
	b, err := s3blob.OpenBucket(ctx, client, bucket, &options)
	if err != nil {
		return nil, err
	}
	purge := purger{client: client, bucket: bucket, prefix: prefix}
	return &Bucket{Bucket: prefixed(b, prefix), purge: purge.purge}, nil
}

func s3Client(ctx context.Context, p cloud.Params, credentials string) (*s3.Client, error) {
	switch p["sse"] {
	case "", "AES256", "aws:kms", "aws:kms:dsse":
	default:
		return nil, fmt.Errorf("sse %q: want AES256, aws:kms or aws:kms:dsse", p["sse"])
	}
	if p["endpoint"] != "" {
		if err := cloud.Endpoint(p["endpoint"]); err != nil {
			return nil, err
		}
	}
	pathStyle, err := strconv.ParseBool(p["path_style"])
	if p["path_style"] != "" && err != nil {
		return nil, fmt.Errorf("path_style %q: want true or false", p["path_style"])
	}
	cfg, err := cloud.AWS(ctx, p, credentials)
	if err != nil {
		return nil, err
	}
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		if p["endpoint"] != "" {
			o.BaseEndpoint = aws.String(p["endpoint"])
			// Not all that speaks as S3 does knows the checksums that are newer; ours
			// are in the manifest.
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		}
		o.UsePathStyle = pathStyle
	}), nil
}

// purger deletes objects of S3 with all of their versions: without that a bucket with
// versions, as object lock needs, keeps what it says is deleted.
type purger struct {
	client         *s3.Client
	bucket, prefix string
}

// purgeRounds bounds the pages of versions of one object.
const purgeRounds = 100

func (p purger) purge(ctx context.Context, key string) error {
	key = p.prefix + key
	for range purgeRounds {
		versions, more, err := p.versions(ctx, key)
		if unversioned(err) {
			return p.delete(ctx, key, nil)
		}
		if err != nil {
			return err
		}
		for _, v := range versions {
			if err := p.delete(ctx, key, v); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
	return errors.New("it has too many versions")
}

// versions lists the versions and delete markers of an object; more says that there are
// others when these are gone.
func (p purger) versions(ctx context.Context, key string) (ids []*string, more bool, err error) {
	out, err := p.client.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &p.bucket, Prefix: &key})
	if err != nil {
		return nil, false, err
	}
	for _, v := range out.Versions {
		if aws.ToString(v.Key) == key {
			ids = append(ids, v.VersionId)
		}
	}
	for _, m := range out.DeleteMarkers {
		if aws.ToString(m.Key) == key {
			ids = append(ids, m.VersionId)
		}
	}
	return ids, aws.ToBool(out.IsTruncated) && len(ids) > 0, nil
}

func (p purger) delete(ctx context.Context, key string, version *string) error {
	_, err := p.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &p.bucket, Key: &key, VersionId: version})
	if status(err) == http.StatusForbidden || code(err) == "ObjectLocked" {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return err
}

// unversioned reports whether the store knows nothing of versions.
func unversioned(err error) bool {
	return status(err) == http.StatusNotImplemented || code(err) == "NotImplemented"
}

func code(err error) string {
	if e := smithy.APIError(nil); errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}

func status(err error) int {
	if e := (interface{ HTTPStatusCode() int })(nil); errors.As(err, &e) {
		return e.HTTPStatusCode()
	}
	return 0
}
