//go:build !clouds

package bucket

// cloudOpeners are the stores whose libraries are large: this build is without them.
func cloudOpeners() map[string]opener { return nil }
