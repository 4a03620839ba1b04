package client

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
)

// rereadable are the credentials of a configuration that can be read once more: a
// session outlives temporary keys in files, which their owner writes anew, and the SDK
// reads files once.
type rereadable struct {
	read func(context.Context) (aws.CredentialsProvider, error)

	mu      sync.Mutex
	current aws.CredentialsProvider
}

// Retrieve implements aws.CredentialsProvider.
func (r *rereadable) Retrieve(ctx context.Context) (aws.Credentials, error) {
	r.mu.Lock()
	current := r.current
	r.mu.Unlock()
	return current.Retrieve(ctx)
}

// reread reads the configuration's credentials again. If that is not possible they stay
// as they were.
func (r *rereadable) reread(ctx context.Context) error {
	fresh, err := r.read(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = fresh
	return nil
}

// expired reports whether a call was refused because the credentials are too old.
func expired(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains([]string{"ExpiredTokenException", "ExpiredToken", "RequestExpired"}, api.ErrorCode())
}
