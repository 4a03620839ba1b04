package signin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"sallyport.dev/identity"
)

// Kind says what holds a sign-in.
type Kind string

// Kinds of sign-ins.
const (
	KindBrowser Kind = "browser" // a cookie
	KindCLI     Kind = "cli"     // a refresh token of sallyport login
	KindSSO     Kind = "sso"     // a token of aws sso login
)

// Errors of sign-ins. Methods return them wrapped.
var (
	ErrNotSignedIn = errors.New("nobody is signed in")
	ErrBadForm     = errors.New("the form was not made for this browser, or is too old")
	ErrPending     = errors.New("nobody has confirmed it yet")
	ErrTooFast     = errors.New("asked again too soon")
	ErrExpired     = errors.New("it has expired")
	ErrRefused     = errors.New("it was refused")
	ErrReused      = errors.New("it was used before")
	ErrTooMany     = errors.New("too many at once")

	// ErrDenied is an ErrRefused by the person who was asked.
	ErrDenied = fmt.Errorf("%w in the browser", ErrRefused)
)

// SignIn is that a person is signed in somewhere.
type SignIn struct {
	ID       string // si- and 16 hexadecimal digits
	User     string // unique id of the user, AIDA…
	Kind     Kind
	Method   string    // local, or oidc NAME
	Factor   string    // second factor: totp, webauthn, or what the provider says; empty for none
	FactorAt time.Time // when that was last given
	Computer string    // what the program says that it runs on; a claim, for people
	Created  time.Time
	Used     time.Time // about; to the minute
	Expires  time.Time
	IP       string // when it was made
	Agent    string // User-Agent likewise, as it was said
	// Secret is the hash of what its holder shows: a cookie, or a token that is exchanged
	// for another each time. Spent are those of the tokens before, the newest last, which
	// nobody may show any more.
	Secret  string
	Spent   []string
	Ended   time.Time // zero while it lasts
	Because string    // why it was ended
}

// Live reports whether the sign-in still holds.
func (s SignIn) Live(now time.Time) bool { return s.Ended.IsZero() && now.Before(s.Expires) }

// Filter selects sign-ins, the newest first. Zero fields do not filter.
type Filter struct {
	User  string // unique id
	Live  bool   // neither ended nor expired at Now
	Now   time.Time
	After string // continue after this id
	Limit int
}

// Account is one at an OpenID provider, linked to a user here.
type Account struct {
	Issuer, Subject string
	User            string // unique id
	Provider        string // name in the configuration
	Name            string // what the provider called the person then; for people
	Linked          time.Time
	By              string // ARN of who linked them; empty for the first sign-in
}

// Pairing is the wish of a program to sign in as the person who confirms it in a browser.
type Pairing struct {
	ID        string // hash of what the program redeems: device code or authorisation code
	UserCode  string // what a person types; empty where the browser came from the program
	Client    string // id of the program: sallyport, or one that Clients know
	Kind      Kind   // of the sign-in that it becomes
	Computer  string // as SignIn.Computer
	Redirect  string // of an authorisation code
	Challenge string // PKCE, S256
	IP        string // of the program (device code) or the browser
	Agent     string
	Created   time.Time
	Expires   time.Time

	State    PairingState
	User     string // unique id of who confirmed it
	By       string // id of the sign-in that confirmed it
	Method   string // of that sign-in, as are the next two
	Factor   string
	FactorAt time.Time
	SignIn   string // id of the sign-in that it became
}

// PairingState is how far a pairing has come.
type PairingState string

// States of pairings.
const (
	PairingWaiting   PairingState = "waiting"
	PairingConfirmed PairingState = "confirmed"
	PairingRefused   PairingState = "refused"
	PairingUsed      PairingState = "used"
)

// Store keeps sign-ins. Every change is atomic. Errors are identity.ErrNotFound,
// ErrExists and ErrLimit, wrapped.
type Store interface {
	CreateSignIn(ctx context.Context, s SignIn) error
	SignIn(ctx context.Context, id string) (SignIn, error)
	// SignInBySecret finds a sign-in by the hash of its secret.
	SignInBySecret(ctx context.Context, hash string) (SignIn, error)
	SignIns(ctx context.Context, f Filter) ([]SignIn, error)
	// UpdateSignIn changes a sign-in; it returns the row as it is then. The id stays.
	UpdateSignIn(ctx context.Context, id string, change func(*SignIn) error) (SignIn, error)
	// EndSignIns ends those of a user that have not ended, and returns how many.
	EndSignIns(ctx context.Context, user, because string, at time.Time) (int, error)
	// DeleteSignIns forgets those that ended or expired before a time.
	DeleteSignIns(ctx context.Context, before time.Time) error

	// CreatePairing refuses (ErrLimit) where limit pairings are waiting at p.Created.
	CreatePairing(ctx context.Context, p Pairing, limit int) error
	Pairing(ctx context.Context, id string) (Pairing, error)
	PairingByUserCode(ctx context.Context, code string) (Pairing, error)
	UpdatePairing(ctx context.Context, id string, change func(*Pairing) error) error
	// Redeem makes a sign-in of a pairing and marks it used. What redeem returns as an
	// error leaves everything as it was.
	Redeem(ctx context.Context, id string, redeem func(Pairing) (SignIn, error)) (SignIn, error)
	DeletePairings(ctx context.Context, before time.Time) error

	Account(ctx context.Context, issuer, subject string) (Account, error)
	Accounts(ctx context.Context, user string) ([]Account, error)
	LinkAccount(ctx context.Context, a Account) error // ErrExists for one that is linked
	UnlinkAccount(ctx context.Context, issuer, subject string) error
	// Enrol makes a user and links their account at once.
	Enrol(ctx context.Context, u identity.User, a Account) error
}

// NewID returns a new id of a sign-in.
func NewID() string {
	b := make([]byte, 8)
	rand.Read(b) // never fails
	return "si-" + hex.EncodeToString(b)
}

// NewSecret returns 256 random bits in 43 characters of base64url.
func NewSecret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// Hash is what is kept of a secret of NewSecret's: its SHA-256 in base64url. Such
// secrets cannot be guessed, so that nothing slower is needed.
func Hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
