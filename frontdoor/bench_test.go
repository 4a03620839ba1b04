package frontdoor_test

import (
	"os"
	"path/filepath"
	"testing"

	"sallyport.dev/sallyporttest"
)

// BenchmarkSCP copies 100 MB with OpenSSH's programs, there and back.
func BenchmarkSCP(b *testing.B) {
	w := newWorld(b)
	w.person("alice", sallyporttest.Everything)
	cfg := w.config("alice")
	from, far := b.TempDir(), b.TempDir()
	const size = 100_000_000
	if err := os.WriteFile(filepath.Join(from, "big"), make([]byte, size), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"sftp/there", []string{"scp", "-F", cfg, from + "/big", "frontend-1@gateway:" + far + "/a"}},
		{"sftp/back", []string{"scp", "-F", cfg, "frontend-1@gateway:" + far + "/a", from + "/a"}},
		{"scp/there", []string{"scp", "-O", "-F", cfg, from + "/big", "frontend-1@gateway:" + far + "/a"}},
		{"scp/back", []string{"scp", "-O", "-F", cfg, "frontend-1@gateway:" + far + "/a", from + "/a"}},
		{"ssh/there", []string{"sh", "-c", "ssh -F " + cfg + " frontend-1@gateway 'cat >/dev/null' <" + from + "/big"}},
		{"ssh/back", []string{"sh", "-c", "ssh -F " + cfg + " frontend-1@gateway 'cat " + far + "/a' >/dev/null"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if r := w.run(nil, c.args[0], c.args[1:]...); r.status != 0 {
					b.Fatalf("%+v", r)
				}
			}
		})
	}
}
