package recording

import "time"

// Stage takes what a session shows and what is typed into it, on the way to a Writer,
// which is the last one. Stages before it change what is recorded: EchoGuard leaves out
// hidden input, Redactor what a pattern names. All are safe for concurrent use.
type Stage interface {
	// Err returns the error by which the recording cannot go on, if there is one.
	Err() error
	// Holds reports whether something waits for a later Flush, though nothing follows.
	Holds() bool
	Output(at time.Time, p []byte) error
	Input(at time.Time, p []byte) error
	Resize(at time.Time, cols, rows int) error
	Marker(at time.Time, label string) error
	Flush() error
	Close(end End) (Summary, error)
}

// Holds implements Stage: a Flush writes out everything.
func (w *Writer) Holds() bool { return false }
