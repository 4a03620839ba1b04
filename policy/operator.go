package policy

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"time"
)

// family is a set of operators that compare alike.
type family int

const (
	familyString family = iota
	familyStringFold
	familyStringLike
	familyNumeric
	familyDate
	familyBool
	familyBinary
	familyIP
	familyARN
	familyNull
)

// takesVariables reports whether policy variables work in the operands.
func (f family) takesVariables() bool {
	return f == familyString || f == familyStringFold || f == familyStringLike || f == familyARN
}

// relation is how a request's value must stand to the policy's.
type relation int

const (
	equal relation = iota
	less
	lessEqual
	greater
	greaterEqual
)

func (r relation) holds(cmp int) bool {
	switch r {
	case less:
		return cmp < 0
	case lessEqual:
		return cmp <= 0
	case greater:
		return cmp > 0
	case greaterEqual:
		return cmp >= 0
	}
	return cmp == 0
}

// operator is a condition operator without its modifiers.
type operator struct {
	name     string
	family   family
	relation relation
	negated  bool
}

// operators lists the condition operators of the IAM reference ("IAM JSON policy
// elements: Condition operators").
func operators() []operator {
	return []operator{
		{name: "StringEquals", family: familyString},
		{name: "StringNotEquals", family: familyString, negated: true},
		{name: "StringEqualsIgnoreCase", family: familyStringFold},
		{name: "StringNotEqualsIgnoreCase", family: familyStringFold, negated: true},
		{name: "StringLike", family: familyStringLike},
		{name: "StringNotLike", family: familyStringLike, negated: true},
		{name: "NumericEquals", family: familyNumeric},
		{name: "NumericNotEquals", family: familyNumeric, negated: true},
		{name: "NumericLessThan", family: familyNumeric, relation: less},
		{name: "NumericLessThanEquals", family: familyNumeric, relation: lessEqual},
		{name: "NumericGreaterThan", family: familyNumeric, relation: greater},
		{name: "NumericGreaterThanEquals", family: familyNumeric, relation: greaterEqual},
		{name: "DateEquals", family: familyDate},
		{name: "DateNotEquals", family: familyDate, negated: true},
		{name: "DateLessThan", family: familyDate, relation: less},
		{name: "DateLessThanEquals", family: familyDate, relation: lessEqual},
		{name: "DateGreaterThan", family: familyDate, relation: greater},
		{name: "DateGreaterThanEquals", family: familyDate, relation: greaterEqual},
		{name: "Bool", family: familyBool},
		{name: "BinaryEquals", family: familyBinary},
		{name: "IpAddress", family: familyIP},
		{name: "NotIpAddress", family: familyIP, negated: true},
		{name: "ArnEquals", family: familyARN},
		{name: "ArnLike", family: familyARN},
		{name: "ArnNotEquals", family: familyARN, negated: true},
		{name: "ArnNotLike", family: familyARN, negated: true},
		{name: "Null", family: familyNull},
	}
}

func operatorNames() []string {
	var names []string
	for _, o := range operators() {
		names = append(names, o.name)
	}
	sort.Strings(names)
	return names
}

// quantifier says how many of a key's values must satisfy a condition.
type quantifier int

const (
	plain  quantifier = iota
	forAll            // ForAllValues:
	forAny            // ForAnyValue:
)

// modified is an operator with its modifiers.
type modified struct {
	operator
	quantifier quantifier
	ifExists   bool
	known      bool
}

// parseOperator reads "ForAllValues:StringLikeIfExists" and its like.
func parseOperator(name string) modified {
	var m modified
	rest := lower(name)
	if r, ok := strings.CutPrefix(rest, "forallvalues:"); ok {
		m.quantifier, rest = forAll, r
	} else if r, ok := strings.CutPrefix(rest, "foranyvalue:"); ok {
		m.quantifier, rest = forAny, r
	}
	rest, m.ifExists = strings.CutSuffix(rest, "ifexists")
	for _, o := range operators() {
		if lower(o.name) == rest {
			m.operator, m.known = o, true
		}
	}
	if m.family == familyNull && (m.ifExists || m.quantifier != plain) {
		m.known = false // Null asks about presence itself: modifiers make no sense of it
	}
	return m
}

// operand is one value of a condition, compiled for its operator.
type operand struct {
	pattern pattern // of the String and Arn families
	text    string  // as the policy has it
	number  float64
	time    time.Time
	prefix  netip.Prefix
	binary  []byte
	truth   bool
}

func compileOperand(f family, text string, off int, variables bool) (operand, error) {
	o := operand{text: text}
	var err error
	switch f {
	case familyString:
		o.pattern, err = compile(text, off, syntax{variables: variables})
	case familyStringFold:
		o.pattern, err = compile(text, off, syntax{variables: variables, fold: true})
	case familyStringLike:
		o.pattern, err = compile(text, off, syntax{variables: variables, wildcards: true})
	case familyARN:
		o.pattern, err = compileARN(text, off, variables, true)
	case familyNumeric:
		o.number, err = parseNumber(text)
	case familyDate:
		o.time, err = parseDate(text)
	case familyIP:
		o.prefix, err = parsePrefix(text)
	case familyBinary:
		o.binary, err = base64.StdEncoding.DecodeString(text)
		if err != nil {
			err = fmt.Errorf("%q is not base64", shorten(text))
		}
	case familyBool, familyNull:
		o.truth, err = parseBool(text)
	}
	if err == nil || f.takesVariables() || !strings.Contains(text, "${") {
		return o, err
	}
	return o, fmt.Errorf("%w (policy variables work with the String and Arn operators only)", err)
}

// parseNumber reads a decimal number; unlike strconv, neither hexadecimal nor
// infinities.
func parseNumber(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) || strings.Trim(s, "0123456789+-.eE") != "" {
		return 0, fmt.Errorf("%q is not a number", shorten(s))
	}
	return f, nil
}

func parseBool(s string) (bool, error) {
	switch lower(s) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", shorten(s))
}

// dateLayouts are the profiles of W3C's note on date and time formats.
func dateLayouts() []string {
	return []string{"2006-01-02", "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05Z0700", "2006-01", "2006"}
}

// parseDate reads an ISO 8601 date, or a time in seconds since 1970 (a number of
// exactly four digits is a year).
func parseDate(s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for _, layout := range dateLayouts() {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	const farthest = 253402300800 // year 10000
	if f, err := parseNumber(s); err == nil && f > -farthest && f < farthest {
		whole, fraction := math.Modf(f)
		return time.Unix(int64(whole), int64(fraction*1e9)).UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%q is not a date (2026-11-20, 2026-11-20T09:30:00Z, or seconds since 1970)", shorten(s))
}

// parsePrefix reads an address or a CIDR block. An IPv4 block written as IPv6
// (::ffff:10.0.0.0/104) is the IPv4 block.
func parsePrefix(s string) (netip.Prefix, error) {
	bad := fmt.Errorf("%q is neither an IP address nor a CIDR block (203.0.113.0/24, 2001:db8::/32)", shorten(s))
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, bad
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, bad
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// parseAddress reads a request's address. Its zone says over which interface it
// came, which must not take it out of a block.
func parseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	return a.WithZone("").Unmap(), err
}

// compares reports whether a request's value stands to the operand as the
// operator's family and relation say, negation aside. What cannot be read as the
// family's type compares with nothing.
func (o *operand) compares(m *modified, env *environment, value string) bool {
	switch m.family {
	case familyString, familyStringLike:
		return o.pattern.match(env, value, 0)
	case familyStringFold:
		return o.pattern.match(env, fold(value), 0)
	case familyARN:
		return o.pattern.match(env, value, arnHead(value))
	case familyNumeric:
		f, err := parseNumber(value)
		return err == nil && m.relation.holds(compareFloat(f, o.number))
	case familyDate:
		t, err := parseDate(value)
		return err == nil && m.relation.holds(t.Compare(o.time))
	case familyIP:
		a, err := parseAddress(value)
		return err == nil && o.prefix.Contains(a)
	case familyBinary:
		b, err := base64.StdEncoding.DecodeString(value)
		return err == nil && bytes.Equal(b, o.binary)
	}
	b, err := parseBool(value)
	return err == nil && b == o.truth
}

func compareFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
