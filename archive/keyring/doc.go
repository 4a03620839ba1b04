// Package keyring wraps the keys of recordings with keys of a key service, by URL:
//
//	/etc/…/recordings.key, file:///…                 a file on this machine
//	awskms:///KEY?region=…                           AWS KMS: an id, an ARN, an alias
//	hashivault://KEY?address=https://…               the transit engine of Vault (and OpenBao)
//	gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K          (build tag clouds)
//	azurekeyvault://NAME.vault.azure.net/keys/KEY/VERSION            (build tag clouds)
//
// A Ring has one key that wraps and older ones that only unwrap. A key service takes its
// time, and may be away: a Ring keeps a few keys that are wrapped already, so that
// sessions begin without waiting for it. They lie in this process's memory, never on a
// disk, each is used once, and none is older than an hour.
package keyring
