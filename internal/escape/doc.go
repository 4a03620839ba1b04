// Package escape reads what terminals are sent: it finds characters, controls and
// sequences as ECMA-48 and xterm have them, and knows how many columns characters take.
// What they do to a screen, a line or a text is for whoever reads them.
//
// What nodes write is hostile. A Parser holds no text and no more than a fixed number of
// parameters, allocates nothing, and takes one character after the other, so that it does
// not matter where output was cut.
package escape
