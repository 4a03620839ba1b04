package keyring

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"sallyport.dev/internal/cloud"
)

// awsKey is a key of AWS KMS, or of what speaks as it does.
type awsKey struct {
	client *kms.Client
	key    string
}

// purpose is the encryption context of wrapped keys: policies of keys can demand it, and
// what was encrypted for something else does not pass for a recording's key.
func purpose() map[string]string { return map[string]string{"sallyport": "recording-key"} }

var awsKeyName = regexp.MustCompile(`^(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:)?((key/|alias/)?[A-Za-z0-9/_-]{1,250})$`)

// openAWS opens awskms:///KEY. Parameters: region (an ARN has its own), endpoint and
// profile (of the credentials file).
func openAWS(ctx context.Context, u *url.URL, credentials string) (service, error) {
	p, err := cloud.ParseParams(u, "region", "endpoint", "profile")
	if err != nil {
		return nil, err
	}
	key := strings.TrimPrefix(u.Host+u.Path, "/")
	if !awsKeyName.MatchString(key) {
		return nil, fmt.Errorf("key %q: want awskms:///ID, awskms:///ARN or awskms:///alias/NAME", key)
	}
	if parts := strings.Split(key, ":"); len(parts) == 6 && p["region"] == "" {
		p["region"] = parts[3]
	}
	if p["endpoint"] != "" {
		if err := cloud.Endpoint(p["endpoint"]); err != nil {
			return nil, err
		}
	}
	cfg, err := cloud.AWS(ctx, p, credentials)
	if err != nil {
		return nil, err
	}
	client := kms.NewFromConfig(cfg, func(o *kms.Options) {
		if p["endpoint"] != "" {
			o.BaseEndpoint = aws.String(p["endpoint"])
		}
		o.RetryMaxAttempts = 1 // the ring asks again
	})
	return &awsKey{client, key}, nil
}

// ID implements service.
func (k *awsKey) ID() string { return "awskms:///" + k.key }

func (*awsKey) local() bool { return false }

// Wrap implements service.
func (k *awsKey) Wrap(ctx context.Context, key []byte) ([]byte, error) {
	out, err := k.client.Encrypt(ctx, &kms.EncryptInput{KeyId: &k.key, Plaintext: key, EncryptionContext: purpose()})
	if err != nil {
		return nil, awsError(err)
	}
	return out.CiphertextBlob, nil
}

// Unwrap implements service. The key is named, so that nobody else's key in AWS unwraps
// what was put into the store; not where it goes by an alias, which may lead to another
// key now than when the recording was made.
func (k *awsKey) Unwrap(ctx context.Context, wrapped []byte) ([]byte, error) {
	in := &kms.DecryptInput{CiphertextBlob: wrapped, EncryptionContext: purpose()}
	if !strings.Contains(k.key, "alias/") {
		in.KeyId = &k.key
	}
	out, err := k.client.Decrypt(ctx, in)
	if err != nil {
		return nil, awsError(err)
	}
	return out.Plaintext, nil
}

// awsError marks what asking again does not mend.
func awsError(err error) error {
	e := smithy.APIError(nil)
	if !errors.As(err, &e) {
		return err
	}
	switch e.ErrorCode() {
	case "ThrottlingException", "LimitExceededException", "KMSInternalException", "DependencyTimeoutException",
		"KeyUnavailableException", "InternalFailure", "ServiceUnavailable":
		return err
	}
	if e.ErrorFault() == smithy.FaultServer {
		return err
	}
	return fmt.Errorf("%w: %w", errFinal, err)
}
