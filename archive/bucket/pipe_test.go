//go:build unix

package bucket

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gocloud.dev/gcerrors"
)

// A pipe in a folder, in the place of an object, is no object: nobody waits at it.
func TestFolderPipe(t *testing.T) {
	dir := t.TempDir()
	b := open(t, Config{URL: dir})
	pipe := filepath.Join(dir, "a")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := b.ReadAll(t.Context(), "a")
		read <- err
	}()
	select {
	case err := <-read:
		if gcerrors.Code(err) != gcerrors.NotFound {
			t.Errorf("got %v, want that it is not there", err)
		}
	case <-time.After(time.Minute):
		f, err := os.OpenFile(pipe, os.O_RDWR, 0) // lets the reader go on
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		<-read
		t.Error("the reader waits for ever")
	}
}
