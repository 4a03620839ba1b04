package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/member"
)

// What dev says of where things are holds for what --with moved, too.
func TestPlaces(t *testing.T) {
	for _, test := range []struct {
		store, key, want string
	}{
		{"/d/recordings", "/d/recordings.key", "State, keys and recordings are in /d"},
		{"s3://b/p?region=r", "/d/recordings.key", "State and keys are in /d\nRecordings are in s3://b/p?region=r, their keys wrapped by /d/recordings.key"},
		{"/d/recordings", "awskms:///k", "State and keys are in /d\nRecordings are in /d/recordings, their keys wrapped by awskms:///k"},
	} {
		if got := places(member.Recordings{Store: test.store, Key: test.key}, "/d"); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

// TestEnvPath sources the files of two dev servers in turns: the last one's programs
// are found first, and PATH does not grow.
func TestEnvPath(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b c's"} {
		d := devFiles{dir: filepath.Join(dir, name)}
		if err := os.Mkdir(d.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := d.writeEnv(); err != nil {
			t.Fatal(err)
		}
	}
	a, b := dir+"/a/bin", dir+"/b c's/bin"
	for _, sh := range []string{"sh", "bash", "dash", "zsh", "ksh"} {
		path, err := exec.LookPath(sh)
		if err != nil {
			continue
		}
		for _, tt := range []struct{ start, script, want string }{
			{"/x y:/bin", `. ./a/env`, a + ":/x y:/bin"},
			{"/bin", `. ./a/env; . ./a/env`, a + ":/bin"},
			{"/bin", `. ./a/env; . "./b c's/env"`, b + ":" + a + ":/bin"},
			{"/bin", `. ./a/env; . "./b c's/env"; . ./a/env`, a + ":" + b + ":/bin"},
			{a, `. ./a/env`, a},
		} {
			cmd := exec.Command(path, "-c", tt.script+`; printf %s "$PATH"`)
			cmd.Dir, cmd.Env = dir, []string{"PATH=" + tt.start}
			got, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s: %s: %v", sh, tt.script, err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("%s: %s: %s", sh, tt.script, diff)
			}
		}
	}
}
