package client

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"sallyport.dev/wire"
)

// Factor is a second factor of a person.
type Factor struct {
	FactorID     string    `json:"FactorId"`
	Kind         string    `json:"Kind"` // totp or webauthn
	Name         string    `json:"Name"`
	SerialNumber string    `json:"SerialNumber"` // as IAM and STS want it
	Created      wire.Time `json:"Created"`
	Enabled      wire.Time `json:"Enabled,omitzero"`
	Used         wire.Time `json:"Used,omitzero"`
}

// ListFactorsOutput are a person's second factors.
type ListFactorsOutput struct {
	Factors []Factor `json:"Factors"`
	// HasPassword tells that the person can sign in with one; MustChange that it was given
	// by somebody else and is only good for setting another.
	HasPassword bool `json:"HasPassword"`
	MustChange  bool `json:"MustChange,omitempty"`
	// EnrolURL is the page where a security key is enrolled; empty where there is none.
	EnrolURL string `json:"EnrolUrl,omitempty"`
}

// ListFactors lists the second factors of a user; of the caller where the name is empty.
func (a *API) ListFactors(ctx context.Context, user string) (*ListFactorsOutput, error) {
	return call[ListFactorsOutput](ctx, a, "ListFactors", map[string]string{"UserName": user})
}

// AddFactorOutput is a device of one-time codes that does not count yet. Secret and URL
// (otpauth://) are shown this once.
type AddFactorOutput struct {
	Factor Factor `json:"Factor"`
	Secret string `json:"Secret"`
	URL    string `json:"Url"`
}

// AddFactor makes a device of one-time codes for the caller.
func (a *API) AddFactor(ctx context.Context, name string) (*AddFactorOutput, error) {
	return call[AddFactorOutput](ctx, a, "AddFactor", map[string]string{"Name": name})
}

// EnableFactor makes a device count by a code of it.
func (a *API) EnableFactor(ctx context.Context, id, code string) error {
	_, err := call[struct{}](ctx, a, "EnableFactor", map[string]string{"FactorId": id, "Code": code})
	return err
}

// RemoveFactor removes a second factor of a user; of the caller where the name is empty.
func (a *API) RemoveFactor(ctx context.Context, user, id string) error {
	_, err := call[struct{}](ctx, a, "RemoveFactor", map[string]string{"UserName": user, "FactorId": id})
	return err
}

// ResetPassword gives a user an initial password, which it returns. The person must set
// another with it.
func (a *API) ResetPassword(ctx context.Context, user string) (string, error) {
	out, err := call[struct {
		Password string `json:"InitialPassword"`
	}](ctx, a, "ResetPassword", map[string]string{"UserName": user})
	if err != nil {
		return "", err
	}
	return out.Password, nil
}

// RemovePassword takes a user's password away.
func (a *API) RemovePassword(ctx context.Context, user string) error {
	_, err := call[struct{}](ctx, a, "RemovePassword", map[string]string{"UserName": user})
	return err
}

// ChangePassword sets the caller's own password.
func (a *API) ChangePassword(ctx context.Context, old, password string) error {
	_, err := call[struct{}](ctx, a, "ChangePassword", map[string]string{"OldPassword": old, "NewPassword": password})
	return err
}

type stepUpOutput struct {
	Credentials struct {
		AccessKeyID     string    `json:"AccessKeyId"`
		SecretAccessKey string    `json:"SecretAccessKey"`
		SessionToken    string    `json:"SessionToken"`
		Expiration      wire.Time `json:"Expiration"`
	} `json:"Credentials"`
	Factor Factor `json:"Factor"`
}

// StepUp shows a one-time code and returns an API of the same principal whose credentials
// tell of a second factor that was given just now. They last for an hour at most, and no
// longer than those that they come from.
func (a *API) StepUp(ctx context.Context, code string) (*API, error) {
	out, err := call[stepUpOutput](ctx, a, "StepUp", map[string]string{"Code": code})
	if err != nil {
		return nil, err
	}
	c := out.Credentials
	if c.AccessKeyID == "" || c.SessionToken == "" {
		return nil, errors.New("the server answered without credentials")
	}
	return a.with(aws.Credentials{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
		Source: "sallyport step-up", CanExpire: true, Expires: c.Expiration.Time,
	}), nil
}

// with returns an API like a that makes its calls with other credentials.
func (a *API) with(c aws.Credentials) *API {
	provider := credentials.StaticCredentialsProvider{Value: c}
	cfg := a.cfg.Copy()
	keys := &rereadable{current: provider, read: func(context.Context) (aws.CredentialsProvider, error) { return provider, nil }}
	cfg.Credentials = keys
	b := &API{
		SSM: ssm.New(a.SSM.Options(), func(o *ssm.Options) { o.Credentials = keys }),
		STS: sts.New(a.STS.Options(), func(o *sts.Options) { o.Credentials = keys }),
		cfg: cfg, keys: keys, http: a.http, endpoint: a.endpoint, signer: a.signer, agent: a.agent, log: a.log,
	}
	b.skew.Store(a.skew.Load())
	return b
}
