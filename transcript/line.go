package transcript

import (
	"fmt"
	"time"
)

// Kind is what a line is.
type Kind byte

// Kinds of lines.
const (
	Shown Kind = 'o' // on the terminal
	Typed Kind = 'i' // by the person; only where input is recorded
	Note  Kind = 'n' // of the transcript itself: something was left out
)

// String returns shown, typed or note.
func (k Kind) String() string {
	switch k {
	case Shown:
		return "shown"
	case Typed:
		return "typed"
	case Note:
		return "note"
	}
	return fmt.Sprintf("kind %q", byte(k))
}

// MaxLine bounds a line, in characters; longer ones become several.
const MaxLine = 4096

// Line is one line of a transcript.
type Line struct {
	At   time.Duration // since the start, when its last character came
	Kind Kind
	Text string // no controls, no trailing blanks, never empty
}
