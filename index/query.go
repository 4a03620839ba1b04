package index

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxText and maxRegexp bound what is searched for, in bytes.
	maxText   = 256
	maxRegexp = 512
	// gram is how many characters a literal needs for the index to be of use.
	gram = 3
	// maxClauses bounds what the index is asked, and maxChoices the literals of a clause.
	// Leaving some away finds more to look at, and the same in the end.
	maxClauses = 8
	maxChoices = 16
	maxLiteral = 64 // characters
)

// ErrQuery is wrapped by errors about what was searched for.
var ErrQuery = errors.New("bad search")

// Query is what lines are compared with.
type Query struct {
	text    string // folded
	re      *regexp.Regexp
	clauses Clauses
}

// Clauses are what a text must hold to match, folded (see Fold): of each clause, one of
// its literals. Literals have at least three characters. Without clauses any text may.
type Clauses [][]string

// Text searches for a text, in capitals or not.
func Text(text string) (*Query, error) {
	switch {
	case text == "":
		return nil, fmt.Errorf("%w: the text is empty", ErrQuery)
	case len(text) > maxText:
		return nil, fmt.Errorf("%w: the text has %d bytes, at most %d are allowed", ErrQuery, len(text), maxText)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return nil, fmt.Errorf("%w: the text %q holds control characters, which no line does", ErrQuery, text)
	}
	folded := Fold(text)
	return &Query{text: folded, clauses: Clauses{}.add([]string{folded})}, nil
}

// Regexp searches for a regular expression in RE2's syntax, which takes time in
// proportion to the text whatever it says.
func Regexp(expr string) (*Query, error) {
	if expr == "" || len(expr) > maxRegexp {
		return nil, fmt.Errorf("%w: the regular expression has %d bytes, allowed are 1 to %d", ErrQuery, len(expr), maxRegexp)
	}
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("%w: the regular expression %q: %w", ErrQuery, expr, err)
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, fmt.Errorf("%w: the regular expression %q: %w", ErrQuery, expr, err)
	}
	return &Query{re: re, clauses: required(parsed.Simplify())}, nil
}

// Clauses tells what the index is asked.
func (q *Query) Clauses() Clauses { return q.clauses }

// Find returns where in a line the first match stands, in bytes; nil for none.
func (q *Query) Find(line string) []int {
	if q.re != nil && len(q.clauses) == 0 {
		return q.re.FindStringIndex(line)
	}
	folded := Fold(line)
	if !q.clauses.hold(folded) {
		return nil
	}
	if q.re != nil {
		return q.re.FindStringIndex(line)
	}
	i := strings.Index(folded, q.text)
	if i < 0 {
		return nil
	}
	// Folding keeps the number of characters, not that of bytes.
	from := utf8.RuneCountInString(folded[:i])
	to := from + utf8.RuneCountInString(q.text)
	return []int{offset(line, from), offset(line, to)}
}

// offset is where the nth character of a text begins.
func offset(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

// hold reports whether a text, folded, holds what it must to match: a quick test, since
// regular expressions are slow.
func (c Clauses) hold(folded string) bool {
	for _, clause := range c {
		if !slices.ContainsFunc(clause, func(l string) bool { return strings.Contains(folded, l) }) {
			return false
		}
	}
	return true
}

// Fold returns a text by which texts that differ in case alone are the same: each
// character becomes the first of those that regexp's (?i) takes for the same.
func Fold(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return strings.Map(foldRune, s)
		}
	}
	return strings.ToUpper(s) // which of ASCII is the same, and quicker
}

func foldRune(r rune) rune {
	if r < utf8.RuneSelf {
		if 'a' <= r && r <= 'z' {
			return r - 'a' + 'A'
		}
		return r
	}
	first := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		first = min(first, f)
	}
	return first
}

// add adds a clause, if the index can be asked about each of its literals.
func (c Clauses) add(literals []string) Clauses {
	if len(c) == maxClauses || len(literals) == 0 || len(literals) > maxChoices || shortest(literals) < gram {
		return c
	}
	clause := make([]string, len(literals))
	for i, l := range literals {
		clause[i] = l[:offset(l, maxLiteral)]
	}
	return append(c, clause)
}

func shortest(literals []string) int {
	n := maxLiteral
	for _, l := range literals {
		n = min(n, utf8.RuneCountInString(l))
	}
	return n
}

// best returns the clause whose shortest literal is the longest, nil if there is none.
func (c Clauses) best() []string {
	var best []string
	for _, clause := range c {
		if best == nil || shortest(clause) > shortest(best) {
			best = clause
		}
	}
	return best
}

// required returns what every match of an expression holds.
func required(re *syntax.Regexp) Clauses {
	switch re.Op {
	case syntax.OpLiteral:
		return Clauses{}.add([]string{Fold(string(re.Rune))})
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpConcat:
		return requiredOfAll(re.Sub)
	case syntax.OpAlternate:
		return requiredOfAny(re.Sub)
	}
	return nil
}

// requiredOfAll joins literals that stand beside each other.
func requiredOfAll(subs []*syntax.Regexp) Clauses {
	var all Clauses
	var literal strings.Builder
	end := func() {
		all = all.add([]string{literal.String()})
		literal.Reset()
	}
	for _, s := range subs {
		if text, ok := fixed(s); ok {
			literal.WriteString(text)
			continue
		}
		end()
		for _, clause := range required(s) {
			all = all.add(clause)
		}
	}
	end()
	return all
}

// fixed returns the only text, folded, that an expression matches.
func fixed(re *syntax.Regexp) (string, bool) {
	switch re.Op {
	case syntax.OpLiteral:
		return Fold(string(re.Rune)), true
	case syntax.OpCapture:
		return fixed(re.Sub[0])
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return "", true
	}
	return "", false
}

func requiredOfAny(subs []*syntax.Regexp) Clauses {
	var choices []string
	for _, s := range subs {
		best := required(s).best()
		if best == nil {
			return nil // one of them may match anything
		}
		choices = append(choices, best...)
	}
	slices.Sort(choices)
	return Clauses{}.add(slices.Compact(choices))
}
