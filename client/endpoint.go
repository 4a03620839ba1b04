package client

import (
	"context"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// EndpointOf is the endpoint of all services that Connect would use; empty for AWS's own.
func EndpointOf(ctx context.Context, o Options) string { return globalEndpoint(ctx, o) }

// globalEndpoint is the endpoint of all services: given, of the environment, or of
// the profile; empty if there is none.
func globalEndpoint(ctx context.Context, o Options) string {
	if o.Endpoint != "" {
		return o.Endpoint
	}
	if strings.EqualFold(os.Getenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"), "true") {
		return ""
	}
	if url := os.Getenv("AWS_ENDPOINT_URL"); url != "" {
		return url
	}
	profile := o.Profile
	for _, name := range []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE"} {
		if profile == "" {
			profile = os.Getenv(name)
		}
	}
	if profile == "" {
		profile = "default"
	}
	shared, err := config.LoadSharedConfigProfile(ctx, profile, sharedFiles)
	if err != nil {
		return "" // loading the configuration says what is wrong with it
	}
	return shared.BaseEndpoint
}

// sharedFiles are the files that the environment names, which the SDK's function does
// not look at by itself.
func sharedFiles(o *config.LoadSharedConfigOptions) {
	if file := os.Getenv("AWS_CONFIG_FILE"); file != "" {
		o.ConfigFiles = []string{file}
	}
	if file := os.Getenv("AWS_SHARED_CREDENTIALS_FILE"); file != "" {
		o.CredentialsFiles = []string{file}
	}
}

// assumeRoleAt makes profiles with a role_arn assume the role at the global endpoint:
// the SDK makes that client before it knows the endpoint, and would ask AWS.
func assumeRoleAt(endpoint string) config.LoadOptionsFunc {
	return config.WithAssumeRoleCredentialOptions(func(o *stscreds.AssumeRoleOptions) {
		client, ok := o.Client.(*sts.Client)
		if !ok || endpoint == "" || client.Options().BaseEndpoint != nil {
			return
		}
		o.Client = sts.New(client.Options(), func(so *sts.Options) { so.BaseEndpoint = &endpoint })
	})
}
