package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Versions of the policy language. Only the later one has variables.
const (
	version2008 = "2008-10-17"
	version2012 = "2012-10-17"
)

// Statement is one statement of a policy.
type Statement struct {
	Sid        string
	Deny       bool
	Start, End Position // of its opening brace, and just after the closing one

	principals  []principal // of trust policies
	actions     []pattern
	notAction   bool
	resources   []pattern
	notResource bool
	conditions  []condition
	off         int
	index       int // in the document, from 0
}

// Effect is "Allow" or "Deny".
func (s *Statement) Effect() string {
	if s.Deny {
		return "Deny"
	}
	return "Allow"
}

// Parse reads an identity policy, boundary or session policy strictly: JSON with no
// name twice, no element that the policy language does not have, no operand that
// its operator cannot read. Errors are *ParseError. The grammar is that of the IAM
// user guide ("Grammar of the IAM JSON policy language").
func Parse(b []byte) (*Document, error) { return parse(b, false) }

// ParseTrust reads a role's trust policy: each statement names principals and sts
// actions, and no resource. Errors are *ParseError.
func ParseTrust(b []byte) (*Document, error) { return parse(b, true) }

func parse(b []byte, trust bool) (*Document, error) {
	root, err := parseJSON(b)
	if err != nil {
		return nil, err
	}
	p := &parser{scanner: &scanner{src: b}, doc: &Document{Version: version2008, trust: trust}}
	if err := p.document(&root); err != nil {
		return nil, err
	}
	return p.doc, nil
}

// parser turns JSON into a Document.
type parser struct {
	*scanner
	doc   *Document
	where string // the statement, for messages
	sids  map[string]bool
}

func (p *parser) fail(off int, format string, args ...any) error {
	return p.errorf(off, "%s", p.where+fmt.Sprintf(format, args...))
}

// want checks that a value has the kind that its element needs.
func (p *parser) want(n *node, kind jsonKind, element string) error {
	if n.kind != kind {
		return p.fail(n.off, "%s must be %s, not %s", element, kind, n.kind)
	}
	return nil
}

// elements checks that an object has known elements only.
func (p *parser) elements(n *node, known ...string) error {
	for _, m := range n.members {
		if slices.Contains(known, m.name) {
			continue
		}
		if s := nearest(m.name, known); s != "" {
			return p.fail(m.off, "unknown element %q; did you mean %q?", shorten(m.name), s)
		}
		return p.fail(m.off, "unknown element %q; allowed are %s", shorten(m.name), strings.Join(known, ", "))
	}
	return nil
}

func (p *parser) document(n *node) error {
	if err := p.want(n, jsonObject, "a policy"); err != nil {
		return err
	}
	if err := p.elements(n, "Version", "Id", "Statement"); err != nil {
		return err
	}
	if err := p.version(n.member("Version")); err != nil {
		return err
	}
	if id := n.member("Id"); id != nil {
		if err := p.want(id, jsonString, "Id"); err != nil {
			return err
		}
		p.doc.Id = id.text
	}
	statements := n.member("Statement")
	if statements == nil {
		return p.fail(n.off, "missing element Statement")
	}
	return p.statements(statements)
}

func (p *parser) version(n *node) error {
	if n == nil {
		return nil
	}
	if err := p.want(n, jsonString, "Version"); err != nil {
		return err
	}
	if n.text != version2008 && n.text != version2012 {
		return p.fail(n.off, "unknown Version %q; allowed are %s and %s", shorten(n.text), version2012, version2008)
	}
	p.doc.Version = n.text
	return nil
}

func (p *parser) statements(n *node) error {
	list := n.elems
	switch n.kind {
	case jsonObject:
		list = []node{*n}
	case jsonArray:
		if len(list) == 0 {
			return p.fail(n.off, "Statement is empty; a policy has at least one statement")
		}
	default:
		return p.fail(n.off, "Statement must be an object or an array of objects, not %s", n.kind)
	}
	p.sids = make(map[string]bool)
	p.doc.Statements = make([]Statement, len(list))
	lines := lineCounter{src: p.src}
	for i := range list {
		p.where = fmt.Sprintf("statement %d: ", i+1)
		s := &p.doc.Statements[i]
		s.index, s.off = i, list[i].off
		s.Start, s.End = lines.at(list[i].off), lines.at(list[i].end)
		if err := p.statement(s, &list[i]); err != nil {
			return err
		}
	}
	return nil
}

// lineCounter finds positions at growing offsets without starting over.
type lineCounter struct {
	src  []byte
	off  int
	last Position
}

func (l *lineCounter) at(off int) Position {
	if l.last.Line == 0 {
		l.last = Position{1, 1}
	}
	step := position(l.src[l.off:], off-l.off)
	if step.Line == 1 {
		step.Column += l.last.Column - 1
	}
	step.Line += l.last.Line - 1
	l.off, l.last = off, step
	return step
}

func (p *parser) statement(s *Statement, n *node) error {
	if err := p.want(n, jsonObject, "a statement"); err != nil {
		return err
	}
	steps := []func(*Statement, *node) error{p.known, p.sid, p.effect, p.principal, p.action, p.resource, p.condition}
	for _, step := range steps {
		if err := step(s, n); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) known(_ *Statement, n *node) error {
	if p.doc.trust {
		for _, m := range n.members {
			if m.name == "Resource" || m.name == "NotResource" || m.name == "NotPrincipal" {
				return p.fail(m.off, "%s is not allowed in a trust policy", m.name)
			}
		}
		return p.elements(n, "Sid", "Effect", "Principal", "Action", "NotAction", "Condition")
	}
	for _, m := range n.members {
		if m.name == "Principal" || m.name == "NotPrincipal" {
			return p.fail(m.off, "%s is allowed in a role's trust policy only: this policy applies to what it is attached to", m.name)
		}
	}
	return p.elements(n, "Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition")
}

func (p *parser) sid(s *Statement, n *node) error {
	v := n.member("Sid")
	if v == nil {
		return nil
	}
	if err := p.want(v, jsonString, "Sid"); err != nil {
		return err
	}
	for _, r := range v.text {
		letter := 'a' <= lowerRune(r) && lowerRune(r) <= 'z' || '0' <= r && r <= '9'
		if !letter && !(p.doc.trust && r == ' ') {
			return p.fail(v.off, "Sid %q has %q; allowed are the letters A-Z, a-z and digits", shorten(v.text), r)
		}
	}
	if v.text != "" && p.sids[v.text] {
		return p.fail(v.off, "Sid %q is used twice", shorten(v.text))
	}
	p.sids[v.text] = true
	s.Sid = v.text
	return nil
}

func (p *parser) effect(s *Statement, n *node) error {
	v := n.member("Effect")
	if v == nil {
		return p.fail(n.off, "missing element Effect (Allow or Deny)")
	}
	if v.kind != jsonString || v.text != "Allow" && v.text != "Deny" {
		return p.fail(v.off, `Effect must be "Allow" or "Deny"`)
	}
	s.Deny = v.text == "Deny"
	return nil
}

// either returns the element NAME or NotNAME; a statement has exactly one.
func (p *parser) either(n *node, name string) (v *node, not bool, err error) {
	v, inverse := n.member(name), n.member("Not"+name)
	switch {
	case v != nil && inverse != nil:
		return nil, false, p.fail(inverse.off, "both %s and Not%s; a statement has one of them", name, name)
	case v == nil && inverse == nil:
		return nil, false, p.fail(n.off, "missing element %s or Not%s", name, name)
	case v == nil:
		return inverse, true, nil
	}
	return v, false, nil
}

// strings returns the strings of a string or an array of strings, at least one.
func (p *parser) strings(n *node, element string) ([]node, error) {
	list := []node{*n}
	if n.kind == jsonArray {
		list = n.elems
	}
	if len(list) == 0 {
		return nil, p.fail(n.off, "%s is empty", element)
	}
	for i := range list {
		if list[i].kind != jsonString {
			return nil, p.fail(list[i].off, "%s must be a string or an array of strings, not %s", element, describeIn(n, &list[i]))
		}
	}
	return list, nil
}

func describeIn(whole, part *node) string {
	if whole.kind == jsonArray {
		return "an array with " + part.kind.String()
	}
	return part.kind.String()
}

func (p *parser) action(s *Statement, n *node) error {
	v, not, err := p.either(n, "Action")
	if err != nil {
		return err
	}
	s.notAction = not
	list, err := p.strings(v, elementName("Action", not))
	if err != nil {
		return err
	}
	s.actions = make([]pattern, len(list))
	for i := range list {
		if err := p.checkAction(&list[i]); err != nil {
			return err
		}
		// Folding is by ASCII here: checkAction lets nothing else through.
		s.actions[i], _ = compile(list[i].text, list[i].off, syntax{wildcards: true, fold: true})
	}
	return nil
}

func elementName(name string, not bool) string {
	if not {
		return "Not" + name
	}
	return name
}

func (p *parser) checkAction(n *node) error {
	for _, r := range n.text {
		if l := lowerRune(r); !('a' <= l && l <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("-:*?_.", r)) {
			return p.fail(n.off, "action %q has %q (U+%04X), which no action has", shorten(n.text), r, r)
		}
	}
	service, name, ok := strings.Cut(n.text, ":")
	all := strings.Trim(n.text, "*") == "" && n.text != ""
	if !all && (!ok || service == "" || name == "" || strings.Contains(name, ":")) {
		return p.fail(n.off, "action %q is not of the form service:Operation, such as ssm:StartSession", shorten(n.text))
	}
	if p.doc.trust && !all && lower(service) != "sts" {
		return p.fail(n.off, "action %q is not allowed in a trust policy; allowed are sts actions, such as sts:AssumeRole", shorten(n.text))
	}
	return nil
}

func (p *parser) resource(s *Statement, n *node) error {
	if p.doc.trust {
		return nil
	}
	v, not, err := p.either(n, "Resource")
	if err != nil {
		return err
	}
	s.notResource = not
	list, err := p.strings(v, elementName("Resource", not))
	if err != nil {
		return err
	}
	s.resources = make([]pattern, len(list))
	for i := range list {
		s.resources[i], err = compileARN(list[i].text, list[i].off, p.variables(), false)
		if err != nil {
			return p.fail(list[i].off, "%s: %v", elementName("Resource", not), err)
		}
	}
	return nil
}

func (p *parser) variables() bool { return p.doc.Version == version2012 }

func (p *parser) condition(s *Statement, n *node) error {
	v := n.member("Condition")
	if v == nil {
		return nil
	}
	if err := p.want(v, jsonObject, "Condition"); err != nil {
		return err
	}
	for i := range v.members {
		m := &v.members[i]
		op := parseOperator(m.name)
		if !op.known {
			return p.unknownOperator(m)
		}
		if err := p.want(&m.value, jsonObject, "Condition "+m.name); err != nil {
			return err
		}
		if err := p.operatorKeys(s, m, op); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) unknownOperator(m *member) error {
	if s := nearest(m.name, operatorNames()); s != "" {
		return p.fail(m.off, "unknown condition operator %q; did you mean %q?", shorten(m.name), s)
	}
	return p.fail(m.off, "unknown condition operator %q; allowed are %s, with ForAllValues: or ForAnyValue: before and IfExists after all but Null",
		shorten(m.name), strings.Join(operatorNames(), ", "))
}

func (p *parser) operatorKeys(s *Statement, m *member, op modified) error {
	for i := range m.value.members {
		k := &m.value.members[i]
		c := condition{modified: op, operatorText: m.name, keyText: k.name, key: lower(k.name), off: k.off}
		if err := checkKey(k.name); err != nil {
			return p.fail(k.off, "%s: %v", m.name, err)
		}
		if err := p.operands(&c, &k.value); err != nil {
			return err
		}
		s.conditions = append(s.conditions, c)
	}
	return nil
}

func (p *parser) operands(c *condition, n *node) error {
	list := []node{*n}
	if n.kind == jsonArray {
		list = n.elems
	}
	if len(list) == 0 {
		return p.fail(n.off, "%s %q has no value", c.operatorText, shorten(c.keyText))
	}
	c.operands = make([]operand, len(list))
	for i := range list {
		v := &list[i]
		if v.kind != jsonString && v.kind != jsonNumber && v.kind != jsonBool {
			return p.fail(v.off, "%s %q must be a string, number, boolean or an array of them, not %s", c.operatorText, shorten(c.keyText), v.kind)
		}
		var err error
		if c.operands[i], err = compileOperand(c.family, v.text, v.off, p.variables()); err != nil {
			return p.fail(v.off, "%s %q: %v", c.operatorText, shorten(c.keyText), err)
		}
	}
	return nil
}

// nearest returns the one of the names that a misspelt one was probably meant to
// be, empty if none is close.
func nearest(name string, names []string) string {
	best, least := "", 3
	if len(name) > 64 {
		return ""
	}
	for _, n := range names {
		if d := distance(lower(name), lower(n)); d < least && d < len(n)/2 {
			best, least = n, d
		}
	}
	return best
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			above := row[j]
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost = 1 + min(diagonal, above, row[j-1])
			}
			row[j], diagonal = cost, above
		}
	}
	return row[len(b)]
}
