package factor

import (
	"context"
	"errors"
	"strings"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
)

// Kind is a kind of second factor. Its text is what identity.Claims.Factor says.
type Kind string

// Kinds of second factors.
const (
	TOTP     Kind = "totp"     // one-time codes of an app
	WebAuthn Kind = "webauthn" // a security key or passkey
)

// Device is a second factor. IAM calls it an MFA device.
type Device struct {
	ID     string // fa- and 20 hexadecimal digits
	UserID string // empty for a virtual MFA device that nobody has enabled yet
	Kind   Kind
	// Name is unique in the deployment for TOTP, whose serial number ends with it, and
	// among those of a user for WebAuthn.
	Name       string
	Path       string // begins and ends with a slash; of virtual MFA devices
	Sealed     []byte // seed of TOTP
	Credential []byte // of WebAuthn: JSON of webauthn.Credential
	// Counter is the last step of the clock whose code was taken, or the last count of
	// signatures that the security key told.
	Counter int64
	Created time.Time
	Enabled time.Time // zero: not yet
	Used    time.Time // zero: never
}

// Serial is the device's serial number in IAM's form: an ARN. User is the name of whose
// it is.
func (d Device) Serial(realm arn.Realm, user string) string {
	if d.Kind == WebAuthn {
		return realm.IAM("u2f", "/user/"+user+"/", d.Name+"-"+strings.TrimPrefix(d.ID, "fa-"))
	}
	return realm.IAM("mfa", d.Path, d.Name)
}

// key is what must be unique of a device's name.
func (d Device) key() string {
	if d.Kind == WebAuthn {
		return string(d.Kind) + "/" + d.UserID + "/" + strings.ToLower(d.Name)
	}
	return string(d.Kind) + "/" + strings.ToLower(d.Name)
}

// Key is the key by which a store tells devices apart beside their id.
func (d Device) Key() string { return d.key() }

// Password is the password of a local user.
type Password struct {
	UserID string
	Hash   string // see hash
	Set    time.Time
	// Initial marks one that somebody else gave: it is only good for setting another,
	// until Expires.
	Initial bool
	Expires time.Time // zero: never
}

// Most that there is of each.
const (
	MaxDevices    = 8   // of a user, as in IAM
	MaxUnassigned = 100 // virtual MFA devices that nobody has enabled
)

// Errors of factors.
var (
	// ErrWrong is a wrong name, password or code, of which it does not say more.
	ErrWrong = errors.New("that is not right")
	// ErrUsed is a code that was taken before.
	ErrUsed = errors.New("the code was used before")
	// ErrCloned is a security key whose count of signatures went back: there are two of it.
	ErrCloned = errors.New("the security key counts signatures backwards: there may be a copy of it")
	// ErrBusy says that more passwords are being checked than memory allows.
	ErrBusy = errors.New("too many sign-ins at this moment")
	// ErrNoWebAuthn says that the server does not know the address that browsers use.
	ErrNoWebAuthn = errors.New("security keys need the server's external URL (sign_in: url)")
)

// Store keeps passwords and devices. Errors are those of identity: ErrNotFound, ErrExists
// (a device's name), ErrLimit, ErrConflict, wrapped.
type Store interface {
	Password(ctx context.Context, user string) (Password, error) // by the user's id
	PutPassword(ctx context.Context, p Password) error
	DeletePassword(ctx context.Context, user string) error

	// CreateDevice fails with ErrLimit where the user (or nobody) has limit of them.
	CreateDevice(ctx context.Context, d Device, limit int) error
	Device(ctx context.Context, id string) (Device, error)
	DeviceByKey(ctx context.Context, key string) (Device, error)
	Devices(ctx context.Context, user string) ([]Device, error) // of a user, by their age
	AllDevices(ctx context.Context) ([]Device, error)           // everybody's and nobody's
	// EnableDevice makes a device that nobody has enabled the user's. It fails with
	// ErrConflict where somebody has.
	EnableDevice(ctx context.Context, id, user string, counter int64, at time.Time, limit int) error
	// UseDevice notes a use. It fails with ErrConflict unless the device is enabled and its
	// counter is below the new one (or is still 0, where that is 0).
	UseDevice(ctx context.Context, id string, counter int64, credential []byte, at time.Time) error
	// ReleaseDevice makes a device nobody's again. Its counter stays, so that no code is
	// taken twice.
	ReleaseDevice(ctx context.Context, id string) error
	DeleteDevice(ctx context.Context, id string) error

	// Attempt counts an attempt against all limits, or against none where one of them is
	// reached: wait is then how long that lasts.
	Attempt(ctx context.Context, limits []Limit, now time.Time) (wait time.Duration, err error)
	// Forgive takes one attempt back.
	Forgive(ctx context.Context, limits []Limit, now time.Time) error
	// Familiar reports whether the user has signed in from an address of late, and
	// MakeFamiliar notes that they have, until a time; of each user the limit newest stay.
	Familiar(ctx context.Context, user, address string, now time.Time) (bool, error)
	MakeFamiliar(ctx context.Context, user, address string, until time.Time, limit int) error

	// UseToken reports whether a token is used for the first time, on any member.
	UseToken(ctx context.Context, id string, expires time.Time) (first bool, err error)
}

// People finds users.
type People interface {
	User(ctx context.Context, name string) (identity.User, error)
	UserByID(ctx context.Context, id string) (identity.User, error)
}

// Limit bounds attempts of one kind: Burst at once, then one in each Every.
type Limit struct {
	Key   string
	Burst int
	Every time.Duration
}
