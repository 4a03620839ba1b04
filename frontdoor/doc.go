// Package frontdoor is the SSH server at the gateway: stock SSH clients reach nodes
// through it that run no sshd and have no port open. People prove themselves by a
// certificate of the gateway's authority or by a key that they registered. Every shell,
// command, file transfer and forward is a session like any other: authorised, recorded
// and ended as such.
package frontdoor
