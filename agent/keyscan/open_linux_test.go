package keyscan

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What a user's link leads to is not even opened unless it is a file: opening a watchdog
// or a tape does things, and the agent is root.
func TestScanOpensNoDevice(t *testing.T) {
	p, dir := machine(t)
	if err := syscall.Mkfifo(dir+"/device", 0o666); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/ann/.ssh/x", "")
	if err := os.Symlink(dir+"/device", dir+"/ann/.ssh/authorized_keys"); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir+"/device", unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	scan(t, p)
	if n, err := unix.Read(watch, make([]byte, 1024)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("the device was opened (%d bytes of events, %v)", n, err)
	}
}

// A link shows no keys that its user could not read.
func TestScanReadsNoOthersFiles(t *testing.T) {
	p, dir := machine(t)
	write(t, p.Passwd, fmt.Sprintf("ann:x:%d:1000::%s/ann:/bin/sh\n", os.Getuid()+1, dir)) // not whose the files are
	one, first := newKey(t, "secret")
	write(t, dir+"/private", one)
	write(t, dir+"/ann/.ssh/x", "")
	if err := os.Symlink(dir+"/private", dir+"/ann/.ssh/authorized_keys"); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, p); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
	if err := os.Chmod(dir+"/private", 0o644); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, p); len(got) != 1 || got[0].Fingerprint != first {
		t.Errorf("a file that everybody may read: got %v", got)
	}
}

// Who has many keys hides nobody else's.
func TestScanIsFair(t *testing.T) {
	p, dir := machine(t)
	one, _ := newKey(t, "x")
	other, fingerprint := newKey(t, "backdoor")
	write(t, dir+"/ann/.ssh/authorized_keys", strings.Repeat(one+"\n", 1500))
	write(t, dir+"/bob/.ssh/authorized_keys", other)
	keys, more, err := Scan(p)
	if err != nil || !more {
		t.Errorf("got more %v, %v, want true", more, err)
	}
	for _, k := range keys {
		if k.Fingerprint == fingerprint {
			return
		}
	}
	t.Error("bob's key is not reported")
}
