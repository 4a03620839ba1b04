package shell

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sallyport.dev/internal/needs"
)

// echoOnce answers one connection with what it says.
func echoOnce(t *testing.T, s *Socket) {
	t.Helper()
	conn, err := s.Accept()
	if err != nil {
		return
	}
	io.Copy(conn, conn)
	conn.Close()
}

func TestSocket(t *testing.T) {
	s, err := Options{runDir: filepath.Join(t.TempDir(), "run")}.ListenAuth(self(t))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		echoOnce(t, s)
	}()
	conn, err := net.Dial("unix", s.Path())
	if err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte("hello"))
	buf := make([]byte, 5)
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "hello" {
		t.Errorf("got %q, %v, want hello", buf, err)
	}
	dir := filepath.Dir(s.Path())
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got mode %v, %v, want 0700", info.Mode(), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-done // closing has closed the connection
	conn.Close()
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is left: %v", err)
	}
}

// TestSocketParent is the attack: a parent directory that somebody else prepared, or may
// write to.
func TestSocketParent(t *testing.T) {
	needs.Root(t)
	victim := t.TempDir()
	for name, prepare := range map[string]func(path string) error{
		"a link":         func(path string) error { return os.Symlink(victim, path) },
		"another's":      func(path string) error { return mkdirAs(path, 54321, 0o755) },
		"all may write":  func(path string) error { return mkdirAs(path, 0, 0o777) },
		"group may too":  func(path string) error { return mkdirAs(path, 0, 0o775) },
		"a file":         func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a dangling one": func(path string) error { return os.Symlink(path+"-gone", path) },
	} {
		path := filepath.Join(t.TempDir(), "run")
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		s, err := Options{runDir: path}.ListenAuth(self(t))
		if err == nil {
			s.Close()
			t.Errorf("%s: a socket was made", name)
		}
	}
	if left, err := os.ReadDir(victim); err != nil || len(left) > 0 {
		t.Errorf("got %v, %v in the victim's directory, want nothing", left, err)
	}
}

func mkdirAs(path string, uid int, mode os.FileMode) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if err := os.Chown(path, uid, uid); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// TestSocketOfOther is the attack: the user replaces what the agent has handed over by
// links to what root alone may delete; closing deletes nothing of that.
func TestSocketOfOther(t *testing.T) {
	needs.Root(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := User{Name: "other", UID: 54321, GID: 54322, Switch: true}
	run := filepath.Join("/run", "sallyport-test-"+strings.ReplaceAll(filepath.Base(t.TempDir()), "/", ""))
	defer os.Remove(run)
	s, err := Options{runDir: run}.ListenAuth(u)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(s.Path())
	for _, path := range []string{dir, s.Path()} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != u.UID || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: got owner %d and mode %v, want %d alone", path, st.Uid, info.Mode(), u.UID)
		}
	}
	out := runAs(t, User{Name: "other", UID: u.UID, GID: u.GID, Home: "/", Shell: "/bin/sh", Switch: true},
		"rm "+s.Path()+" && ln -s "+victim+" "+s.Path()+" && mkdir "+dir+"/own && echo done; mv "+dir+" "+dir+"x 2>/dev/null || echo kept")
	if got := strings.Fields(out); strings.Join(got, " ") != "done kept" {
		t.Errorf("got %q, want that the user can do as they like in the directory and not move it", out)
	}
	s.Close()
	if _, err := os.Stat(victim); err != nil {
		t.Errorf("the victim's file: %v", err)
	}
	os.RemoveAll(dir)
}

// TestSocketForOthers is the attack: another user, were the directory open to them, is
// turned away by number.
func TestSocketForOthers(t *testing.T) {
	needs.Root(t)
	u := User{Name: "other", UID: 54321, GID: 54322, Switch: true}
	s, err := Options{}.ListenAuth(u)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Chmod(filepath.Dir(s.Path()), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.Path(), 0o777); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		echoOnce(t, s)
	}()
	script := `perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un("` + s.Path() + `")) or die;
		syswrite S, "hi"; sysread S, $b, 9; print "<$b>\n"'`
	needs.Program(t, "perl")
	stranger := User{Name: "stranger", UID: 54999, GID: 54999, Home: "/", Shell: "/bin/sh", Switch: true}
	if out := runAs(t, stranger, script); strings.Contains(out, "hi") {
		t.Errorf("a stranger got %q, want nothing", out)
	}
	other := User{Name: "other", UID: 54321, GID: 54322, Home: "/", Shell: "/bin/sh", Switch: true}
	if out := runAs(t, other, script); !strings.Contains(out, "<hi>") {
		t.Errorf("the user got %q, want <hi>", out)
	}
	s.Close()
	<-done
}
