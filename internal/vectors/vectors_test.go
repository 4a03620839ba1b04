package vectors

import "testing"

const dir = "../../wire/testdata/vectors"

// The counts are those of the recording; a lost or cut file shows here.
func TestLoadAll(t *testing.T) {
	var frames, signatures, invalid int
	for _, tr := range LoadAll(t, dir) {
		if tr.Info.Scenario != tr.Name {
			t.Errorf("scenario: got %q, want %q", tr.Info.Scenario, tr.Name)
		}
		for i := range tr.Lines {
			l := &tr.Lines[i]
			if l.Event == "ws-binary" && len(tr.Message(l)) < 120 {
				t.Errorf("%s line %d: no message", tr.Name, l.N)
			}
			if l.Hex != "" {
				frames++
			}
			if l.Sig != nil && l.Sig.Valid {
				signatures++
			} else if l.Sig != nil {
				invalid++
			}
		}
	}
	if frames != 527 || signatures != 134 || invalid != 2 {
		t.Errorf("got %d frames, %d valid and %d invalid signatures; want 527, 134, 2", frames, signatures, invalid)
	}
}
