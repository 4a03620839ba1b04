package client

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// codeSeconds is how long credentials live that were had for a code: the shortest time
// that there is.
const codeSeconds = 900

// WithCode returns an API of the same person whose calls carry a second factor: it has
// temporary credentials for which the code of an authenticator was shown.
func (a *API) WithCode(ctx context.Context, serial, code string) (*API, error) {
	seconds := int32(codeSeconds)
	out, err := a.STS.GetSessionToken(ctx, &sts.GetSessionTokenInput{SerialNumber: &serial, TokenCode: &code, DurationSeconds: &seconds})
	if err != nil {
		return nil, err
	}
	c := out.Credentials
	if c == nil || c.AccessKeyId == nil || c.SecretAccessKey == nil || c.SessionToken == nil {
		return nil, errors.New("the answer of GetSessionToken has no credentials")
	}
	cfg := a.cfg.Copy()
	cfg.Credentials = credentials.NewStaticCredentialsProvider(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
	proven := &API{
		SSM: ssm.NewFromConfig(cfg, ssmEndpoint(a.endpoint)), STS: sts.NewFromConfig(cfg), cfg: cfg,
		keys: fixedKeys(cfg.Credentials), http: a.http, endpoint: a.endpoint, signer: a.signer, agent: a.agent, log: a.log,
	}
	return proven, nil
}

// fixedKeys are credentials that no file has, so that they cannot be read once more.
func fixedKeys(p aws.CredentialsProvider) *rereadable {
	return &rereadable{current: p, read: func(context.Context) (aws.CredentialsProvider, error) {
		return nil, errors.New("these credentials are in no file")
	}}
}
