package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHasUpper(t *testing.T) {
	for c := range 256 {
		for _, pad := range []string{"", "abc", "abcdefg", "aws:tag/1234567"} {
			for _, s := range []string{pad + string([]byte{byte(c)}) + pad, string([]byte{byte(c)}) + pad + pad} {
				want := strings.ContainsAny(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
				if got := hasUpper(s); got != want {
					t.Errorf("hasUpper(%q): got %v, want %v", s, got, want)
				}
			}
		}
	}
}

func TestContextAdd(t *testing.T) {
	shared := []string{"x", "spare"}[:1]
	c := Context{}
	c.Add("aws:PrincipalTag/Team", shared...)
	c.Add("AWS:principaltag/TEAM", "y")
	if diff := cmp.Diff(Context{"aws:principaltag/team": {"x", "y"}}, c); diff != "" {
		t.Errorf("context (-want +got):\n%s", diff)
	}
	if got := shared[:2][1]; got != "spare" {
		t.Errorf("Add wrote into its caller's slice: %q", got)
	}
}
