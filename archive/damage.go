package archive

import "fmt"

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
