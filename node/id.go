package node

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
)

// idPattern is the form of node ids: what clients that validate accept
// (docs/protocol.md §22.2), in lower case.
var idPattern = regexp.MustCompile(`^(i-([0-9a-f]{8}|[0-9a-f]{17})|mi-[0-9a-f]{17})$`)

// NewID returns a fresh id for a node whose activation fixes none: mi- and 17
// hexadecimal digits, 68 bits of them random.
func NewID() string {
	var b [9]byte
	rand.Read(b[:])
	return "mi-" + hex.EncodeToString(b[:])[:17]
}

// ValidID reports whether id has the form of a node id: i- with 8 or 17 lower-case
// hexadecimal digits, or mi- with 17.
func ValidID(id string) bool { return idPattern.MatchString(id) }
