package client

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// SignInClient is the id under which this program signs in (RFC 6749).
const SignInClient = "sallyport"

// Grant types of the token endpoint (RFC 6749, RFC 8628).
const (
	GrantCode    = "authorization_code"
	GrantDevice  = "urn:ietf:params:oauth:grant-type:device_code"
	GrantRefresh = "refresh_token"
)

// SignInError is a refusal of a server at which people sign in (RFC 6749, 5.2).
type SignInError struct {
	Code string `json:"error"` // authorization_pending, slow_down, invalid_grant, …
	Text string `json:"error_description"`
}

// Error implements error.
func (e *SignInError) Error() string {
	if e.Text == "" {
		return CleanLine(e.Code)
	}
	return CleanLine(e.Text)
}

// ErrNoSignIn is returned where people cannot sign in at an endpoint.
var ErrNoSignIn = errors.New("nobody can sign in at this endpoint")

// SignInServer is a server at which people sign in. Its calls are not signed.
type SignInServer struct {
	endpoint string
	agent    string
	http     *http.Client

	Issuer    string `json:"issuer"`
	Authorize string `json:"authorization_endpoint"`
}

// DeviceCode is what a person confirms in a browser somewhere else (RFC 8628, 3.2).
type DeviceCode struct {
	DeviceCode  string `json:"device_code"`
	UserCode    string `json:"user_code"`
	URL         string `json:"verification_uri"`
	CompleteURL string `json:"verification_uri_complete"`
	Seconds     int    `json:"expires_in"`
	Interval    int    `json:"interval"` // seconds
}

// SignedIn is what the token endpoint answers with.
type SignedIn struct {
	SignIn      string             `json:"sign_in"`
	User        string             `json:"user"`
	ARN         string             `json:"arn"`
	Method      string             `json:"method"`
	Factor      string             `json:"factor,omitempty"`
	Expires     time.Time          `json:"expires"`
	Account     string             `json:"account"`
	Region      string             `json:"region"`
	Credentials ProcessCredentials `json:"credentials"`
}

// ProcessCredentials are temporary credentials as credential_process has them.
type ProcessCredentials struct {
	Version         int       `json:"Version,omitempty"` // 1, where a program is asked
	AccessKeyID     string    `json:"AccessKeyId"`
	SecretAccessKey string    `json:"SecretAccessKey"`
	SessionToken    string    `json:"SessionToken"`
	Expiration      time.Time `json:"Expiration"`
}

const (
	signInTimeout   = 30 * time.Second
	maxSignInAnswer = 256 << 10
)

// NewSignInServer asks an endpoint where people sign in; ErrNoSignIn where they do not.
func NewSignInServer(ctx context.Context, o Options) (*SignInServer, error) {
	s, err := OldSignInServer(o)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.endpoint+"/.well-known/oauth-authorization-server", nil)
	if err != nil {
		return nil, err
	}
	if err := s.do(r, s); err != nil {
		var refused *SignInError
		if errors.As(err, &refused) {
			return nil, ErrNoSignIn
		}
		return nil, err
	}
	for _, u := range []string{s.Issuer, s.Authorize} {
		if err := secure("the server's page", u); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// OldSignInServer is NewSignInServer for a server at which one has signed in before, which
// need not be asked for its pages.
func OldSignInServer(o Options) (*SignInServer, error) {
	if err := secure("the endpoint", o.Endpoint); err != nil {
		return nil, err
	}
	if o.CABundle == "" {
		o.CABundle = os.Getenv("AWS_CA_BUNDLE") // which the SDK adds by itself for calls that are signed
	}
	c, err := newHTTPClient(o.CABundle)
	if err != nil {
		return nil, err
	}
	return &SignInServer{
		endpoint: strings.TrimRight(o.Endpoint, "/"), agent: o.UserAgent,
		http: &http.Client{
			Transport: transportOf(c), Timeout: signInTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func transportOf(c *awshttp.BuildableClient) http.RoundTripper { return c.GetTransport() }

// do sends a request and reads its JSON answer; refusals are *SignInError.
func (s *SignInServer) do(r *http.Request, out any) error {
	r.Header.Set("User-Agent", s.agent)
	r.Header.Set("Accept", "application/json")
	answer, err := s.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxSignInAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", r.URL.Path, err)
	}
	if answer.StatusCode != http.StatusOK {
		refused := &SignInError{}
		if json.Unmarshal(body, refused) != nil || refused.Code == "" {
			refused = &SignInError{Code: "http", Text: fmt.Sprintf("the server answered with status %d", answer.StatusCode)}
		}
		return refused
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("the answer of %s cannot be read: %w", r.URL.Path, ErrNoSignIn)
	}
	return nil
}

func (s *SignInServer) post(ctx context.Context, path string, form url.Values, out any) error {
	form.Set("client_id", SignInClient)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.endpoint+path, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return s.do(r, out)
}

// BeginDevice asks for a code that a person confirms in a browser somewhere else.
// challenge is of PKCE, S256.
func (s *SignInServer) BeginDevice(ctx context.Context, computer, challenge string) (*DeviceCode, error) {
	out := &DeviceCode{}
	err := s.post(ctx, "/sign-in/device_authorization", url.Values{"computer": {computer}, "code_challenge": {challenge}}, out)
	if err == nil {
		err = errors.Join(secure("the server's page", out.URL), secure("the server's page", out.CompleteURL))
	}
	return out, err
}

// AuthorizeURL is the page where a person lets this program in. The answer comes to
// redirect.
func (s *SignInServer) AuthorizeURL(redirect, state, challenge, computer string, stepUp bool) string {
	q := url.Values{
		"response_type": {"code"}, "client_id": {SignInClient}, "redirect_uri": {redirect}, "state": {state},
		"code_challenge": {challenge}, "code_challenge_method": {"S256"}, "computer": {computer},
	}
	if stepUp {
		q.Set("step_up", "1")
	}
	return s.Authorize + "?" + q.Encode()
}

// Token asks the token endpoint. next is the hash of the secret that the sign-in's token
// is to have from now on (see HashSecret).
func (s *SignInServer) Token(ctx context.Context, grant, next string, form url.Values) (*SignedIn, error) {
	form.Set("grant_type", grant)
	form.Set("next", next)
	out := &SignedIn{}
	return out, s.post(ctx, "/sign-in/token", form, out)
}

// Revoke ends the sign-in of a token.
func (s *SignInServer) Revoke(ctx context.Context, token string) error {
	return s.post(ctx, "/sign-in/revoke", url.Values{"token": {token}}, &struct{}{})
}

// HashSecret is what a server keeps of a secret, and PKCE's challenge of a verifier: the
// SHA-256 in base64url.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// SignIn is that a person is signed in somewhere.
type SignIn struct {
	SignInID  string `json:"SignInId"`
	UserName  string `json:"UserName,omitempty"`
	Kind      string `json:"Kind"` // browser, cli or sso
	Method    string `json:"Method"`
	Factor    string `json:"Factor,omitempty"`
	Computer  string `json:"Computer,omitempty"`
	Created   Time   `json:"Created"`
	LastUsed  Time   `json:"LastUsed"`
	Expires   Time   `json:"Expires"`
	SourceIP  string `json:"SourceIp,omitempty"`
	UserAgent string `json:"UserAgent,omitempty"`
	Ended     Time   `json:"Ended,omitzero"`
	Because   string `json:"Because,omitempty"`
	Current   bool   `json:"Current,omitempty"`
}

// ListSignInsInput selects sign-ins: the caller's own unless it says otherwise.
type ListSignInsInput struct {
	UserName  string `json:"UserName,omitempty"`
	Everyone  bool   `json:"Everyone,omitempty"`
	Ended     bool   `json:"Ended,omitempty"` // those that are over, too
	NextToken string `json:"NextToken,omitempty"`
}

// ListSignInsOutput is a page of sign-ins, the newest first.
type ListSignInsOutput struct {
	SignIns   []SignIn `json:"SignIns"`
	NextToken string   `json:"NextToken,omitempty"`
}

// ListSignIns lists sign-ins.
func (a *API) ListSignIns(ctx context.Context, in ListSignInsInput) (*ListSignInsOutput, error) {
	return call[ListSignInsOutput](ctx, a, "ListSignIns", in)
}

// EndSignIn ends a sign-in and all that comes from it.
func (a *API) EndSignIn(ctx context.Context, id string) error {
	_, err := call[struct{}](ctx, a, "EndSignIn", map[string]string{"SignInId": id})
	return err
}

// EndSignIns ends all sign-ins of a user (the caller, if user is empty) and returns how
// many those were.
func (a *API) EndSignIns(ctx context.Context, user string) (int, error) {
	out, err := call[struct{ Ended int }](ctx, a, "EndSignIns", map[string]string{"UserName": user})
	if err != nil {
		return 0, err
	}
	return out.Ended, nil
}

// SignInAccount is an account at an OpenID provider that is a user.
type SignInAccount struct {
	Provider string `json:"Provider,omitempty"`
	Issuer   string `json:"Issuer"`
	Subject  string `json:"Subject"`
	Name     string `json:"Name,omitempty"`
	Linked   Time   `json:"Linked"`
	By       string `json:"By,omitempty"`
}

// ListAccounts lists the accounts that a user is; the caller's if user is empty.
func (a *API) ListAccounts(ctx context.Context, user string) ([]SignInAccount, error) {
	out, err := call[struct{ Accounts []SignInAccount }](ctx, a, "ListAccounts", map[string]string{"UserName": user})
	if err != nil {
		return nil, err
	}
	return out.Accounts, nil
}

// LinkAccount makes an account at a provider be a user.
func (a *API) LinkAccount(ctx context.Context, user, provider, subject string) error {
	_, err := call[struct{}](ctx, a, "LinkAccount", map[string]string{"UserName": user, "Provider": provider, "Subject": subject})
	return err
}

// UnlinkAccount ends that an account at a provider is a user.
func (a *API) UnlinkAccount(ctx context.Context, user, provider, subject string) error {
	_, err := call[struct{}](ctx, a, "UnlinkAccount", map[string]string{"UserName": user, "Provider": provider, "Subject": subject})
	return err
}

// AssumableRole is a role that the caller may assume.
type AssumableRole struct {
	RoleName    string `json:"RoleName"`
	RoleARN     string `json:"RoleArn"`
	Description string `json:"Description,omitempty"`
	MaxSeconds  int64  `json:"MaxSessionDuration"`
}

// ListAssumableRoles lists the roles that the caller may assume at this moment.
func (a *API) ListAssumableRoles(ctx context.Context) ([]AssumableRole, error) {
	out, err := call[struct{ Roles []AssumableRole }](ctx, a, "ListAssumableRoles", struct{}{})
	if err != nil {
		return nil, err
	}
	return out.Roles, nil
}
