package ssoportal

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"sallyport.dev/identity"
)

// Token is what a bearer token says. It is sealed, so that no row is needed.
type Token struct {
	SignIn  string    `json:"s"` // id
	User    string    `json:"u"` // unique id
	Client  string    `json:"c"` // id of the program; empty for sallyport login
	Expires time.Time `json:"e"`
}

// Purposes that tokens are sealed for.
const (
	purposeAccess  = "sso-access"
	purposeRefresh = "sso-refresh"
	purposeClient  = "sso-client"
)

// maxToken bounds tokens, in characters.
const maxToken = 2048

// errToken is a token that is none of ours, or not any more.
var errToken = errors.New("session token not found or invalid")

// NewAccessToken seals a token for the portal.
func NewAccessToken(sealer identity.Sealer, t Token) string {
	return sealToken(sealer, purposeAccess, t)
}

func sealToken(sealer identity.Sealer, purpose string, t Token) string {
	plain, err := json.Marshal(t)
	if err != nil {
		panic("ssoportal: encoding a token: " + err.Error()) // strings and a time
	}
	return base64.RawURLEncoding.EncodeToString(sealer.Seal(purpose, plain, nil))
}

func openToken(sealer identity.Sealer, purpose, text string, now time.Time) (Token, error) {
	var t Token
	if text == "" || len(text) > maxToken {
		return t, errToken
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return t, errToken
	}
	plain, err := sealer.Open(purpose, sealed, nil)
	if err != nil || json.Unmarshal(plain, &t) != nil || !now.Before(t.Expires) {
		return t, errToken
	}
	return t, nil
}

// A program registers itself and is then known by an id. Nothing is kept of it: its
// secret is sealed and says until when it is good, for the id that it was made with.
const (
	clientPrefix = "aws-"
	clientLasts  = 90 * 24 * time.Hour
)

type clientSecret struct {
	Refresh bool      `json:"r"` // it asked for scopes, and so gets refresh tokens
	Expires time.Time `json:"e"`
}

// isClient reports whether an id can be one of a program that registered here.
func isClient(id string) bool {
	rest, ok := strings.CutPrefix(id, clientPrefix)
	return ok && len(rest) == 26 && strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

func sealClient(sealer identity.Sealer, id string, c clientSecret) string {
	plain, err := json.Marshal(c)
	if err != nil {
		panic("ssoportal: encoding a client: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(sealer.Seal(purposeClient, plain, []byte(id)))
}

func openClient(sealer identity.Sealer, id, secret string, now time.Time) (clientSecret, bool) {
	var c clientSecret
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if err != nil || !isClient(id) || len(secret) > maxToken {
		return c, false
	}
	plain, err := sealer.Open(purposeClient, sealed, []byte(id))
	return c, err == nil && json.Unmarshal(plain, &c) == nil && now.Before(c.Expires)
}
