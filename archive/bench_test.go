package archive

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"sallyport.dev/recording"
)

var benchLine = []byte(strings.Repeat("some output with \x1b[1mcolour\x1b[0m and ☃\r\n", 24))

// BenchmarkArchive records output: as bare JSON, and sealed into the spool. Bytes are what the
// session shows.
func BenchmarkArchive(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		w, err := recording.NewWriter(io.Discard, header("alice-1"))
		must(b, err)
		benchOutput(b, w)
	})
	b.Run("archive", func(b *testing.B) {
		a := newSystem(b).open()
		r := create(b, a, "alice-1")
		benchOutput(b, r.Writer)
		end(b, r)
	})
}

func benchOutput(b *testing.B, w *recording.Writer) {
	b.SetBytes(int64(len(benchLine)))
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Output(start, benchLine); err != nil {
			b.Fatal(err)
		}
	}
	must(b, w.Flush())
}

// An idle recording that has shown much holds no buffer and no encoder: a few KB of keys and
// digests are left of it.
func TestIdleMemory(t *testing.T) {
	const n, limit = 200, 8 << 10
	a := newSystem(t).open()
	var before, after runtime.MemStats
	warm := create(t, a, "warm")
	must(t, warm.Output(start, benchLine))
	must(t, warm.Flush())
	waitSent := func() {
		eventually(t, "keys to be sent", func() bool { return a.Stats().Lag == 0 })
	}
	waitSent()
	runtime.GC()
	runtime.ReadMemStats(&before)
	all := make([]*Recording, n)
	for i := range all {
		all[i] = create(t, a, fmt.Sprint("s", i))
		for range 40 {
			must(t, all[i].Output(start, benchLine))
		}
		must(t, all[i].Flush())
	}
	waitSent()
	runtime.GC()
	runtime.GC() // pools are let go of
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; each > limit {
		t.Errorf("an idle recording holds %d bytes, want at most %d", each, limit)
	} else {
		t.Logf("an idle recording holds %d bytes", each)
	}
	runtime.KeepAlive(all)
}
