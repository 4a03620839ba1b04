package recording

import (
	"regexp/syntax"
	"slices"
)

const (
	// maxMatch bounds the text, in bytes, that is held back because a match may begin in
	// it. What a longer match began with has been let go by then.
	maxMatch = 16 << 10
	// maxThread is when a match that goes on is given up, in bytes: redaction must be no
	// way to keep a whole session from being recorded.
	maxThread = 4 * maxMatch
	// sureLiterals is how many of its own characters a pattern must have found before text
	// that may be a match, but is no whole one yet, is taken for one in doubt.
	sureLiterals = 3
)

// machine looks for one rule in one text that comes by and by, in linear time: it is
// the simulation of a nondeterministic automaton that regexp uses, too, but keeps its
// state between calls and knows where an unfinished match began.
//
// It finds at least what regexp's FindAll finds in the whole text. Matches that begin
// inside another one count as well.
type machine struct {
	*rule
	prev    rune  // the character before, or -1
	end     int64 // where it ended
	threads []thread
	list    []thread // scratch
	seen    []uint32 // by instruction: the last step that came by
	now     uint32   // step
}

// thread is one way in which the text up to here may be the beginning of a match. Those
// that come first in a list have precedence; those with one start stand together.
type thread struct {
	pc       uint32
	literals uint16 // characters of the pattern's own found
	class    bool   // beyond those, by now
	start    int64
}

func newMachine(u *rule) machine { return machine{rule: u, prev: -1} }

// idle reports whether no match is on its way.
func (m *machine) idle() bool { return len(m.threads) == 0 }

// step takes the character r, which stands at [at, end) and is followed by rest, or the
// end of the text if r is -1. found is told of each match.
func (m *machine) step(r rune, at, end int64, rest []byte, found func(u *rule, from, to int64)) {
	seed := r >= 0 && m.mayBegin(rest)
	if m.idle() && !seed {
		m.prev, m.end = r, end
		return
	}
	m.expand(r, at, seed)
	m.threads = m.threads[:0]
	var done int64 = -1 // the start of threads that a match has settled
	for _, t := range m.list {
		inst := &m.prog.Inst[t.pc]
		switch {
		case t.start == done || at-t.start > maxThread:
		case inst.Op == syntax.InstMatch:
			found(m.rule, t.start, m.end)
			done = t.start
		case r >= 0 && inst.MatchRune(r):
			m.threads = append(m.threads, t.after(inst))
		}
	}
	m.prev, m.end = r, end
}

func (m *machine) mayBegin(rest []byte) bool {
	return len(rest) == 0 || m.first[rest[0]] && m.mayStart(rest)
}

func (t thread) after(inst *syntax.Inst) thread {
	if _, ok := literal(inst); ok && !t.class {
		t.literals++
	} else {
		t.class = true
	}
	t.pc = inst.Out
	return t
}

// expand lists the instructions that are due for the next character, with the one that
// begins a new match last.
func (m *machine) expand(next rune, at int64, seed bool) {
	if m.seen == nil {
		m.seen = make([]uint32, len(m.prog.Inst))
	}
	m.now++
	if m.now == 0 { // after four billion steps
		clear(m.seen)
		m.now = 1
	}
	m.list = m.list[:0]
	around := syntax.EmptyOpContext(m.prev, next)
	for _, t := range m.threads {
		m.add(t, around)
	}
	if seed {
		m.add(thread{pc: uint32(m.prog.Start), start: at}, around)
	}
}

// add follows what needs no character. The first who comes by an instruction has
// precedence there, and covers whoever comes later: it began before them.
func (m *machine) add(t thread, around syntax.EmptyOp) {
	for {
		if m.seen[t.pc] == m.now {
			return
		}
		m.seen[t.pc] = m.now
		inst := &m.prog.Inst[t.pc]
		switch inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			out := t
			out.pc = inst.Out
			m.add(out, around)
			t.pc = inst.Arg
			continue
		case syntax.InstCapture, syntax.InstNop:
			t.pc = inst.Out
			continue
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(inst.Arg)&^around != 0 {
				return
			}
			t.pc = inst.Out
			continue
		case syntax.InstFail:
			return
		}
		m.list = append(m.list, t)
		return
	}
}

// began returns where the first unfinished match at or after from began, if there is one.
func (m *machine) began(from int64) (int64, bool) {
	for _, t := range m.threads { // in order of their starts
		if t.start >= from {
			return t.start, true
		}
	}
	return 0, false
}

// doubt tells of text that must be taken for a match because no more of it can be
// awaited: it began before an offset, and is one if nothing follows, or has begun like one
// beyond doubt.
func (m *machine) doubt(before int64, found func(u *rule, from, to int64)) {
	i := slices.IndexFunc(m.threads, func(t thread) bool {
		return t.start < before && (m.accepts[t.pc] || t.class && t.literals >= sureLiterals && m.end-t.start <= maxMatch)
	})
	if i >= 0 {
		found(m.rule, m.threads[i].start, m.end)
	}
}
