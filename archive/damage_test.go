package archive

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport.dev/recording"
)

// tampered is a store with two recordings of some chunks each, for somebody to change.
type tampered struct {
	*system
	t    *testing.T
	a    *Archive
	name string
	dir  string // of the recording
	oth  string // of the other
}

func newTampered(t *testing.T) *tampered {
	s := newSystem(t, func(c *Config) { c.ChunkSize = 700 })
	a := s.open()
	for _, session := range []string{"alice-1", "clara-1"} {
		r := create(t, a, session)
		show(t, r, 0, 30)
		end(t, r)
	}
	waitStored(t, a)
	closeNow(t, a)
	name := "2026/11/20/alice-1"
	return &tampered{system: s, t: t, a: s.open(), name: name, dir: filepath.Join(s.store, name), oth: filepath.Join(s.store, "2026/11/20/clara-1")}
}

func (s *tampered) read(object string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, object))
	must(s.t, err)
	return b
}

func (s *tampered) write(object string, b []byte) {
	s.t.Helper()
	must(s.t, os.WriteFile(filepath.Join(s.dir, object), b, 0o600))
}

// edit changes an object.
func (s *tampered) edit(object string, change func([]byte) []byte) {
	s.t.Helper()
	s.write(object, change(s.read(object)))
}

// frame2 is where the second frame of a chunk begins and ends.
func frame2(t *testing.T, b []byte) (from, to int) {
	t.Helper()
	n := 0
	_, err := frames(b, func(h head, f []byte) error {
		if n++; n == 2 {
			to = from + len(f)
			return io.EOF
		}
		from += len(f)
		return nil
	})
	if err != io.EOF {
		t.Fatal("the chunk has no two frames")
	}
	return from, to
}

// Whatever is changed in the store is found when that is read, which shows what came before
// and nothing else, and by Verify, which names the place.
func TestTampering(t *testing.T) {
	const second = "000002.chunk"
	tests := map[string]struct {
		change func(s *tampered)
		object string
		frame  bool // a frame is named, too
		what   string
	}{
		"byte of a frame": {func(s *tampered) {
			s.edit(second, func(b []byte) []byte { f, _ := frame2(s.t, b); b[f+frameHeader+20] ^= 1; return b })
		}, second, true, "does not open"},
		"header of a frame": {func(s *tampered) {
			s.edit(second, func(b []byte) []byte { f, _ := frame2(s.t, b); b[f+17] ^= 1; return b })
		}, second, true, "stands in its place"},
		"frame removed": {func(s *tampered) {
			s.edit(second, func(b []byte) []byte { f, e := frame2(s.t, b); return append(b[:f:f], b[e:]...) })
		}, second, true, "stands in its place"},
		"frames swapped": {func(s *tampered) {
			s.edit(second, func(b []byte) []byte {
				f, e := frame2(s.t, b)
				return append(append(append([]byte{}, b[f:e]...), b[:f]...), b[e:]...)
			})
		}, second, true, "stands in its place"},
		"frame twice": {func(s *tampered) {
			s.edit(second, func(b []byte) []byte {
				f, e := frame2(s.t, b)
				return append(append(append([]byte{}, b[:e]...), b[f:e]...), b[e:]...)
			})
		}, second, true, "stands in its place"},
		"chunk cut": {func(s *tampered) {
			s.edit(second, func(b []byte) []byte { return b[:len(b)-3] })
		}, second, true, "cut off"},
		"chunk cut between frames": {func(s *tampered) {
			s.edit(second, func(b []byte) []byte { _, e := frame2(s.t, b); return b[:e] })
		}, second, true, "ends with byte"},
		"chunk emptied":    {func(s *tampered) { s.write(second, nil) }, second, true, "ends with byte"},
		"chunk lengthened": {func(s *tampered) { s.edit(second, func(b []byte) []byte { return append(b, 0) }) }, second, true, "cut off"},
		"chunk removed":    {func(s *tampered) { must(s.t, os.Remove(filepath.Join(s.dir, second))) }, second, false, "missing"},
		"chunks swapped": {func(s *tampered) {
			b := s.read(second)
			s.write(second, s.read("000003.chunk"))
			s.write("000003.chunk", b)
		}, second, true, "stands in its place"},
		"chunk of another recording": {func(s *tampered) {
			b, err := os.ReadFile(filepath.Join(s.oth, second))
			must(s.t, err)
			s.write(second, b)
		}, second, true, "does not open"},
		"manifest changed": {func(s *tampered) {
			s.edit(manifestObject, func(b []byte) []byte { return bytes.Replace(b, []byte("web-1"), []byte("web-2"), 1) })
		}, manifestObject, false, "it was changed"},
		"manifest cut":     {func(s *tampered) { s.edit(manifestObject, func(b []byte) []byte { return b[:100] }) }, manifestObject, false, "it was changed"},
		"manifest removed": {func(s *tampered) { must(s.t, os.Remove(filepath.Join(s.dir, manifestObject))) }, manifestObject, false, "missing"},
		"manifest of another recording": {func(s *tampered) {
			b, err := os.ReadFile(filepath.Join(s.oth, manifestObject))
			must(s.t, err)
			s.write(manifestObject, b)
		}, manifestObject, false, "it was changed"},
		"key changed": {func(s *tampered) {
			s.edit(keyObject, func(b []byte) []byte { return bytes.Replace(b, []byte(`"wrapped": "A`), []byte(`"wrapped": "B`), 1) })
		}, keyObject, false, ""},
		"key of another recording": {func(s *tampered) {
			b, err := os.ReadFile(filepath.Join(s.oth, keyObject))
			must(s.t, err)
			s.write(keyObject, b)
		}, keyObject, false, "key of recording"},
		"key of another recording, renamed": {func(s *tampered) {
			b, err := os.ReadFile(filepath.Join(s.oth, keyObject))
			must(s.t, err)
			s.write(keyObject, bytes.Replace(b, []byte("clara-1"), []byte("alice-1"), 1))
		}, "000001.chunk", true, "does not open"},
		"key removed":  {func(s *tampered) { must(s.t, os.Remove(filepath.Join(s.dir, keyObject))) }, keyObject, false, "missing"},
		"object added": {func(s *tampered) { s.write("000099.chunk", []byte("x")) }, "000099.chunk", false, "does not belong"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTampered(t)
			good := mustRead(t, s.a, s.name)
			closeNow(t, s.a)
			s.a = s.open() // nothing is cached
			tt.change(s)
			s.check(good, tt.object, tt.frame, tt.what)
		})
	}
}

func (s *tampered) check(good []byte, object string, frame bool, what string) {
	s.t.Helper()
	got, err := readAll(s.t, s.a, s.name, 512<<10)
	if object != "000099.chunk" && err == nil {
		s.t.Error("read without an error")
	}
	if !bytes.HasPrefix(good, got) {
		s.t.Errorf("showed what was not recorded: %d bytes", len(got))
	}
	for _, piece := range []int{100, 5000} {
		got, _ := readAll(s.t, s.a, s.name, piece)
		if !bytes.HasPrefix(good, got) {
			s.t.Errorf("showed what was not recorded: %d bytes", len(got))
		}
	}
	report, err := s.a.Verify(s.t.Context(), s.name)
	if what == "" { // the key service says so, which may have other reasons
		if err == nil || !strings.Contains(err.Error(), object) {
			s.t.Errorf("got %+v, %v, want an error about %s", report, err, object)
		}
		return
	}
	if err != nil || len(report.Damage) == 0 {
		s.t.Fatalf("got %+v, %v, want damage", report, err)
	}
	d := report.Damage[0]
	if d.Object != object || d.Frame > 0 != frame || !strings.Contains(d.What, what) || d.Name != s.name {
		s.t.Errorf("got %v (frame %d), want %s: %s", d, d.Frame, object, what)
	}
}

// Where the row is lost as well, a manifest that was made to fit what is left does not let the
// end be cut off: the last frame says that it is the last.
func TestForgedManifest(t *testing.T) {
	s := newTampered(t)
	m, err := s.a.Manifest(t.Context(), s.name)
	must(t, err)
	m.Chunks = m.Chunks[:len(m.Chunks)-1]
	m.Size = m.Chunks[len(m.Chunks)-1].end()
	s.write(manifestObject, m.encode())
	s.rows.mu.Lock()
	clear(s.rows.rows)
	s.rows.mu.Unlock()
	_, err = readAll(t, s.a, s.name, 512<<10)
	if d := (*Damage)(nil); !errors.As(err, &d) || !strings.Contains(d.What, "last frame") {
		t.Errorf("got %v, want damage: the last frame is missing", err)
	}
}

// Damage in the spool is no torn frame: what was good is kept, and what was cut off is put
// aside.
func TestDamagedSpool(t *testing.T) {
	s := newSystem(t)
	a := s.open()
	r := create(t, a, "alice-1")
	show(t, r, 0, 10)
	kill(a)
	chunk := filepath.Join(s.cfg.Spool, r.Name, chunkName(1))
	b, err := os.ReadFile(chunk)
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.WriteFile(chunk, b, 0o600))
	a = s.open()
	waitStored(t, a)
	text, _ := shown(t, mustRead(t, a, r.Name))
	if !strings.HasPrefix(lines(0, 10), text) || len(text) < len(lines(0, 3)) || len(text) == len(lines(0, 10)) {
		t.Errorf("got %q", text)
	}
	kept, err := os.ReadFile(filepath.Join(s.cfg.Spool, damagedFolder, "alice-1-000001.chunk"))
	if err != nil || !bytes.HasSuffix(b, kept) || a.Stats().Damaged == 0 {
		t.Errorf("got %d bytes put aside, %v, %d damages", len(kept), err, a.Stats().Damaged)
	}
}

// A recording that was deleted is not there, whatever the store still has.
func TestDeleted(t *testing.T) {
	s := newTampered(t)
	must(t, s.rows.UpdateRecording(t.Context(), s.name, func(r *Row) error { r.State = Deleted; return nil }))
	if _, err := s.a.Open(t.Context(), s.name); !errors.Is(err, recording.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}
