package session

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// role says which end of which kind of channel a token is for.
type role string

const (
	roleClient  role = "client"
	roleAgent   role = "agent"
	roleControl role = "control"
)

const (
	tokenPurpose = "channel-token"
	// tokenLife bounds the time between handing out a token and opening the channel.
	tokenLife = 5 * time.Minute
	// maxToken bounds what is taken for a token at all.
	maxToken = 1024
)

// ErrToken is returned for every token that does not open a channel: forged, expired,
// used before, for another channel or role.
var ErrToken = errors.New("channel token is not valid")

// token is what a sealed channel token says. Any member can open it.
type token struct {
	Role    role   `json:"r"`
	Subject string `json:"s"` // session id, or node id for a control channel
	Nonce   string `json:"n"`
	Expires int64  `json:"e"` // seconds since the epoch
}

// newToken seals a token that opens one channel once.
func (g *Gateway) newToken(r role, subject string) string {
	plain, err := json.Marshal(token{
		Role:    r,
		Subject: subject,
		Nonce:   rand.Text(),
		Expires: g.now().Add(tokenLife).Unix(),
	})
	if err != nil {
		panic(fmt.Sprintf("session: encoding token: %v", err)) // only strings and numbers
	}
	return base64.RawURLEncoding.EncodeToString(g.cfg.Key.Seal(tokenPurpose, plain, nil))
}

// openToken checks a token for a channel, except that it was not used before.
func (g *Gateway) openToken(sealed, subject string, r role) (token, error) {
	if len(sealed) > maxToken {
		return token{}, ErrToken
	}
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return token{}, ErrToken
	}
	plain, err := g.cfg.Key.Open(tokenPurpose, raw, nil)
	if err != nil {
		return token{}, ErrToken
	}
	var t token
	if err := json.Unmarshal(plain, &t); err != nil {
		return token{}, ErrToken
	}
	fits := subtle.ConstantTimeCompare([]byte(t.Subject), []byte(subject)) == 1
	if !fits || t.Role != r || g.now().Unix() >= t.Expires {
		return token{}, ErrToken
	}
	return t, nil
}

// usedTokens remembers the nonces of tokens until they expire. Its session guards it.
type usedTokens map[string]int64

// use reports whether t is used for the first time.
func (u usedTokens) use(t token, now time.Time) bool {
	for nonce, expires := range u {
		if expires <= now.Unix() {
			delete(u, nonce)
		}
	}
	if _, used := u[t.Nonce]; used {
		return false
	}
	u[t.Nonce] = t.Expires
	return true
}
