package archive

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"sallyport.dev/internal/seal"
)

// keyPurpose is what the key of a file is used for, and is bound to.
const keyPurpose = "recording-key"

// KeyFilePrefix begins the ids of keys in files.
const KeyFilePrefix = "file:"

// keyFile wraps with a key in a file.
type keyFile struct {
	id  string
	key *seal.Key
}

// KeyFile returns a keeper with the key in a file of mode 0600, which it makes if need be.
// Its id is "file:" and 16 hexadecimal digits that follow from the key.
func KeyFile(path string) (Keeper, error) {
	key, err := seal.LoadOrCreate(path)
	if err != nil {
		return nil, err
	}
	return &keyFile{id: KeyFilePrefix + hex.EncodeToString(key.Mark(keyPurpose)), key: key}, nil
}

// ID implements Keeper.
func (k *keyFile) ID() string { return k.id }

// Wrap implements Keeper.
func (k *keyFile) Wrap(_ context.Context, key []byte) ([]byte, error) {
	return k.key.Seal(keyPurpose, key, []byte(k.id)), nil
}

// Unwrap implements Keeper.
func (k *keyFile) Unwrap(_ context.Context, id string, wrapped []byte) ([]byte, error) {
	if id != k.id {
		return nil, fmt.Errorf("it is wrapped with another key than %s, the one that is configured", k.id)
	}
	key, err := k.key.Open(keyPurpose, wrapped, []byte(k.id))
	if err != nil {
		return nil, errors.New("it was changed: it does not open")
	}
	return key, nil
}
