// Package playback shows what recordings hold.
//
// A Screen is the terminal that a recording was made on: it follows the output, and
// nothing of the output gets any further. What is shown to a person, on a terminal, a page
// or in a picture, is made from the characters and colours of its cells, so that a hostile
// program on a node can reach no one who looks at what it wrote. Screens are bounded,
// whatever sizes and sequences a recording names.
//
// The package does no network I/O and knows no server.
package playback
