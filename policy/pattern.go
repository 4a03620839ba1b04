package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of one string with variables. They keep matching polynomial when a
// variable has many values.
const (
	maxVariables = 32
	maxRepeated  = 2 // different variables that occur more than once
)

type tokenKind uint8

const (
	literal  tokenKind = iota
	any0n              // *
	any1               // ?
	variable           // ${key} or ${key, 'default'}
)

type token struct {
	kind       tokenKind
	inner      bool   // a variable before the fifth colon of an ARN: its value holds no colon
	hasDefault bool   // of a variable
	text       string // literal text, or the variable's key in lower case
	written    string // the variable as the policy has it
	fallback   string // the variable's default
}

// pattern is a compiled string of a policy: an action, a resource, an operand.
type pattern struct {
	text   string // as the policy has it
	off    int    // where the policy has it
	tokens []token
	plain  string // the whole text where it is all literal
	isText bool   // plain holds
	all    bool   // nothing but *
	vars   int
	fold   bool // literals are folded; values and subjects must be as well
	arn    bool // wildcards stay within the segments of an ARN
	open   bool // an ARN that ends early in *, which stands for all that follows
}

// syntax says what is special in a string.
type syntax struct {
	variables, wildcards, fold bool
}

func compile(text string, off int, syn syntax) (pattern, error) {
	p := pattern{text: text, off: off, fold: syn.fold}
	rest := text
	for rest != "" {
		i := strings.IndexAny(rest, "*?$")
		if i < 0 {
			i = len(rest)
		}
		p.literal(rest[:i])
		if rest = rest[i:]; rest == "" {
			break
		}
		n, err := p.special(rest, syn)
		if err != nil {
			return p, err
		}
		rest = rest[n:]
	}
	p.finish()
	return p, p.checkVariables()
}

func (p *pattern) literal(s string) {
	if s == "" {
		return
	}
	if p.fold {
		s = fold(s)
	}
	if n := len(p.tokens); n > 0 && p.tokens[n-1].kind == literal {
		p.tokens[n-1].text += s
		return
	}
	p.tokens = append(p.tokens, token{kind: literal, text: s})
}

// special compiles the wildcard or variable that s starts with and returns its length.
func (p *pattern) special(s string, syn syntax) (int, error) {
	switch {
	case s[0] == '$' && syn.variables && strings.HasPrefix(s, "${"):
		return p.variable(s)
	case s[0] == '$' || !syn.wildcards:
		p.literal(s[:1])
	case s[0] == '?':
		p.tokens = append(p.tokens, token{kind: any1})
	case len(p.tokens) == 0 || p.tokens[len(p.tokens)-1].kind != any0n: // ** is *
		p.tokens = append(p.tokens, token{kind: any0n})
	}
	return 1, nil
}

func (p *pattern) variable(s string) (int, error) {
	end := closingBrace(s)
	if end < 0 {
		return 0, errors.New("the variable that starts with ${ is not closed with }")
	}
	written, inside := s[:end+1], s[2:end]
	if inside == "*" || inside == "?" || inside == "$" {
		p.literal(inside)
		return end + 1, nil
	}
	key, rest, hasDefault := strings.Cut(inside, ",")
	t := token{kind: variable, written: written, text: lower(strings.TrimSpace(key)), hasDefault: hasDefault}
	if err := checkKey(t.text); err != nil {
		return 0, fmt.Errorf("variable %q: %w", shorten(written), err)
	}
	if hasDefault {
		d := strings.TrimSpace(rest)
		if len(d) < 2 || d[0] != '\'' || d[len(d)-1] != '\'' || strings.Contains(d[1:len(d)-1], "'") {
			return 0, fmt.Errorf("variable %q: the default must stand in single quotes: ${key, 'default'}", shorten(written))
		}
		t.fallback = d[1 : len(d)-1]
		if p.fold {
			t.fallback = fold(t.fallback)
		}
	}
	p.tokens = append(p.tokens, t)
	p.vars++
	return end + 1, nil
}

// closingBrace finds the } of a variable, skipping one in a quoted default.
func closingBrace(s string) int {
	quoted := false
	for i := 2; i < len(s); i++ {
		switch {
		case s[i] == '\'':
			quoted = !quoted
		case s[i] == '}' && !quoted:
			return i
		}
	}
	return -1
}

func (p *pattern) finish() {
	p.all = len(p.tokens) == 1 && p.tokens[0].kind == any0n
	p.isText = len(p.tokens) == 0 || len(p.tokens) == 1 && p.tokens[0].kind == literal
	if len(p.tokens) == 1 && p.isText {
		p.plain = p.tokens[0].text
	}
}

func (p *pattern) checkVariables() error {
	if p.vars > maxVariables {
		return fmt.Errorf("more than %d variables in one string", maxVariables)
	}
	if len(p.repeated()) > maxRepeated {
		return fmt.Errorf("more than %d variables occur repeatedly in one string", maxRepeated)
	}
	return nil
}

// repeated lists the variables that occur more than once.
func (p *pattern) repeated() []string {
	if p.vars < 2 {
		return nil
	}
	count := make(map[string]int)
	var keys []string
	for _, t := range p.tokens {
		if t.kind != variable {
			continue
		}
		if count[t.text]++; count[t.text] == 2 {
			keys = append(keys, t.text)
		}
	}
	return keys
}

// compileARN compiles a resource or an operand of the Arn operators. Wildcards stay
// within the segments that the first five colons part; a variable within one of the
// first five segments stands only for values without a colon.
func compileARN(text string, off int, variables, operand bool) (pattern, error) {
	p, err := compile(text, off, syntax{variables: variables, wildcards: true})
	if err != nil || p.all {
		return p, err
	}
	p.arn = true
	first := token{}
	if len(p.tokens) > 0 {
		first = p.tokens[0]
	}
	if operand && first.kind == variable {
		return p, nil
	}
	colons := 0
	for i := range p.tokens {
		if p.tokens[i].kind == literal {
			colons += strings.Count(p.tokens[i].text, ":")
		} else {
			p.tokens[i].inner = colons < 5
		}
	}
	p.open = colons < 5 && p.tokens != nil && p.tokens[len(p.tokens)-1].kind == any0n
	if first.kind != literal || !strings.HasPrefix(first.text, "arn:") || colons < 5 && !p.open {
		return p, fmt.Errorf("%q is not an ARN (arn:partition:service:region:account:resource) nor *", shorten(text))
	}
	return p, nil
}

// arnHead returns the length of the part of an ARN in which wildcards do not take
// colons: up to and with the fifth colon.
func arnHead(s string) int {
	colons := 0
	for i := 0; i < len(s); i++ {
		if s[i] == ':' {
			if colons++; colons == 5 {
				return i + 1
			}
		}
	}
	return len(s)
}

// match reports whether the pattern matches s, whose first head bytes are the
// segments of an ARN (0 for other strings). A variable without a value makes the
// pattern match nothing; one with several values stands for each in turn.
func (p *pattern) match(env *environment, s string, head int) bool {
	switch {
	case p.isText:
		return p.plain == s
	case p.all:
		return true
	case p.vars == 0:
		return p.glob(nil, s, head)
	case p.vars > len(variableBuffer{}):
		return p.matchEach(env, s, head)
	}
	var buf variableBuffer
	n := 0
	for i := range p.tokens {
		t := &p.tokens[i]
		if t.kind != variable {
			continue
		}
		values := env.values(t.text)
		switch {
		case len(values) > 1:
			return p.matchEach(env, s, head)
		case len(values) == 1:
			buf[n] = p.folded(values[0])
		case t.hasDefault:
			buf[n] = t.fallback
		default:
			return false
		}
		if t.inner && strings.Contains(buf[n], ":") {
			return false
		}
		n++
	}
	return p.glob(buf[:n], s, head)
}

type variableBuffer [4]string

func (p *pattern) folded(s string) string {
	if p.fold {
		return fold(s)
	}
	return s
}

// glob matches with one value for each variable in order. It goes back to the last
// * only: that suffices, as whatever an earlier * could take more of, the later one
// can take as well. So the time is at most the product of the lengths.
func (p *pattern) glob(values []string, s string, head int) bool {
	ti, pos, vi := 0, 0, 0
	star, starPos, starVar := -1, 0, 0
	for {
		matched := false
		switch {
		case ti == len(p.tokens):
			if pos == len(s) {
				return true
			}
		case p.tokens[ti].kind == any0n:
			if ti == len(p.tokens)-1 {
				return p.tail(s, pos, head)
			}
			star, starPos, starVar = ti, pos, vi
			ti++
			matched = true
		case p.tokens[ti].kind == any1:
			if pos < len(s) && (pos >= head || s[pos] != ':') {
				pos += runeLength(s[pos:])
				ti++
				matched = true
			}
		default:
			lit := p.tokens[ti].text
			isVar := p.tokens[ti].kind == variable
			if isVar {
				lit = values[vi]
			}
			if strings.HasPrefix(s[pos:], lit) {
				pos += len(lit)
				ti++
				if isVar {
					vi++
				}
				matched = true
			}
		}
		if matched {
			continue
		}
		if star < 0 || starPos >= len(s) || starPos < head && s[starPos] == ':' {
			return false
		}
		starPos += runeLength(s[starPos:])
		ti, pos, vi = star+1, starPos, starVar
	}
}

// tail reports whether a * at the end of the pattern takes all of s from pos on.
func (p *pattern) tail(s string, pos, head int) bool {
	return p.open || pos >= head || strings.IndexByte(s[pos:head], ':') < 0
}

func runeLength(s string) int {
	if s[0] < utf8.RuneSelf {
		return 1
	}
	_, n := utf8.DecodeRuneInString(s)
	return n
}

// matchEach matches where variables have several values: a variable that occurs
// once stands for all its values at once, one that occurs repeatedly for the same
// value everywhere, each in turn.
func (p *pattern) matchEach(env *environment, s string, head int) bool {
	values := make(map[string][]string, p.vars)
	for i := range p.tokens {
		t := &p.tokens[i]
		if t.kind != variable {
			continue
		}
		v := env.values(t.text)
		if len(v) == 0 && !t.hasDefault {
			return false
		}
		values[t.text] = p.foldedAll(v)
	}
	return p.inTurn(p.repeated(), values, s, head)
}

func (p *pattern) foldedAll(values []string) []string {
	if !p.fold {
		return values
	}
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = fold(v)
	}
	return out
}

func (p *pattern) inTurn(keys []string, values map[string][]string, s string, head int) bool {
	if len(keys) == 0 {
		return p.reach(values, s, head)
	}
	each := values[keys[0]]
	if len(each) == 0 {
		return p.inTurn(keys[1:], values, s, head)
	}
	defer func() { values[keys[0]] = each }()
	for i := range each {
		values[keys[0]] = each[i : i+1]
		if p.inTurn(keys[1:], values, s, head) {
			return true
		}
	}
	return false
}

// reach follows all ways through s at once: at[i] says that the tokens so far match
// s[:i]. Its time is the product of tokens, length and values.
func (p *pattern) reach(values map[string][]string, s string, head int) bool {
	at := make([]bool, len(s)+1)
	at[0] = true
	for ti := range p.tokens {
		t := &p.tokens[ti]
		next := make([]bool, len(s)+1)
		switch t.kind {
		case any0n:
			p.spread(at, next, s, head, ti)
		case any1:
			for i := 0; i < len(s); i++ {
				if at[i] && (i >= head || s[i] != ':') {
					next[i+runeLength(s[i:])] = true
				}
			}
		case literal:
			advance(at, next, s, t.text)
		case variable:
			each := values[t.text]
			if len(each) == 0 {
				each = []string{t.fallback}
			}
			for _, v := range each {
				if !t.inner || !strings.Contains(v, ":") {
					advance(at, next, s, v)
				}
			}
		}
		at = next
	}
	return at[len(s)]
}

func advance(at, next []bool, s, lit string) {
	for i := 0; i+len(lit) <= len(s); i++ {
		if at[i] && strings.HasPrefix(s[i:], lit) {
			next[i+len(lit)] = true
		}
	}
}

func (p *pattern) spread(at, next []bool, s string, head, ti int) {
	open := p.open && ti == len(p.tokens)-1
	on := false
	for i := 0; i <= len(s); {
		on = on || at[i]
		next[i] = on
		if i == len(s) {
			return
		}
		if !open && i < head && s[i] == ':' {
			on = false
		}
		i += runeLength(s[i:])
	}
}

// resolve writes the pattern with its variables' values, for people: each of the
// values of a variable where it has several and is the only one.
func (p *pattern) resolve(env *environment) (texts, unresolved []string) {
	if p.vars == 0 {
		return []string{p.text}, nil
	}
	texts = []string{""}
	for i := range p.tokens {
		each, ok := p.spell(&p.tokens[i], env)
		if !ok {
			unresolved = append(unresolved, p.tokens[i].written)
		}
		texts = product(texts, each)
	}
	return texts, unresolved
}

// maxShown bounds how many values a resolved pattern is shown with.
const maxShown = 16

func product(heads, tails []string) []string {
	var out []string
	for _, h := range heads {
		for _, t := range tails {
			if len(out) == maxShown {
				return out
			}
			out = append(out, h+t)
		}
	}
	return out
}

func (p *pattern) spell(t *token, env *environment) ([]string, bool) {
	switch t.kind {
	case any0n:
		return []string{"*"}, true
	case any1:
		return []string{"?"}, true
	case literal:
		return []string{t.text}, true
	}
	if v := env.values(t.text); len(v) > 0 {
		return v, true
	}
	if t.hasDefault {
		return []string{t.fallback}, true
	}
	return []string{t.written}, false
}

// fold maps letters that differ only in case to one spelling, as
// strings.EqualFold compares them.
func fold(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return strings.Map(foldRune, s)
		}
	}
	return s
}

// foldRune returns the smallest of the letters that r is equal to regardless of case,
// in lower case if it is an ASCII letter.
func foldRune(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	return lowerRune(least)
}

// lower lowers ASCII letters only: condition keys and actions have no others, and a
// letter that merely looks like one must not become one.
func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				b[i] = lowerByte(b[i])
			}
			return string(b)
		}
	}
	return s
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func lowerRune(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}

// equalFold compares ignoring the case of ASCII letters; l is in lower case.
func equalFold(s, l string) bool {
	if len(s) != len(l) {
		return false
	}
	for i := 0; i < len(s); i++ {
		if lowerByte(s[i]) != l[i] {
			return false
		}
	}
	return true
}

// checkKey checks a condition key: ASCII up to the tag's key, so that no letter
// that looks like another makes a condition mean what it does not say.
func checkKey(key string) error {
	service, rest, ok := strings.Cut(key, ":")
	name, tag, isTag := strings.Cut(rest, "/")
	if !ok || service == "" || name == "" || isTag && tag == "" {
		return fmt.Errorf("condition key %q is not of the form service:Name or service:Name/Tag", shorten(key))
	}
	for _, r := range service + name {
		if !isKeyRune(r) {
			return fmt.Errorf("condition key %q has %q (U+%04X), which no key has", shorten(key), r, r)
		}
	}
	return nil
}

// isKeyRune reports whether r may occur in a condition key before the tag; the
// slash occurs in the names of OpenID Connect providers.
func isKeyRune(r rune) bool {
	r = lowerRune(r)
	return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune(":-_./", r)
}
