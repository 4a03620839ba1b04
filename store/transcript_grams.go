package store

import (
	"fmt"
	"strconv"
	"strings"

	"sallyport.dev/index"
)

// What finds the blocks that hold a text is which trigrams they hold: three characters that
// follow each other in a line, folded, as numbers of gramBits. Numbers that fall together
// find blocks that are looked at in vain, no more. Each is told to the database once a
// block, since that is what indexing costs.
const gramBits = 20

// gramSet is which numbers a block holds.
type gramSet struct {
	seen [1 << gramBits / 64]uint64
	all  []uint32
}

// of returns the trigrams of a folded text, valid until the next call.
func (g *gramSet) of(folded string) []uint32 {
	for _, h := range g.all {
		g.seen[h/64] = 0
	}
	g.all = g.all[:0]
	var x uint64 // the last three characters
	n := 0
	for _, r := range folded {
		if r == '\n' {
			n = 0
			continue
		}
		x = x<<21&(1<<63-1) | uint64(r)
		if n++; n < 3 {
			continue
		}
		h := gramHash(x)
		if bit := uint64(1) << (h % 64); g.seen[h/64]&bit == 0 {
			g.seen[h/64] |= bit
			g.all = append(g.all, h)
		}
	}
	return g.all
}

// gramHash makes a number of three characters of 21 bits.
func gramHash(x uint64) uint32 { return uint32(x * 0x9e3779b97f4a7c15 >> (64 - gramBits)) }

// gramsMost bounds the trigrams that are asked for of one literal.
const gramsMost = 12

// gramsOf returns trigrams of a literal, spread over all of it.
func gramsOf(literal string) []uint32 {
	runes := []rune(literal)
	n := len(runes) - 2
	var grams []uint32
	for i := 0; i < n; i += max(1, (n+gramsMost-1)/gramsMost) {
		grams = append(grams, gramHash(uint64(runes[i])<<42|uint64(runes[i+1])<<21|uint64(runes[i+2])))
	}
	return grams
}

// gramWords writes trigrams as FTS5's ascii tokenizer takes them: words of four characters.
func gramWords(grams []uint32, between string) string {
	const digits = "abcdefghijklmnopqrstuvwxyz012345"
	var b strings.Builder
	b.Grow((4 + len(between)) * len(grams))
	for i, h := range grams {
		if i > 0 {
			b.WriteString(between)
		}
		b.Write([]byte{digits[h>>15], digits[h>>10&31], digits[h>>5&31], digits[h&31]})
	}
	return b.String()
}

// gramArray writes them as PostgreSQL takes arrays.
func gramArray(grams []uint32) string {
	b := make([]byte, 0, 8*len(grams)+2)
	b = append(b, '{')
	for i, h := range grams {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(h), 10)
	}
	return string(append(b, '}'))
}

// encodeGrams writes trigrams as the database takes them.
func (s *Store) encodeGrams(grams []uint32) string {
	if s.isSQLite() {
		return gramWords(grams, " ")
	}
	return gramArray(grams)
}

func (s *Store) isSQLite() bool {
	_, ok := s.db.(*sqliteDB)
	return ok
}

// grams returns the condition on transcript_trigrams that says what a text must hold; empty
// for any.
func (s *Store) grams(c index.Clauses) (condition string, args []any) {
	if len(c) == 0 {
		return "", nil
	}
	if s.isSQLite() {
		return "transcript_trigrams MATCH ?", []any{matchGrams(c)}
	}
	var all []string
	for _, clause := range c {
		var any []string
		for _, literal := range clause {
			any = append(any, "grams @> CAST(? AS int4[])")
			args = append(args, gramArray(gramsOf(literal)))
		}
		all = append(all, "("+strings.Join(any, " OR ")+")")
	}
	return strings.Join(all, " AND "), args
}

// matchGrams writes clauses in FTS5's language.
func matchGrams(c index.Clauses) string {
	var all []string
	for _, clause := range c {
		var any []string
		for _, literal := range clause {
			any = append(any, fmt.Sprintf(`("%s")`, gramWords(gramsOf(literal), `" AND "`)))
		}
		all = append(all, "("+strings.Join(any, " OR ")+")")
	}
	return strings.Join(all, " AND ")
}
