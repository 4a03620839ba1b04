// Package kms is a key service: keys that never leave the server, which encrypt small
// texts and make data keys for whoever policy lets. It is what the operations of AWS's
// service kms are made of, as far as sessions that are encrypted between client and node
// need them, and a little more.
//
// A key has versions of key material: rotation adds one, which encrypts from then on,
// and the earlier ones still decrypt. Material is sealed with the deployment's master
// key. What a key has encrypted (blob.go) tells the key and the version, and opens only
// with the encryption context that it was made with.
//
// Who may use a key is decided by who calls this package.
package kms
