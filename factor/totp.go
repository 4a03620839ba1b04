package factor

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"sallyport.dev/identity"
)

// One-time codes are those that every app makes: six digits, SHA-1, 30 seconds.
const (
	purposeSeed = "totp-seed"
	seedSize    = 20 // bytes
	period      = 30 // seconds
	drift       = 1  // steps that a clock may be off
)

// Seed is the secret of a device of one-time codes, which is shown once.
type Seed struct {
	Device
	Secret string // base32
	URL    string // otpauth://, for a QR code
}

// NewTOTP makes a device of one-time codes. It counts once EnableTOTP has seen codes of
// it. User is whose it will be; nobody's for the zero User, as with IAM's virtual MFA
// devices.
func (k *Keeper) NewTOTP(ctx context.Context, user identity.User, name, path string) (Seed, error) {
	raw := make([]byte, seedSize)
	rand.Read(raw) // never fails
	secret := base32.StdEncoding.EncodeToString(raw)
	d := Device{ID: newID(), UserID: user.ID, Kind: TOTP, Name: name, Path: path, Created: k.config.Now()}
	d.Sealed = k.config.Sealer.Seal(purposeSeed, []byte(secret), []byte(d.ID))
	limit := MaxDevices
	if user.ID == "" {
		limit = MaxUnassigned
	}
	if err := k.config.Store.CreateDevice(ctx, d, limit); err != nil {
		return Seed{}, err
	}
	return Seed{d, secret, k.otpauth(secret, name)}, nil
}

// abandonedAfter is how long somebody may take to enable a device that they add.
const abandonedAfter = time.Hour

// AddTOTP makes a device of one-time codes for a user who enrols it themselves. What was
// never enabled makes room: theirs under the same name, and all that was abandoned, also
// somebody else's that occupies the name.
func (k *Keeper) AddTOTP(ctx context.Context, user identity.User, name string) (Seed, error) {
	devices, err := k.config.Store.Devices(ctx, user.ID)
	if err != nil {
		return Seed{}, err
	}
	holder, err := k.config.Store.DeviceByKey(ctx, Device{Kind: TOTP, Name: name}.key())
	if err == nil {
		devices = append(devices, holder)
	} else if !errors.Is(err, identity.ErrNotFound) {
		return Seed{}, err
	}
	for _, d := range devices {
		abandoned := k.config.Now().Sub(d.Created) > abandonedAfter
		again := d.UserID == user.ID && strings.EqualFold(d.Name, name)
		if d.Kind != TOTP || d.UserID == "" || !d.Enabled.IsZero() || !abandoned && !again {
			continue
		}
		if err := k.config.Store.DeleteDevice(ctx, d.ID); err != nil && !errors.Is(err, identity.ErrNotFound) {
			return Seed{}, err
		}
	}
	return k.NewTOTP(ctx, user, name, "/")
}

func (k *Keeper) otpauth(secret, account string) string {
	issuer := k.config.Issuer
	// Written by hand: apps do not read + as a space, which url.Values writes.
	return "otpauth://totp/" + url.PathEscape(issuer) + ":" + url.PathEscape(account) +
		"?secret=" + secret + "&issuer=" + url.PathEscape(issuer)
}

// EnableTOTP makes a device count for a user who shows codes of it: one, or two that
// follow each other, as IAM wants them.
func (k *Keeper) EnableTOTP(ctx context.Context, d Device, user identity.User, from string, codes ...string) error {
	if d.Kind != TOTP || len(codes) == 0 {
		return ErrWrong
	}
	limits, err := k.attempt(ctx, "code", user.ID, user.ID, from)
	if err != nil {
		return err
	}
	step, err := k.firstStep(d, codes)
	if err != nil {
		return err
	}
	last := step + int64(len(codes)) - 1
	if err := k.config.Store.EnableDevice(ctx, d.ID, user.ID, last, k.config.Now(), MaxDevices); err != nil {
		return err
	}
	k.succeeded(ctx, limits)
	return nil
}

// firstStep is the step of the clock at which codes begin that follow each other.
func (k *Keeper) firstStep(d Device, codes []string) (int64, error) {
	seed, err := k.seed(d)
	if err != nil {
		return 0, err
	}
	now := k.config.Now().Unix() / period
	found := int64(-1)
	for step := now - drift - int64(len(codes)) + 1; step <= now+drift; step++ {
		all := 1
		for i, code := range codes {
			want, err := codeAt(seed, step+int64(i))
			if err != nil {
				return 0, err
			}
			all &= subtle.ConstantTimeCompare([]byte(want), []byte(code))
		}
		if all == 1 {
			found = step
		}
	}
	if found < 0 {
		return 0, ErrWrong
	}
	return found, nil
}

func (k *Keeper) seed(d Device) (string, error) {
	seed, err := k.config.Sealer.Open(purposeSeed, d.Sealed, []byte(d.ID))
	if err != nil {
		return "", fmt.Errorf("opening the seed of %s: %w", d.ID, err)
	}
	return string(seed), nil
}

func codeAt(seed string, step int64) (string, error) {
	code, err := hotp.GenerateCodeCustom(seed, uint64(step), hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
	if err != nil {
		return "", errors.New("making a one-time code: the seed is not whole") // the cause quotes it
	}
	return code, nil
}

// CheckTOTP takes a one-time code of a user: of the device with that id, or of any of
// theirs where id is empty. It takes each code once, and none from before one that it
// took. Errors are ErrWrong, ErrUsed and *WaitError.
func (k *Keeper) CheckTOTP(ctx context.Context, user identity.User, id, code, from string) (Device, error) {
	limits, err := k.attempt(ctx, "code", user.ID, user.ID, from)
	if err != nil {
		return Device{}, err
	}
	devices, err := k.Devices(ctx, user.ID)
	if err != nil {
		return Device{}, err
	}
	devices = slices.DeleteFunc(devices, func(d Device) bool { return d.Kind != TOTP || id != "" && d.ID != id })
	err = ErrWrong
	for _, d := range devices {
		step, stepErr := k.firstStep(d, []string{code})
		if errors.Is(stepErr, ErrWrong) {
			continue
		}
		if stepErr != nil {
			return Device{}, stepErr
		}
		if err = k.use(ctx, d, step, d.Credential); err == nil {
			k.succeeded(ctx, limits)
			return d, nil
		}
	}
	return Device{}, err
}

// use notes that a device was used at a step or count, which must be a new one.
func (k *Keeper) use(ctx context.Context, d Device, counter int64, credential []byte) error {
	err := k.config.Store.UseDevice(ctx, d.ID, counter, credential, k.config.Now())
	if errors.Is(err, identity.ErrConflict) {
		return ErrUsed
	}
	return err
}
