package policy

import (
	"math/bits"
	"slices"
	"sort"
	"strings"
)

// index narrows the statements of a Set to those that may match a request. It
// looks at each statement along several dimensions (action, resource, a few
// condition keys); a statement that a dimension says nothing about is free in it.
// The candidates are the statements that every dimension lets through: a superset
// of those that match, as each dimension lets through whatever matches along it.
type index struct {
	words     int
	actions   dimension
	resources dimension
	keys      []keyDimension
}

// scratchWords is room for the candidates of 2048 statements without allocation.
const scratchWords = 32

// maxKeys bounds the condition keys that are dimensions of their own.
const maxKeys = 4

// dimension finds statements by a string of the request: exactly or by prefix.
type dimension struct {
	free    []uint64 // bit set of the statements that are free
	exact   map[string]posting
	prefix  map[string]posting
	lengths []int // of the prefixes, ascending
}

// posting is the statements under one text: listed while they are few, as a bit set
// where that is shorter.
type posting struct {
	listed []int32
	bits   []uint64
}

func (p posting) add(i, words int) posting {
	if p.bits != nil {
		p.bits[i/64] |= 1 << (i % 64)
		return p
	}
	if p.listed = append(p.listed, int32(i)); len(p.listed) <= words {
		return p
	}
	dense := posting{bits: make([]uint64, words)}
	for _, j := range p.listed {
		dense.bits[j/64] |= 1 << (j % 64)
	}
	return dense
}

// mark adds the statements to dst.
func (p posting) mark(dst []uint64) {
	for _, i := range p.listed {
		dst[i/64] |= 1 << (i % 64)
	}
	for i, word := range p.bits {
		dst[i] |= word
	}
}

// keyDimension finds statements by the values of a condition key.
type keyDimension struct {
	key string
	dimension
}

func newIndex(statements []*Statement) *index {
	x := &index{words: (len(statements) + 63) / 64}
	x.actions = newDimension(x.words)
	x.resources = newDimension(x.words)
	for i, s := range statements {
		x.addAction(i, s)
		x.addResource(i, s)
	}
	x.actions.finish()
	x.resources.finish()
	for _, key := range indexedKeys(statements) {
		x.keys = append(x.keys, newKeyDimension(key, statements, x.words))
	}
	return x
}

func newDimension(words int) dimension {
	return dimension{free: make([]uint64, words), exact: make(map[string]posting), prefix: make(map[string]posting)}
}

func (d *dimension) addFree(i int) { d.free[i/64] |= 1 << (i % 64) }

func (d *dimension) addPrefix(i int, prefix string) {
	if prefix == "" {
		d.addFree(i)
		return
	}
	d.prefix[prefix] = d.prefix[prefix].add(i, len(d.free))
}

func (d *dimension) addExact(i int, s string) { d.exact[s] = d.exact[s].add(i, len(d.free)) }

func (d *dimension) finish() {
	seen := make(map[int]bool)
	for p := range d.prefix {
		if !seen[len(p)] {
			seen[len(p)] = true
			d.lengths = append(d.lengths, len(p))
		}
	}
	sort.Ints(d.lengths)
}

// mark adds to dst the statements that s lets through, beyond the free ones.
func (d *dimension) mark(dst []uint64, s string) {
	d.exact[s].mark(dst)
	for _, n := range d.lengths {
		if n > len(s) {
			return
		}
		d.prefix[s[:n]].mark(dst)
	}
}

func (x *index) addAction(i int, s *Statement) {
	if s.notAction {
		x.actions.addFree(i)
		return
	}
	for j := range s.actions {
		if p := &s.actions[j]; p.isText {
			x.actions.addExact(i, p.plain)
		} else {
			x.actions.addPrefix(i, p.leading())
		}
	}
}

// leading returns the literal text that the pattern starts with.
func (p *pattern) leading() string {
	if len(p.tokens) > 0 && p.tokens[0].kind == literal {
		return p.tokens[0].text
	}
	return ""
}

func (x *index) addResource(i int, s *Statement) {
	if s.notResource {
		x.resources.addFree(i)
		return
	}
	for j := range s.resources {
		switch text, exact, ok := s.resources[j].sixth(); {
		case !ok:
			x.resources.addFree(i)
		case exact:
			x.resources.addExact(i, text)
		default:
			x.resources.addPrefix(i, text)
		}
	}
}

// sixth returns the literal text that the last of an ARN's six segments starts
// with, or is: what tells resources apart, whatever the segments before it are. It
// is not ok for patterns that are no ARN or end early.
func (p *pattern) sixth() (text string, exact, ok bool) {
	if !p.arn || p.open {
		return "", false, false
	}
	colons := 0
	for i := range p.tokens {
		t := &p.tokens[i]
		if t.kind != literal {
			continue
		}
		n := strings.Count(t.text, ":")
		if colons+n < 5 {
			colons += n
			continue
		}
		rest := t.text
		for ; colons < 5; colons++ {
			_, rest, _ = strings.Cut(rest, ":")
		}
		return rest, i == len(p.tokens)-1, true
	}
	return "", false, false
}

// indexable reports whether the condition holds only if one of the key's values is
// one of the operands' texts.
func (c *condition) indexable() bool {
	if c.family != familyString && c.family != familyStringLike || c.negated || c.ifExists || c.quantifier == forAll {
		return false
	}
	for i := range c.operands {
		if !c.operands[i].pattern.isText {
			return false
		}
	}
	return true
}

// indexedKeys chooses the keys that most statements compare with fixed texts.
func indexedKeys(statements []*Statement) []string {
	count := make(map[string]int)
	for _, s := range statements {
		for i := range s.conditions {
			if s.conditions[i].indexable() {
				count[s.conditions[i].key]++
			}
		}
	}
	var keys []string
	for k := range count {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if count[a] != count[b] {
			return count[b] - count[a]
		}
		return strings.Compare(a, b)
	})
	return keys[:min(len(keys), maxKeys)]
}

func newKeyDimension(key string, statements []*Statement, words int) keyDimension {
	d := keyDimension{key: key, dimension: newDimension(words)}
	for i, s := range statements {
		c := s.indexableOn(key)
		if c == nil {
			d.addFree(i)
			continue
		}
		for j := range c.operands {
			d.addExact(i, c.operands[j].pattern.plain)
		}
	}
	return d
}

func (s *Statement) indexableOn(key string) *condition {
	for i := range s.conditions {
		if c := &s.conditions[i]; c.key == key && c.indexable() {
			return c
		}
	}
	return nil
}

// candidates returns the statements that may match, in one of the given buffers
// where they suffice.
func (x *index) candidates(q *query, result, scratch []uint64) []uint64 {
	if x.words > len(result) {
		result, scratch = make([]uint64, x.words), make([]uint64, x.words)
	}
	result, scratch = result[:x.words], scratch[:x.words]
	copy(result, x.actions.free)
	x.actions.mark(result, q.action)
	// A resource that is no ARN ("*") is matched by free patterns only.
	copy(scratch, x.resources.free)
	x.resources.mark(scratch, q.resource[q.head:])
	if !intersect(result, scratch) {
		return result
	}
	for i := range x.keys {
		d := &x.keys[i]
		copy(scratch, d.free)
		for _, v := range q.values(d.key) {
			d.exact[v].mark(scratch)
		}
		if !intersect(result, scratch) {
			return result
		}
	}
	return result
}

// intersect narrows a to what is in b as well and reports whether anything is left.
func intersect(a, b []uint64) bool {
	var left uint64
	for i := range a {
		a[i] &= b[i]
		left |= a[i]
	}
	return left != 0
}

// next returns the first candidate from i on, or end. No candidates at all (nil)
// stand for every statement.
func next(candidates []uint64, i, end int) int {
	if candidates == nil || i >= end {
		return i
	}
	word := i / 64
	rest := candidates[word] >> (i % 64) << (i % 64)
	for rest == 0 {
		if word++; word*64 >= end {
			return end
		}
		rest = candidates[word]
	}
	return min(word*64+bits.TrailingZeros64(rest), end)
}
