package recording

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// maxPatterns, maxExpr and maxProgram bound what redaction costs: the number of
	// patterns, the bytes of one, and the instructions that it compiles to.
	maxPatterns = 64
	maxExpr     = 4 << 10
	maxProgram  = 4 << 10
	maxReplace  = 100 // bytes
)

// Pattern is what a recording never holds, and what is there in its place.
type Pattern struct {
	Name string // optional; people see it
	Expr string // regular expression in RE2 syntax; it must not match the empty text
	// Replace stands for each match: as it is, nothing in it is expanded. Default
	// "[redacted NAME]". No pattern may match it.
	Replace string
}

// known are the patterns that ship with the program, by name. Each begins with words of
// its own, which keeps it cheap, and tells it from digests and the like.
var known = []Pattern{
	{Name: "aws-secret-key", Expr: `(?i)secret_?(?:access_?)?key["']?\s{0,4}[:=]\s{0,4}["']?[a-z0-9/+]{40}`},
	{Name: "aws-session-token", Expr: `(?i)session_?token["']?\s{0,4}[:=]\s{0,4}["']?[a-z0-9/+=]{40,}`},
	{Name: "private-key", Expr: `-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----` +
		`(?:\s+[A-Za-z-]{1,30}: [^\n]{0,200})*[A-Za-z0-9+/=\s]*(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?`},
	{Name: "bearer-token", Expr: `(?i)bearer\s{1,4}[a-z0-9._~+/-]{8,}=*`},
	{Name: "basic-auth", Expr: `(?i)authorization:\s{0,4}basic\s{1,4}[a-z0-9+/]{4,}=*`},
	{Name: "url-password", Expr: `://[^\s:/?#@]{0,100}:[^\s/?#@]{1,200}@`},
	{Name: "password-option", Expr: `(?i)(?:passw(?:or)?d|passphrase)["']?\s{0,2}[=:]\s{0,2}["']?[^\s"'&]+`},
	{Name: "github-token", Expr: `gh[pousr]_[A-Za-z0-9]{36,}`},
	{Name: "slack-token", Expr: `xox[abeoprs]-[A-Za-z0-9-]{10,}`},
}

// KnownPatterns returns the names of the patterns that ship with the program.
func KnownPatterns() []string {
	names := make([]string, len(known))
	for i, p := range known {
		names[i] = p.Name
	}
	return names
}

// KnownPattern returns a pattern that ships with the program.
func KnownPattern(name string) (Pattern, error) {
	i := slices.IndexFunc(known, func(p Pattern) bool { return p.Name == name })
	if i < 0 {
		return Pattern{}, fmt.Errorf("no pattern %q is known; there are %s", name, strings.Join(KnownPatterns(), ", "))
	}
	return known[i], nil
}

// Redaction is a set of patterns, ready for use by any number of sessions.
type Redaction struct {
	rules []*rule
	// first tells of each byte whether a match can begin with it, or it must be looked at
	// for another reason.
	first [256]bool
}

// rule is a compiled pattern.
type rule struct {
	name    string
	replace []byte
	prog    *syntax.Prog
	re      *regexp.Regexp
	accepts []bool // by instruction: a match may be complete there
	first   [256]bool
	prefix  []byte // ASCII, in lower case: what every match begins with, whatever its case
}

// NewRedaction compiles patterns. Errors name the pattern.
func NewRedaction(patterns []Pattern) (*Redaction, error) {
	if len(patterns) > maxPatterns {
		return nil, fmt.Errorf("%d patterns: at most %d are allowed", len(patterns), maxPatterns)
	}
	r := &Redaction{}
	r.first['\x1b'], r.first['\b'], r.first[0xc2] = true, true, true // 0xc2 begins C1 controls
	for _, p := range patterns {
		rule, err := newRule(p)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", p.Expr, err)
		}
		r.rules = append(r.rules, rule)
		for b, can := range rule.first {
			r.first[b] = r.first[b] || can
		}
	}
	return r, r.checkReplacements()
}

// checkReplacements refuses texts that would themselves have to be replaced.
func (r *Redaction) checkReplacements() error {
	for _, by := range r.rules {
		for _, of := range r.rules {
			if of.re.Match(by.replace) {
				return fmt.Errorf("the replacement %q matches the pattern %q", by.replace, of.re)
			}
		}
	}
	return nil
}

func newRule(p Pattern) (*rule, error) {
	if len(p.Expr) > maxExpr {
		return nil, fmt.Errorf("it has %d bytes; at most %d are allowed", len(p.Expr), maxExpr)
	}
	parsed, err := syntax.Parse(p.Expr, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if len(prog.Inst) > maxProgram {
		return nil, fmt.Errorf("it compiles to %d instructions; at most %d are allowed", len(prog.Inst), maxProgram)
	}
	re, err := regexp.Compile(p.Expr)
	if err != nil {
		return nil, err
	}
	u := &rule{name: p.Name, prog: prog, re: re, replace: []byte(p.replacement())}
	if err := checkReplacement(u.replace); err != nil {
		return nil, err
	}
	u.accepts = u.accepting()
	if u.accepts[prog.Start] {
		return nil, errors.New("it matches the empty text")
	}
	u.first, u.prefix = u.firstBytes(), u.literalPrefix()
	return u, nil
}

func (p Pattern) replacement() string {
	switch {
	case p.Replace != "":
		return p.Replace
	case p.Name != "":
		return "[redacted " + p.Name + "]"
	}
	return "[redacted]"
}

func checkReplacement(text []byte) error {
	if len(text) > maxReplace || !utf8.Valid(text) || slices.ContainsFunc(text, func(b byte) bool { return b < ' ' || b == 0x7f }) {
		return fmt.Errorf("the replacement %q must be at most %d bytes of text without control characters", text, maxReplace)
	}
	return nil
}

// accepting finds the instructions from which a match is complete without another
// character, whatever stands around it.
func (u *rule) accepting() []bool {
	accepts := make([]bool, len(u.prog.Inst))
	for changed := true; changed; {
		changed = false
		for pc, inst := range u.prog.Inst {
			var now bool
			switch inst.Op {
			case syntax.InstMatch:
				now = true
			case syntax.InstAlt, syntax.InstAltMatch:
				now = accepts[inst.Out] || accepts[inst.Arg]
			case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
				now = accepts[inst.Out]
			}
			if now && !accepts[pc] {
				accepts[pc], changed = true, true
			}
		}
	}
	return accepts
}

// firstBytes finds the bytes with which a match can begin.
func (u *rule) firstBytes() (first [256]bool) {
	seen := make([]bool, len(u.prog.Inst))
	var walk func(pc uint32)
	walk = func(pc uint32) {
		if seen[pc] {
			return
		}
		seen[pc] = true
		inst := &u.prog.Inst[pc]
		switch inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			walk(inst.Out)
			walk(inst.Arg)
		case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
			walk(inst.Out)
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			for b := range utf8.RuneSelf {
				first[b] = first[b] || inst.MatchRune(rune(b))
			}
			for b := utf8.RuneSelf; b < 256; b++ { // cheaper than to find out, and rare in shells
				first[b] = first[b] || beyondASCII(inst)
			}
		}
	}
	walk(uint32(u.prog.Start))
	return first
}

// beyondASCII reports whether an instruction may match a character that is not ASCII.
func beyondASCII(inst *syntax.Inst) bool {
	if inst.Op == syntax.InstRuneAny || inst.Op == syntax.InstRuneAnyNotNL || syntax.Flags(inst.Arg)&syntax.FoldCase != 0 {
		return true
	}
	return slices.ContainsFunc(inst.Rune, func(r rune) bool { return r >= utf8.RuneSelf })
}

// literalPrefix returns the ASCII letters that every match begins with.
func (u *rule) literalPrefix() (prefix []byte) {
	for pc := uint32(u.prog.Start); len(prefix) < 16; {
		inst := &u.prog.Inst[pc]
		switch inst.Op {
		case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
		case syntax.InstRune, syntax.InstRune1:
			r, ok := literal(inst)
			if !ok || r >= utf8.RuneSelf {
				return prefix
			}
			prefix = append(prefix, lower(byte(r)))
		default:
			return prefix
		}
		pc = inst.Out
	}
	return prefix
}

// literal returns the one character that an instruction matches, in any case.
func literal(inst *syntax.Inst) (rune, bool) {
	if inst.Op == syntax.InstRune1 || inst.Op == syntax.InstRune && len(inst.Rune) == 1 {
		return inst.Rune[0], true
	}
	return 0, false
}

func lower(b byte) byte {
	if b >= 'A' && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

// mayStart reports whether a match may begin with p, as far as that can be told at a
// glance. Anything that a terminal does not show may stand in between, and what is not
// ASCII may be another case of it.
func (u *rule) mayStart(p []byte) bool {
	for i, want := range u.prefix {
		if i >= len(p) || p[i] <= ' ' || p[i] >= 0x7f {
			return true
		}
		if lower(p[i]) != want {
			return false
		}
	}
	return true
}

// Text redacts a whole text, such as a command line.
func (r *Redaction) Text(text string) string {
	if r == nil || len(r.rules) == 0 {
		return text
	}
	var out []byte
	s := r.stream(0, func(p []byte) error {
		out = append(out, p...)
		return nil
	})
	s.feed([]byte(text))
	s.end() // neither fails: out takes everything
	return string(out)
}
