package awslog

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	// partSize is what is held of an object, and sent at once. Objects have 10,000 parts at
	// most, which is more text than a recording has.
	partSize    = 8 << 20
	partTimeout = 2 * time.Minute
	contentType = "text/plain"
)

// object writes one object of S3: at once where it is small, or else part by part. Nothing
// is there before commit.
type object struct {
	ctx    context.Context
	client *s3.Client
	bucket string
	key    string
	enc    encryption
	acl    bool // let the bucket's owner have the object
	size   int  // of a part

	buf    bytes.Buffer
	upload *string // id
	parts  []types.CompletedPart
	sent   int64
}

var _ lines = (*object)(nil)

func (o *object) at(time.Duration)  {}
func (o *object) started(time.Time) {}

// Write implements io.Writer.
func (o *object) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if o.buf.Len() == o.size { // there is more: it takes parts
			if err := o.sendPart(); err != nil {
				return 0, err
			}
		}
		take := min(len(p), o.size-o.buf.Len())
		o.buf.Write(p[:take])
		p = p[take:]
	}
	return n, nil
}

func (o *object) sendPart() error {
	if err := o.begin(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(o.ctx, partTimeout)
	defer cancel()
	number := aws.Int32(int32(len(o.parts)) + 1)
	out, err := o.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &o.bucket, Key: &o.key, UploadId: o.upload, PartNumber: number, Body: bytes.NewReader(o.buf.Bytes()),
	})
	if err != nil {
		return fmt.Errorf("sending part %d: %w", *number, err)
	}
	o.parts = append(o.parts, types.CompletedPart{ETag: out.ETag, PartNumber: number, ChecksumCRC32: out.ChecksumCRC32})
	o.sent += int64(o.buf.Len())
	o.buf.Reset()
	return nil
}

func (o *object) begin() error {
	if o.upload != nil {
		return nil
	}
	return o.withACL(func(ctx context.Context, acl types.ObjectCannedACL) error {
		in := &s3.CreateMultipartUploadInput{Bucket: &o.bucket, Key: &o.key, ContentType: aws.String(contentType), ACL: acl}
		in.ServerSideEncryption, in.SSEKMSKeyId = o.enc.algorithm, o.enc.keyID()
		out, err := o.client.CreateMultipartUpload(ctx, in)
		if err == nil {
			o.upload = out.UploadId
		}
		return err
	})
}

// commit makes the object be there.
func (o *object) commit() error {
	if o.upload == nil {
		return o.put()
	}
	if o.buf.Len() > 0 {
		if err := o.sendPart(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(o.ctx, partTimeout)
	defer cancel()
	_, err := o.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &o.bucket, Key: &o.key, UploadId: o.upload, MultipartUpload: &types.CompletedMultipartUpload{Parts: o.parts},
	})
	if err != nil {
		return fmt.Errorf("completing the object: %w", err)
	}
	o.upload = nil
	return nil
}

func (o *object) put() error {
	o.sent = int64(o.buf.Len())
	return o.withACL(func(ctx context.Context, acl types.ObjectCannedACL) error {
		in := &s3.PutObjectInput{Bucket: &o.bucket, Key: &o.key, ContentType: aws.String(contentType), ACL: acl}
		in.ServerSideEncryption, in.SSEKMSKeyId = o.enc.algorithm, o.enc.keyID()
		in.Body, in.ContentLength = bytes.NewReader(o.buf.Bytes()), aws.Int64(o.sent)
		_, err := o.client.PutObject(ctx, in)
		return err
	})
}

// withACL calls do with the ACL by which the bucket's owner has the object, and without one
// where the store takes none.
func (o *object) withACL(do func(context.Context, types.ObjectCannedACL) error) error {
	ctx, cancel := context.WithTimeout(o.ctx, partTimeout)
	defer cancel()
	var err error
	if o.acl {
		err = do(ctx, types.ObjectCannedACLBucketOwnerFullControl)
		switch errorCode(err) {
		case "AccessControlListNotSupported", "NotImplemented", "AccessDenied", "InvalidArgument":
			o.acl = false
		}
	}
	if !o.acl {
		err = do(ctx, "")
	}
	if err != nil {
		return fmt.Errorf("writing s3://%s/%s: %w", o.bucket, o.key, err)
	}
	return nil
}

// drop leaves nothing behind of an object that was not committed.
func (o *object) drop() error {
	if o.upload == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(o.ctx), 10*time.Second)
	defer cancel()
	_, err := o.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &o.bucket, Key: &o.key, UploadId: o.upload})
	return err
}

func (e encryption) keyID() *string {
	if e.key == "" {
		return nil
	}
	return &e.key
}
