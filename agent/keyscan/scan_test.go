package keyscan

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

// newKey returns a line of authorized_keys and its fingerprint.
func newKey(t *testing.T, comment string) (line, fingerprint string) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment, ssh.FingerprintSHA256(key)
}

// machine is a folder with accounts ann and bob.
func machine(t *testing.T) (Places, string) {
	t.Helper()
	dir := t.TempDir()
	p := Places{Passwd: filepath.Join(dir, "passwd"), SSHD: filepath.Join(dir, "sshd_config")}
	write(t, p.Passwd, "ann:x:1000:1000:Ann:"+dir+"/ann:/bin/sh\nbob:x:1001:1001::"+dir+"/bob:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\nbroken\n")
	return p, dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func scan(t *testing.T, p Places) []Key {
	t.Helper()
	keys, more, err := Scan(p)
	if err != nil || more {
		t.Fatalf("got %v, more %v", err, more)
	}
	return keys
}

func TestScan(t *testing.T) {
	p, dir := machine(t)
	one, first := newKey(t, "ann@laptop")
	two, second := newKey(t, "the CA")
	file := dir + "/ann/.ssh/authorized_keys"
	write(t, file, "# comment\n\n"+one+"\nno key\ncert-authority,no-pty "+two+"\n"+one+"\n")
	want := []Key{
		{Login: "ann", File: file, Fingerprint: first, Type: "ssh-ed25519", Comment: "ann@laptop"},
		{Login: "ann", File: file, Fingerprint: second, Type: "ssh-ed25519", Comment: "the CA", Authority: true},
	}
	if first > second {
		want[0], want[1] = want[1], want[0]
	}
	if d := cmp.Diff(want, scan(t, p)); d != "" {
		t.Error(d)
	}
}

func TestScanWhereSSHDLooks(t *testing.T) {
	p, dir := machine(t)
	one, first := newKey(t, "x")
	write(t, p.SSHD, "authorizedkeysfile "+dir+"/keys/%u none\n")
	write(t, dir+"/keys/bob", one)
	write(t, dir+"/ann/.ssh/authorized_keys", one) // not where sshd looks
	got := scan(t, p)
	if len(got) != 1 || got[0].Login != "bob" || got[0].Fingerprint != first {
		t.Errorf("got %v, want bob's key alone", got)
	}
}

// A user's file may be anything: the scan neither waits for it nor reads what is no file,
// and reports nothing of what is no key.
func TestScanOfHostileFiles(t *testing.T) {
	p, dir := machine(t)
	write(t, dir+"/secret", "password\n")
	write(t, dir+"/ann/.ssh/x", "")
	if err := os.Symlink(dir+"/secret", dir+"/ann/.ssh/authorized_keys"); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/bob/.ssh/x", "")
	if err := syscall.Mkfifo(dir+"/bob/.ssh/authorized_keys", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/bob/.ssh/authorized_keys2", 0o700); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, p); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
}

func TestScanIsBounded(t *testing.T) {
	p, dir := machine(t)
	one, _ := newKey(t, "x")
	write(t, dir+"/ann/.ssh/authorized_keys", strings.Repeat(one+"\n", maxFile/len(one)+10))
	_, more, err := Scan(p)
	if err != nil || !more {
		t.Errorf("got more %v, %v, want true", more, err)
	}
}
