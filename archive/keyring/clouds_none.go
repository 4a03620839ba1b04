//go:build !clouds

package keyring

// cloudOpeners are the key services whose libraries are large: this build is without them.
func cloudOpeners() map[string]opener { return nil }
