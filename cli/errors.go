package cli

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go"

	"sallyport.dev/client"
)

// errorText words an error for a person. A service's refusal is its code and message,
// without the SDK's framing.
func errorText(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return client.Clean(api.ErrorCode() + ": " + api.ErrorMessage())
	}
	if noCredentials(err) {
		return "no credentials were found"
	}
	var operation *smithy.OperationError
	if errors.As(err, &operation) && operation.Err != nil {
		return client.Clean(operation.OperationName + ": " + innermost(operation.Err).Error())
	}
	return client.Clean(err.Error())
}

// noCredentials reports whether the SDK found no credentials: a machine's role, of which
// the error then tells, is what it looks for last.
func noCredentials(err error) bool {
	return strings.Contains(err.Error(), "EC2 IMDS")
}

// innermost leaves out the SDK's layers about requests and attempts.
func innermost(err error) error {
	for {
		switch err.(type) {
		case net.Error, *client.RefusedError:
			return err
		}
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		if errors.Is(err, client.ErrNotSallyport) && !errors.Is(next, client.ErrNotSallyport) {
			return err
		}
		err = next
	}
}

// hintFor names the fix of an error, if it is a known one.
func (p *program) hintFor(err error) string {
	if h := p.hintForCode(err); h != "" {
		return h
	}
	var unknown x509.UnknownAuthorityError
	var dial *net.OpError
	text := err.Error()
	switch {
	case errors.Is(err, errNotSignedIn):
		return "sallyport login"
	case errors.Is(err, client.ErrNoSignIn):
		return "the server's configuration needs a sign_in block"
	case errors.Is(err, client.ErrNoRegion):
		return "set AWS_REGION, or give --region"
	case errors.Is(err, client.ErrNotSallyport) && p.endpoint() == "":
		return "no endpoint is set, so this is AWS; set AWS_ENDPOINT_URL, or give --endpoint-url"
	case errors.Is(err, client.ErrNotSallyport):
		return "the endpoint is " + p.endpoint()
	case errors.As(err, &unknown), strings.Contains(text, "certificate signed by unknown authority"):
		return "trust the server's CA with --ca-bundle FILE or AWS_CA_BUNDLE"
	case strings.Contains(text, "failed to get shared config profile"):
		return "the profiles are in ~/.aws/config and ~/.aws/credentials, or where AWS_CONFIG_FILE says"
	case noCredentials(err):
		return "name a profile with --profile or AWS_PROFILE, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	case strings.Contains(text, "get identity: get credentials"):
		return "does the profile have credentials? --profile or AWS_PROFILE names another"
	case errors.As(err, &dial) && dial.Op == "dial" && p.endpoint() != "":
		return "is the server running at " + p.endpoint() + "?"
	}
	return ""
}

func (p *program) hintForCode(err error) string {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return ""
	}
	switch api.ErrorCode() {
	case "ExpiredTokenException", "ExpiredToken", "RequestExpired":
		return "the credentials have expired; log in again"
	case "UnrecognizedClientException", "InvalidClientTokenId":
		return "the server does not know this access key; is the profile right?"
	case "InvalidSignatureException", "SignatureDoesNotMatch":
		if region := rightRegion.FindStringSubmatch(api.ErrorMessage()); region != nil {
			return "give --region " + region[1] + ", or set AWS_REGION"
		}
		return "is the secret access key right, and this machine's clock?"
	case "TargetNotConnected":
		return "sallyport nodes shows which nodes are connected"
	case "AccessDeniedException", "AccessDenied":
		if source := p.roleSource(api.ErrorMessage()); source != "" {
			return "sallyport --profile " + shellQuote(source) + " request asks for the role, if there is a flow that gives it"
		}
		switch message := api.ErrorMessage(); {
		case strings.HasSuffix(message, "because there is a second factor, which must be given first"):
			if strings.Contains(message, "sallyport:LinkChat") {
				return "sallyport login --mfa" // it has no --code
			}
			return "give a code of it with --code"
		case strings.HasSuffix(message, "the person must sign in first"), strings.HasSuffix(message, "the person must sign in again first"):
			return "sallyport login"
		}
		if why := whyCommand(api.ErrorMessage()); why != "" && p.endpoint() != "" {
			return why + " shows each policy and what it says"
		}
	}
	return ""
}

// roleSource is the profile whose credentials were to take the role of the profile in
// use; empty unless that was refused. With those one can ask for the role.
func (p *program) roleSource(message string) string {
	action := deniedAction.FindStringSubmatch(message)
	profile := cmp.Or(p.flags.profile, p.getenv("AWS_PROFILE"))
	if action == nil || action[1] != "sts:AssumeRole" || profile == "" {
		return ""
	}
	c, err := config.LoadSharedConfigProfile(context.Background(), profile, func(o *config.LoadSharedConfigOptions) {
		o.ConfigFiles = nonEmpty(p.getenv("AWS_CONFIG_FILE"))
		o.CredentialsFiles = nonEmpty(p.getenv("AWS_SHARED_CREDENTIALS_FILE"))
	})
	if err != nil {
		return ""
	}
	return c.SourceProfileName
}

// isDenied reports whether the service refused what was asked for.
func isDenied(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && (api.ErrorCode() == "AccessDeniedException" || api.ErrorCode() == "AccessDenied")
}

var (
	deniedAction   = regexp.MustCompile(`is not authorized to perform: ([a-z0-9-]+:[A-Za-z0-9]+)`)
	deniedResource = regexp.MustCompile(`is not authorized to perform: \S+ on resource: (arn:[!-~]+|\*)`)
	rightRegion    = regexp.MustCompile(`The region is '([a-z0-9-]+)'`)
	// aboutRequest are actions that flows decide on, of which policies say little.
	aboutRequest = regexp.MustCompile(`^sallyport:(RequestAccess|[A-Z][a-z]+Request)$`)
	nodeResource = regexp.MustCompile(`:(?:managed-)?instance/(.+)$`)
)

// whyCommand is the command line that explains a refusal, read from the message;
// empty if that does not name the action.
func whyCommand(message string) string {
	action := deniedAction.FindStringSubmatch(message)
	if action == nil || action[1] == "sallyport:ExplainAccess" || aboutRequest.MatchString(action[1]) {
		return ""
	}
	why := "sallyport why " + strings.TrimPrefix(action[1], "ssm:")
	resource := deniedResource.FindStringSubmatch(message)
	switch {
	case resource == nil || resource[1] == "*":
		return why
	case nodeResource.MatchString(resource[1]):
		return why + " " + shellQuote(nodeResource.FindStringSubmatch(resource[1])[1])
	}
	return why + " --resource " + shellQuote(resource[1])
}

// endpoint is where calls go to; empty for AWS, or if nothing was set up yet.
func (p *program) endpoint() string {
	if p.connected == nil {
		return p.flags.endpoint
	}
	return p.connected.Endpoint()
}
