//go:build clouds

package keyring

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	cloudkms "cloud.google.com/go/kms/apiv1"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"gocloud.dev/gcerrors"
	"gocloud.dev/secrets"
	"gocloud.dev/secrets/azurekeyvault"
	"gocloud.dev/secrets/gcpkms"
	"google.golang.org/api/option"

	"sallyport.dev/internal/cloud"
)

// cloudOpeners are the key services whose libraries are large.
func cloudOpeners() map[string]opener {
	return map[string]opener{"gcpkms": openGCP, "azurekeyvault": openAzure}
}

// cloudKey is a key behind one of the libraries.
type cloudKey struct {
	id     string
	keeper *secrets.Keeper
}

// ID implements service.
func (k *cloudKey) ID() string { return k.id }

func (*cloudKey) local() bool { return false }

// Wrap implements service.
func (k *cloudKey) Wrap(ctx context.Context, key []byte) ([]byte, error) {
	b, err := k.keeper.Encrypt(ctx, key)
	return b, final(err)
}

// Unwrap implements service.
func (k *cloudKey) Unwrap(ctx context.Context, wrapped []byte) ([]byte, error) {
	b, err := k.keeper.Decrypt(ctx, wrapped)
	return b, final(err)
}

// final marks what asking again does not mend.
func final(err error) error {
	switch gcerrors.Code(err) {
	case gcerrors.NotFound, gcerrors.InvalidArgument, gcerrors.PermissionDenied, gcerrors.FailedPrecondition:
		return fmt.Errorf("%w: %w", errFinal, err)
	}
	return err
}

var gcpKey = regexp.MustCompile(`^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$`)

const gcpScope = "https://www.googleapis.com/auth/cloudkms"

// openGCP opens gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K. Its one parameter
// is endpoint, of what speaks as Google's service does.
func openGCP(ctx context.Context, u *url.URL, credentials string) (service, error) {
	p, err := cloud.ParseParams(u, "endpoint")
	if err != nil {
		return nil, err
	}
	key := u.Host + u.Path
	if !gcpKey.MatchString(key) {
		return nil, fmt.Errorf("key %q: want gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K", key)
	}
	tokens, err := cloud.GoogleTokens(ctx, credentials, gcpScope)
	if err != nil {
		return nil, err
	}
	options := []option.ClientOption{option.WithTokenSource(tokens)}
	if p["endpoint"] != "" {
		if err := cloud.Endpoint(p["endpoint"]); err != nil {
			return nil, err
		}
		options = append(options, option.WithEndpoint(p["endpoint"]))
	}
	client, err := cloudkms.NewKeyManagementRESTClient(ctx, options...)
	if err != nil {
		return nil, err
	}
	// The data that is authenticated beside a key says what it is for.
	purpose := &gcpkms.KeeperOptions{AdditionalAuthenticatedData: []byte("sallyport recording-key")}
	return &cloudKey{id: "gcpkms://" + key, keeper: gcpkms.OpenKeeper(client, key, purpose)}, nil
}

var azureKey = regexp.MustCompile(`^[a-zA-Z0-9-]+\.vault\.[a-z.]+/keys/[A-Za-z0-9-]+/[A-Za-z0-9]+$`)

// openAzure opens azurekeyvault://NAME.vault.azure.net/keys/KEY/VERSION with the identity
// of the environment. The version must be there: what a version has encrypted no other
// decrypts, and does not say which it was.
func openAzure(_ context.Context, u *url.URL, credentials string) (service, error) {
	if _, err := cloud.ParseParams(u); err != nil {
		return nil, err
	}
	key := u.Host + strings.TrimSuffix(u.Path, "/")
	if !azureKey.MatchString(key) {
		return nil, fmt.Errorf("key %q: want azurekeyvault://NAME.vault.azure.net/keys/KEY/VERSION", key)
	}
	if credentials != "" {
		return nil, fmt.Errorf("Azure Key Vault has no credentials file: set the variables AZURE_…, or use the machine's identity")
	}
	keeper, err := azurekeyvault.OpenKeeper(azureClient, "https://"+key, nil)
	if err != nil {
		return nil, err
	}
	return &cloudKey{id: "azurekeyvault://" + key, keeper: keeper}, nil
}

func azureClient(vault string) (*azkeys.Client, error) {
	identity, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, err
	}
	return azkeys.NewClient(vault, identity, nil)
}
