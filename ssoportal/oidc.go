package ssoportal

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"sallyport.dev/signin"
)

// The service sso-oidc.

// Grant types of CreateToken.
const (
	grantDevice  = "urn:ietf:params:oauth:grant-type:device_code"
	grantCode    = "authorization_code"
	grantRefresh = "refresh_token"
)

// How long access tokens are good: an hour where there is a refresh token, else as long
// as the sign-in, eight hours at most (as AWS has them).
const (
	accessLasts = time.Hour
	legacyLasts = 8 * time.Hour
)

type registerInput struct {
	ClientName   string   `json:"clientName"`
	ClientType   string   `json:"clientType"`
	Scopes       []string `json:"scopes"`
	RedirectURIs []string `json:"redirectUris"`
	GrantTypes   []string `json:"grantTypes"`
}

type registerOutput struct {
	ClientID              string `json:"clientId"`
	ClientSecret          string `json:"clientSecret"`
	ClientIDIssuedAt      int64  `json:"clientIdIssuedAt"`
	ClientSecretExpiresAt int64  `json:"clientSecretExpiresAt"`
	AuthorizationEndpoint string `json:"authorizationEndpoint"`
	TokenEndpoint         string `json:"tokenEndpoint"`
}

// register makes a client of whoever asks (RegisterClient); it has no rights by itself.
func (p *Portal) register(r *http.Request) (any, error) {
	var in registerInput
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	switch {
	case in.ClientName == "" || len(in.ClientName) > 256:
		return nil, badRequest("clientName: want 1 to 256 characters")
	case in.ClientType != "public":
		return nil, &fault{http.StatusBadRequest, "InvalidClientMetadataException", "invalid_client_metadata", "clientType: want public"}
	case len(in.Scopes) > 32 || len(in.RedirectURIs) > 32 || len(in.GrantTypes) > 8:
		return nil, badRequest("too many scopes, redirectUris or grantTypes")
	}
	now := p.config.Now()
	id := clientPrefix + rand.Text()
	return registerOutput{
		ClientID: id, ClientSecret: sealClient(p.config.Sealer, id, clientSecret{len(in.Scopes) > 0, now.Add(clientLasts)}),
		ClientIDIssuedAt: now.Unix(), ClientSecretExpiresAt: now.Add(clientLasts).Unix(),
		AuthorizationEndpoint: p.config.SignIns.URL() + "/authorize", TokenEndpoint: p.config.SignIns.URL() + "/token",
	}, nil
}

var errClient = &fault{http.StatusUnauthorized, "InvalidClientException", "invalid_client", "the client is not known, or its registration has expired"}

type deviceInput struct {
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret"`
	StartURL     string `json:"startUrl"`
}

type deviceOutput struct {
	DeviceCode              string `json:"deviceCode"`
	UserCode                string `json:"userCode"`
	VerificationURI         string `json:"verificationUri"`
	VerificationURIComplete string `json:"verificationUriComplete"`
	ExpiresIn               int64  `json:"expiresIn"`
	Interval                int64  `json:"interval"`
}

// authorizeDevice begins a sign-in by device code (StartDeviceAuthorization). The start URL
// is only a name: this server has one portal.
func (p *Portal) authorizeDevice(r *http.Request) (any, error) {
	var in deviceInput
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if _, ok := openClient(p.config.Sealer, in.ClientID, in.ClientSecret, p.config.Now()); !ok {
		return nil, errClient
	}
	d, err := p.config.SignIns.StartDevice(r, in.ClientID, "", "")
	if err != nil {
		return nil, err
	}
	return deviceOutput{
		d.Code, d.UserCode, d.URL, d.CompleteURL,
		int64(d.Expires.Sub(p.config.Now()) / time.Second), int64(d.Interval / time.Second),
	}, nil
}

// authorize sends a browser that a program opened to the page where the person confirms
// it. AWS's command line writes localhost nowhere, so that redirects stay with addresses.
func (p *Portal) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	to := url.Values{}
	for _, name := range []string{"response_type", "client_id", "redirect_uri", "state", "code_challenge", "code_challenge_method"} {
		if q.Has(name) {
			to[name] = q[name]
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, signin.AuthorizePath+"?"+to.Encode(), http.StatusFound)
}

type tokenInput struct {
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret"`
	GrantType    string `json:"grantType"`
	DeviceCode   string `json:"deviceCode"`
	Code         string `json:"code"`
	RefreshToken string `json:"refreshToken"`
	RedirectURI  string `json:"redirectUri"`
	CodeVerifier string `json:"codeVerifier"`
}

type tokenOutput struct {
	AccessToken  string `json:"accessToken"`
	TokenType    string `json:"tokenType"`
	ExpiresIn    int64  `json:"expiresIn"`
	RefreshToken string `json:"refreshToken,omitempty"`
}

// token is CreateToken.
func (p *Portal) token(r *http.Request) (any, error) {
	var in tokenInput
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	client, ok := openClient(p.config.Sealer, in.ClientID, in.ClientSecret, p.config.Now())
	if !ok {
		return nil, errClient
	}
	made, err := p.signInOf(r, in)
	if err != nil {
		return nil, err
	}
	return p.issue(in.ClientID, client.Refresh || in.GrantType == grantRefresh, made), nil
}

// signInOf redeems what a program shows.
func (p *Portal) signInOf(r *http.Request, in tokenInput) (signin.SignIn, error) {
	// The sign-in's own token is nobody's: what the program gets is sealed.
	redemption := signin.Redemption{Client: in.ClientID, Secret: signin.Hash(signin.NewSecret())}
	switch in.GrantType {
	case grantDevice:
		redemption.Code = in.DeviceCode
		return p.config.SignIns.Redeem(r, redemption)
	case grantCode:
		if in.RedirectURI == "" {
			return signin.SignIn{}, badRequest("redirectUri: missing")
		}
		redemption.Code, redemption.Redirect, redemption.Verifier = in.Code, in.RedirectURI, in.CodeVerifier
		return p.config.SignIns.Redeem(r, redemption)
	case grantRefresh:
		t, made, _, err := p.holder(r.Context(), purposeRefresh, in.RefreshToken)
		if err == errToken || err == nil && t.Client != in.ClientID {
			return made, signin.ErrRefused
		}
		return made, err
	}
	return signin.SignIn{}, &fault{http.StatusBadRequest, "UnsupportedGrantTypeException", "unsupported_grant_type",
		fmt.Sprintf("grantType: want %s, %s or %s", grantDevice, grantCode, grantRefresh)}
}

// issue makes the tokens of a sign-in. A refresh token stays good when it is used: several
// programs share the file that it is kept in, and refresh at the same time.
func (p *Portal) issue(client string, refresh bool, in signin.SignIn) tokenOutput {
	now, lasts := p.config.Now(), legacyLasts
	if refresh {
		lasts = accessLasts
	}
	t := Token{SignIn: in.ID, User: in.User, Client: client, Expires: now.Add(lasts)}
	if in.Expires.Before(t.Expires) {
		t.Expires = in.Expires
	}
	out := tokenOutput{
		AccessToken: sealToken(p.config.Sealer, purposeAccess, t), TokenType: "Bearer", ExpiresIn: int64(t.Expires.Sub(now) / time.Second),
	}
	if refresh {
		t.Expires = in.Expires
		out.RefreshToken = sealToken(p.config.Sealer, purposeRefresh, t)
	}
	return out
}

var roleName = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)
