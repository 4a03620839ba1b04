package member

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Headers for the collector are secrets: a file that others can read is refused, and what is
// wrong with one is told without what is in it.
func TestTracingHeaders(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		mode os.FileMode
		want string // in the error
	}{
		"good":               {"Authorization: Bearer hidden\nX-Org: 7\n", 0o600, ""},
		"readable by others": {"Authorization: Bearer hidden\n", 0o644, "must be 0600"},
		"no header":          {"hidden\n", 0o600, "line 1"},
		"huge":               {strings.Repeat("X: hidden\n", 1<<20), 0o600, "larger"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "headers")
			if err := os.WriteFile(file, []byte(test.text), test.mode); err != nil {
				t.Fatal(err)
			}
			c := Tracing{Endpoint: "https://otel.example.com/v1/traces", HeadersFile: file}
			err := c.check()
			if test.want == "" {
				if diff := cmp.Diff(map[string]string{"Authorization": "Bearer hidden", "X-Org": "7"}, c.headers); err != nil || diff != "" {
					t.Errorf("got %v (-want +got):\n%s", err, diff)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("got %v, want %q and nothing of the secret", err, test.want)
			}
		})
	}
}
