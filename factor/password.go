package factor

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"sallyport.dev/identity"
)

// Cost are the parameters of argon2id (RFC 9106). They are kept with each hash, so that
// other ones take effect with the next sign-in.
type Cost struct {
	Memory  uint32 // KiB
	Passes  uint32
	Threads uint8
}

// DefaultCost is 46 MiB and one pass, among what OWASP recommends; 50 ms or so.
func DefaultCost() Cost { return Cost{Memory: 46 << 10, Passes: 1, Threads: 1} }

// Bounds of a hash, so that a row that was tampered with exhausts no memory.
const (
	maxMemory  = 256 << 10 // KiB
	maxPasses  = 16
	maxThreads = 8
	saltSize   = 16
	hashSize   = 32
)

func (c Cost) check() error {
	if c.Memory < 8 || c.Memory > maxMemory || c.Passes < 1 || c.Passes > maxPasses || c.Threads < 1 || c.Threads > maxThreads {
		return fmt.Errorf("m=%d,t=%d,p=%d: memory must be 8 to %d KiB, passes 1 to %d, threads 1 to %d",
			c.Memory, c.Passes, c.Threads, maxMemory, maxPasses, maxThreads)
	}
	return nil
}

// hash returns $argon2id$v=19$m=MEMORY,t=PASSES,p=THREADS$SALT$HASH.
func (c Cost) hash(password string) string {
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails
	sum := argon2.IDKey([]byte(password), salt, c.Passes, c.Memory, c.Threads, hashSize)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.Memory, c.Passes, c.Threads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(sum))
}

// parseHash reads what hash returned.
func parseHash(text string) (c Cost, salt, sum []byte, err error) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return c, nil, nil, errors.New("hash of a password is none of argon2id")
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &c.Memory, &c.Passes, &c.Threads); err != nil || n != 3 {
		return c, nil, nil, errors.New("hash of a password lacks its parameters")
	}
	if err := c.check(); err != nil {
		return c, nil, nil, err
	}
	salt, saltErr := base64.RawStdEncoding.Strict().DecodeString(parts[4])
	sum, sumErr := base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if saltErr != nil || sumErr != nil || len(salt) != saltSize || len(sum) != hashSize {
		return c, nil, nil, errors.New("hash of a password is not whole")
	}
	return c, salt, sum, nil
}

// matches compares a password with a hash, in constant time.
func matches(hash, password string) (bool, error) {
	c, salt, want, err := parseHash(hash)
	if err != nil {
		return false, err
	}
	got := argon2.IDKey([]byte(password), salt, c.Passes, c.Memory, c.Threads, hashSize)
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

// maxPassword bounds passwords, in bytes.
const maxPassword = 1024

// WeakError says why a password may not be set.
type WeakError struct{ Because string }

// Error implements error.
func (e *WeakError) Error() string { return e.Because }

func weak(format string, args ...any) error { return &WeakError{fmt.Sprintf(format, args...)} }

// CheckNew names what is wrong with a new password of a user, in a *WeakError.
func (k *Keeper) CheckNew(user, password string) error {
	n := utf8.RuneCountInString(password)
	switch {
	case !utf8.ValidString(password):
		return weak("the password is not text")
	case n < k.config.MinLength:
		return weak("the password has %d characters: it must have %d or more", n, k.config.MinLength)
	case len(password) > maxPassword:
		return weak("the password has %d bytes: it must have at most %d", len(password), maxPassword)
	case strings.EqualFold(strings.TrimSpace(password), user):
		return weak("the password is the user's name")
	case distinct(password) < 4:
		return weak("the password repeats the same few characters")
	}
	return nil
}

func distinct(text string) int {
	seen := map[rune]bool{}
	for _, r := range text {
		seen[r] = true
	}
	return len(seen)
}

// SetPassword gives a user a password. An initial one is good for setting another, for
// a day.
func (k *Keeper) SetPassword(ctx context.Context, user identity.User, password string, initial bool) error {
	if err := k.CheckNew(user.Name, password); err != nil {
		return err
	}
	p := Password{UserID: user.ID, Set: k.config.Now(), Initial: initial}
	if initial {
		p.Expires = p.Set.Add(initialFor)
	}
	err := k.oneOfFew(ctx, func() error {
		p.Hash = k.config.Cost.hash(normal(password))
		return nil
	})
	if err != nil {
		return err
	}
	return k.config.Store.PutPassword(ctx, p)
}

// initialFor is how long an initial password can be used.
const initialFor = 24 * time.Hour

// NewInitialPassword returns 100 random bits in four groups of five.
func NewInitialPassword() string {
	text := rand.Text()
	return strings.ToLower(strings.Join([]string{text[:5], text[5:10], text[10:15], text[15:20]}, "-"))
}

// RemovePassword takes a user's password away.
func (k *Keeper) RemovePassword(ctx context.Context, user string) error {
	return k.config.Store.DeletePassword(ctx, user)
}

// Password returns a user's password: that there is one, and whether it is initial.
func (k *Keeper) Password(ctx context.Context, user string) (Password, error) {
	return k.config.Store.Password(ctx, user)
}

// normal is the form in which passwords are compared, whichever way a keyboard composes
// its letters.
func normal(password string) string { return norm.NFKC.String(password) }

// CheckPassword finds the user whose name and password these are. Initial tells that the
// password is only good for setting another (which the person must do before they are
// signed in). From is the address that the attempt comes from. A wrong name, a wrong
// password, a user who has none or is disabled all give ErrWrong after the same time.
// Other errors are *WaitError and ErrBusy.
func (k *Keeper) CheckPassword(ctx context.Context, name, password, from string) (user identity.User, initial bool, err error) {
	if len(name) > 64 || len(password) > maxPassword {
		return user, false, ErrWrong
	}
	user, err = k.config.People.User(ctx, name)
	if err != nil && !errors.Is(err, identity.ErrNotFound) {
		return identity.User{}, false, err
	}
	limits, err := k.attempt(ctx, "password", name, user.ID, from)
	if err != nil {
		return identity.User{}, false, err
	}
	p, err := k.checkPassword(ctx, user, password)
	if err != nil {
		return identity.User{}, false, err
	}
	k.succeeded(ctx, limits)
	return user, p.Initial, nil
}

// checkPassword compares a password with that of a user, who may be nobody.
func (k *Keeper) checkPassword(ctx context.Context, user identity.User, password string) (Password, error) {
	p, err := k.config.Store.Password(ctx, user.ID)
	if err != nil && !errors.Is(err, identity.ErrNotFound) {
		return Password{}, err
	}
	now := k.config.Now()
	usable := err == nil && user.ID != "" && !user.Disabled && (p.Expires.IsZero() || now.Before(p.Expires))
	hash := p.Hash
	if !usable {
		hash = k.decoy
	}
	ok := false
	err = k.oneOfFew(ctx, func() error {
		ok, err = matches(hash, normal(password))
		return err
	})
	if err != nil {
		return Password{}, err
	}
	if !usable || !ok {
		return Password{}, ErrWrong
	}
	return p, nil
}

// ChangePassword sets another password for whom shows the present one.
func (k *Keeper) ChangePassword(ctx context.Context, user identity.User, old, password, from string) error {
	limits, err := k.attempt(ctx, "password", user.Name, user.ID, from)
	if err != nil {
		return err
	}
	if len(old) > maxPassword {
		return ErrWrong
	}
	if _, err := k.checkPassword(ctx, user, old); err != nil {
		return err
	}
	k.succeeded(ctx, limits)
	if subtle.ConstantTimeCompare([]byte(normal(old)), []byte(normal(password))) == 1 {
		return weak("the new password is the present one")
	}
	return k.SetPassword(ctx, user, password, false)
}

// oneOfFew runs something that takes much memory when few others do.
func (k *Keeper) oneOfFew(ctx context.Context, run func() error) error {
	select {
	case k.waiting <- struct{}{}:
		defer func() { <-k.waiting }()
	default:
		return ErrBusy
	}
	select {
	case k.hashing <- struct{}{}:
		defer func() { <-k.hashing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return run()
}
