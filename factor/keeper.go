package factor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"

	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
)

// Config is what a Keeper needs.
type Config struct {
	Store  Store
	People People
	Sealer identity.Sealer
	Realm  arn.Realm
	Logger *slog.Logger
	Now    func() time.Time // optional: time.Now
	// URL is the address by which browsers know the server, https://HOST[:PORT]: the
	// origin of security keys, which work for no other. Empty: there are none.
	URL string
	// Issuer is the name that authenticator apps show; Sallyport ACCOUNT unless given.
	Issuer string
	// MinLength is how many characters a password must have; 12 unless given.
	MinLength int
	// Cost is what a password costs to check; DefaultCost unless given.
	Cost Cost
}

// Keeper checks passwords and second factors. It is safe for concurrent use.
type Keeper struct {
	config   Config
	webauthn *webauthn.WebAuthn // nil without a URL
	hashing  chan struct{}      // one for each password being checked
	waiting  chan struct{}      // one for each that waits for that, or is
	decoy    string             // hash that is checked for those who have none
}

// What bounds the memory and the time that passwords take.
const (
	hashesAtOnce = 2
	hashesQueued = 32
)

// New returns a Keeper.
func New(c Config) (*Keeper, error) {
	if c.Store == nil || c.People == nil || c.Sealer == nil || c.Logger == nil {
		return nil, errors.New("factor configuration lacks Store, People, Sealer or Logger")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Issuer == "" {
		c.Issuer = "Sallyport " + c.Realm.Account
	}
	if c.MinLength == 0 {
		c.MinLength = 12
	}
	if c.Cost == (Cost{}) {
		c.Cost = DefaultCost()
	}
	if err := c.Cost.check(); err != nil {
		return nil, fmt.Errorf("cost of passwords: %w", err)
	}
	k := &Keeper{config: c, hashing: make(chan struct{}, hashesAtOnce), waiting: make(chan struct{}, hashesQueued)}
	k.decoy = c.Cost.hash(rand.Text())
	if c.URL == "" {
		return k, nil
	}
	var err error
	k.webauthn, err = newWebAuthn(c.URL, c.Issuer)
	return k, err
}

// Devices lists the second factors of a user that are in use.
func (k *Keeper) Devices(ctx context.Context, user string) ([]Device, error) {
	all, err := k.config.Store.Devices(ctx, user)
	var enabled []Device
	for _, d := range all {
		if !d.Enabled.IsZero() {
			enabled = append(enabled, d)
		}
	}
	return enabled, err
}

// Device returns a device by its id.
func (k *Keeper) Device(ctx context.Context, id string) (Device, error) {
	return k.config.Store.Device(ctx, id)
}

// All lists everybody's devices, and those that are nobody's yet.
func (k *Keeper) All(ctx context.Context) ([]Device, error) { return k.config.Store.AllDevices(ctx) }

// BySerial finds a device of one-time codes by its serial number.
func (k *Keeper) BySerial(ctx context.Context, serial string) (Device, error) {
	name := serial[strings.LastIndexByte(serial, '/')+1:]
	d, err := k.config.Store.DeviceByKey(ctx, Device{Kind: TOTP, Name: name}.key())
	if err == nil && d.Serial(k.config.Realm, "") != serial {
		err = fmt.Errorf("device %q: %w", serial, identity.ErrNotFound)
	}
	return d, err
}

// Find finds a device of a user, enabled or not, by its id or its name.
func (k *Keeper) Find(ctx context.Context, user, what string) (Device, error) {
	all, err := k.config.Store.Devices(ctx, user)
	for _, d := range all {
		if d.ID == what || strings.EqualFold(d.Name, what) {
			return d, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("second factor %q: %w", what, identity.ErrNotFound)
	}
	return Device{}, err
}

// Remove removes a device.
func (k *Keeper) Remove(ctx context.Context, d Device) error {
	return k.config.Store.DeleteDevice(ctx, d.ID)
}

// Release makes a device nobody's again.
func (k *Keeper) Release(ctx context.Context, d Device) error {
	return k.config.Store.ReleaseDevice(ctx, d.ID)
}

// EnrolPath is the page where people enrol security keys.
const EnrolPath = "/sign-in/factors"

// EnrolURL is where people enrol security keys; empty where they cannot.
func (k *Keeper) EnrolURL() string {
	if k.webauthn == nil {
		return ""
	}
	return strings.TrimSuffix(k.config.URL, "/") + EnrolPath
}

// newID returns a new id of a device.
func newID() string {
	b := make([]byte, 10)
	rand.Read(b) // never fails
	return "fa-" + hex.EncodeToString(b)
}

// Limits of attempts. One address has many people behind it at times, one name has many
// attackers: neither alone bars anybody for long, and who signs in from where they always
// do is counted apart.
const (
	burstAddress, everyAddress = 30, 20 * time.Second
	burstPair, everyPair       = 5, 2 * time.Minute
	burstName, everyName       = 20, time.Minute
	burstCode, everyCode       = 10, 3 * time.Minute

	familiarFor   = 90 * 24 * time.Hour
	familiarLimit = 32
)

// WaitError says that there were too many attempts.
type WaitError struct{ Wait time.Duration }

// Error implements error.
func (e *WaitError) Error() string {
	return fmt.Sprintf("too many attempts: try again in %v", e.Wait.Round(time.Second)+time.Second)
}

// attempt counts an attempt of a kind on somebody from an address; user is the id of who
// that is, empty where nobody is.
func (k *Keeper) attempt(ctx context.Context, kind, name, user, from string) ([]Limit, error) {
	from = network(from)
	who := digest(strings.ToLower(name))
	limits := []Limit{
		{kind + "/from/" + from, burstAddress, everyAddress},
		{kind + "/from/" + from + "/" + who, burstPair, everyPair},
	}
	familiar, err := k.config.Store.Familiar(ctx, user, from, k.config.Now())
	if err != nil {
		return nil, err
	}
	if !familiar {
		burst, every := burstName, everyName
		if kind == "code" {
			burst, every = burstCode, everyCode
		}
		limits = append(limits, Limit{kind + "/on/" + who, burst, every})
	}
	wait, err := k.config.Store.Attempt(ctx, limits, k.config.Now())
	if err == nil && wait > 0 {
		err = &WaitError{wait}
	}
	return limits, err
}

// succeeded takes back what attempt counted.
func (k *Keeper) succeeded(ctx context.Context, limits []Limit) {
	if err := k.config.Store.Forgive(ctx, limits, k.config.Now()); err != nil {
		k.config.Logger.Warn("forgiving an attempt", "error", err) // costs the person one of their attempts
	}
}

// Welcome notes that a user has signed in completely from an address, from where nobody's
// attempts elsewhere bar them any more.
func (k *Keeper) Welcome(ctx context.Context, user, from string) error {
	return k.config.Store.MakeFamiliar(ctx, user, network(from), k.config.Now().Add(familiarFor), familiarLimit)
}

// network is what counts as one address: of IPv6 the /64 that one machine has for itself.
func network(from string) string {
	addr, err := netip.ParseAddr(from)
	if err != nil {
		return "?"
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return "?"
	}
	return prefix.String()
}

// digest keeps names that people mistyped (a password, say) out of the store.
func digest(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:12])
}
