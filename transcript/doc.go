// Package transcript tells what a session showed and what was typed in it, line by line,
// as a terminal shows it: control sequences have their effect and are gone, lines that
// the terminal wrapped are whole again, and what carriage returns, backspaces and line
// editors left is what is told. Full-screen programs are told by what stood still
// on their screen.
//
// It is made of what nodes write, so nothing in it can be trusted, and everything is
// bounded: the screen's cells, the length of lines, what is read and what is told in a
// second. Where something is left out the transcript says so. No line holds control
// characters, nor such as turn the direction of text.
//
// The same events give the same transcript, whether they come while the session runs or
// from its recording.
package transcript
