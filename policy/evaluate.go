package policy

import "slices"

// class orders the statements of a Set by what they are for.
type class int

const (
	classDeny class = iota
	classAllow
	classBoundary
	classSession
	classes
)

func classOf(k Kind, deny bool) class {
	switch {
	case deny:
		return classDeny
	case k == Boundary:
		return classBoundary
	case k == Session:
		return classSession
	}
	return classAllow
}

// Set is the policies that apply to one principal, indexed for evaluation. It is
// immutable and safe for concurrent use.
type Set struct {
	statements []*Statement // by class, within it in the order of the sources
	reasons    []Reason     // of the statements, as matched
	end        [classes]int // where each class ends
	boundary   bool         // there are boundaries
	session    bool         // there are session policies
	index      *index       // nil for sets too small to gain from one
}

// indexFrom is the number of statements from which an index pays.
const indexFrom = 12

// NewSet indexes sources. A source without a document counts as present and
// allows nothing, so that a boundary that cannot be read does not cease to limit.
func NewSet(sources []Source) *Set { return newSet(sources, indexFrom) }

func newSet(sources []Source, indexFrom int) *Set {
	s := &Set{}
	for c := classDeny; c < classes; c++ {
		for i := range sources {
			s.add(&sources[i], c)
		}
		s.end[c] = len(s.statements)
	}
	for i := range sources {
		s.boundary = s.boundary || sources[i].Kind == Boundary
		s.session = s.session || sources[i].Kind == Session
	}
	if len(s.statements) >= indexFrom {
		s.index = newIndex(s.statements)
	}
	return s
}

func (s *Set) add(src *Source, c class) {
	if src.Document == nil || src.Document.trust {
		return
	}
	for i := range src.Document.Statements {
		st := &src.Document.Statements[i]
		if classOf(src.Kind, st.Deny) == c {
			s.statements = append(s.statements, st)
			s.reasons = append(s.reasons, newReason(src, st))
		}
	}
}

func newReason(src *Source, s *Statement) Reason {
	return Reason{
		Source: src.Name, Kind: src.Kind, Sid: s.Sid, Statement: s.index + 1,
		Start: s.Start, End: s.End, Effect: s.Effect(), Matched: true,
	}
}

// query is a request prepared for evaluation.
type query struct {
	environment
	action   string // in lower case
	resource string
	head     int // arnHead of resource
}

func newQuery(req *Request) query {
	return query{
		environment: environment{context: req.Context},
		action:      lower(req.Action),
		resource:    req.Resource,
		head:        arnHead(req.Resource),
	}
}

// Evaluate decides req. Its Reasons are the first statement that denies, or the
// first of each kind that was needed and allows; it gives none for
// ImplicitlyDenied: see Explain.
func (s *Set) Evaluate(req *Request) Decision {
	q := newQuery(req)
	var local [2][scratchWords]uint64
	var candidates []uint64
	if s.index != nil {
		candidates = s.index.candidates(&q, local[0][:], local[1][:])
	}
	if i := s.first(&q, candidates, classDeny); i >= 0 {
		return Decision{Effect: ExplicitlyDenied, Kind: s.reasons[i].Kind, Reasons: s.reason(i)}
	}
	i := s.first(&q, candidates, classAllow)
	if i < 0 {
		return Decision{Kind: Identity}
	}
	d := Decision{Effect: Allowed, Reasons: s.reason(i)}
	if s.boundary && !s.limit(&d, &q, candidates, classBoundary) {
		return Decision{Kind: Boundary}
	}
	if s.session && !s.limit(&d, &q, candidates, classSession) {
		return Decision{Kind: Session}
	}
	return d
}

// reason returns the reason of one statement, with no room to append to.
func (s *Set) reason(i int) []Reason { return s.reasons[i : i+1 : i+1] }

// limit reports whether a statement of class c allows as well, and adds its reason.
func (s *Set) limit(d *Decision, q *query, candidates []uint64, c class) bool {
	i := s.first(q, candidates, c)
	if i < 0 {
		return false
	}
	d.Reasons = append(d.Reasons, s.reasons[i])
	return true
}

// first returns the first statement of a class that matches, or -1.
func (s *Set) first(q *query, candidates []uint64, c class) int {
	from := 0
	if c > 0 {
		from = s.end[c-1]
	}
	for i := next(candidates, from, s.end[c]); i < s.end[c]; i = next(candidates, i+1, s.end[c]) {
		if s.statements[i].matches(q) {
			return i
		}
	}
	return -1
}

// matches reports whether the statement applies to the request. The cheap and the
// telling come first.
func (s *Statement) matches(q *query) bool {
	if matchAction(s.actions, q) == s.notAction || matchResource(s.resources, q) == s.notResource {
		return false
	}
	for i := range s.conditions {
		if !s.conditions[i].holds(&q.environment) {
			return false
		}
	}
	return true
}

func matchAction(patterns []pattern, q *query) bool {
	for i := range patterns {
		if patterns[i].match(&q.environment, q.action, 0) {
			return true
		}
	}
	return false
}

func matchResource(patterns []pattern, q *query) bool {
	for i := range patterns {
		if patterns[i].match(&q.environment, q.resource, q.head) {
			return true
		}
	}
	return false
}

// Uses reports whether a statement looks at a condition key, in a condition or as a
// variable.
func (s *Set) Uses(key string) bool {
	key = lower(key)
	return slices.ContainsFunc(s.statements, func(st *Statement) bool { return st.uses(key) })
}

func (s *Statement) uses(key string) bool {
	return usedIn(s.resources, key) || slices.ContainsFunc(s.conditions, func(c condition) bool {
		return c.key == key || slices.ContainsFunc(c.operands, func(o operand) bool { return o.pattern.uses(key) })
	})
}

func usedIn(patterns []pattern, key string) bool {
	return slices.ContainsFunc(patterns, func(p pattern) bool { return p.uses(key) })
}

func (p *pattern) uses(key string) bool {
	return slices.ContainsFunc(p.tokens, func(t token) bool { return t.kind == variable && t.text == key })
}

// Possible reports whether some request like req may be allowed whose values of the keys
// in open are not known yet: conditions on them are taken to hold where statements allow,
// and not to hold where they deny.
func (s *Set) Possible(req *Request, open ...string) bool {
	q := newQuery(req)
	unknown := make(map[string]bool, len(open))
	for _, key := range open {
		unknown[lower(key)] = true
	}
	if s.possible(&q, unknown, classDeny) || !s.possible(&q, unknown, classAllow) {
		return false
	}
	return (!s.boundary || s.possible(&q, unknown, classBoundary)) && (!s.session || s.possible(&q, unknown, classSession))
}

// Offers reports whether a statement that allows is about an action at all, whatever its
// resources and conditions say, and the boundary and session policies have one, too. Where
// none is, no request for the action can be allowed.
func (s *Set) Offers(action string) bool {
	q := newQuery(&Request{Action: action})
	about := func(c class) bool {
		return slices.ContainsFunc(s.statements[s.end[c-1]:s.end[c]], func(st *Statement) bool {
			return matchAction(st.actions, &q) != st.notAction
		})
	}
	return about(classAllow) && (!s.boundary || about(classBoundary)) && (!s.session || about(classSession))
}

// possible reports whether a statement of class c may match; of those that deny, whether
// one does for certain.
func (s *Set) possible(q *query, unknown map[string]bool, c class) bool {
	from := 0
	if c > 0 {
		from = s.end[c-1]
	}
	return slices.ContainsFunc(s.statements[from:s.end[c]], func(st *Statement) bool {
		return st.mayMatch(q, unknown, c != classDeny)
	})
}

func (s *Statement) mayMatch(q *query, unknown map[string]bool, unknownHolds bool) bool {
	if matchAction(s.actions, q) == s.notAction || matchResource(s.resources, q) == s.notResource {
		return false
	}
	return !slices.ContainsFunc(s.conditions, func(c condition) bool {
		if unknown[c.key] {
			return !unknownHolds
		}
		return !c.holds(&q.environment)
	})
}
