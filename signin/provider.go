package signin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// provider is an OpenID provider at work.
type provider struct {
	Provider
	redirect string
	client   *http.Client
	now      func() time.Time

	mu    sync.Mutex
	found *discovered
}

// discovered is what a provider says of itself.
type discovered struct {
	oauth    oauth2.Config
	verifier *oidc.IDTokenVerifier
	provider *oidc.Provider
	issParam bool // it names itself in its answers (RFC 9207)
	userInfo bool
}

const (
	providerTimeout = 15 * time.Second
	// maxAnswer bounds what is read of a provider's answer, in bytes.
	maxAnswer = 1 << 20
)

// addProviders makes providers ready; they are asked only when somebody signs in, so that
// one that is away keeps nobody else from anything.
func (s *Service) addProviders(all []Provider) error {
	names := map[string]bool{}
	for _, c := range all {
		if err := c.Check(); err != nil {
			return err
		}
		if names[c.Name] {
			return fmt.Errorf("oidc %q: the name is used twice", c.Name)
		}
		names[c.Name] = true
		client, err := providerClient(s.config.Client, c.CAFile)
		if err != nil {
			return fmt.Errorf("oidc %q: %w", c.Name, err)
		}
		s.providers = append(s.providers, &provider{
			Provider: c, redirect: s.URL() + pathCallback + c.Name, client: client, now: s.config.Now,
		})
	}
	return nil
}

func (s *Service) provider(name string) *provider {
	for _, p := range s.providers {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// providerClient calls a provider: within a time, answers of a size, and no further than
// it was told, since a redirect would lead our secret elsewhere.
func providerClient(given *http.Client, caFile string) (*http.Client, error) {
	var transport http.RoundTripper
	if given != nil {
		transport = given.Transport
	}
	if transport == nil {
		own := http.DefaultTransport.(*http.Transport).Clone()
		own.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if caFile != "" {
			pool, err := readCAs(caFile)
			if err != nil {
				return nil, fmt.Errorf("ca_file: %w", err)
			}
			own.TLSClientConfig.RootCAs = pool
		}
		transport = own
	}
	return &http.Client{
		Transport:     bounded{transport},
		Timeout:       providerTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the provider redirects") },
	}, nil
}

func readCAs(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
}

// bounded cuts answers that are too long: go-oidc reads them whole.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, maxAnswer), answer.Body}
	}
	return answer, err
}

// algorithms are those that ID tokens may be signed with: never none, and none with a
// shared secret.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
}

// discover asks the provider what it is, once.
func (p *provider) discover(ctx context.Context) (*discovered, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found != nil {
		return p.found, nil
	}
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	found, err := oidc.NewProvider(oidc.ClientContext(ctx, p.client), p.Issuer)
	if err != nil {
		return nil, fmt.Errorf("asking %s what it is: %w", p.Issuer, err)
	}
	var more struct {
		IssParam   bool     `json:"authorization_response_iss_parameter_supported"`
		UserInfo   string   `json:"userinfo_endpoint"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := found.Claims(&more); err != nil {
		return nil, fmt.Errorf("reading what %s is: %w", p.Issuer, err)
	}
	allowed := slices.DeleteFunc(slices.Clone(more.Algorithms), func(a string) bool { return !slices.Contains(algorithms, a) })
	if len(allowed) == 0 {
		allowed = []string{oidc.RS256}
	}
	p.found = &discovered{
		oauth: oauth2.Config{
			ClientID: p.ClientID, ClientSecret: p.ClientSecret, Endpoint: found.Endpoint(), RedirectURL: p.redirect,
			Scopes: append([]string{oidc.ScopeOpenID}, p.Scopes...),
		},
		verifier: found.Verifier(&oidc.Config{ClientID: p.ClientID, SupportedSigningAlgs: allowed, Now: p.now}),
		provider: found, issParam: more.IssParam, userInfo: more.UserInfo != "",
	}
	return p.found, nil
}

// begun is what we asked a provider for; the browser keeps it, sealed, until it is back.
type begun struct {
	Provider string    `json:"p"`
	State    string    `json:"s"`
	Nonce    string    `json:"n"`
	Verifier string    `json:"v"` // PKCE
	Next     string    `json:"to"`
	Expires  time.Time `json:"x"`
}

// authURL is where a person signs in at the provider.
func (p *provider) authURL(d *discovered, b begun) string {
	options := []oauth2.AuthCodeOption{oidc.Nonce(b.Nonce), oauth2.S256ChallengeOption(b.Verifier)}
	if p.TrustFactors {
		// Whoever is asked for the age of a sign-in must answer with it (auth_time).
		options = append(options, oauth2.SetAuthURLParam("max_age", fmt.Sprint(int(MaxSession/time.Second))))
	}
	return d.oauth.AuthCodeURL(b.State, options...)
}

// answer is what a provider sent the browser back with.
type answer struct{ code, issuer string }

// redeem exchanges the provider's code for what it says of the person.
func (p *provider) redeem(ctx context.Context, d *discovered, b begun, a answer) (claims, error) {
	if a.issuer != "" && a.issuer != p.Issuer || a.issuer == "" && d.issParam {
		return nil, errors.New("the answer is not from this provider")
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.client), providerTimeout)
	defer cancel()
	token, err := d.oauth.Exchange(ctx, a.code, oauth2.VerifierOption(b.Verifier))
	if err != nil {
		return nil, exchangeError(err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, errors.New("the provider gave no ID token")
	}
	c, err := d.verify(ctx, p.ClientID, raw, b.Nonce)
	if err != nil {
		return nil, err
	}
	if !d.userInfo || p.satisfied(c) {
		return c, nil
	}
	return c, d.more(ctx, token, c)
}

// exchangeError leaves out what a provider answered in full: it may hold anything.
func exchangeError(err error) error {
	if refused := (*oauth2.RetrieveError)(nil); errors.As(err, &refused) {
		return fmt.Errorf("the provider refused the code: %s", cut(refused.ErrorCode, 64))
	}
	return errors.New("the provider could not be asked")
}

// verify checks an ID token (OpenID Connect Core, 3.1.3.7) and returns its claims.
func (d *discovered) verify(ctx context.Context, client, raw, nonce string) (claims, error) {
	token, err := d.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("the ID token is not valid: %w", err)
	}
	if nonce == "" || !same(token.Nonce, nonce) {
		return nil, errors.New("the ID token was made for another sign-in")
	}
	c := claims{}
	if err := token.Claims(&c); err != nil {
		return nil, errors.New("the ID token cannot be read")
	}
	if party, _ := c["azp"].(string); party != "" && party != client || party == "" && len(token.Audience) > 1 {
		return nil, errors.New("the ID token was made for another client")
	}
	if token.Subject == "" || len(token.Subject) > 255 {
		return nil, errors.New("the ID token has no subject")
	}
	return c, nil
}

// more adds claims that the provider gives out at its user-info endpoint only. The ID
// token's go before them.
func (d *discovered) more(ctx context.Context, token *oauth2.Token, c claims) error {
	info, err := d.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return errors.New("the provider's user information could not be read")
	}
	// Section 5.3.2: or it would be somebody else's.
	if subject, _ := c["sub"].(string); info.Subject != subject {
		return errors.New("the provider's user information is of somebody else")
	}
	extra := claims{}
	if err := info.Claims(&extra); err != nil {
		return errors.New("the provider's user information cannot be read")
	}
	for name, value := range extra {
		if _, have := c[name]; !have {
			c[name] = value
		}
	}
	return nil
}
