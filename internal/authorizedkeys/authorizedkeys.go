// Package authorizedkeys writes lines of authorized_keys files from what others say of
// keys: whatever they say, a line is one key of a known kind and a comment, and never
// an option such as command="…".
package authorizedkeys

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Key is a public key of somebody's.
type Key struct {
	User      string // whose it is
	ID        string // APKA…
	PublicKey string // type and base64, as in authorized_keys
}

// Bounds of one key, in bytes of its binary form, and of a comment, in characters. RSA
// keys of 16,384 bits, the largest that the server takes, have 2,071 bytes.
const (
	maxKey     = 4096
	maxComment = 200
)

// kinds are the kinds of keys that the server takes, with the type that a key's binary
// form begins with.
var kinds = []string{
	"ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
	"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
}

// Line returns the line of a key, without a newline. The key is written anew from its
// binary form, so that nothing comes through that is not part of it.
func Line(k Key) (string, error) {
	kind, text, found := strings.Cut(k.PublicKey, " ")
	if !found || !slices.Contains(kinds, kind) {
		return "", fmt.Errorf("key %.40q: its type is not one of %s", k.ID, strings.Join(kinds, ", "))
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(blob) > maxKey {
		return "", fmt.Errorf("key %.40q: it is not base64 of at most %d bytes", k.ID, maxKey)
	}
	if !begins(blob, kind) {
		return "", fmt.Errorf("key %.40q: it is not of the type that it is said to be", k.ID)
	}
	return kind + " " + base64.StdEncoding.EncodeToString(blob) + " " + comment(k), nil
}

// begins reports whether a key's binary form is a sequence of strings that begins with
// its type (RFC 4253 §6.6).
func begins(blob []byte, kind string) bool {
	for first := true; len(blob) > 0; first = false {
		if len(blob) < 4 {
			return false
		}
		n := binary.BigEndian.Uint32(blob)
		if uint64(n) > uint64(len(blob)-4) || first && string(blob[4:4+n]) != kind {
			return false
		}
		blob = blob[4+n:]
	}
	return true
}

// comment says whose key it is, in printable ASCII.
func comment(k Key) string {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, strings.TrimSpace(k.User+" "+k.ID))
	return text[:min(len(text), maxComment)]
}

// Check reports what keeps a line, which may have options, from being one of an
// authorized_keys file.
func Check(line string) error {
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return fmt.Errorf("line %.40q has control characters", line)
	}
	fields := strings.Fields(line)
	for i, kind := range fields[:max(len(fields)-1, 0)] {
		if !slices.Contains(kinds, kind) {
			continue
		}
		blob, err := base64.StdEncoding.DecodeString(fields[i+1])
		if err == nil && len(blob) <= maxKey && begins(blob, kind) {
			return nil
		}
	}
	return fmt.Errorf("line %.40q holds no public key", line)
}
