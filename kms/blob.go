package kms

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// What a key has encrypted is a blob: the four bytes "SpK" and 1, the key's id (16
// bytes), the version of its material (4 bytes, big-endian), and the text as package
// seal seals it, by which the head and the encryption context are authenticated.

const (
	blobMagic = "SpK\x01"
	blobHead  = len(blobMagic) + 16 + 4

	// MaxBlob bounds a blob, and MaxPlaintext what is encrypted into one, in bytes.
	MaxBlob      = 6144
	MaxPlaintext = 4096
	// maxContext bounds all keys and values of an encryption context together, in bytes.
	maxContext = 8192
)

// Blob is the head of what a key has encrypted. It is not authenticated until the blob
// has been decrypted.
type Blob struct {
	KeyID   string
	version int
	sealed  []byte
}

// ParseBlob reads the head. It returns ErrCiphertext for what no key of any deployment
// has encrypted.
func ParseBlob(b []byte) (Blob, error) {
	if len(b) <= blobHead || len(b) > MaxBlob || string(b[:len(blobMagic)]) != blobMagic {
		return Blob{}, ErrCiphertext
	}
	version := binary.BigEndian.Uint32(b[blobHead-4:])
	if version == 0 || version > 1<<30 {
		return Blob{}, ErrCiphertext
	}
	return Blob{KeyID: formatID(b[len(blobMagic) : blobHead-4]), version: int(version), sealed: b[blobHead:]}, nil
}

// head is the head of a blob.
func head(id string, version int) ([]byte, error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil || !IsKeyID(id) {
		return nil, fmt.Errorf("key id %q is not a UUID", id)
	}
	b := append([]byte(blobMagic), raw...)
	return binary.BigEndian.AppendUint32(b, uint32(version)), nil
}

func formatID(raw []byte) string {
	s := hex.EncodeToString(raw)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// Context is an encryption context: what a text is for, which decrypting it must repeat.
// It is no secret.
type Context map[string]string

// Check says what is wrong with a context: nothing in it may be empty, its size is
// bounded, and keys may not differ by case alone, since conditions of policies do not
// tell those apart.
func (c Context) Check() error {
	size, seen := 0, map[string]bool{}
	for key, value := range c {
		size += len(key) + len(value)
		lower := strings.ToLower(key)
		switch {
		case key == "":
			return errors.New("the encryption context has an empty key")
		case seen[lower]:
			return fmt.Errorf("the encryption context has the key %q twice, in upper and lower case", lower)
		case size > maxContext:
			return fmt.Errorf("the encryption context has more than %d bytes", maxContext)
		}
		seen[lower] = true
	}
	return nil
}

// canonical is the head of a blob and the context that it was made with, such that no
// two of them are the same bytes.
func canonical(head []byte, c Context) []byte {
	var b bytes.Buffer
	b.Write(head)
	for _, key := range slices.Sorted(maps.Keys(c)) {
		for _, text := range []string{key, c[key]} {
			b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(text))))
			b.WriteString(text)
		}
	}
	return b.Bytes()
}
