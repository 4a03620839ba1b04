package archive

import (
	"errors"
	"fmt"
)

// Errors of what a recording is read with. What they wrap beside is for the log: it may
// name endpoints.
var (
	// ErrStore means that the store did not answer, or not in time.
	ErrStore = errors.New("the store of recordings does not answer")
	// ErrUnknownKey means that a key is wrapped with one that is not configured.
	ErrUnknownKey = errors.New("the wrapping key is not configured")
)

// KeyError says that a recording's key was not unwrapped.
type KeyError struct {
	ID  string // of the wrapping key, as key.json has it
	Err error  // the keeper's
}

// Error implements error.
func (e *KeyError) Error() string { return fmt.Sprintf("unwrapping the key %s: %v", e.ID, e.Err) }

// Unwrap returns the keeper's error.
func (e *KeyError) Unwrap() error { return e.Err }

// Damage says where a recording is not what it was.
type Damage struct {
	Name   string `json:"name"`            // of the recording
	Object string `json:"object"`          // key.json, 000001.chunk, manifest.json
	Frame  int64  `json:"frame,omitempty"` // number within the recording, from 1; 0 if no single frame is meant
	What   string `json:"what"`            // what is wrong
}

// Error implements error.
func (d *Damage) Error() string {
	where := d.Object
	if d.Frame > 0 {
		where += fmt.Sprintf(", frame %d", d.Frame)
	}
	return fmt.Sprintf("recording %s: %s: %s", d.Name, where, d.What)
}

// damage makes an error of what was found, and counts it.
func (a *Archive) damage(name, object string, frame int64, format string, args ...any) *Damage {
	a.stats.damaged.Add(1)
	return &Damage{Name: name, Object: object, Frame: frame, What: fmt.Sprintf(format, args...)}
}
