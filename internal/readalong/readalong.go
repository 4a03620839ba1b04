// Package readalong keeps what a program writes while a test reads along.
package readalong

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Text is what has been written so far: a terminal's, a log. The zero Text is empty.
type Text struct {
	mu   sync.Mutex
	b    strings.Builder
	seen int // up to where it was awaited
}

// Write implements io.Writer.
func (t *Text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

// String returns all of it.
func (t *Text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// Await waits until something is shown behind what was awaited before.
func (t *Text) Await(want *regexp.Regexp, patience time.Duration) error {
	for deadline := time.Now().Add(patience); !t.shows(want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("never showed %q; it showed %q", want, t.String())
		}
	}
	return nil
}

func (t *Text) shows(want *regexp.Regexp) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := want.FindStringIndex(t.b.String()[t.seen:])
	if at == nil {
		return false
	}
	t.seen += at[1]
	return true
}
