package awslog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

const (
	checkTimeout = 2500 * time.Millisecond // that a person waits
	checkAge     = time.Minute             // for which an answer is believed
	unknownAge   = 5 * time.Second         // and for which that there was none
	maxChecks    = 1000                    // answers that are kept
	maxPages     = 20                      // of log groups with one prefix
)

// Check finds out whether a session may be written where its document says, and, where that
// demands encryption, whether the places encrypt. The error is a *Refusal. Without such a
// demand nobody is asked.
func (k *Keeper) Check(ctx context.Context, o Outputs) error {
	if err := o.check(); err != nil {
		return &Refusal{Kind: ErrNotAllowed, Text: err.Error()}
	}
	for _, j := range jobs(Session{ID: "session"}, o, time.Time{}) {
		if err := k.allowed(j); err != nil {
			return err
		}
		if !j.Encrypted {
			continue
		}
		if _, err := k.checks.get(ctx, k.now, j, k.encryption); err != nil {
			return err
		}
	}
	return nil
}

// encryption is how a place encrypts.
type encryption struct {
	algorithm types.ServerSideEncryption
	key       string // of KMS; empty for the algorithm's own
}

// encryption asks how the place of a job encrypts; a *Refusal where it does not.
func (k *Keeper) encryption(ctx context.Context, j Job) (encryption, error) {
	if j.Kind == S3 {
		return k.bucketEncryption(ctx, j.Place)
	}
	return k.groupEncryption(ctx, j.Place)
}

func (k *Keeper) bucketEncryption(ctx context.Context, bucket string) (encryption, error) {
	out, err := k.cfg.S3.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: &bucket})
	if err != nil && errorCode(err) != "ServerSideEncryptionConfigurationNotFoundError" {
		return encryption{}, unknown("the S3 bucket "+bucket, "s3EncryptionEnabled", err)
	}
	if e, ok := bucketDefault(out); ok && err == nil {
		return e, nil
	}
	return encryption{}, &Refusal{Kind: ErrNotEncrypted, Text: fmt.Sprintf(
		"the S3 bucket %s has no default encryption (AES256 or aws:kms), which the document demands (s3EncryptionEnabled)", bucket)}
}

func bucketDefault(out *s3.GetBucketEncryptionOutput) (e encryption, ok bool) {
	if out == nil || out.ServerSideEncryptionConfiguration == nil {
		return e, false
	}
	for _, r := range out.ServerSideEncryptionConfiguration.Rules {
		d := r.ApplyServerSideEncryptionByDefault
		if d == nil {
			continue
		}
		switch d.SSEAlgorithm {
		case types.ServerSideEncryptionAes256, types.ServerSideEncryptionAwsKms, types.ServerSideEncryptionAwsKmsDsse:
			return encryption{d.SSEAlgorithm, aws.ToString(d.KMSMasterKeyID)}, true
		}
	}
	return e, false
}

func (k *Keeper) groupEncryption(ctx context.Context, group string) (encryption, error) {
	in := &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &group}
	for range maxPages {
		out, err := k.cfg.Logs.DescribeLogGroups(ctx, in)
		if err != nil {
			return encryption{}, unknown("the log group "+group, "cloudWatchEncryptionEnabled", err)
		}
		for _, g := range out.LogGroups {
			if aws.ToString(g.LogGroupName) == group && aws.ToString(g.KmsKeyId) != "" {
				return encryption{key: *g.KmsKeyId}, nil
			}
		}
		if in.NextToken = out.NextToken; aws.ToString(out.NextToken) == "" {
			break
		}
	}
	return encryption{}, &Refusal{Kind: ErrNotEncrypted, Text: fmt.Sprintf(
		"there is no CloudWatch log group %s with a KMS key, which the document demands (cloudWatchEncryptionEnabled)", group)}
}

// unknown words that nobody knows. What the service said in detail is for the log.
func unknown(place, input string, err error) error {
	why := "there is no answer"
	if code := errorCode(err); code != "" {
		why = code
	}
	return &Refusal{Kind: ErrUnknown, Cause: err, Text: fmt.Sprintf(
		"it could not be found out whether %s is encrypted, as the document demands (%s): %s", place, input, why)}
}

// errorCode is the code of an AWS error, "" of another.
func errorCode(err error) string {
	if e := smithy.APIError(nil); errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}

// checks remembers answers for a while. Who asks while somebody else is asking waits for
// their answer.
type checks struct {
	mu  sync.Mutex
	all map[string]*answer
}

type answer struct {
	done  chan struct{}
	value encryption
	err   error
	until time.Time // set with done
}

func (c *checks) get(ctx context.Context, now func() time.Time, j Job, ask func(context.Context, Job) (encryption, error)) (encryption, error) {
	key := string(j.Kind) + " " + j.Place
	c.mu.Lock()
	a := c.all[key]
	if a == nil || a.old(now()) {
		a = &answer{done: make(chan struct{})}
		c.makeRoomLocked()
		c.all[key] = a
		c.mu.Unlock()
		a.ask(ctx, now, j, ask)
		return a.value, a.err
	}
	c.mu.Unlock()
	select {
	case <-a.done: // within checkTimeout
		return a.value, a.err
	case <-ctx.Done():
		return encryption{}, ctx.Err()
	}
}

// makeRoomLocked forgets all answers when there are too many; that is rare.
func (c *checks) makeRoomLocked() {
	if c.all == nil || len(c.all) >= maxChecks {
		c.all = map[string]*answer{}
	}
}

func (a *answer) old(now time.Time) bool {
	select {
	case <-a.done:
		return !now.Before(a.until)
	default:
		return false
	}
}

func (a *answer) ask(ctx context.Context, now func() time.Time, j Job, ask func(context.Context, Job) (encryption, error)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	defer close(a.done)
	a.value, a.err = ask(ctx, j)
	a.until = now().Add(checkAge)
	if errors.Is(a.err, ErrUnknown) {
		a.until = now().Add(unknownAge)
	}
}
