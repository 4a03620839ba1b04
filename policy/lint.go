package policy

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode"
)

// Severity grades a finding.
type Severity int

// Severities. An error is a policy that cannot be used or cannot mean what it says;
// a warning is one that may not mean what was meant.
const (
	Warning Severity = iota
	Error
)

// String is "warning" or "error".
func (s Severity) String() string {
	if s == Error {
		return "error"
	}
	return "warning"
}

// MarshalText writes the severity as String does.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that Lint found.
type Finding struct {
	File     string   `json:"file"`
	Line     int      `json:"line"`   // from 1
	Column   int      `json:"column"` // from 1, in characters
	Severity Severity `json:"severity"`
	Rule     string   `json:"rule"` // stable name, such as "matches-nothing"
	Message  string   `json:"message"`
	Hint     string   `json:"hint,omitempty"` // what to write instead
}

// String is "file:line:column: severity: message [rule]", with the hint if there is one.
func (f Finding) String() string {
	s := fmt.Sprintf("%s:%d:%d: %s: %s [%s]", f.File, f.Line, f.Column, f.Severity, f.Message, f.Rule)
	if f.Hint != "" {
		s += "\n  hint: " + f.Hint
	}
	return s
}

// LintOptions is what the linter knows beyond the policy.
type LintOptions struct {
	// NodeTagKeys are the tag keys that nodes bear; empty leaves them unchecked.
	NodeTagKeys []string
}

// maxFindings bounds the findings of one policy, and with them the time it takes:
// a policy with more is not going to be read to the end.
const maxFindings = 200

// Lint checks the text of one policy, an identity policy or, if it names principals,
// a trust policy. Findings are in the order of the text, at most 200; name is their
// File.
func Lint(name string, src []byte, opts LintOptions) []Finding {
	l := &linter{name: name, src: src, opts: opts}
	doc, err := Parse(src)
	if trust, trustErr := ParseTrust(src); err != nil && looksLikeTrust(src) {
		doc, err = trust, trustErr
	}
	if err != nil {
		l.parseError(err)
		return l.findings
	}
	l.doc = doc
	l.document()
	sort.SliceStable(l.findings, func(i, j int) bool {
		a, b := l.findings[i], l.findings[j]
		return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
	})
	return l.findings
}

// looksLikeTrust reports whether a statement names principals.
func looksLikeTrust(src []byte) bool {
	root, err := parseJSON(src)
	if err != nil {
		return false
	}
	statements := root.member("Statement")
	if statements == nil {
		return false
	}
	for _, s := range append(statements.elems, *statements) {
		if s.member("Principal") != nil {
			return true
		}
	}
	return false
}

type linter struct {
	name     string
	src      []byte
	opts     LintOptions
	doc      *Document
	findings []Finding
}

// full reports whether there are as many findings as are given.
func (l *linter) full() bool { return len(l.findings) >= maxFindings }

func (l *linter) report(off int, sev Severity, rule, hint, format string, args ...any) {
	if l.full() {
		return
	}
	p := position(l.src, off)
	l.findings = append(l.findings, Finding{
		File: l.name, Line: p.Line, Column: p.Column,
		Severity: sev, Rule: rule, Message: fmt.Sprintf(format, args...), Hint: hint,
	})
}

func (l *linter) parseError(err error) {
	f := Finding{File: l.name, Line: 1, Column: 1, Severity: Error, Rule: "syntax", Message: err.Error()}
	if e := (*ParseError)(nil); errors.As(err, &e) {
		f.Line, f.Column, f.Message = e.Line, e.Column, e.Message
	}
	l.findings = append(l.findings, f)
}

func (l *linter) document() {
	l.version()
	for i := range l.doc.Statements {
		s := &l.doc.Statements[i]
		l.actions(s)
		l.resources(s)
		l.conditions(s)
		l.breadth(s)
	}
	l.forwardOnly()
	l.characters()
}

// version finds variables in a policy whose version has none.
func (l *linter) version() {
	if l.doc.Version == version2012 {
		return
	}
	if i := strings.Index(string(l.src), "${"); i >= 0 {
		l.report(i, Error, "version", `write "Version": "2012-10-17"`,
			"variables are plain text in a policy of version %s", l.doc.Version)
	}
}

// characters finds letters that are not what they look like.
func (l *linter) characters() {
	latin, other := -1, -1 // in the current word
	for i, r := range string(l.src) {
		if unicode.Is(unicode.Cf, r) {
			l.report(i, Warning, "invisible-character", "", "invisible character U+%04X", r)
		}
		switch {
		case unicode.Is(unicode.Latin, r):
			latin = i
		case unicode.In(r, unicode.Cyrillic, unicode.Greek):
			if other < 0 {
				other = i
			}
		case !unicode.IsMark(r):
			l.mixedWord(latin, other)
			latin, other = -1, -1
		}
	}
	l.mixedWord(latin, other)
}

func (l *linter) mixedWord(latin, other int) {
	if latin < 0 || other < 0 {
		return
	}
	r := []rune(string(l.src[other:min(len(l.src), other+4)]))[0]
	l.report(other, Warning, "look-alike", "", "%q (U+%04X) in a word of Latin letters: it looks like one and is not", r, r)
}

func (l *linter) actions(s *Statement) {
	known := knownActions()
	for i := range s.actions {
		if l.full() {
			return
		}
		p := &s.actions[i]
		service, name, _ := strings.Cut(p.text, ":")
		names, listed := known[lower(service)]
		if !listed || anyMatches(p, lower(service), names) {
			continue
		}
		hint := ""
		if n := nearest(name, names); n != "" {
			hint = fmt.Sprintf("did you mean %s:%s?", lower(service), n)
		}
		l.report(p.off, Warning, "unknown-action", hint, "%s matches no known action of %s", p.text, lower(service))
	}
}

func anyMatches(p *pattern, service string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		return p.match(&environment{}, service+":"+lower(n), 0)
	})
}

func (l *linter) conditions(s *Statement) {
	seen := make(map[string]bool)
	for i := range s.conditions {
		if l.full() {
			return
		}
		c := &s.conditions[i]
		l.key(c.off, c.keyText)
		if id := lower(c.operatorText) + " " + c.key; seen[id] {
			l.report(c.off, Warning, "repeated-key", "", "%s has %q twice (keys ignore case): both must hold", c.operatorText, c.keyText)
		} else {
			seen[id] = true
		}
		if c.quantifier == forAll && !s.Deny && !s.requiresPresence(c.key) {
			l.report(c.off, Warning, "for-all-values", fmt.Sprintf(`add "Null": {%q: "false"}`, c.keyText),
				"%s holds also when %s is absent from the request", c.operatorText, c.keyText)
		}
		for j := range c.operands {
			l.operand(c, &c.operands[j])
		}
		if c.key == keyRemoteHost {
			l.remoteHost(s, c)
		}
	}
}

// Condition keys of where Port sessions lead.
const (
	keyRemoteHost    = "sallyport:remotehost"
	keyRemotePort    = "sallyport:remoteport"
	keyRemoteAddress = "sallyport:remoteaddress"
	keyRemoteSocket  = "sallyport:remotesocket"
)

// remoteHost finds hosts that are written as no request has them, and denials that
// another name of the host steps around.
func (l *linter) remoteHost(s *Statement, c *condition) {
	if s.Deny && !c.negated && c.family != familyNull {
		l.report(c.off, Warning, "deny-by-name", "allow the hosts that are needed (Deny with StringNotLike), or deny networks: sessions { deny_forward = […] } of the server",
			"a host that is denied by its name can be reached by another name, or by its address")
	}
	for i := range c.operands {
		o := &c.operands[i]
		if form := strings.TrimSuffix(lower(o.text), "."); form != o.text && !strings.Contains(o.text, "${") {
			l.report(o.pattern.off, Warning, "host-form", fmt.Sprintf("write %q", form),
				"%s is compared with hosts in lower case and without a dot at the end", c.keyText)
		}
	}
}

// needsRemote reports whether the statement holds for Port sessions only, by a
// condition on where they lead.
func (s *Statement) needsRemote() bool {
	return slices.ContainsFunc(s.conditions, func(c condition) bool {
		remote := slices.Contains([]string{keyRemoteHost, keyRemotePort, keyRemoteAddress, keyRemoteSocket}, c.key)
		if c.family == familyNull {
			return remote && !c.null(true)
		}
		return remote && !c.negated && !c.ifExists && c.quantifier != forAll
	})
}

// requiresPresence reports whether the statement asks that the key be present.
func (s *Statement) requiresPresence(key string) bool {
	return slices.ContainsFunc(s.conditions, func(c condition) bool {
		return c.key == key && c.family == familyNull && !c.null(true)
	})
}

func (l *linter) operand(c *condition, o *operand) {
	if !c.family.takesVariables() {
		return
	}
	l.variables(&o.pattern)
	equals := c.family == familyString || c.family == familyStringFold
	if equals && strings.ContainsAny(strings.NewReplacer("${*}", "", "${?}", "").Replace(o.text), "*?") {
		like := strings.NewReplacer("EqualsIgnoreCase", "Like", "Equals", "Like").Replace(c.operator.name)
		l.report(o.pattern.off, Warning, "literal-wildcard", "use "+like+" for wildcards",
			"%s compares %q letter by letter: its wildcards are plain text", c.operatorText, o.text)
	}
}

func (l *linter) variables(p *pattern) {
	for i := range p.tokens {
		if t := &p.tokens[i]; t.kind == variable && !isKnownKey(t.text) {
			l.report(p.off, Warning, "unknown-key", "", "variable %s: no request has this key", t.written)
		}
	}
}

func (l *linter) key(off int, key string) {
	if !isKnownKey(lower(key)) {
		hint := ""
		if n := nearestKey(key); n != "" {
			hint = fmt.Sprintf("did you mean %s?", n)
		}
		l.report(off, Warning, "unknown-key", hint, "condition key %q: no request has this key", key)
		return
	}
	prefix, tag, tagged := strings.Cut(key, "/")
	if tagged && strings.HasSuffix(lower(prefix), ":resourcetag") && !strings.HasPrefix(lower(tag), "aws:") {
		l.nodeTag(off, key, tag)
	}
}

// nodeTag checks the key of a node's tag.
func (l *linter) nodeTag(off int, key, tag string) {
	borne := append([]string{"Name"}, l.opts.NodeTagKeys...)
	for _, k := range borne {
		if strings.EqualFold(k, tag) && k != tag && !slices.Contains(borne, tag) {
			l.report(off, Warning, "tag-case", fmt.Sprintf("write %s", strings.TrimSuffix(key, tag)+k),
				"condition key %q: the tag is spelt %q (conditions ignore the case of tag keys, other programs do not)", key, k)
			return
		}
	}
	if len(l.opts.NodeTagKeys) > 0 && !slices.Contains(l.opts.NodeTagKeys, tag) {
		l.report(off, Warning, "unborne-tag", nearestTag(tag, l.opts.NodeTagKeys), "condition key %q: no node bears the tag %q", key, tag)
	}
}

func nearestTag(tag string, keys []string) string {
	if n := nearest(tag, keys); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	return ""
}

// breadth finds statements that allow more than anyone means.
func (l *linter) breadth(s *Statement) {
	if s.Deny {
		return
	}
	if l.doc.trust {
		if s.principals[0].kind == principalAny && len(s.conditions) == 0 {
			l.report(s.principals[0].off, Warning, "trusts-everyone", "add a condition, for instance on aws:PrincipalArn", "every principal may assume the role")
		}
		return
	}
	everywhere := s.notResource || slices.ContainsFunc(s.resources, func(p pattern) bool { return p.all })
	everything := !s.notAction && slices.ContainsFunc(s.actions, func(p pattern) bool { return p.all || p.text == "*:*" })
	switch {
	case s.notAction:
		l.report(s.actions[0].off, Warning, "allow-not-action", "list what is allowed in Action",
			"Allow with NotAction allows all else, also the actions of services that are yet to come")
	case everything && everywhere && len(s.conditions) == 0:
		l.report(s.actions[0].off, Warning, "allows-everything", "", "every action is allowed on every resource")
	case s.grants("ssm:sendcommand"):
		l.runCommand(s)
	}
}

// grants reports whether the statement's actions take in an action (in lower case).
func (s *Statement) grants(action string) bool {
	return matchAction(s.actions, &query{action: action}) != s.notAction
}

// runCommand finds documents that run any command.
func (l *linter) runCommand(s *Statement) {
	for i := range s.resources {
		for _, doc := range []string{"AWS-RunShellScript", "AWS-RunPowerShellScript"} {
			if !s.notResource && splitARN(&s.resources[i]).covers("ssm", "document/"+doc) {
				l.report(s.resources[i].off, Warning, "command-shell", "name the documents that are needed",
					"ssm:SendCommand with the document %s runs any command, as root and without a recorded shell", doc)
				return
			}
		}
	}
}
