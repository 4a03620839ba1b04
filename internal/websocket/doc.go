// Package websocket carries messages over RFC 6455 connections, for the server, the
// agent and the client alike.
//
// A connection costs little while it is idle: a reader blocks on a few bytes inside
// the connection, and message buffers come from pools. There is no compression.
// Peers that drop the connection without a close frame, as AWS's programs do, are
// the normal case; such an end is io.EOF.
package websocket
