package identity

import "crypto/rand"

// Unique ids, as IAM forms them: a prefix that tells the kind, then 17 characters of
// A–Z and 2–7 (85 random bits; 16 for access keys, 80 bits).

// NewUserID returns a new id of a user, AIDA….
func NewUserID() string { return newID("AIDA", 17) }

// NewGroupID returns a new id of a group, AGPA….
func NewGroupID() string { return newID("AGPA", 17) }

// NewRoleID returns a new id of a role, AROA….
func NewRoleID() string { return newID("AROA", 17) }

// NewPolicyID returns a new id of a managed policy, ANPA….
func NewPolicyID() string { return newID("ANPA", 17) }

// NewSSHKeyID returns a new id of an SSH public key, APKA….
func NewSSHKeyID() string { return newID("APKA", 17) }

// NewAccessKeyID returns a new id of a long-lived access key, AKIA….
func NewAccessKeyID() string { return newID("AKIA", 16) }

// NewTemporaryKeyID returns a new id of temporary credentials, ASIA….
func NewTemporaryKeyID() string { return newID("ASIA", 16) }

func newID(prefix string, n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	b := make([]byte, n)
	rand.Read(b) // never fails
	for i := range b {
		b[i] = alphabet[b[i]%32]
	}
	return prefix + string(b)
}
