package store

import (
	"strings"
	"testing"

	"sallyport.dev/index"
)

// What a literal is asked for by is among what a text that holds it has, whatever it is.
func FuzzGrams(f *testing.F) {
	f.Add("systemctl restart nginx\nGröße 日本語のテスト", "restart")
	f.Add("\x00\x1b\xff� a\u2028b", "a\u2028b")
	var set gramSet
	f.Fuzz(func(t *testing.T, text, literal string) {
		text = index.Fold(text)
		literal, _, _ = strings.Cut(index.Fold(literal), "\n") // lines hold none
		have := map[uint32]bool{}
		all := set.of(text + "\n" + literal + text)
		for _, g := range all {
			if have[g] {
				t.Errorf("got %d twice", g)
			}
			have[g] = true
		}
		for _, g := range gramsOf(literal) {
			if !have[g] {
				t.Errorf("%q is asked for by %d, which a text that holds it has not", literal, g)
			}
		}
		if want := 5*len(all) - 1; len(all) > 0 && len(gramWords(all, " ")) != want {
			t.Errorf("got words of %d bytes, want %d", len(gramWords(all, " ")), want)
		}
	})
}

func BenchmarkGrams(b *testing.B) {
	text := index.Fold(strings.Repeat("2026-11-20T09:00:00Z INFO app[1004]: request served from cache id=4f02aa31 took=17.202ms\n", 180))
	var set gramSet
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		gramWords(set.of(text), " ")
	}
}
