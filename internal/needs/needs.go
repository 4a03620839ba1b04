// Package needs tells what tests need of the machine they run on. Where it is missing, a
// test is skipped by name; with SALLYPORT_REQUIRE_ALL=1 it fails.
package needs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
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

// AWS returns AWS's command lines of PATH by their major version: they are two programs.
func AWS(t testing.TB) map[string]string {
	t.Helper()
	found := awsOfPath()
	if len(found) == 0 {
		Missing(t, "aws is not installed")
	}
	return found
}

var awsVersion = regexp.MustCompile(`^aws-cli/(\d+)\.`)

// awsOfPath asks once, since each answer takes a second.
var awsOfPath = sync.OnceValue(func() map[string]string {
	found := map[string]string{}
	seen := map[string]bool{} // /bin and /usr/bin may be one
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, "aws")
		real, err := filepath.EvalSymlinks(path)
		if err != nil || seen[real] {
			continue
		}
		seen[real] = true
		out, err := exec.Command(path, "--version").CombinedOutput()
		if m := awsVersion.FindSubmatch(out); err == nil && m != nil && found[string(m[1])] == "" {
			found[string(m[1])] = path
		}
	}
	return found
})

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
