package archive

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Where the machine loses its power, files may have lost what was written last, each another
// amount: what the journal says is there need not be. The next start takes what continues from
// the beginning on, and neither stops there nor passes on what nobody could verify.
func TestPowerCut(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, dir string){
		"the end of a chunk in the journal": func(t *testing.T, dir string) { shorten(t, filepath.Join(dir, chunkName(2)), 100) },
		"all of a chunk in the journal":     func(t *testing.T, dir string) { shorten(t, filepath.Join(dir, chunkName(2)), -1) },
		"all of the first chunk":            func(t *testing.T, dir string) { shorten(t, filepath.Join(dir, chunkName(1)), -1) },
		"the end of the journal, and all of a chunk": func(t *testing.T, dir string) {
			shorten(t, filepath.Join(dir, journalObject), 1000)
			shorten(t, filepath.Join(dir, chunkName(2)), -1)
		},
		"the journal, and the end of the second chunk": func(t *testing.T, dir string) {
			shorten(t, filepath.Join(dir, journalObject), -1)
			shorten(t, filepath.Join(dir, chunkName(2)), 1)
		},
		"nothing": func(*testing.T, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			store := newS3(t)
			store.set(away)
			s := store.with(t, func(c *Config) { c.ChunkSize = 1500 })
			a := s.open()
			r := create(t, a, "alice-1")
			show(t, r, 0, 100)
			kill(a)
			dir := filepath.Join(s.cfg.Spool, r.Name)
			if _, err := os.Stat(filepath.Join(dir, chunkName(4))); err != nil {
				t.Fatal("there are fewer chunks than the test wants:", err)
			}
			lose(t, dir)
			store.set(works)
			opened := make(chan *Archive, 1)
			go func() { opened <- s.open() }()
			select {
			case a = <-opened:
			case <-time.After(2 * time.Minute):
				panic("the archive does not open: " + name)
			}
			waitStored(t, a)
			if text, err := readAll(t, a, r.Name, 512<<10); err == nil {
				got, end := shown(t, text)
				if !strings.HasPrefix(lines(0, 100), got) || end == nil || name == "nothing" && got != lines(0, 100) {
					t.Errorf("got %d bytes and the end %v", len(got), end)
				}
				if report, err := a.Verify(t.Context(), r.Name); err != nil || len(report.Damage) > 0 {
					t.Errorf("got %+v, %v", report, err)
				}
			} else if !strings.Contains(name, "first") {
				t.Error(err)
			}
		})
	}
}

// shorten takes bytes off the end of a file; all of them where n is negative.
func shorten(t *testing.T, file string, n int64) {
	t.Helper()
	info, err := os.Stat(file)
	must(t, err)
	if n < 0 {
		n = info.Size()
	}
	must(t, os.Truncate(file, max(0, info.Size()-n)))
}
