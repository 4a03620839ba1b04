// Package keysync keeps the authorized_keys files of operating-system users equal to
// the active SSH keys of IAM groups' members.
//
// It promises that emergency keys come first and are always there; that a file changes
// in one step and only when its content does; that what the server last said holds
// while the server is away, also across restarts; and that whoever owns a home
// directory cannot make the agent write, or change the owner of, anything outside it.
package keysync
