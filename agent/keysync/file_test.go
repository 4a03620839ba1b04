//go:build unix

package keysync

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sallyport.dev/internal/needs"
)

// account is a user with a home, who is not root where the test is.
func account(t *testing.T) Account {
	t.Helper()
	a := Account{UID: os.Getuid(), GID: os.Getgid(), Home: filepath.Join(t.TempDir(), "home")}
	if err := os.Mkdir(a.Home, 0o755); err != nil {
		t.Fatal(err)
	}
	if a.UID == 0 {
		a.UID, a.GID = 12345, 12345
		if err := os.Chown(a.Home, a.UID, a.GID); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func (a Account) keys() string { return filepath.Join(a.Home, ".ssh", "authorized_keys") }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantFile checks a file's content, owner and mode.
func wantFile(t *testing.T, path, text string, uid int, mode os.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	check(t, err)
	b, err := os.ReadFile(path)
	check(t, err)
	if got := int(info.Sys().(*syscall.Stat_t).Uid); string(b) != text || info.Mode() != mode || got != uid {
		t.Errorf("%s: got %q, mode %v, uid %d, want %q, %v, %d", path, b, info.Mode(), got, text, mode, uid)
	}
}

var text = []byte(header + ": x\nkey\n")

func TestPlace(t *testing.T) {
	a := account(t)
	changed, err := place("", a, text, true)
	check(t, err)
	if !changed {
		t.Error("the first time nothing was written")
	}
	wantFile(t, a.keys(), string(text), a.UID, 0o600)
	info, err := os.Lstat(filepath.Dir(a.keys()))
	check(t, err)
	if info.Mode() != os.ModeDir|0o700 || int(info.Sys().(*syscall.Stat_t).Uid) != a.UID {
		t.Errorf(".ssh: got mode %v, uid %d", info.Mode(), info.Sys().(*syscall.Stat_t).Uid)
	}
	before, _ := os.Stat(a.keys())
	changed, err = place("", a, text, true)
	check(t, err)
	after, _ := os.Stat(a.keys())
	if changed || !os.SameFile(before, after) {
		t.Error("the same text was written again")
	}
	// What somebody has changed is put right.
	check(t, os.Chmod(a.keys(), 0o666))
	if changed, err = place("", a, text, true); err != nil || !changed {
		t.Errorf("after chmod: got %v, %v", changed, err)
	}
	check(t, os.WriteFile(a.keys(), append(text, "more\n"...), 0o600))
	if changed, err = place("", a, text, true); err != nil || !changed {
		t.Errorf("after a change: got %v, %v", changed, err)
	}
	wantFile(t, a.keys(), string(text), a.UID, 0o600)
	entries, err := os.ReadDir(filepath.Dir(a.keys()))
	check(t, err)
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// A file that was there before is kept once beside ours, and is not touched before the
// server has spoken.
func TestPlaceKeepsTheFileOfBefore(t *testing.T) {
	a := account(t)
	check(t, os.Mkdir(filepath.Dir(a.keys()), 0o755))
	check(t, os.Chown(filepath.Dir(a.keys()), a.UID, a.GID))
	check(t, os.WriteFile(a.keys(), []byte("old\n"), 0o644))
	if changed, err := place("", a, text, false); changed || err != nil {
		t.Errorf("without the server: got %v, %v", changed, err)
	}
	_, err := place("", a, text, true)
	check(t, err)
	b, err := os.ReadFile(a.keys() + backup)
	check(t, err)
	if string(b) != "old\n" {
		t.Errorf("kept %q", b)
	}
	check(t, os.WriteFile(a.keys(), []byte("newer\n"), 0o600))
	_, err = place("", a, text, true)
	check(t, err)
	if b, _ := os.ReadFile(a.keys() + backup); string(b) != "old\n" {
		t.Errorf("kept %q in place of the first", b)
	}
	info, err := os.Stat(filepath.Dir(a.keys()))
	check(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf(".ssh has mode %v", info.Mode())
	}
}

// hostile is a user, and a folder that is not the user's.
type hostile struct {
	a       Account
	outside string
}

// mine makes a folder in the user's home.
func (w hostile) mine(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join(w.a.Home, name)
	check(t, os.Mkdir(path, 0o700))
	check(t, os.Chown(path, w.a.UID, w.a.GID))
}

// Somebody who owns a home cannot make the agent write elsewhere.
func TestPlaceFollowsNobody(t *testing.T) {
	link := func(to, at string) { check(t, os.Symlink(to, at)) }
	for _, tt := range []struct {
		name string
		set  func(w hostile)
		path func(w hostile) string
		fine bool // nothing outside is touched, and the keys are put in place
	}{
		{name: ".ssh is a link", set: func(w hostile) { link(w.outside, filepath.Join(w.a.Home, ".ssh")) }},
		{name: ".ssh is a file", set: func(w hostile) { check(t, os.WriteFile(filepath.Join(w.a.Home, ".ssh"), nil, 0o600)) }},
		{name: "the file is a link", fine: true, set: func(w hostile) {
			w.mine(t, ".ssh")
			link(filepath.Join(w.outside, "secret"), w.a.keys())
		}},
		{name: "the file is a hard link", fine: true, set: func(w hostile) {
			w.mine(t, ".ssh")
			check(t, os.Link(filepath.Join(w.outside, "secret"), w.a.keys()))
		}},
		{name: "the file is a pipe", fine: true, set: func(w hostile) {
			w.mine(t, ".ssh")
			check(t, syscall.Mkfifo(w.a.keys(), 0o600))
		}},
		{name: "the file is a folder", set: func(w hostile) {
			w.mine(t, ".ssh")
			w.mine(t, ".ssh/authorized_keys")
		}},
		{name: "home can be written by others", set: func(w hostile) { check(t, os.Chmod(w.a.Home, 0o777)) }},
		{name: "another folder, through a link of the user's", set: func(w hostile) {
			link(w.outside, filepath.Join(w.a.Home, "keys"))
		}, path: func(w hostile) string { return filepath.Join(w.a.Home, "keys", "authorized_keys") }},
		{name: "another folder, below one of the user's", set: func(w hostile) {
			w.mine(t, "sub")
			w.mine(t, "sub/keys")
		}, path: func(w hostile) string { return filepath.Join(w.a.Home, "sub", "keys", "authorized_keys") }},
		{name: "another folder, which others can write", set: func(w hostile) {
			check(t, os.Chmod(w.outside, 0o777))
		}, path: func(w hostile) string { return filepath.Join(w.outside, "authorized_keys") }},
	} {
		w := hostile{account(t), t.TempDir()}
		if w.a.UID == os.Getuid() && tt.path != nil {
			continue // nobody is another user here
		}
		secret := filepath.Join(w.outside, "secret")
		check(t, os.WriteFile(secret, []byte("secret"), 0o600))
		tt.set(w)
		path := ""
		if tt.path != nil {
			path = tt.path(w)
		}
		_, err := place(path, w.a, text, true)
		if (err == nil) != tt.fine {
			t.Errorf("%s: got %v", tt.name, err)
		}
		wantFile(t, secret, "secret", os.Getuid(), 0o600)
		if entries, _ := os.ReadDir(w.outside); len(entries) != 1 {
			t.Errorf("%s: outside there is now %v", tt.name, entries)
		}
		if tt.fine {
			wantFile(t, w.a.keys(), string(text), w.a.UID, 0o600)
		}
	}
}

// A folder of root's gets files of root's, which the user cannot change.
func TestPlaceInRootsFolder(t *testing.T) {
	needs.Root(t) // only root has root's folders
	a, dir := account(t), t.TempDir()
	path := filepath.Join(dir, "deploy")
	_, err := place(path, a, text, true)
	check(t, err)
	wantFile(t, path, string(text), 0, 0o644)
	// Links of root's are followed.
	other := filepath.Join(t.TempDir(), "link")
	check(t, os.Symlink(dir, other))
	_, err = place(filepath.Join(other, "web"), a, text, true)
	check(t, err)
	wantFile(t, filepath.Join(dir, "web"), string(text), 0, 0o644)
}

func TestResolveStopsAtManyLinks(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	if _, err := resolveTrusted(filepath.Join(dir, "loop")); err == nil || !strings.Contains(err.Error(), "links") {
		t.Errorf("got %v", err)
	}
}

// Readers see the old file or the new one, never a part.
func TestPlaceIsAtomic(t *testing.T) {
	a := account(t)
	long := bytes.Repeat(text, 10000)
	_, err := place("", a, text, true)
	check(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 50 {
			next := text
			if i%2 == 0 {
				next = long
			}
			if _, err := place("", a, next, true); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		select {
		case <-done:
			return
		default:
		}
		if b, err := os.ReadFile(a.keys()); err != nil || !bytes.Equal(b, text) && !bytes.Equal(b, long) {
			t.Fatalf("read %d bytes, %v", len(b), err)
		}
	}
}
