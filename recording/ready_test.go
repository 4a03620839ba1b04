package recording

import (
	"os"
	"testing"
)

func TestDirReady(t *testing.T) {
	folder := t.TempDir()
	d, err := OpenDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Ready(); err != nil {
		t.Errorf("got %v, want a store that can be written", err)
	}
	if left, _ := os.ReadDir(folder); len(left) > 0 {
		t.Errorf("got %v left behind, want nothing", left)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := d.Ready(); err == nil {
		t.Error("got no error, want one: the folder is gone")
	}
}
