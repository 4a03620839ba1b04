package kms

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/internal/seal"
)

// Sealer seals key material; *seal.Key is one.
type Sealer interface {
	Seal(purpose string, plaintext, context []byte) []byte
	Open(purpose string, sealed, context []byte) ([]byte, error)
}

// Config is what a Keeper is made of.
type Config struct {
	Store  Store
	Sealer Sealer
	Now    func() time.Time
}

// Keeper keeps keys and does with them what they are for. It is safe for concurrent use.
type Keeper struct{ cfg Config }

// New returns a keeper.
func New(cfg Config) *Keeper {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Keeper{cfg: cfg}
}

const (
	purposeMaterial = "kms-key-material"
	purposeText     = "kms-ciphertext"
)

// newMaterial makes material, sealed for its place.
func (k *Keeper) newMaterial(id string, version int) Material {
	raw := seal.Generate()
	sealed := k.cfg.Sealer.Seal(purposeMaterial, raw, materialContext(id, version))
	clear(raw)
	return Material{KeyID: id, Version: version, Sealed: sealed, Created: k.cfg.Now()}
}

func materialContext(id string, version int) []byte { return fmt.Appendf(nil, "%s/%d", id, version) }

// Create makes a key.
func (k *Keeper) Create(ctx context.Context, description string) (Key, error) {
	now := k.cfg.Now()
	key := Key{ID: uuid.NewString(), Description: description, State: Enabled, Created: now, Version: 1, Rotated: now}
	return key, k.cfg.Store.CreateKMSKey(ctx, key, k.newMaterial(key.ID, 1), MaxKeys)
}

// Key returns a key by its id or an alias. One whose time of deletion has come is gone.
func (k *Keeper) Key(ctx context.Context, name string) (Key, error) {
	if strings.HasPrefix(name, AliasPrefix) {
		alias, err := k.cfg.Store.KMSAlias(ctx, name)
		if err != nil {
			return Key{}, err
		}
		name = alias.KeyID
	}
	if !IsKeyID(name) {
		return Key{}, ErrNotFound
	}
	key, err := k.cfg.Store.KMSKey(ctx, name)
	if err == nil && k.gone(key) {
		return Key{}, ErrNotFound
	}
	return key, err
}

func (k *Keeper) gone(key Key) bool {
	return key.State == PendingDeletion && !k.cfg.Now().Before(key.Deletion)
}

// Keys lists keys by id, after one.
func (k *Keeper) Keys(ctx context.Context, after string, limit int) ([]Key, error) {
	return k.cfg.Store.KMSKeys(ctx, after, limit)
}

// update changes a key that is there.
func (k *Keeper) update(ctx context.Context, id string, change func(*Key) (*Material, error)) (out Key, err error) {
	err = k.cfg.Store.UpdateKMSKey(ctx, id, func(key *Key) (*Material, error) {
		if k.gone(*key) {
			return nil, ErrNotFound
		}
		m, err := change(key)
		out = *key
		return m, err
	})
	return out, err
}

// SetEnabled lets a key be used, or not.
func (k *Keeper) SetEnabled(ctx context.Context, id string, on bool) error {
	_, err := k.update(ctx, id, func(key *Key) (*Material, error) {
		if key.State == PendingDeletion {
			return nil, ErrState
		}
		if key.State = Disabled; on {
			key.State = Enabled
		}
		return nil, nil
	})
	return err
}

// ScheduleDeletion makes a key unusable at once, and has it be gone after so many days.
func (k *Keeper) ScheduleDeletion(ctx context.Context, id string, days int) (Key, error) {
	return k.update(ctx, id, func(key *Key) (*Material, error) {
		if key.State == PendingDeletion {
			return nil, ErrState
		}
		key.State, key.Deletion = PendingDeletion, k.cfg.Now().AddDate(0, 0, days)
		return nil, nil
	})
}

// CancelDeletion keeps a key, which is disabled then.
func (k *Keeper) CancelDeletion(ctx context.Context, id string) error {
	_, err := k.update(ctx, id, func(key *Key) (*Material, error) {
		if key.State != PendingDeletion {
			return nil, ErrState
		}
		key.State, key.Deletion = Disabled, time.Time{}
		return nil, nil
	})
	return err
}

// SetRotation has a key be rotated every so many days; 0 for never.
func (k *Keeper) SetRotation(ctx context.Context, id string, days int) error {
	_, err := k.update(ctx, id, func(key *Key) (*Material, error) {
		key.Rotation = days
		return nil, key.usable()
	})
	return err
}

// Rotate gives a key new material now, on demand. What was encrypted before can still be
// decrypted.
func (k *Keeper) Rotate(ctx context.Context, id string) error {
	_, err := k.update(ctx, id, func(key *Key) (*Material, error) {
		if err := key.usable(); err != nil {
			return nil, err
		}
		if key.OnDemand++; key.OnDemand > MaxOnDemand {
			return nil, fmt.Errorf("rotations on demand of key %s: %w", key.ID, ErrLimit)
		}
		return k.renew(key), nil
	})
	return err
}

func (k *Keeper) renew(key *Key) *Material {
	key.Version++
	m := k.newMaterial(key.ID, key.Version)
	key.Rotated = m.Created
	return &m
}

// Changes that Tend makes, as actions.
const (
	ActionDelete = "kms:DeleteKey"
	ActionRotate = "kms:RotateKey"
)

// Tend does what is due: it removes keys whose time of deletion has come, with all that
// could decrypt what they have encrypted, and rotates those whose period is over. note is
// told of each change before it is made, and keeps it from being made by an error.
func (k *Keeper) Tend(ctx context.Context, note func(ctx context.Context, action string, key Key) error) error {
	keys, err := k.cfg.Store.KMSKeys(ctx, "", 0)
	for _, key := range keys {
		switch {
		case k.gone(key):
			err = errors.Join(err, k.tend(ctx, key, ActionDelete, note, k.delete))
		case k.rotationDue(key):
			err = errors.Join(err, k.tend(ctx, key, ActionRotate, note, k.rotateDue))
		}
	}
	return err
}

func (k *Keeper) tend(ctx context.Context, key Key, action string, note func(context.Context, string, Key) error, change func(context.Context, string) error) error {
	if err := note(ctx, action, key); err != nil {
		return err
	}
	if err := change(ctx, key.ID); !errors.Is(err, ErrNotFound) { // another member may be faster
		return err
	}
	return nil
}

func (k *Keeper) delete(ctx context.Context, id string) error {
	return k.cfg.Store.DeleteKMSKey(ctx, id, k.cfg.Now())
}

func (k *Keeper) rotateDue(ctx context.Context, id string) error {
	_, err := k.update(ctx, id, func(key *Key) (*Material, error) {
		if !k.rotationDue(*key) {
			return nil, nil
		}
		return k.renew(key), nil
	})
	return err
}

func (k *Keeper) rotationDue(key Key) bool {
	next := key.NextRotation()
	return key.State == Enabled && !next.IsZero() && !k.cfg.Now().Before(next)
}

// CreateAlias gives a key another name.
func (k *Keeper) CreateAlias(ctx context.Context, name, id string) error {
	key, err := k.Key(ctx, id)
	if err != nil {
		return err
	}
	if key.State == PendingDeletion {
		return ErrState
	}
	now := k.cfg.Now()
	return k.cfg.Store.CreateKMSAlias(ctx, Alias{Name: name, KeyID: key.ID, Created: now, Updated: now}, MaxAliases)
}

// Alias returns an alias.
func (k *Keeper) Alias(ctx context.Context, name string) (Alias, error) {
	return k.cfg.Store.KMSAlias(ctx, name)
}

// Aliases lists aliases by name, after one; those of one key unless key is empty.
func (k *Keeper) Aliases(ctx context.Context, key, after string, limit int) ([]Alias, error) {
	return k.cfg.Store.KMSAliases(ctx, key, after, limit)
}

// DeleteAlias takes a name away from a key.
func (k *Keeper) DeleteAlias(ctx context.Context, name, id string) error {
	return k.cfg.Store.DeleteKMSAlias(ctx, name, id)
}

// material opens a version of a key's material.
func (k *Keeper) material(ctx context.Context, id string, version int) (*seal.Key, error) {
	m, err := k.cfg.Store.KMSMaterial(ctx, id, version)
	if err != nil {
		return nil, err
	}
	raw, err := k.cfg.Sealer.Open(purposeMaterial, m.Sealed, materialContext(id, version))
	if err != nil {
		return nil, fmt.Errorf("opening material %d of key %s, which another master key has sealed: %w", version, id, err)
	}
	defer clear(raw)
	return seal.New(raw)
}

// Encrypt encrypts a text of up to MaxPlaintext bytes with the newest material of a key.
func (k *Keeper) Encrypt(ctx context.Context, key Key, text []byte, c Context) ([]byte, error) {
	if err := k.check(key, c); err != nil {
		return nil, err
	}
	if len(text) > MaxPlaintext {
		return nil, fmt.Errorf("text has %d bytes, may have %d", len(text), MaxPlaintext)
	}
	material, err := k.material(ctx, key.ID, key.Version)
	if err != nil {
		return nil, err
	}
	h, err := head(key.ID, key.Version)
	if err != nil {
		return nil, err
	}
	return append(h, material.Seal(purposeText, text, canonical(h, c))...), nil
}

func (k *Keeper) check(key Key, c Context) error {
	if err := key.usable(); err != nil {
		return err
	}
	if k.gone(key) {
		return ErrNotFound
	}
	return c.Check()
}

// Decrypt decrypts what the key has encrypted with this context. It returns ErrWrongKey
// for a blob of another key, and ErrCiphertext for all else that does not open.
func (k *Keeper) Decrypt(ctx context.Context, key Key, blob Blob, c Context) ([]byte, error) {
	if blob.KeyID != key.ID {
		return nil, ErrWrongKey
	}
	if err := k.check(key, c); err != nil {
		return nil, err
	}
	if blob.version > key.Version {
		return nil, ErrCiphertext
	}
	material, err := k.material(ctx, key.ID, blob.version)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrCiphertext
	}
	if err != nil {
		return nil, err
	}
	h, err := head(key.ID, blob.version)
	if err != nil {
		return nil, err
	}
	text, err := material.Open(purposeText, blob.sealed, canonical(h, c))
	if err != nil {
		return nil, ErrCiphertext
	}
	return text, nil
}

// DataKey makes n random bytes, and their encryption with a key.
func (k *Keeper) DataKey(ctx context.Context, key Key, n int, c Context) (text, blob []byte, err error) {
	text = make([]byte, n)
	rand.Read(text) // never fails: crypto/rand ends the process instead
	blob, err = k.Encrypt(ctx, key, text, c)
	return text, blob, err
}
