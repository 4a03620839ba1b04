package policy

import (
	"encoding/base64"
	"encoding/json"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The oracle: an evaluator written apart from the real one, from the policy's JSON,
// by the shortest way and with regular expressions. It shares no code with the
// package beyond the types of the request. Its policies must be valid.

type oracleStatement struct {
	Effect                                   string
	Action, NotAction, Resource, NotResource oneOrMany
	Condition                                map[string]map[string]oneOrMany
}

type oraclePolicy struct {
	Version   string
	Statement []oracleStatement
}

type oneOrMany []string

func (o *oneOrMany) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*o = oneOrMany{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

// oracleCompiled saves compiling the same few expressions over and over.
var oracleCompiled sync.Map

func oracleMatch(expression, s string) bool {
	re, ok := oracleCompiled.Load(expression)
	if !ok {
		re, _ = oracleCompiled.LoadOrStore(expression, regexp.MustCompile(expression))
	}
	return re.(*regexp.Regexp).MatchString(s)
}

type oracle struct {
	req       *Request
	variables bool
}

type oracleSource struct {
	kind Kind
	text string
}

func (o oracle) decide(sources []oracleSource) (Effect, Kind) {
	allowed, present := map[Kind]bool{}, map[Kind]bool{}
	for _, src := range sources {
		var p oraclePolicy
		if err := json.Unmarshal([]byte(src.text), &p); err != nil {
			panic(err)
		}
		o.variables = p.Version == "2012-10-17"
		kind := src.kind
		if kind == Grant {
			kind = Identity
		}
		present[kind] = true
		for _, s := range p.Statement {
			if o.applies(s) && s.Effect == "Deny" {
				return ExplicitlyDenied, 0
			} else if o.applies(s) {
				allowed[kind] = true
			}
		}
	}
	for _, k := range []Kind{Identity, Boundary, Session} {
		if (k == Identity || present[k]) && !allowed[k] {
			return ImplicitlyDenied, k
		}
	}
	return Allowed, 0
}

func (o oracle) applies(s oracleStatement) bool {
	action := func(patterns []string) bool {
		for _, p := range patterns {
			quoted := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(p))
			if oracleMatch("(?is)^"+quoted+"$", o.req.Action) {
				return true
			}
		}
		return false
	}
	resource := func(patterns []string) bool {
		for _, p := range patterns {
			if o.arnLike(p, o.req.Resource) {
				return true
			}
		}
		return false
	}
	if s.Action != nil && !action(s.Action) || s.NotAction != nil && action(s.NotAction) {
		return false
	}
	if s.Resource != nil && !resource(s.Resource) || s.NotResource != nil && resource(s.NotResource) {
		return false
	}
	for op, keys := range s.Condition {
		for key, values := range keys {
			if !o.condition(op, key, values) {
				return false
			}
		}
	}
	return true
}

func (o oracle) lookup(key string) []string {
	var values []string
	for k, v := range o.req.Context {
		if strings.EqualFold(k, key) {
			values = append(values, v...)
		}
	}
	return values
}

var (
	oracleSpecial  = regexp.MustCompile(`\$\{[^}]*\}|[*?]`)
	oracleVariable = regexp.MustCompile(`^\$\{\s*([^,}]*?)\s*(,\s*'([^']*)')?\s*\}$`)
)

// expand turns a template into regular expressions, one for each choice of the
// variables' values.
func (o oracle) expand(template string, wildcards bool, sep string) []string {
	return o.expandWith(template, wildcards, sep, map[string]string{})
}

func (o oracle) expandWith(rest string, wildcards bool, sep string, chosen map[string]string) []string {
	loc := oracleSpecial.FindStringIndex(rest)
	if loc == nil {
		return []string{regexp.QuoteMeta(rest)}
	}
	head, special, tail := regexp.QuoteMeta(rest[:loc[0]]), rest[loc[0]:loc[1]], rest[loc[1]:]
	join := func(middle string) []string {
		var out []string
		for _, t := range o.expandWith(tail, wildcards, sep, chosen) {
			out = append(out, head+middle+t)
		}
		return out
	}
	switch {
	case special == "*" && wildcards:
		return join(sep + "*")
	case special == "?" && wildcards:
		return join(sep)
	case len(special) == 1:
		return join(regexp.QuoteMeta(special))
	case !o.variables: // 2008: only the wildcards within are special
		var out []string
		for _, t := range o.expandWith(tail, wildcards, sep, chosen) {
			inner := regexp.QuoteMeta(special)
			if wildcards {
				inner = strings.NewReplacer(`\*`, sep+"*", `\?`, sep).Replace(inner)
			}
			out = append(out, head+inner+t)
		}
		return out
	case special == "${*}" || special == "${?}" || special == "${$}":
		return join(regexp.QuoteMeta(special[2:3]))
	}
	m := oracleVariable.FindStringSubmatch(special)
	values := o.lookup(m[1])
	if len(values) == 0 && m[2] != "" {
		values = []string{m[3]}
	} else if v, ok := chosen[m[1]]; ok {
		values = []string{v}
	}
	var out []string
	for _, v := range values {
		if sep != "." && strings.Contains(v, ":") {
			continue
		}
		old, had := chosen[m[1]]
		if m[2] == "" {
			chosen[m[1]] = v
		}
		out = append(out, join(regexp.QuoteMeta(v))...)
		delete(chosen, m[1])
		if had {
			chosen[m[1]] = old
		}
	}
	return out
}

// arnLike compares segment by segment: the first five, and the rest as the sixth.
func (o oracle) arnLike(template, s string) bool {
	if strings.Trim(template, "*") == "" {
		return template != "" // * alone
	}
	var segments []string
	depth, start := 0, 0
	for i, c := range template {
		switch {
		case c == '{':
			depth++
		case c == '}':
			depth--
		case c == ':' && (depth == 0 || !o.variables) && len(segments) < 5:
			segments = append(segments, template[start:i])
			start = i + 1
		}
	}
	segments = append(segments, template[start:])
	for len(segments) < 6 { // ends early in *
		segments = append(segments, "*")
	}
	var alternatives []string
	head := strings.Join(segments[:5], "\x01")
	for _, h := range o.expand(head, true, "[^:]") {
		for _, t := range o.expand(segments[5], true, ".") {
			alternatives = append(alternatives, "(?s)^"+strings.ReplaceAll(h, "\x01", ":")+":"+t+"$")
		}
	}
	for _, a := range alternatives {
		if oracleMatch(a, s) {
			return true
		}
	}
	return false
}

func (o oracle) condition(op, key string, operands []string) bool {
	values := o.lookup(key)
	if op == "Null" {
		return (operands[0] == "true") == (len(values) == 0)
	}
	base, ifExists := strings.CutSuffix(op, "IfExists")
	if len(values) == 0 && ifExists {
		return true
	}
	quant := ""
	if q, b, ok := strings.Cut(base, ":"); ok {
		quant, base = q, b
	}
	positive := strings.Replace(base, "Not", "", 1)
	negated := positive != base
	matches := 0
	for _, v := range values {
		for _, operand := range operands {
			if o.compare(positive, operand, v) {
				matches++
				break
			}
		}
	}
	switch {
	case quant == "ForAllValues" && negated:
		return matches == 0
	case quant == "ForAllValues":
		return matches == len(values)
	case quant == "ForAnyValue" && negated:
		return matches < len(values)
	case quant == "ForAnyValue":
		return matches > 0
	}
	return (matches > 0) != negated
}

func (o oracle) compare(op, operand, value string) bool {
	number := func(s string) float64 { f, _ := strconv.ParseFloat(s, 64); return f }
	date := func(s string) time.Time {
		if t, err := time.Parse(time.RFC3339, s); err == nil {
			return t
		}
		if t, err := time.Parse("2006-01-02", s); err == nil {
			return t
		}
		return time.Unix(int64(number(s)), 0)
	}
	order := map[string]func(c int) bool{
		"Equals": func(c int) bool { return c == 0 }, "LessThan": func(c int) bool { return c < 0 },
		"LessThanEquals": func(c int) bool { return c <= 0 }, "GreaterThan": func(c int) bool { return c > 0 },
		"GreaterThanEquals": func(c int) bool { return c >= 0 },
	}
	switch {
	case op == "StringEquals":
		return o.anyRegexp("(?s)", o.expand(operand, false, "."), value)
	case op == "StringEqualsIgnoreCase":
		return o.anyRegexp("(?si)", o.expand(operand, false, "."), value)
	case op == "StringLike":
		return o.anyRegexp("(?s)", o.expand(operand, true, "."), value)
	case strings.HasPrefix(op, "Arn"):
		return o.arnLike(operand, value)
	case strings.HasPrefix(op, "Numeric"):
		a, b := number(value), number(operand)
		return order[strings.TrimPrefix(op, "Numeric")](map[bool]int{true: 1}[a > b] - map[bool]int{true: 1}[a < b])
	case strings.HasPrefix(op, "Date"):
		return order[strings.TrimPrefix(op, "Date")](date(value).Compare(date(operand)))
	case op == "Bool":
		return strings.EqualFold(operand, value)
	case op == "BinaryEquals":
		a, _ := base64.StdEncoding.DecodeString(operand)
		b, _ := base64.StdEncoding.DecodeString(value)
		return string(a) == string(b)
	case op == "IpAddress":
		ip := net.ParseIP(value)
		if _, block, err := net.ParseCIDR(operand); err == nil {
			return block.Contains(ip)
		}
		return net.ParseIP(operand).Equal(ip)
	}
	panic("oracle: operator " + op)
}

func (o oracle) anyRegexp(flags string, alternatives []string, s string) bool {
	for _, a := range alternatives {
		if oracleMatch(flags+"^"+a+"$", s) {
			return true
		}
	}
	return false
}
