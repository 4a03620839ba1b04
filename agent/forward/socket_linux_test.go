package forward

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport.dev/internal/needs"
)

// Who may write where an allowed socket is cannot lead the agent, which is root, to
// another one by a link: the owner of a service, for one, to Docker's.
func TestForeignLinks(t *testing.T) {
	needs.Root(t) // to give a link to another user
	dir := t.TempDir()
	real, own, foreign, folder := filepath.Join(dir, "s"), filepath.Join(dir, "own"), filepath.Join(dir, "foreign"), filepath.Join(dir, "folder")
	listener(t, "unix", real)
	for link, to := range map[string]string{own: "./../" + filepath.Base(dir) + "/s", foreign: real, folder: dir} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{foreign, folder} {
		if err := os.Lchown(link, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		real: "", own: "", foreign: "another user's", filepath.Join(folder, "s"): "another user's",
		filepath.Join(dir, "none"): "no such file",
	} {
		target, err := Resolve(t.Context(), Properties{UnixSocket: path}, Rules{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := target.Dial(t.Context())
		if err == nil {
			c.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

// What was checked is what is connected to, whatever happens to its name meanwhile.
func TestSocketIsHeld(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "s"), filepath.Join(dir, "other")
	listener(t, "unix", path)
	held, err := holdSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.close()
	listener(t, "unix", other)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, path); err != nil {
		t.Fatal(err)
	}
	if err := (Rules{}).checkSocket(path, held); err == nil {
		t.Error("a socket that was replaced meanwhile: got it, want an error")
	}
}
