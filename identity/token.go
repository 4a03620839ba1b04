package identity

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// Sealer seals small secrets; *seal.Key is one. The context must be given again to
// open what was sealed.
type Sealer interface {
	Seal(purpose string, plaintext, context []byte) []byte
	Open(purpose string, sealed, context []byte) ([]byte, error)
}

// Purposes that secrets of identities are sealed for.
const (
	purposeAccessKey    = "access-key"
	purposeSessionToken = "session-token"
)

// Claims are what temporary credentials say of their holder. They travel in the
// session token, sealed, so that no row is needed; the user, role or node is still
// looked up each time.
type Claims struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"` // of the user or role, or the node's id
	// ID is the unique id of the user or role: one made anew under the same name
	// does not inherit the credentials of the old one.
	ID          string `json:"id,omitempty"`
	SessionName string `json:"session,omitempty"`
	// Tags are session tags; those in Transitive pass to the next role in a chain.
	Tags           Tags      `json:"tags,omitempty"`
	Transitive     []string  `json:"transitive,omitempty"`
	Policies       []string  `json:"policies,omitempty"`    // session policies, JSON
	PolicyARNs     []string  `json:"policy_arns,omitempty"` // managed session policies
	MFA            bool      `json:"mfa,omitempty"`
	MFAAt          time.Time `json:"mfa_at,omitzero"`
	IssuedAt       time.Time `json:"iat"`
	ExpiresAt      time.Time `json:"exp"`
	Source         string    `json:"source,omitempty"` // ARN of who assumed the role
	SourceIdentity string    `json:"source_identity,omitempty"`
	// Root is the unique id of the user at the beginning of a chain of roles, whose
	// end is the end of the chain; empty where no user began it.
	Root string `json:"root,omitempty"`
	// SignIn is the id of the sign-in that they come from, with which they end; empty
	// where a long-lived key is at their beginning.
	SignIn string `json:"sign_in,omitempty"`
	// Granted are the roles on the way here that were assumed thanks to grants; they do not
	// work any more once one of these has no grant left.
	Granted []GrantedRole `json:"granted,omitempty"`
	// Factor is the second factor that MFA tells of: totp or webauthn.
	Factor string `json:"factor,omitempty"`
}

// GrantedRole is a role that was assumed thanks to grants of access just in time. Without
// a role it is the grants themselves: credentials for what they give and nothing else.
type GrantedRole struct {
	Role   string   `json:"role"`   // name, or empty
	Grants []string `json:"grants"` // ids of those that held then
}

// sealedClaims is the content of a session token.
type sealedClaims struct {
	Claims
	Secret string `json:"secret"`
}

// Credentials are an access key with its secret and, if temporary, a session token.
type Credentials struct {
	AccessKeyID, SecretAccessKey, SessionToken string
	Expires                                    time.Time // zero for long-lived keys
}

// Issuer makes temporary credentials.
type Issuer struct{ sealer Sealer }

// NewIssuer returns an Issuer that seals with sealer.
func NewIssuer(sealer Sealer) *Issuer { return &Issuer{sealer} }

// Issue makes temporary credentials that say c. c.IssuedAt and c.ExpiresAt must be set.
func (i *Issuer) Issue(c Claims) (Credentials, error) {
	if c.IssuedAt.IsZero() || !c.ExpiresAt.After(c.IssuedAt) {
		return Credentials{}, fmt.Errorf("issuing credentials: they would end at %v, issued at %v", c.ExpiresAt, c.IssuedAt)
	}
	out := Credentials{AccessKeyID: NewTemporaryKeyID(), SecretAccessKey: newSecret(), Expires: c.ExpiresAt}
	plain, err := json.Marshal(sealedClaims{c, out.SecretAccessKey})
	if err != nil {
		return Credentials{}, fmt.Errorf("issuing credentials: %w", err)
	}
	// The key id is the context: a token opens only beside the key it was made with.
	sealed := i.sealer.Seal(purposeSessionToken, plain, []byte(out.AccessKeyID))
	out.SessionToken = base64.StdEncoding.EncodeToString(sealed)
	return out, nil
}

// maxToken bounds session tokens, in characters: 50 tags, two policies of 2,048
// characters and eleven ARNs fit several times.
const maxToken = 64 << 10

// openToken reads a session token that came with an access key id.
func openToken(sealer Sealer, accessKeyID, token string) (sealedClaims, error) {
	var c sealedClaims
	if len(token) > maxToken {
		return c, fmt.Errorf("session token has %d characters; at most %d are allowed", len(token), maxToken)
	}
	sealed, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return c, fmt.Errorf("session token is not base64")
	}
	plain, err := sealer.Open(purposeSessionToken, sealed, []byte(accessKeyID))
	if err != nil {
		return c, fmt.Errorf("opening session token: %w", err)
	}
	if err := json.Unmarshal(plain, &c); err != nil {
		return c, fmt.Errorf("reading session token: %w", err)
	}
	return c, nil
}

// NewAccessKey makes a long-lived key for a user; the secret is in the second result
// only.
func NewAccessKey(sealer Sealer, user string, at time.Time) (AccessKey, string) {
	secret := newSecret()
	return SealAccessKey(sealer, NewAccessKeyID(), secret, user, at), secret
}

// SealAccessKey makes the row of a long-lived key whose id and secret are given.
func SealAccessKey(sealer Sealer, id, secret, user string, at time.Time) AccessKey {
	return AccessKey{
		ID: id, User: user, Active: true, Created: at,
		Sealed: sealer.Seal(purposeAccessKey, []byte(secret), []byte(id)),
	}
}

func openAccessKey(sealer Sealer, k AccessKey) (string, error) {
	secret, err := sealer.Open(purposeAccessKey, k.Sealed, []byte(k.ID))
	if err != nil {
		return "", fmt.Errorf("opening secret of access key %s: %w", k.ID, err)
	}
	return string(secret), nil
}

// newSecret makes a secret access key: 40 characters, 240 random bits.
func newSecret() string {
	b := make([]byte, 30)
	rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}
