package wire

import "testing"

func TestCompareVersions(t *testing.T) {
	for _, tt := range []struct {
		v, w string
		want int
	}{
		{"3.0.196.0", "3.0.196.0", 0},
		{"3.0.197.0", "3.0.196.0", 1},
		{"3.0.1000.0", "3.0.196.0", 1},
		{"2.9.999.9", "3.0.196.0", -1},
		{"1.1.70", "1.1.70.0", 0},
		{"1.1.69.9", "1.1.70", -1},
		{"", "0.0.0.0", -1},
		{"mainline", "1.2.331.0", -1},
		{"1.2.99999999999999999999.0", "1.2.331.0", -1},
	} {
		if got := CompareVersions(tt.v, tt.w); got != tt.want {
			t.Errorf("CompareVersions(%q, %q): got %d, want %d", tt.v, tt.w, got, tt.want)
		}
	}
}
