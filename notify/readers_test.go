package notify

import "testing"

// Whoever sends many calls slowly takes no more than their share of the room.
func TestReaders(t *testing.T) {
	r := readers{of: map[string]int{}}
	var leave []func()
	for range maxReading {
		if l, ok := r.enter("stranger"); ok {
			leave = append(leave, l)
		}
	}
	if len(leave) != maxReadingOf {
		t.Errorf("a stranger has %d places, want %d", len(leave), maxReadingOf)
	}
	if l, ok := r.enter("slack"); !ok {
		t.Error("there is no room for Slack")
	} else {
		l()
	}
	for _, l := range leave {
		l()
	}
	if r.all != 0 || len(r.of) != 0 {
		t.Errorf("afterwards %d are counted, of %d places", r.all, len(r.of))
	}
}
