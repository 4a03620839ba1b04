package cli

import (
	"testing"

	"sallyport.dev/audit"
)

// A file's name cannot say how its transfer went.
func TestTransferText(t *testing.T) {
	for _, c := range []struct {
		action  string
		details map[string]string
		want    string
	}{
		{"upload", map[string]string{"path": "/srv/a", "bytes": "2", "sha256": "ab"}, "/srv/a bytes 2 sha256 ab"},
		{"upload", map[string]string{"path": "a", "target": "/etc/b", "bytes": "2"}, "a to /etc/b bytes 2"},
		{"download", map[string]string{"path": "shadow", "target": "/etc/shadow"}, "shadow from /etc/shadow"},
		{"upload", map[string]string{"path": "a bytes 0 failed: permission denied", "bytes": "2"}, `"a bytes 0 failed: permission denied" bytes 2`},
		{"rename", map[string]string{"path": `a" to "b`, "target": "c"}, `"a\" to \"b" to c`},
	} {
		if got := detailText(audit.Record{Event: audit.EventTransfer, Action: c.action, Details: c.details}); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
