// Package mux carries many streams over one ordered channel of bytes. It speaks smux
// version 1, which AWS's programs speak in Port sessions, and between our own ends an
// extension of it (docs/protocol.md §28) with a window per stream, half-close, and the
// reason why a stream was refused.
//
// It is not xtaci/smux, against which it is tested, because of what a channel that is
// away for minutes and then back does to that: opening and closing streams time out
// after 30 s and leave the two ends disagreeing, and a peer's first bytes are lost when
// they come before the opener has gone to sleep. Here a frame waits for as long as the
// channel does, and nothing runs but the callers' goroutines.
package mux
