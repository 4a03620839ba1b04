// Package transfer follows file transfers while they pass through the gateway, from
// the bytes of both ends alone: SFTP version 3 and the protocol of scp. It tells which
// files were touched and how, how large what was transferred is, and its SHA-256.
// Memory is bounded whatever the ends send.
package transfer
