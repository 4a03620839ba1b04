package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
)

// Errors of an API.
var (
	// ErrNotSallyport is returned for our own operations where the endpoint is AWS,
	// or another server that does not know them.
	ErrNotSallyport = errors.New("this endpoint is not a Sallyport server")
	// ErrNoRegion is returned by Connect when nothing names a region.
	ErrNoRegion = errors.New("no region is set")
)

// maxAnswer bounds what is read of an answer of our own operations, in bytes.
const maxAnswer = 16 << 20

// Options choose where an API connects and as whom. Empty fields leave it to the
// AWS configuration chain: environment, shared configuration files, credential_process.
type Options struct {
	Profile  string
	Region   string
	Endpoint string // URL for every service
	// SSMEndpoint is the URL for ssm and our own operations alone.
	SSMEndpoint string
	CABundle    string // file of PEM certificates trusted besides the system's
	// Credentials are used in the place of those of the chain; optional.
	Credentials aws.CredentialsProvider
	// UserAgent is the program and its version, "sallyport/1.0".
	UserAgent string
	Logger    *slog.Logger
}

// API makes signed calls as one principal. It is safe for concurrent use.
type API struct {
	SSM *ssm.Client
	STS *sts.Client

	cfg      aws.Config
	keys     *rereadable
	http     aws.HTTPClient
	endpoint string // of ssm; empty for AWS's own
	signer   *v4.Signer
	agent    string
	log      *slog.Logger
	skew     atomic.Int64 // of this machine's clock to the server's, in nanoseconds; 0: not known
}

// Connect loads the configuration. It makes no call yet.
func Connect(ctx context.Context, o Options) (*API, error) {
	httpClient, err := newHTTPClient(o.CABundle)
	if err != nil {
		return nil, err
	}
	load := func(ctx context.Context) (aws.Config, error) {
		return config.LoadDefaultConfig(ctx, append(loadOptions(o, httpClient), assumeRoleAt(globalEndpoint(ctx, o)))...)
	}
	cfg, err := load(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading AWS configuration: %w", err)
	}
	keys := &rereadable{current: cfg.Credentials, read: func(ctx context.Context) (aws.CredentialsProvider, error) {
		fresh, err := load(ctx)
		return fresh.Credentials, err
	}}
	cfg.Credentials = keys
	if cfg.Region == "" {
		return nil, ErrNoRegion
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	a := &API{
		SSM:    ssm.NewFromConfig(cfg, ssmEndpoint(o.SSMEndpoint)),
		STS:    sts.NewFromConfig(cfg),
		cfg:    cfg,
		keys:   keys,
		http:   cfg.HTTPClient,
		signer: v4.NewSigner(),
		agent:  o.UserAgent,
		log:    o.Logger,
	}
	for _, base := range []*string{a.STS.Options().BaseEndpoint, a.SSM.Options().BaseEndpoint} {
		if base == nil {
			continue
		}
		if err := secure("the endpoint", *base); err != nil {
			return nil, err
		}
	}
	if base := a.SSM.Options().BaseEndpoint; base != nil {
		a.endpoint = *base
	}
	return a, nil
}

func ssmEndpoint(url string) func(*ssm.Options) {
	return func(o *ssm.Options) {
		if url != "" {
			o.BaseEndpoint = &url
		}
	}
}

func loadOptions(o Options, httpClient aws.HTTPClient) []func(*config.LoadOptions) error {
	options := []func(*config.LoadOptions) error{config.WithHTTPClient(httpClient), config.WithLogger(sdkLogger(o.Logger))}
	if o.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(o.Profile))
	}
	if o.Credentials != nil {
		options = append(options, config.WithCredentialsProvider(o.Credentials))
	}
	if o.Region != "" {
		options = append(options, config.WithRegion(o.Region))
	}
	if o.Endpoint != "" {
		options = append(options, config.WithBaseEndpoint(o.Endpoint))
	}
	if name, version, ok := strings.Cut(o.UserAgent, "/"); ok {
		options = append(options, config.WithAPIOptions([]func(*middlewareStack) error{userAgent(name, version)}))
	}
	return options
}

// sdkLogger takes what the SDK would write to standard error by itself, in the middle
// of whatever is there.
func sdkLogger(l *slog.Logger) logging.Logger {
	return logging.LoggerFunc(func(class logging.Classification, format string, args ...any) {
		if l != nil {
			l.Debug("AWS SDK: "+fmt.Sprintf(format, args...), "class", string(class))
		}
	})
}

// newHTTPClient trusts the system's roots, SSL_CERT_FILE (which Go honours on some
// systems only) and the bundle; the SDK adds AWS_CA_BUNDLE and the profile's
// ca_bundle to the same pool.
func newHTTPClient(bundle string) (*awshttp.BuildableClient, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		if pem, err := os.ReadFile(file); err == nil {
			pool.AppendCertsFromPEM(pem)
		}
	}
	if bundle != "" {
		pem, err := os.ReadFile(bundle)
		if err != nil {
			return nil, fmt.Errorf("reading CA bundle: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading CA bundle: %s holds no PEM certificate", bundle)
		}
	}
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		t.TLSClientConfig.RootCAs = pool
		// The data channel of a session resumes what the API call has negotiated.
		t.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	}), nil
}

// TLS returns the trust that API calls use, for the websocket of a session.
func (a *API) TLS() *tls.Config {
	client, ok := a.http.(*awshttp.BuildableClient)
	if !ok || client.GetTransport().TLSClientConfig == nil {
		return &tls.Config{MinVersion: tls.VersionTLS12}
	}
	c := client.GetTransport().TLSClientConfig.Clone()
	c.NextProtos = nil // a websocket is HTTP/1.1
	return c
}

// Endpoint returns the URL that calls go to, empty for AWS's own.
func (a *API) Endpoint() string { return a.endpoint }

// Region returns the region that requests are signed for.
func (a *API) Region() string { return a.cfg.Region }

// Skew returns how far the clock of the last answer was ahead of this machine's, to the
// second; ok is false while there was none.
func (a *API) Skew() (skew time.Duration, ok bool) {
	d := a.skew.Load()
	return time.Duration(d).Round(time.Second), d != 0
}

// noteClock takes the Date of an answer.
func (a *API) noteClock(date string) {
	if t, err := http.ParseTime(date); err == nil {
		a.skew.Store(int64(time.Until(t)) | 1) // never 0
	}
}

// StartInput is what StartSession takes, RunAs and Input besides what AWS has.
type StartInput struct {
	Target     string              `json:"Target"`
	Document   string              `json:"DocumentName,omitempty"`
	Reason     string              `json:"Reason,omitempty"`
	Parameters map[string][]string `json:"Parameters,omitempty"`
	// RunAs is the user on the node; the one that the server chooses unless given.
	// AWS ignores it.
	RunAs string `json:"RunAs,omitempty"`
	// Input asks for a command that takes input; Stream.Input tells whether it does. AWS
	// ignores it.
	Input bool `json:"Input,omitempty"`
}

// Start starts a session and returns what its data channel needs.
func (a *API) Start(ctx context.Context, in StartInput) (Stream, error) {
	if in.RunAs == "" && !in.Input || a.endpoint == "" {
		return a.StartSession(ctx, in.input())
	}
	out, err := callService[Stream](ctx, a, "ssm", "AmazonSSM.StartSession", in)
	if err != nil {
		return Stream{}, err
	}
	out.Target = in.Target
	return *out, nil
}

func (in StartInput) input() *ssm.StartSessionInput {
	out := &ssm.StartSessionInput{Target: &in.Target, Parameters: in.Parameters}
	if in.Document != "" {
		out.DocumentName = &in.Document
	}
	if in.Reason != "" {
		out.Reason = &in.Reason
	}
	return out
}

// StartSession starts a session and returns what its data channel needs.
func (a *API) StartSession(ctx context.Context, in *ssm.StartSessionInput) (Stream, error) {
	out, err := a.SSM.StartSession(ctx, in)
	if err != nil {
		return Stream{}, err
	}
	return Stream{
		SessionID: aws.ToString(out.SessionId),
		Token:     aws.ToString(out.TokenValue),
		URL:       aws.ToString(out.StreamUrl),
		Target:    aws.ToString(in.Target),
	}, nil
}

// ResumeSession asks for a new token for a session whose link broke. An empty Token
// means that the session is over. Where the credentials have expired they are read again
// first: the session may be older than they are.
func (a *API) ResumeSession(ctx context.Context, id string) (Stream, error) {
	in := &ssm.ResumeSessionInput{SessionId: &id}
	out, err := a.SSM.ResumeSession(ctx, in)
	if expired(err) && a.keys.reread(ctx) == nil {
		out, err = a.SSM.ResumeSession(ctx, in)
	}
	if err != nil {
		return Stream{}, err
	}
	return Stream{
		SessionID: id,
		Token:     aws.ToString(out.TokenValue),
		URL:       aws.ToString(out.StreamUrl),
	}, nil
}

// TerminateSession ends a session.
func (a *API) TerminateSession(ctx context.Context, id string) error {
	_, err := a.SSM.TerminateSession(ctx, &ssm.TerminateSessionInput{SessionId: &id})
	return err
}

// TerminateSessionFor ends a session with a reason, which the person whose session it
// is sees. AWS has no such operation.
func (a *API) TerminateSessionFor(ctx context.Context, id, reason string) error {
	_, err := call[struct{}](ctx, a, "TerminateSession", map[string]string{"SessionId": id, "Reason": reason})
	return err
}

// call makes one call of the service sallyport.
func call[Out any](ctx context.Context, a *API, operation string, in any) (*Out, error) {
	if a.endpoint == "" {
		return nil, fmt.Errorf("%s: %w", operation, ErrNotSallyport)
	}
	return callService[Out](ctx, a, "sallyport", "Sallyport."+operation, in)
}

// callService makes one call of JSON 1.1; target is as X-Amz-Target has it.
func callService[Out any](ctx context.Context, a *API, service, target string, in any) (*Out, error) {
	_, operation, _ := strings.Cut(target, ".")
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", operation, err)
	}
	status, answer, err := a.post(ctx, service, target, body)
	if err == nil && status != http.StatusOK {
		err = answerError(status, answer)
	}
	if err != nil {
		return nil, &smithy.OperationError{ServiceID: service, OperationName: operation, Err: err}
	}
	out := new(Out)
	if err := json.Unmarshal(answer, out); err != nil {
		return nil, fmt.Errorf("decoding the answer of %s: %w", operation, err)
	}
	return out, nil
}

// post signs and sends one request of JSON 1.1.
func (a *API) post(ctx context.Context, service, target string, body []byte) (int, []byte, error) {
	return a.postTo(ctx, a.endpoint, service, target, body)
}

// postTo is post to another endpoint.
func (a *API) postTo(ctx context.Context, endpoint, service, target string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", target)
	req.Header.Set("User-Agent", a.agent)
	if req.URL.Path == "" {
		req.URL.Path = "/"
	}
	sum := sha256.Sum256(body)
	if err := a.sign(ctx, req, hex.EncodeToString(sum[:]), service, a.cfg.Region); err != nil {
		return 0, nil, err
	}
	a.log.Debug("calling", "operation", target, "endpoint", endpoint)
	return a.send(req)
}

// answerError turns an error answer into a smithy.APIError with AWS's code and
// message. A server that does not speak JSON 1.1, or not our service, is none of ours.
func answerError(status int, answer []byte) error {
	var body struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(answer, &body); err != nil || body.Type == "" {
		return fmt.Errorf("%w (it answered with status %d)", ErrNotSallyport, status)
	}
	_, code, found := strings.Cut(body.Type, "#")
	if !found {
		code = body.Type
	}
	switch code {
	case "UnknownOperationException", "UnknownService", "InvalidAction":
		return fmt.Errorf("%w (%s: %s)", ErrNotSallyport, code, body.Message)
	}
	if wrongService.MatchString(body.Message) { // AWS at a configured endpoint
		return fmt.Errorf("%w (%s: %s)", ErrNotSallyport, code, body.Message)
	}
	return &smithy.GenericAPIError{Code: code, Message: body.Message}
}

// wrongService is how AWS words that a request was signed for another service.
var wrongService = regexp.MustCompile(`(?i)credential should be scoped to correct service`)

// permanent reports whether trying again cannot help: the service refused, and not
// because it is busy or because credentials that may be renewed have expired.
func permanent(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "AccessDeniedException", "AccessDenied", "DoesNotExistException", "ValidationException",
		"UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException",
		"SignatureDoesNotMatch", "UnknownOperationException":
		return true
	}
	return false
}
