package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Explain decides req and says of every statement why it applied or did not. It is
// the slow twin of Set.Evaluate and agrees with it.
func Explain(sources []Source, req *Request) Explanation {
	var e Explanation
	present := make(map[Kind]bool)
	env := &environment{context: req.Context}
	for i := range sources {
		src := &sources[i]
		present[src.Kind] = true
		if src.Document == nil || src.Document.trust {
			continue
		}
		for j := range src.Document.Statements {
			e.Statements = append(e.Statements, explainStatement(src, &src.Document.Statements[j], req, env, nil))
		}
	}
	e.Decision = decide(e.Statements, present)
	return e
}

// decide draws the decision from the outcomes of all statements.
func decide(statements []Reason, present map[Kind]bool) Decision {
	if denies := selectReasons(statements, func(r *Reason) bool { return r.Matched && r.Effect == "Deny" }); denies != nil {
		return Decision{Effect: ExplicitlyDenied, Kind: denies[0].Kind, Reasons: denies}
	}
	d := Decision{Effect: Allowed}
	for _, needed := range []Kind{Identity, Boundary, Session} {
		if needed != Identity && !present[needed] {
			continue
		}
		allows := selectReasons(statements, func(r *Reason) bool { return r.Matched && r.serves(needed) })
		if allows == nil {
			almost := selectReasons(statements, func(r *Reason) bool { return r.serves(needed) && r.concerns() })
			return Decision{Kind: needed, Reasons: almost}
		}
		d.Reasons = append(d.Reasons, allows...)
	}
	return d
}

func selectReasons(all []Reason, wanted func(*Reason) bool) []Reason {
	var chosen []Reason
	for i := range all {
		if wanted(&all[i]) {
			chosen = append(chosen, all[i])
		}
	}
	return chosen
}

// serves reports whether the statement could give what a kind of source is needed
// for; grants stand in for identity policies.
func (r *Reason) serves(needed Kind) bool {
	return r.Effect == "Allow" && (r.Kind == needed || needed == Identity && r.Kind == Grant)
}

// concerns reports whether the statement is about the requested action.
func (r *Reason) concerns() bool {
	for i := range r.Checks {
		if strings.HasSuffix(r.Checks[i].Element, "Action") {
			return r.Checks[i].Held
		}
	}
	return false
}

// explainStatement checks every element of a statement, also after one has failed.
func explainStatement(src *Source, s *Statement, req *Request, env *environment, c *caller) Reason {
	r := newReason(src, s)
	if s.principals != nil {
		r.Checks = append(r.Checks, s.checkPrincipal(c))
	}
	r.Checks = append(r.Checks, checkPatterns("Action", s.actions, s.notAction, env, lower(req.Action), 0, req.Action))
	if s.resources != nil {
		r.Checks = append(r.Checks, checkPatterns("Resource", s.resources, s.notResource, env, req.Resource, arnHead(req.Resource), req.Resource))
	}
	for i := range s.conditions {
		r.Checks = append(r.Checks, s.conditions[i].check(env))
	}
	r.Matched = !slices.ContainsFunc(r.Checks, func(k Check) bool { return !k.Held })
	return r
}

func (s *Statement) checkPrincipal(c *caller) Check {
	k := Check{Element: "Principal", Request: []string{c.arn}}
	for i := range s.principals {
		k.Policy = append(k.Policy, s.principals[i].text)
	}
	k.Held, _ = s.namesCaller(c)
	return k
}

func checkPatterns(element string, patterns []pattern, not bool, env *environment, subject string, head int, shown string) Check {
	k := Check{Element: elementName(element, not), Request: []string{shown}, Held: not}
	for i := range patterns {
		p := &patterns[i]
		if element == "Action" { // compiled in lower case: show what was written
			k.Policy = append(k.Policy, p.text)
		} else {
			k.show(p, env)
		}
		if p.match(env, subject, head) {
			k.Held = !not
		}
	}
	return k
}

// show adds a pattern with its variables replaced.
func (k *Check) show(p *pattern, env *environment) {
	texts, unresolved := p.resolve(env)
	k.Policy = append(k.Policy, texts...)
	for _, u := range unresolved {
		if !slices.Contains(k.Unresolved, u) {
			k.Unresolved = append(k.Unresolved, u)
		}
	}
}

func (c *condition) check(env *environment) Check {
	values := env.values(c.key)
	k := Check{
		Element: "Condition", Operator: c.operatorText, Key: c.keyText,
		Request: values, Absent: len(values) == 0, Held: c.holds(env),
	}
	for i := range c.operands {
		if c.family.takesVariables() {
			k.show(&c.operands[i].pattern, env)
		} else {
			k.Policy = append(k.Policy, c.operands[i].text)
		}
	}
	return k
}

// Failed returns the checks that did not hold.
func (r Reason) Failed() []Check {
	var failed []Check
	for _, k := range r.Checks {
		if !k.Held {
			failed = append(failed, k)
		}
	}
	return failed
}

// Name is the statement's source and place: `policy ops of user alice, statement 2
// (Sid "Nodes")`.
func (r Reason) Name() string {
	name := fmt.Sprintf("%s, statement %d", r.Source, r.Statement)
	if r.Sid != "" {
		name += fmt.Sprintf(" (Sid %q)", r.Sid)
	}
	return name
}

// String says in one line what the statement did and why.
func (r Reason) String() string {
	if r.Matched {
		return r.Name() + map[string]string{"Allow": " allows it", "Deny": " denies it"}[r.Effect]
	}
	var why []string
	for _, k := range r.Failed() {
		why = append(why, k.String())
	}
	return fmt.Sprintf("%s (%s) does not apply: %s", r.Name(), r.Effect, strings.Join(why, "; "))
}

// String says what the policy wants and what the request has.
func (k Check) String() string {
	s := fmt.Sprintf("%s %s", strings.TrimSpace(k.Element+" "+k.Operator+" "+k.Key), list(k.Policy))
	has := "the request has " + list(k.Request)
	if k.Absent {
		has = "it is absent from the request"
	}
	verdict := "fails: "
	if k.Held {
		verdict = "holds: "
	}
	if k.Unresolved != nil {
		has += ", and " + strings.Join(k.Unresolved, ", ") + " has no value"
	}
	return s + " " + verdict + has
}

// list writes strings for people: one quoted, several in brackets.
func list(values []string) string {
	quoted := make([]string, 0, len(values))
	for _, v := range values[:min(len(values), maxShown)] {
		quoted = append(quoted, fmt.Sprintf("%q", v))
	}
	if len(values) > maxShown {
		quoted = append(quoted, "…")
	}
	if len(quoted) == 1 {
		return quoted[0]
	}
	return "[" + strings.Join(quoted, " ") + "]"
}

// Hint says what would make a statement that did not apply do so; empty for one
// that did.
func (r Reason) Hint() string {
	var parts []string
	for _, k := range r.Failed() {
		parts = append(parts, k.hint())
	}
	return strings.Join(parts, "; ")
}

func (k *Check) hint() string {
	if k.Unresolved != nil {
		return fmt.Sprintf("%s needs a value", strings.Join(k.Unresolved, ", "))
	}
	switch k.Element {
	case "Action", "Resource", "Principal":
		return fmt.Sprintf("%s would have to include %s", k.Element, alternatives(k.Request, "and"))
	case "NotAction", "NotResource":
		return fmt.Sprintf("%s would have to leave out %s", k.Element, alternatives(k.Request, "and"))
	}
	return k.conditionHint()
}

func (k *Check) conditionHint() string {
	op := parseOperator(k.Operator)
	what := k.subject()
	switch {
	case op.family == familyNull && k.Absent:
		return what + " would have to be present"
	case op.family == familyNull:
		return what + " would have to be absent"
	case op.negated:
		return fmt.Sprintf("%s would have to be other than %s", what, alternatives(k.Policy, "and"))
	case op.family == familyIP:
		return fmt.Sprintf("%s would have to be within %s", what, alternatives(k.Policy, "or"))
	case op.relation != equal:
		return fmt.Sprintf("%s would have to be %s %s", what, relationWords(op), alternatives(k.Policy, "or"))
	case op.family == familyStringLike || op.family == familyARN:
		return fmt.Sprintf("%s would have to be like %s", what, alternatives(k.Policy, "or"))
	}
	return fmt.Sprintf("%s would have to be %s", what, alternatives(k.Policy, "or"))
}

// alternatives joins quoted values: "a", "b" or "c".
func alternatives(values []string, word string) string {
	var b strings.Builder
	values = values[:min(len(values), maxShown)]
	for i, v := range values {
		switch {
		case i > 0 && i == len(values)-1:
			b.WriteString(" " + word + " ")
		case i > 0:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", v)
	}
	return b.String()
}

func relationWords(m modified) string {
	words := map[relation]string{less: "less than", lessEqual: "at most", greater: "greater than", greaterEqual: "at least"}
	if m.family == familyDate {
		words = map[relation]string{less: "before", lessEqual: "no later than", greater: "after", greaterEqual: "no earlier than"}
	}
	return words[m.relation]
}

// subject says in words what a condition key stands for.
func (k *Check) subject() string {
	key := lower(k.Key)
	_, tag, _ := strings.Cut(k.Key, "/")
	switch {
	case strings.HasPrefix(key, "aws:principaltag/"):
		return fmt.Sprintf("the principal's tag %q", tag)
	case strings.Contains(key, ":resourcetag/"):
		return fmt.Sprintf("the resource's tag %q", tag)
	case strings.HasPrefix(key, "aws:requesttag/"):
		return fmt.Sprintf("the tag %q in the request", tag)
	}
	switch key {
	case "aws:sourceip":
		return "the address the request comes from"
	case "aws:currenttime", "aws:epochtime":
		return "the time"
	case "aws:multifactorauthpresent":
		return "signing in with a second factor"
	case "aws:multifactorauthage":
		return "the seconds since the second factor"
	case "aws:securetransport":
		return "the use of TLS"
	}
	return k.Key
}
