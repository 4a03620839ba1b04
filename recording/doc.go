// Package recording writes and reads what sessions showed, and leaves out what a recording
// must not hold: hidden input, and what patterns name. Package archive keeps it.
//
// A recording is an asciicast version 2 file (docs/protocol.md §27): a header line
// that also says whose session it is, then one line per event. It is written as the
// session goes, so that what a member's crash leaves behind plays up to its last
// whole line.
package recording
