package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

// AWS returns the configuration of AWS's SDK: the parameters region and profile, and the
// credentials of a file in the form of AWS's shared credentials, or where the SDK looks
// for them if none is named.
func AWS(ctx context.Context, p Params, file string) (aws.Config, error) {
	var options []func(*config.LoadOptions) error
	if p["region"] != "" {
		options = append(options, config.WithRegion(p["region"]))
	}
	switch {
	case file != "":
		provider, err := awsFile(ctx, file, p["profile"])
		if err != nil {
			return aws.Config{}, err
		}
		options = append(options, config.WithCredentialsProvider(provider))
	case p["profile"] != "":
		options = append(options, config.WithSharedConfigProfile(p["profile"]))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, err
	}
	if cfg.Region == "" {
		return aws.Config{}, errors.New("parameter region is missing")
	}
	cfg.HTTPClient = bounded{cfg.HTTPClient}
	return cfg, nil
}

// maxAnswer bounds what is read of an answer that is no object, in bytes: lists have at most
// a thousand names of at most a kilobyte each.
const maxAnswer = 16 << 20

// bounded reads no answer without end, which the SDK would keep in memory. Objects are as
// long as whoever reads them wants.
type bounded struct{ aws.HTTPClient }

// Do implements aws.HTTPClient.
func (b bounded) Do(r *http.Request) (*http.Response, error) {
	answer, err := b.HTTPClient.Do(r)
	if err == nil && !isObject(r, answer) {
		answer.Body = http.MaxBytesReader(nil, answer.Body, maxAnswer)
	}
	return answer, err
}

func isObject(r *http.Request, answer *http.Response) bool {
	return answer.StatusCode/100 == 2 && r.Method == http.MethodGet && r.URL.Query().Get("x-id") == "GetObject"
}

// fileLife is how long credentials of a file are believed before it is read again: whoever
// renews them need not restart anything.
const fileLife = time.Minute

// awsFile gives the credentials of a file, which is read now and from time to time.
func awsFile(ctx context.Context, file, profile string) (aws.CredentialsProvider, error) {
	if profile == "" {
		profile = config.DefaultSharedConfigProfile
	}
	read := func(ctx context.Context) (aws.Credentials, error) {
		if _, err := ReadSecret(file); err != nil {
			return aws.Credentials{}, err
		}
		shared, err := config.LoadSharedConfigProfile(ctx, profile, func(o *config.LoadSharedConfigOptions) {
			o.CredentialsFiles, o.ConfigFiles = []string{file}, []string{}
		})
		if err != nil {
			return aws.Credentials{}, fmt.Errorf("credentials file %s: profile %s: %w", file, profile, err)
		}
		if !shared.Credentials.HasKeys() {
			return aws.Credentials{}, fmt.Errorf("credentials file %s: profile %s has no keys", file, profile)
		}
		c := shared.Credentials
		c.CanExpire, c.Expires = true, time.Now().Add(fileLife)
		return c, nil
	}
	if _, err := read(ctx); err != nil {
		return nil, err
	}
	return aws.NewCredentialsCache(aws.CredentialsProviderFunc(read)), nil
}
