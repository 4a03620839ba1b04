// Package factor keeps what people prove themselves with where no identity provider does
// it for them: passwords of local users, one-time codes (TOTP, RFC 6238) and security
// keys (WebAuthn).
//
// It promises that a guess costs something whoever makes it: attempts are counted for each
// address, and for each name whether or not somebody bears it, before they are looked at.
// Where somebody has signed in from before, nobody else's attempts keep them out. An
// unknown name takes as long as a wrong password and is answered in the same words. A code
// is taken once. Seeds are sealed with the master key; nothing secret is logged.
package factor
