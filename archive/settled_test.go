package archive

import (
	"os"
	"path/filepath"
	"testing"
)

// left is a recording that the store has whole, and what a member that was killed right then
// left of it in its spool.
type left struct {
	*system
	name     string
	manifest []byte
}

func newLeft(t *testing.T, chunkToo bool) *left {
	t.Helper()
	l := &left{system: newSystem(t)}
	a := l.open()
	r := create(t, a, "alice-1")
	show(t, r, 0, 5)
	l.name = r.Name
	dir := filepath.Join(l.cfg.Spool, r.Name)
	kept := map[string][]byte{}
	for _, object := range []string{keyObject, journalObject, chunkName(1)} {
		b, err := os.ReadFile(filepath.Join(dir, object))
		must(t, err)
		kept[object] = b
	}
	end(t, r)
	waitStored(t, a)
	closeNow(t, a)
	var err error
	l.manifest, err = os.ReadFile(filepath.Join(l.store, r.Name, manifestObject))
	must(t, err)
	if kept[manifestObject] = l.manifest; !chunkToo {
		delete(kept, chunkName(1))
	}
	must(t, os.MkdirAll(dir, 0o700))
	for object, b := range kept {
		must(t, os.WriteFile(filepath.Join(dir, object), b, 0o600))
	}
	return l
}

func (l *left) set(state State) {
	row := l.rows.rows[l.name]
	row.State = state
	l.rows.rows[l.name] = row
}

func (l *left) wantSpool(there bool) {
	l.t.Helper()
	if _, err := os.Stat(filepath.Join(l.cfg.Spool, l.name)); (err == nil) != there {
		l.t.Errorf("the recording in the spool: %v", err)
	}
}

// A member that was killed between the last word of the store and the removal from its spool
// does not bring back, at its next start, the key of a recording that was deleted meanwhile.
func TestDeletedStaysDeleted(t *testing.T) {
	for name, chunk := range map[string]bool{"all was sent": false, "an older copy of the spool": true} {
		t.Run(name, func(t *testing.T) {
			l := newLeft(t, chunk)
			must(t, os.RemoveAll(filepath.Join(l.store, l.name)))
			l.set(Deleted)
			a := l.open()
			waitStored(t, a)
			if _, err := os.Stat(filepath.Join(l.store, l.name)); err == nil {
				t.Error("the store has something of the deleted recording again")
			}
			l.wantSpool(false)
			if n := a.Stats().SpoolBytes; n != 0 {
				t.Errorf("got %d bytes in the spool, want none", n)
			}
		})
	}
}

// Nor does it put a key back that was wrapped anew meanwhile: the old wrapping key may be gone
// by then.
func TestRewrappedStaysRewrapped(t *testing.T) {
	for name, chunk := range map[string]bool{"all was sent": false, "an older copy of the spool": true} {
		t.Run(name, func(t *testing.T) {
			l := newLeft(t, chunk)
			key := filepath.Join(l.store, l.name, keyObject)
			must(t, os.WriteFile(key, []byte("wrapped anew"), 0o600))
			a := l.open()
			waitStored(t, a)
			if b, err := os.ReadFile(key); err != nil || string(b) != "wrapped anew" {
				t.Errorf("got the key %q, %v", b, err)
			}
			l.wantSpool(false)
		})
	}
}

// Somebody who writes into the database that recordings are stored has the member forget none
// that the store does not have.
func TestRowThatLies(t *testing.T) {
	l := newLeft(t, true)
	must(t, os.RemoveAll(filepath.Join(l.store, l.name)))
	must(t, os.Remove(filepath.Join(l.cfg.Spool, l.name, manifestObject))) // it was killed before the end
	a := l.open()                                                          // the row says that it is stored
	waitStored(t, a)
	checkWhole(t, a, l.name, lines(0, 5))
}
