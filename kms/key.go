package kms

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"
)

// Errors of keys.
var (
	ErrNotFound   = errors.New("no such key or alias")
	ErrExists     = errors.New("alias exists already")
	ErrDisabled   = errors.New("key is disabled")
	ErrState      = errors.New("key is not in a state for that")
	ErrLimit      = errors.New("limit reached")
	ErrCiphertext = errors.New("ciphertext does not decrypt")  // altered, another context, or of a key that is gone
	ErrWrongKey   = errors.New("ciphertext is of another key") // than was named
)

// State is where a key stands, in AWS's words.
type State string

// States of keys.
const (
	Enabled         State = "Enabled"
	Disabled        State = "Disabled"
	PendingDeletion State = "PendingDeletion" // unusable, until Deletion, when it is gone
)

// Limits of keys, and what is meant where nothing is said.
const (
	MaxKeys       = 1000 // of a deployment
	MaxAliases    = 50   // of a key
	MaxOnDemand   = 25   // rotations of a key on demand
	DefaultWindow = 30   // days until a deletion
	DefaultPeriod = 365  // days between rotations
)

// Key is a key without its material.
type Key struct {
	ID          string // a UUID in lower case
	Description string
	State       State
	Created     time.Time
	Deletion    time.Time // when it is gone; zero unless it is PendingDeletion
	Version     int       // of the newest material, from 1
	Rotated     time.Time // when that was made
	OnDemand    int       // how often it was rotated on demand
	// Rotation is the number of days after which new material is made; 0 for never.
	Rotation int
}

// NextRotation is when the key is rotated by itself; zero for never.
func (k Key) NextRotation() time.Time {
	if k.Rotation == 0 {
		return time.Time{}
	}
	return k.Rotated.AddDate(0, 0, k.Rotation)
}

// usable says why a key can not be used, if so.
func (k Key) usable() error {
	switch k.State {
	case Enabled:
		return nil
	case Disabled:
		return ErrDisabled
	}
	return ErrState
}

// Material is one version of what a key encrypts with.
type Material struct {
	KeyID   string
	Version int
	Sealed  []byte // 32 bytes, sealed with the master key
	Created time.Time
}

// Alias is another name of a key.
type Alias struct {
	Name    string // alias/…
	KeyID   string
	Created time.Time
	Updated time.Time
}

// AliasPrefix begins the names of aliases; those of AWS's own keys begin with
// ReservedAlias.
const (
	AliasPrefix   = "alias/"
	ReservedAlias = "alias/aws/"
)

var (
	aliasForm = regexp.MustCompile(`^alias/[a-zA-Z0-9/_-]{1,250}$`)
	keyForm   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// IsAliasName reports whether an alias may be called that.
func IsAliasName(name string) bool {
	return aliasForm.MatchString(name) && !strings.HasPrefix(name, ReservedAlias)
}

// IsKeyID reports whether a text has the form of a key's id.
func IsKeyID(id string) bool { return keyForm.MatchString(id) }

// Store keeps keys. Ids that do not exist are ErrNotFound.
type Store interface {
	// CreateKMSKey stores a key with its first material, unless there are limit keys
	// already: then it returns ErrLimit.
	CreateKMSKey(ctx context.Context, k Key, m Material, limit int) error
	KMSKey(ctx context.Context, id string) (Key, error)
	// KMSKeys lists keys by id, after one, at most limit; 0 for all.
	KMSKeys(ctx context.Context, after string, limit int) ([]Key, error)
	// UpdateKMSKey applies change to a key, and stores the material that it returns, if
	// any, in one transaction.
	UpdateKMSKey(ctx context.Context, id string, change func(*Key) (*Material, error)) error
	KMSMaterial(ctx context.Context, id string, version int) (Material, error)
	// DeleteKMSKey removes a key whose Deletion has come, with material and aliases.
	DeleteKMSKey(ctx context.Context, id string, now time.Time) error
	// CreateKMSAlias stores an alias, unless its key has limit of them. It returns
	// ErrExists for a name that is taken.
	CreateKMSAlias(ctx context.Context, a Alias, limit int) error
	KMSAlias(ctx context.Context, name string) (Alias, error)
	// KMSAliases lists aliases by name, after one, at most limit; those of one key unless
	// key is empty.
	KMSAliases(ctx context.Context, key, after string, limit int) ([]Alias, error)
	// DeleteKMSAlias removes an alias of this key.
	DeleteKMSAlias(ctx context.Context, name, key string) error
}
