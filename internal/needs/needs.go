// Package needs tells what tests need of the machine they run on. Where it is missing, a
// test is skipped by name; with SALLYPORT_REQUIRE_ALL=1 it fails.
package needs

import (
	"os"
	"os/exec"
	"testing"
)

// All reports whether SALLYPORT_REQUIRE_ALL is 1.
func All() bool { return os.Getenv("SALLYPORT_REQUIRE_ALL") == "1" }

// Program returns the path of a program that is not ours: of PATH, or of the folder where
// daemons are.
func Program(t testing.TB, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	Missing(t, name+" is not installed")
	return ""
}

// Root makes sure that the test runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "needs root")
	}
}

// Missing ends a test that cannot run here.
func Missing(t testing.TB, why string) {
	t.Helper()
	if All() {
		t.Fatalf("%s, and SALLYPORT_REQUIRE_ALL=1", why)
	}
	t.Skip(why)
}
