package archive

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	keyObject   = "key.json"
	keyFormat   = "sallyport-recording-key-1"
	maxKeyBytes = 64 << 10
	// keeperTimeout bounds one call of the key service.
	keeperTimeout = 10 * time.Second
)

// WrappedKey is the object key.json: the recording's key, as the keeper wrapped it.
type WrappedKey struct {
	Format string `json:"format"`
	Name   string `json:"name"`   // of the recording
	Cipher string `json:"cipher"` // what the key is for
	KeyID  string `json:"key_id"` // of the wrapping key
	// Wrapped is the keeper's own form, in base64.
	Wrapped []byte `json:"wrapped"`
}

const frameCipher = "S2, AES-256-GCM"

// Encode returns the object's bytes.
func (k WrappedKey) Encode() []byte {
	k.Format, k.Cipher = keyFormat, frameCipher
	b, _ := json.MarshalIndent(k, "", "  ") // of strings and bytes
	return append(b, '\n')
}

// ParseKey reads the key.json of the recording of the name.
func ParseKey(b []byte, name string) (WrappedKey, error) {
	var k WrappedKey
	if len(b) > maxKeyBytes {
		return k, fmt.Errorf("it has more than %d bytes", maxKeyBytes)
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return k, errors.New("it is not JSON of a wrapped key")
	}
	switch {
	case k.Format != keyFormat:
		return k, fmt.Errorf("its format is %q, want %q", clip(k.Format), keyFormat)
	case k.Cipher != frameCipher:
		return k, fmt.Errorf("its cipher is %q, want %q", clip(k.Cipher), frameCipher)
	case k.Name != name:
		return k, fmt.Errorf("it is the key of recording %q", clip(k.Name))
	case len(k.Wrapped) == 0:
		return k, errors.New("there is no key in it")
	}
	return k, nil
}

// clip shortens what a stranger wrote, for an error text.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// newKey makes a recording's key, and its key.json.
func (a *Archive) newKey(ctx context.Context, name string) (*sealer, WrappedKey, error) {
	ctx, cancel := context.WithTimeout(ctx, keeperTimeout)
	defer cancel()
	made, err := a.dataKey(ctx)
	k := WrappedKey{Name: name, KeyID: made.ID, Wrapped: made.Wrapped}
	if err != nil {
		a.stats.keeperErrors.Add(1)
		return nil, k, fmt.Errorf("wrapping the recording's key: %w", err)
	}
	defer clear(made.Key)
	s, err := newSealer(name, made.Key)
	return s, k, err
}

// dataKey has the keeper make a key, or wrap one that is made here.
func (a *Archive) dataKey(ctx context.Context) (DataKey, error) {
	if maker, ok := a.cfg.Keeper.(KeyMaker); ok {
		return maker.NewKey(ctx)
	}
	made := DataKey{ID: a.cfg.Keeper.ID(), Key: make([]byte, keySize)}
	rand.Read(made.Key)
	var err error
	made.Wrapped, err = a.cfg.Keeper.Wrap(ctx, made.Key)
	return made, err
}

// unwrap opens a key.json. Data that is wrong is a *Damage; the key service's errors
// are a *KeyError.
func (a *Archive) unwrap(ctx context.Context, name string, object []byte) (*sealer, WrappedKey, error) {
	k, err := ParseKey(object, name)
	if err != nil {
		return nil, k, a.damage(name, keyObject, 0, "%v", err)
	}
	if s := a.keys.get(name, k); s != nil {
		return s, k, nil
	}
	ctx, cancel := context.WithTimeout(ctx, keeperTimeout)
	defer cancel()
	key, err := a.cfg.Keeper.Unwrap(ctx, k.KeyID, k.Wrapped)
	if err != nil {
		a.stats.keeperErrors.Add(1)
		return nil, k, fmt.Errorf("recording %s: %s: %w", name, keyObject, &KeyError{clip(k.KeyID), err})
	}
	defer clear(key)
	s, err := newSealer(name, key)
	if err != nil {
		return nil, k, a.damage(name, keyObject, 0, "%v", err)
	}
	a.keys.put(name, k, s)
	return s, k, nil
}
