// Package keyscan finds the public keys that a node's authorized_keys files let in, so that
// the server can tell who gets past it. It reads and reports fingerprints, never keys.
package keyscan
